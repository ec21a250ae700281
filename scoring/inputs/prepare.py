"""A question -> what the model takes: its token sequence and its picture's patches."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from scoring.files.reading import read_object
from scoring.inputs.pictures import PictureError, PixelPolicy, read_picture, to_rgb
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.inputs.tokens import ChatTokenizer, TokenSequence


@dataclass
class _TextConfig:
    """The fields of `text_config` that are used here."""

    max_position_embeddings: int = 32_768


@dataclass
class _Config:
    """The fields of a base's config.json that are used here."""

    text_config: _TextConfig = field(default_factory=_TextConfig)


@dataclass
class Preparer:
    """One base's tokenizer, one template, one pixel budget. Training and scoring prepare inputs by the same one."""

    chat: ChatTokenizer
    template: PromptTemplate
    policy: PixelPolicy
    context: int  # the most tokens of a prompt

    @classmethod
    def of_base(cls, folder: Path, template: PromptTemplate, policy: PixelPolicy) -> "Preparer":
        """From a base folder. Raises TokenError if its tokenizer or chat template cannot be used."""
        text = (read_object(_Config, folder / "config.json") or _Config()).text_config
        return cls(ChatTokenizer(folder), template, policy, text.max_position_embeddings)

    def label_ids(self, options: int = len(LETTERS)) -> list[int]:
        """(K,) the token ids by which the first K options are answered, as the template shows their letters.

        Raises TokenError where a letter is not a single token after the prompt.
        """
        return self.chat.label_ids(self.template.labels[:options], bool(self.template.system))

    def encode(self, question: Question, size: tuple[int, int] | None = None, order: str = "") -> TokenSequence:
        """The prompt for a picture of that upright size (default: the one in the picture's header).

        order: the option at each letter, such as `cabd`; "" is the order of the data.
        Raises PictureError, a row's fault, if the prompt is longer than the model's context.
        """
        sequence = self.encode_many([(question, size or question.size, order)])[0]
        if isinstance(sequence, PictureError):
            raise sequence
        return sequence

    def encode_many(self, prompts: list[tuple[Question, tuple[int, int], str]]) -> list[TokenSequence | PictureError]:
        """The same for many (question, size, order); a prompt that is too long has its PictureError instead."""
        rendered = []
        for question, size, order in prompts:
            options = [question.options[LETTERS.index(letter)] for letter in order] or question.options
            system, user = self.template.render(question.question, options, question.task_hint)
            rendered.append((system, user, self.policy.grid(*size)))
        return [
            sequence if len(sequence.ids) <= self.context else self._too_long(sequence)
            for sequence in self.chat.encode_many(rendered, self.policy.merge)
        ]

    def _too_long(self, sequence: TokenSequence) -> PictureError:
        return PictureError(
            f"a prompt of {len(sequence.ids):,} tokens", f"at most {self.context:,}", "shorten the question"
        )

    def picture(self, question: Question) -> Image.Image:
        """The question's picture decoded, upright, in RGB, within `question.limits`. Raises PictureError."""
        if isinstance(question.picture, Image.Image):
            return to_rgb(question.picture)
        if question.picture is None:
            raise PictureError("no picture", "a picture file", "give one or drop the row")
        return read_picture(question.picture, question.limits)

    def __call__(self, question: Question) -> tuple[TokenSequence, np.ndarray]:
        """Token sequence and (N, 1536) patches of a question, its picture decoded. Raises PictureError."""
        picture = self.picture(question)
        return self.encode(question, picture.size), self.policy.patches(picture)
