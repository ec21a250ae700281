"""What both interfaces check of the contents of a body: texts, pictures and options. Whatever is wrong is collected."""

import binascii
import json
import re
from collections.abc import Iterator, Sequence

from scoring.errors import counted, quoted
from scoring.inputs.image_marks import MARK
from scoring.inputs.orders import MAX_ORDERS, parse_orders
from scoring.inputs.prompt import LETTERS
from scoring.serving.content import merged
from scoring.serving.request import Limits, Part, RemotePicture, Wrong, refuse
from scoring.serving.shapes import described

MOST_LEVELS = 100  # of JSON in JSON
LONGEST_URL = 8_192  # characters
# A data URL without a media type, or with that of a picture; parameters are read over.
DATA_URL = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE | re.ASCII)
WEB_URL = re.compile(r"https?://", re.IGNORECASE)
SURROGATE = re.compile("[\ud800-\udfff]")
YES_NO = ("Yes", "No")  # the options of a predicate


class Checks:
    """Checks the contents of one request. `wrongs` grows with what is found; `finish` raises it.

    picture: what the interface calls a picture in a text. `placed`: the places of pictures, in their order.
    """

    def __init__(self, limits: Limits, picture: str):
        self.limits, self.picture_name = limits, picture
        self.wrongs: list[Wrong] = []
        self.placed: list[str] = []
        self.characters = self.pictures = 0
        self.choices = min(limits.choices, len(LETTERS))

    def add(self, param: str, message: str, code: str = "invalid_value", status: int = 400) -> None:
        self.wrongs.append(Wrong(param, message, code, status))

    def finish(self) -> None:
        """Raises RequestError with all that is wrong, if anything is."""
        most = self.limits
        if self.characters > most.text_chars:
            found = f"{self.characters:,} characters of text in all; expected at most {most.text_chars:,}"
            self.add("", found, "string_above_max_length")
        if self.pictures > most.pictures:
            found = f"{counted(self.pictures, 'picture')} in all; expected at most {most.pictures:,}"
            self.add("", found, "too_many_pictures")
        refuse(self.wrongs)

    def text(self, param: str, text: str) -> str:
        """A text without what no prompt can hold."""
        self.characters += len(text)
        self.name(param, text)
        if mark := MARK.search(text):
            found = f"holds {quoted(mark[0])}, which no text may hold, since it is the mark of a picture's place"
            self.add(param, f"{found}; put {self.picture_name} there, or write the text otherwise", "invalid_text")
        return text

    def name(self, param: str, text: str) -> str:
        """A text that answers can hold."""
        if "\0" in text:
            self.add(param, "holds a NUL character; remove it", "invalid_text")
        if SURROGATE.search(text):
            self.add(param, "holds half of a character (a lone surrogate); write the whole of it", "invalid_text")
        return text

    def places(self) -> tuple[str, ...]:
        """Those of the pictures since the last call."""
        found, self.placed = tuple(self.placed), []
        return found

    def orders(self, param: str, value: object) -> str | None:
        """Option orders of a request; None: as the server was started."""
        if value is None:
            return None
        found = described(value)
        if isinstance(value, str | int) and not isinstance(value, bool):
            try:
                if (orders := parse_orders(str(value))) != "pride":
                    return orders
                found += ", which needs the rows of a table"
            except ValueError:  # a text that int() does not take too
                pass
        expected = f"1, cyclic, all, adaptive, or a number up to {MAX_ORDERS}"
        self.add(param, f"found {found}; expected {expected}", "invalid_orders")
        return None

    def parts(self, param: str, parts: Sequence[Part]) -> tuple[Part, ...]:
        """Texts joined, since two may make a mark, and checked; pictures counted."""
        found = merged(parts)
        for part in found:
            if isinstance(part, str):
                self.text(param, part)
            else:
                self.pictures += 1
        return found

    def not_empty(self, param: str, given: Sequence[Part], instructions: Sequence[Part]) -> None:
        """There is something to ask about, or something that is asked."""
        if not any(not isinstance(part, str) or part.strip() for part in (*given, *instructions)):
            self.add(param, "the input and these instructions are empty; send a text or a picture", "empty")

    def count(self, param: str, noun: str, found: int, most: int, code: str) -> None:
        """At least 2, and no more than the limit."""
        if found < 2:
            self.add(param, f"{counted(found, noun)}; expected 2 to {most}", f"too_few_{noun}s")
        elif found > most:
            self.add(param, f"{counted(found, noun)}; this model tells at most {most} apart", code)

    def option(self, param: str, value: str, description: str = "") -> str:
        """An option as the model reads it."""
        if not value.strip():
            self.add(param, "an empty text; expected what the answer is called", "empty")
        return self.text(param, f"{value}: {description}" if description.strip() else value)

    def distinct(self, param: str, values: Sequence[str | bool], options: Sequence[str]) -> None:
        """No two options have one value, which the answer names them by, or read the same."""
        seen: dict[object, int] = {}
        for number, (value, option) in enumerate(zip(values, options)):
            first = seen.setdefault((type(value), value), number)
            if first == number:
                first = seen.setdefault(option, number)
            if options[first] == option and first != number:
                found = f"options {first} and {number} both read {quoted(option)}; expected texts that differ"
                self.add(param, found, "duplicate_choice")
            elif first != number:
                found = (
                    f"options {first} and {number} both have the value {described(value)}; expected values that differ"
                )
                self.add(param, found, "duplicate_choice")

    def is_shallow(self, param: str, data: object) -> bool:
        """Whether JSON can be written; a deeper one cannot."""
        if any(level > MOST_LEVELS for level, _ in _walk(data)):
            self.add(param, f"JSON of more than {MOST_LEVELS} levels; expected no more", "json_too_deep")
            return False
        return True

    def json(self, param: str, data: object) -> str:
        """JSON on one line; "" where it is none."""
        if not self.is_shallow(param, data):
            return ""
        try:
            return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        except (TypeError, ValueError) as error:
            self.add(param, f"cannot be written as JSON ({error})", "invalid_json")
            return ""

    def base64(self, param: str, text: str) -> bytes:
        """A picture's bytes; their number is checked before they are decoded. Line breaks are read over."""
        if data := DATA_URL.match(text):
            text = text[data.end() :]
        text, most = text.replace("\r", "").replace("\n", ""), self.limits.picture_bytes
        if (size := len(text) * 3 // 4 - text.count("=", -2 if len(text) > 1 else 0)) > most:
            found = f"a picture of {size:,} bytes; expected at most {most:,}: send a smaller one"
            self.add(param, found, "picture_too_large", 413)
            return b""
        try:
            if text[:5].lower() == "data:":
                raise ValueError(f"{quoted(text)}, a URL of other data")
            if len(text) % 4:
                raise ValueError("its length is no multiple of 4")
            content = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:
            self.add(param, f"no base64 ({error}); send the bytes of a picture's file as base64", "invalid_base64")
            return b""
        return self.picture(param, content)

    def picture(self, param: str, content: bytes) -> bytes:
        """A picture's bytes, which may not be too many, nor none."""
        if not content:
            self.add(param, "a picture without a byte; send a picture's file", "empty_picture")
        if len(content) > self.limits.picture_bytes:
            found = f"a picture of {len(content):,} bytes; expected at most {self.limits.picture_bytes:,}"
            self.add(param, f"{found}: send a smaller one", "picture_too_large", 413)
        return content

    def address(self, param: str, url: str) -> bytes | RemotePicture:
        """The picture of a data URL, or one that is to be fetched, which has its place in the field of this name."""
        self.placed.append(param)
        if DATA_URL.match(url):
            return self.base64(param, url)
        if not WEB_URL.match(url):
            expected = "a data URL (data:image/png;base64,…) or one of http or https"
            self.add(param, f"found {quoted(url)}; expected {expected}", "invalid_image_url")
        elif len(url) > LONGEST_URL or not url.isprintable() or " " in url:
            expected = f"a URL of at most {LONGEST_URL:,} characters without spaces"
            self.add(param, f"found {quoted(url)}; expected {expected}", "invalid_image_url")
        return RemotePicture(url)


def _walk(data: object) -> Iterator[tuple[int, object]]:
    """Every value of JSON with its level."""
    waiting: list[tuple[int, object]] = [(0, data)]
    while waiting:
        level, value = waiting.pop()
        yield level, value
        if isinstance(value, dict | list) and level <= MOST_LEVELS:
            items = value.values() if isinstance(value, dict) else value
            waiting += [(level + 1, item) for item in items]
