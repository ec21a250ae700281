"""Chat messages -> token ids, the slices of them that pictures fill, and three-dimensional positions.

The chat template is that of the base model. Text from cells is encoded by a copy of the tokenizer that knows
no control tokens: `<|im_end|>` in a question reaches the model as about six ordinary tokens, never as the end
of the message.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jinja2 import TemplateError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from scoring.errors import ScoringError
from scoring.files.reading import read_json
from scoring.inputs.families.registry import family_of
from scoring.inputs.image_marks import Parts
from scoring.inputs.pixels import Grid, PictureTokens

SYSTEM = "\ue000s\ue001"  # stands for the system text in the rendered template
STAND_IN = re.compile(r"\ue000(s|\d+)\ue001")  # and the same with a number for a text of the user's turn


class TokenError(ScoringError):
    """A tokenizer, chat template or letter that cannot be used for scoring."""


@dataclass(frozen=True)
class ChatPrompt:
    """A conversation of one question. system: "" for none. user: its turn. pictures: what the question's become."""

    system: str
    user: Parts
    pictures: Sequence[PictureTokens]


@dataclass(frozen=True)
class PlacedPicture:
    """A picture in a prompt.

    index: which of the question's it is. tokens: the slice of ids that it fills. grid, shape: see `PictureTokens`.
    """

    index: int
    tokens: slice
    grid: Grid
    shape: tuple[int, int] | None

    @property
    def saved(self) -> int:
        """How many tokens it has beyond the positions that it takes up, which are as many as its longer side."""
        return self.tokens.stop - self.tokens.start - max(self.shape) if self.shape else 0


@dataclass(frozen=True)
class TokenSequence:
    """One prompt as the model sees it.

    ids: (L,) int64, with the image token for each of a picture's tokens.
    pictures: in the order of their places; a picture that is shown twice has two.
    head: the number of tokens before the user's texts: what all questions about these pictures begin with.
    """

    ids: np.ndarray
    pictures: tuple[PlacedPicture, ...]
    head: int

    @property
    def grids(self) -> list[Grid]:
        """Of the pictures in the order of their places."""
        return [picture.grid for picture in self.pictures]

    def positions(self, start: int = 0) -> np.ndarray:
        """(3, L - start) int64: time, height and width, as in the library's `get_rope_index`.

        Text counts up in all three rows; a picture's tokens share one time and count rows and columns; the text after
        it continues from the largest of them. Where pictures have no shape, their tokens count as text.
        """
        length, pictures = len(self.ids), [picture for picture in self.pictures if picture.shape]
        saved = sum(picture.saved for picture in pictures)
        if not pictures or start >= pictures[-1].tokens.stop:  # text alone: all three rows are equal
            return np.broadcast_to(np.arange(start - saved, length - saved), (3, length - start))
        positions = np.empty((3, length), np.int64)
        end, following = 0, 0  # of the ids so far, and the position of the next one
        for picture in pictures:
            first, stop = picture.tokens.start, picture.tokens.stop
            positions[:, end:first] = np.arange(following, following + first - end)
            following += first - end
            rows, columns = picture.shape or (0, 0)
            positions[0, first:stop] = following
            positions[1, first:stop] = following + np.repeat(np.arange(rows), columns)
            positions[2, first:stop] = following + np.tile(np.arange(columns), rows)
            end, following = stop, following + max(rows, columns)
        positions[:, end:] = np.arange(following, following + length - end)
        return positions[:, start:]


