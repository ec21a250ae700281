"""Chat messages -> token ids, the slice of them that the picture fills, and three-dimensional positions.

The chat template is that of the base model. Text from cells is encoded by a copy of the tokenizer that knows
no control tokens: `<|im_end|>` in a question reaches the model as about six ordinary tokens, never as the end
of the message.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from scoring.errors import UserError
from scoring.files.reading import read_json

IMAGE_TOKEN = "<|image_pad|>"
SYSTEM, USER = "\ue000s\ue001", "\ue000u\ue001"  # stand-ins for the texts in the rendered template


class TokenError(UserError):
    """A tokenizer, chat template or letter that cannot be used for scoring."""


@dataclass(frozen=True)
class TokenSequence:
    """One prompt as the model sees it.

    ids: (L,) int64, with the image token for each of the picture's tokens.
    picture: the slice of `ids` that the picture fills.
    grid: (1, height, width) of the picture in patches.
    """

    ids: np.ndarray
    picture: slice
    grid: tuple[int, int, int]

    def positions(self, start: int = 0, merge: int = 2) -> np.ndarray:
        """(3, L - start) int64: time, height and width, as in `Qwen3VLModel.get_rope_index`."""
        if start >= self.picture.stop:  # text after the picture: all three rows count up by one a token
            last = self.picture.start + max(self.grid[1:]) // merge + len(self.ids) - self.picture.stop
            return np.broadcast_to(np.arange(last - len(self.ids) + start, last), (3, len(self.ids) - start))
        return mrope_positions(len(self.ids), self.picture.start, self.grid, merge)[:, start:]


def mrope_positions(length: int, start: int, grid: tuple[int, int, int], merge: int = 2) -> np.ndarray:
    """(3, length) positions of a text with one picture at `start`.

    Text counts up in all three rows; the picture's tokens share one time and count rows and columns;
    the text after it continues from the largest of them.
    """
    rows, columns = grid[1] // merge, grid[2] // merge
    count = rows * columns
    positions = np.empty((3, length), np.int64)
    positions[:, :start] = np.arange(start)
    positions[0, start : start + count] = start
    positions[1, start : start + count] = start + np.repeat(np.arange(rows), columns)
    positions[2, start : start + count] = start + np.tile(np.arange(columns), rows)
    positions[:, start + count :] = start + max(rows, columns) + np.arange(length - start - count)
    return positions


class ChatTokenizer:
    """A base model's tokenizer and chat template, from its folder.

    Raises TokenError if `tokenizer.json` or the chat template is missing or cannot be used.
    """

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the Rust tokenizer raises bare Exception
            raise TokenError(f"{folder / 'tokenizer.json'}: {error}; a base folder needs the fast tokenizer") from None
        description = json.loads(self.tokenizer.to_str())
        self.control = {token["content"]: token["id"] for token in description["added_tokens"]}
        description["added_tokens"] = []
        self._plain = Tokenizer.from_str(json.dumps(description))
        self._control_pattern = re.compile(
            "|".join(re.escape(token) for token in sorted(self.control, key=len, reverse=True)) or r"(?!)"
        )
        if IMAGE_TOKEN not in self.control:
            raise TokenError(f"{folder}: the tokenizer has no {IMAGE_TOKEN}; expected a Qwen3-VL base")
        self.image_token_id = self.control[IMAGE_TOKEN]
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        self._frames: dict[bool, list[str]] = {}  # whether there is a system turn -> see `_frame`
        chat_template = read_chat_template(folder)
        if chat_template is None:
            raise TokenError(
                f"{folder}: no chat template (chat_template.jinja, chat_template.json or tokenizer_config.json)"
            )
        try:
            self._chat = environment.from_string(chat_template)
        except (TemplateError, TypeError) as error:
            raise TokenError(f"{folder}: its chat template cannot be used: {error}; expected Qwen3-VL's own") from None

    def encode(self, system: str, user: str, grid: tuple[int, int, int], merge: int = 2) -> TokenSequence:
        """The prompt up to the answer's first token; the picture comes before the user's text.

        system: "" for a conversation without a system turn.
        """
        return self.encode_many([(system, user, grid)], merge)[0]

    def encode_many(self, prompts: list[tuple[str, str, tuple[int, int, int]]], merge: int = 2) -> list[TokenSequence]:
        """The same for many (system, user, grid): each distinct text is encoded once, all of them in parallel."""
        prompts_pieces = [self._prompt(system, user) for system, user, _ in prompts]
        texts = list(dict.fromkeys(piece for pieces in prompts_pieces for piece in pieces if isinstance(piece, _Plain)))
        encoded = self._plain.encode_batch_fast(texts, add_special_tokens=False)
        ids_of = {text: encoding.ids for text, encoding in zip(texts, encoded)}
        sequences = []
        for pieces, (_, _, grid) in zip(prompts_pieces, prompts):
            ids: list[int] = []
            for piece in pieces:
                if piece == IMAGE_TOKEN:  # exactly one, see `_frame`
                    start = len(ids)
                    ids += [self.image_token_id] * (grid[1] // merge * (grid[2] // merge) * grid[0])
                    end = len(ids)
                elif isinstance(piece, _Plain):
                    ids += ids_of[piece]
                else:
                    ids.append(self.control[piece])
            sequences.append(TokenSequence(np.array(ids, np.int64), slice(start, end), grid))
        return sequences

    def label_ids(self, letters: str, system: bool = True) -> list[int]:
        """The token id of each letter as an answer: the one id that follows the prompt's ids.

        system: whether the prompt has a system turn. Raises TokenError, naming the letter and its ids, if the letter
        is not a single token after the prompt.
        """
        last = self._prompt("s" if system else "", "u")[-1]
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

    def _prompt(self, system: str, user: str) -> list[str]:
        """The rendered conversation as pieces: plain texts (`_Plain`) and control tokens, in turn."""
        texts = {SYSTEM: system, USER: user}

        def fill(match: re.Match[str]) -> str:
            return texts[match[0]]

        return [
            _Plain(re.sub(f"{SYSTEM}|{USER}", fill, piece)) if isinstance(piece, _Plain) else piece
            for piece in self._frame(bool(system))
        ]

    def _frame(self, system: bool) -> list[str]:
        """The conversation's pieces with stand-ins for the texts: the template never sees a cell.

        system: whether it has a system turn. Rendered once.
        """
        if system not in self._frames:
            self._frames[system] = self._pieces(self._rendered(system))
        return self._frames[system]

    def _rendered(self, system: bool) -> str:
        """The conversation as the chat template writes it, with stand-ins for the texts."""
        user = [{"type": "image", "image": ""}, {"type": "text", "text": USER}]
        messages: list[dict[str, object]] = [{"role": "user", "content": user}]
        if system:
            messages.insert(0, {"role": "system", "content": [{"type": "text", "text": SYSTEM}]})
        try:
            rendered: str = self._chat.render(add_generation_prompt=True, tools=None, messages=messages)
        except TemplateError as error:  # also of one that uses variables that it is not given
            raise TokenError(f"the base's chat template cannot be used: {error}; expected Qwen3-VL's own") from None
        if [rendered.count(part) for part in (SYSTEM, USER, IMAGE_TOKEN)] != [int(system), 1, 1]:
            raise TokenError("the base's chat template leaves texts or the picture out; expected Qwen3-VL's own")
        return rendered

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


class _Plain(str):
    """Text that is encoded without control tokens."""


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
