"""A question -> what the model takes: its token sequence and its pictures' patches."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scoring.errors import counted
from scoring.files.reading import as_object, read_json
from scoring.inputs.families.family import Family
from scoring.inputs.image_marks import parts_of
from scoring.inputs.pictures import PictureError, read_picture
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.inputs.tokens import ChatPrompt, ChatTokenizer, TokenSequence


class TooLongError(PictureError):
    """A prompt of more tokens than the model reads."""

    def __init__(self, tokens: int, most: int):
        super().__init__(f"a prompt of {tokens:,} tokens", f"at most {most:,}", "shorten the question")


TOO_LONG = re.compile(r"a prompt of ([\d,]+) tokens; expected at most ([\d,]+)")  # the status of such a row


def status_of(fault: PictureError) -> str:
    """The status of a row that cannot be scored.

    >>> status_of(TooLongError(6_130, 2_048))
    'a prompt of 6,130 tokens; expected at most 2,048'
    """
    return f"{fault.found}; expected {fault.expected}" if isinstance(fault, TooLongError) else f"picture: {fault.found}"


@dataclass
class _TextConfig:
    """The fields of the language model's part of config.json that are used here."""

    max_position_embeddings: int = 32_768


def unseen_pictures(family: Family, count: int) -> PictureError:
    """What is wrong with a question of so many pictures for a base of a family that sees none."""
    found = f"{counted(count, 'picture')}, which a {family.name} base does not see"
    return PictureError(found, "a question in words alone", "name a base that sees pictures, or drop the row")


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
        chat, path = ChatTokenizer(folder), folder / "config.json"
        text = as_object(_TextConfig, dict(chat.family.text_config(read_json(path) or {})), path)
        return cls(chat, template, policy, text.max_position_embeddings)

    def label_ids(self, options: int = len(LETTERS)) -> list[int]:
        """(K,) the token ids by which the first K options are answered, as the template shows their letters.

        Raises TokenError where a letter is not a single token after the prompt.
        """
        return self.chat.label_ids(self.template.labels[:options], bool(self.template.system))

    def encode(
        self, question: Question, sizes: Sequence[tuple[int, int]] | None = None, order: str = ""
    ) -> TokenSequence:
        """The prompt for pictures of these upright sizes (default: those in the pictures' headers).

        order: the option at each letter, such as `cabd`; "" is the order of the data.
        Raises TooLongError, a row's fault, if the prompt is longer than the model's context, and PictureError.
        """
        sequence = self.encode_many([(question, question.sizes if sizes is None else sizes, order)])[0]
        if isinstance(sequence, PictureError):
            raise sequence
        return sequence

    def encode_many(
        self, prompts: Sequence[tuple[Question, Sequence[tuple[int, int]], str]]
    ) -> list[TokenSequence | PictureError]:
        """The same for many (question, sizes, order); a prompt that cannot be made has its PictureError instead."""
        results: list[ChatPrompt | PictureError] = []
        for question, sizes, order in prompts:
            options = [question.options[LETTERS.index(letter)] for letter in order] or question.options
            system, user = self.template.render(question.question, options, question.task_hint)
            try:
                if sizes and not self.chat.family.sees_pictures:
                    raise unseen_pictures(self.chat.family, len(sizes))
                parts = parts_of(user, len(sizes))
            except PictureError as error:
                results.append(error.alone())
            else:
                policy = self.policy.for_count(len(sizes))
                pictures = [policy.tokens(policy.grid(*size)) for size in sizes]
                results.append(ChatPrompt(system, parts, pictures))
        encoded = iter(self.chat.encode_many([item for item in results if isinstance(item, ChatPrompt)]))
        return [result if isinstance(result, PictureError) else self._checked(next(encoded)) for result in results]

    def _checked(self, sequence: TokenSequence) -> TokenSequence | PictureError:
        """The sequence, if it is not too long."""
        if len(sequence.ids) <= self.context:
            return sequence
        return TooLongError(len(sequence.ids), self.context)

    def picture(self, question: Question, index: int = 0) -> Image.Image:
        """One of the question's pictures decoded, upright, in RGB, within `question.limits`. Raises PictureError."""
        if not self.chat.family.sees_pictures:
            raise unseen_pictures(self.chat.family, len(question.pictures))
        return read_picture(question.pictures[index], question.limits)

    def pictures(self, question: Question) -> list[Image.Image]:
        """All of the question's pictures, see `picture`."""
        return [self.picture(question, index) for index in range(len(question.pictures))]

    def __call__(self, question: Question) -> tuple[TokenSequence, np.ndarray]:
        """Token sequence, and patches (N, values) of the question's pictures in their places. Raises PictureError."""
        pictures = self.pictures(question)
        sequence = self.encode(question, [picture.size for picture in pictures])
        policy = self.policy.for_count(len(pictures))
        patches = [policy.patches(pictures[placed.index]) for placed in sequence.pictures]
        return sequence, np.concatenate([np.empty((0, *self.policy.patch_shape), np.float32), *patches])