class ChatTokenizer:
    """A base model's tokenizer and chat template, from its folder.

    Raises TokenError if `tokenizer.json` or the chat template is missing or cannot be used, FamilyError for a base of
    no known family.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust tokenizer raises bare Exception
            raise TokenError(f"{folder / 'tokenizer.json'}: {error}; a base folder needs the fast tokenizer") from None
        tokens = sorted(self.tokenizer.get_added_tokens_decoder().items())
        self.control = {token.content: number for number, token in tokens}
        self._plain = Tokenizer(self.tokenizer.model)  # the same vocabulary, not read a second time
        self._plain.normalizer = self.tokenizer.normalizer
        self._plain.pre_tokenizer = self.tokenizer.pre_tokenizer
        self._control_pattern = re.compile(
            "|".join(re.escape(token) for token in sorted(self.control, key=len, reverse=True)) or r"(?!)"
        )
        self.family = family_of(folder)
        token = self.family.image_token
        needed = [token, *self.family.around] if token else [self.family.end_of_turn]
        if missing := [name for name in needed if name not in self.control]:
            raise TokenError(f"{folder}: the tokenizer has no {missing[0]}; expected that of {self.family.name}")
        self.image_token_id: int = self.control.get(token, -1)  # -1 where no picture is seen
        self._around = [self.control[name] for name in self.family.around]
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.globals["raise_exception"] = _raise
        environment.globals |= _special_tokens(folder)
        self._frames: dict[tuple[bool, tuple[bool, ...]], list[str]] = {}  # see `_frame`
        chat_template = read_chat_template(folder)
        if chat_template is None:
            raise TokenError(
                f"{folder}: no chat template (chat_template.jinja, chat_template.json or tokenizer_config.json)"
            )
        try:
            self._chat = environment.from_string(chat_template)
        except (TemplateError, TypeError) as error:
            raise TokenError(
                f"{folder}: its chat template cannot be used: {error}; expected {self.family.name}'s own"
            ) from None

    @property
    def end_of_turn_id(self) -> int:
        """The token that ends an answer."""
        end: int = self.control[self.family.end_of_turn]
        return end

    def encode(self, prompt: ChatPrompt) -> TokenSequence:
        """The prompt up to the answer's first token."""
        return self.encode_many([prompt])[0]

    def encode_many(self, prompts: Sequence[ChatPrompt]) -> list[TokenSequence]:
        """The same for many: each distinct text is encoded once, all of them in parallel."""
        prompts_pieces = [self._pieces_of(prompt.system, prompt.user) for prompt in prompts]
        texts = list(
            dict.fromkeys(str(piece) for pieces in prompts_pieces for piece in pieces if isinstance(piece, _Plain))
        )
        encoded = self._plain.encode_batch_fast(texts, add_special_tokens=False)
        ids_of = {text: encoding.ids for text, encoding in zip(texts, encoded)}
        return [self._sequence(pieces, prompt, ids_of) for pieces, prompt in zip(prompts_pieces, prompts)]

    def _sequence(self, pieces: list[str], prompt: ChatPrompt, ids_of: dict[str, list[int]]) -> TokenSequence:
        """Of a prompt's pieces, given the ids of each plain text."""
        ids: list[int] = []
        pictures: list[PlacedPicture] = []
        indices = [part for part in prompt.user if isinstance(part, int)]
        head = None
        for piece in pieces:
            if isinstance(piece, _UserText) and head is None:
                head = len(ids)
            if isinstance(piece, _Plain):
                ids += ids_of[piece]
            elif piece == self.family.image_token:  # as many as there are places, see `rendered`
                index = indices[len(pictures)]
                picture = prompt.pictures[index]
                ids += self._around[:1]
                start = len(ids)
                ids += [self.image_token_id] * picture.count
                pictures.append(PlacedPicture(index, slice(start, len(ids)), picture.grid, picture.shape))
                ids += self._around[1:]
            else:
                ids.append(self.control[piece])
        return TokenSequence(np.array(ids, np.int64), tuple(pictures), len(ids) if head is None else head)

    def label_ids(self, letters: str, system: bool = True) -> list[int]:
        """The token id of each letter as an answer: the one id that follows the prompt's ids.

        system: whether the prompt has a system turn. Raises TokenError, naming the letter and its ids, if the letter
        is not a single token after the prompt.
        """
        last = self._pieces_of("s" if system else "", ("u",))[-1]
        tail = last if isinstance(last, _Plain) else ""
        before = self._plain.encode(tail, add_special_tokens=False).ids
        ids_of = {letter: self._plain.encode(tail + letter, add_special_tokens=False).ids for letter in letters}
        for letter, ids in ids_of.items():
            if len(ids) != len(before) + 1 or ids[:-1] != before:
                raise TokenError(
                    f"letter {letter!r}: after the prompt's last ids {before} it becomes {ids}; "
                    "expected the same ids and one more. This tokenizer cannot answer with that letter."
                )
        return [ids[-1] for ids in ids_of.values()]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids, without control tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def _pieces_of(self, system: str, user: Parts) -> list[str]:
        """The rendered conversation as pieces: plain texts (`_Plain`) and control tokens, in turn."""
        texts = {str(number): text for number, text in enumerate(part for part in user if isinstance(part, str))}
        texts["s"] = system

        def filled(piece: str) -> str:
            if not isinstance(piece, _Plain):
                return piece
            kind = _UserText if {*STAND_IN.findall(piece)} - {"s"} else _Plain
            return kind(STAND_IN.sub(lambda match: texts[match[1]], piece))

        return [filled(piece) for piece in self._frame(bool(system), tuple(isinstance(part, str) for part in user))]

    def _frame(self, system: bool, texts: tuple[bool, ...]) -> list[str]:
        """The conversation's pieces with stand-ins for the texts: the template never sees a cell.

        system: whether it has a system turn. texts: which parts of the user's turn are texts. Rendered once.
        """
        if (system, texts) not in self._frames:
            self._frames[system, texts] = self._pieces(self.rendered(system, texts))
        return self._frames[system, texts]

    def rendered(self, system: bool, texts: tuple[bool, ...]) -> str:
        """The conversation as the chat template writes it, with stand-ins for the texts."""
        numbers = itertools.count()
        order = ["s"] * system + [str(next(numbers)) if is_text else "" for is_text in texts]  # "" for a picture
        image = f"|{re.escape(self.family.image_token)}" if self.family.sees_pictures else ""
        places, problem = re.compile(STAND_IN.pattern + image), ""
        ways = [_messages(system, texts, True)]
        if self.family.sees_pictures:
            ways.insert(0, _messages(system, texts, False))
        if self.family.in_texts:
            ways.append(_messages(system, texts, False, self.family.image_token))
        for messages in ways:
            try:
                rendered: str = self._chat.render(
                    add_generation_prompt=True,
                    tools=None,
                    messages=messages,
                    enable_thinking=False,  # a model that may think before it answers is told to answer at once
                )
            except (TemplateError, TypeError) as error:  # also of one that uses variables that it is not given
                problem = problem or f"cannot be used: {error}"
                continue
            if order == places.findall(rendered):
                return rendered
            problem = problem or "leaves texts or a picture out"
        raise TokenError(f"the base's chat template {problem}; expected {self.family.name}'s own")

    def _pieces(self, rendered: str) -> list[str]:
        """Plain texts and control tokens, in turn."""
        pieces: list[str] = []
        position = 0
        for match in [*self._control_pattern.finditer(rendered), None]:
            if plain := rendered[position : match.start() if match else None]:
                pieces.append(_Plain(plain))
            if match:
                pieces.append(match[0])
                position = match.end()
        return pieces


def _messages(system: bool, texts: tuple[bool, ...], strings: bool, image_token: str = "") -> list[dict[str, object]]:
    """A conversation of stand-ins, see `ChatTokenizer.rendered`.

    strings: whether a turn of texts alone is one string. Some templates print what is not. image_token: what stands for
    a picture within the user's one text; "" where pictures are parts of their own.
    """
    numbers = itertools.count()
    user = [
        {"type": "text", "text": f"\ue000{next(numbers)}\ue001"} if is_text else {"type": "image", "image": ""}
        for is_text in texts
    ]
    if image_token:
        user = [{"type": "text", "text": "".join(part.get("text", image_token) for part in user)}]
    turns = {"system": [{"type": "text", "text": SYSTEM}]} if system else {}
    return [
        {
            "role": role,
            "content": "".join(part["text"] for part in parts)
            if strings and all(part["type"] == "text" for part in parts)
            else parts,
        }
        for role, parts in (turns | {"user": user}).items()
    ]


class _Generation(Extension):
    """`{% generation %}`, by which chat templates mark what training learns: it writes what it holds."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        """The statements up to `{% endgeneration %}`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Plain(str):
    """Text that is encoded without control tokens."""


class _UserText(_Plain):
    """Such a text that holds some of the user's."""


def _special_tokens(folder: Path) -> dict[str, str]:
    """Of a tokenizer's settings what chat templates may write: the tokens that begin and end a text, if it has any."""
    settings = read_json(folder / "tokenizer_config.json") or {}
    tokens = {name: settings.get(name) for name in ("bos_token", "eos_token")}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _raise(message: str) -> NoReturn:
    raise TokenError(f"the chat template says: {message}")


def read_chat_template(folder: Path) -> str | None:
    """The chat template of a folder, from the first file that has one; None if none has. Raises TokenError."""
    if (path := folder / "chat_template.jinja").exists():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise TokenError(f"{folder}: its chat template cannot be used: {error}; expected UTF-8") from None
    for name in ("chat_template.json", "tokenizer_config.json"):
        text = (read_json(folder / name) or {}).get("chat_template")
        if isinstance(text, list):  # several, each with a name
            templates = {item.get("name"): item.get("template") for item in text if isinstance(item, dict)}
            text = templates.get("default")
        if text and not isinstance(text, str):
            raise TokenError(f"{folder / name}: its chat template cannot be used: expected text")
        if text:
            return text
    return None
