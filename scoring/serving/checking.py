"""What both interfaces check: the shape of a body, its texts, pictures and options. Whatever is wrong is collected."""

import binascii
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from scoring.errors import counted, quoted
from scoring.inputs.image_marks import MARK
from scoring.inputs.prompt import LETTERS
from scoring.serving.content import merged
from scoring.serving.request import Limits, Part, RemotePicture, Wrong, refuse

MOST_ITEMS = 10_000  # of a list of messages or parts
MOST_FIELDS = 100  # of an object whose fields are known
MOST_LEVELS = 100  # of JSON in JSON
LONGEST_URL = 8_192  # characters
DATA_URL = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE | re.ASCII)
WEB_URL = re.compile(r"https?://", re.IGNORECASE)
SURROGATE = re.compile("[\ud800-\udfff]")

Model = TypeVar("Model", bound=BaseModel)


class Fields(BaseModel):
    """An object with known fields: another is an error. Values are of the types that are said, never converted."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, value: Any) -> Any:
        if isinstance(value, dict) and len(value) > MOST_FIELDS:
            raise PydanticCustomError("too_many_fields", "more than {most} fields", {"most": MOST_FIELDS})
        return value


def at_most(most: int) -> BeforeValidator:
    """Refuses a longer list or object before its items are looked at."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > most:
            values = {"found": f"{len(value):,}", "most": f"{most:,}"}
            raise PydanticCustomError("too_many_items", "{found} items; expected at most {most}", values)
        return value

    return BeforeValidator(check)


class FirstFault(FailFast):
    """Tells of the first wrong item of a list alone."""

    __hash__ = object.__hash__  # a member of a union needs one


def kinds(**models: Any) -> Any:
    """The type of an object that its field `type` chooses."""
    return chosen(lambda value: _field(value, "type"), models)


def chosen(kind_of: Callable[[Any], Any], models: dict[str, Any]) -> Any:
    """A union in which `kind_of` chooses by name, so that errors are those of one type alone."""
    names = {name: f"({name})" for name in models}
    union: Any = None
    for name, model in models.items():
        member = Annotated[model, Tag(names[name])]  # type: ignore[valid-type]
        union = member if union is None else union | member
    choose = Discriminator(
        lambda value: names.get(kind_of(value), "(none)"),
        custom_error_type="unknown_kind",
        custom_error_message=f"expected {' or '.join(models)}",
    )
    return Annotated[union, choose]


def _field(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
    return found if isinstance(found, str) else ""


def text_or(other: Any, name: str = "a list of parts") -> Any:
    """A text, or another type."""
    return chosen(lambda value: "a text" if isinstance(value, str) else name, {"a text": StrictStr, name: other})


def validated(model: type[Model], body: object) -> Model:
    """The body as a model. Raises RequestError with all that does not fit."""
    if not isinstance(body, dict):
        refuse([Wrong("", f"the body is {_described(body)}; expected a JSON object", "invalid_type")])
    try:
        return model.model_validate(body)
    except ValidationError as error:
        refuse([_wrong(each) for each in error.errors(include_url=False)])
    raise AssertionError("refuse raises")


def path(*steps: str | int) -> str:
    """A field's place: questions[0].choices."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _wrong(error: ErrorDetails) -> Wrong:
    steps = [step for step in error["loc"] if not (isinstance(step, str) and re.fullmatch(r"\(.*\)", step, re.S))]
    param, kind = path(*(step if isinstance(step, int) else quoted(step)[1:-1] for step in steps)), error["type"]
    if kind == "extra_forbidden":
        return Wrong(param, "there is no such field; leave it out or correct its name", "unknown_parameter")
    if kind == "missing":
        return Wrong(param, "this field is missing", "missing_required_parameter")
    if kind == "unknown_kind":
        found = error["input"]
        shown = (
            next((f"{key} {_described(found[key])}" for key in ("type", "role") if key in found), "no type")
            if (isinstance(found, dict))
            else _described(found)
        )
        return Wrong(param, f"found {shown}; {error['msg']}")
    code = "too_many_items" if kind == "too_many_items" else "invalid_type"
    if kind in ("too_many_items", "too_many_fields"):
        return Wrong(param, error["msg"], code)
    return Wrong(param, f"found {_described(error['input'])}; {error['msg']}", code)


def _described(value: object) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return "a number"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__


class Checks:
    """Checks the contents of one request. `wrongs` grows with what is found; `finish` raises it."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.wrongs: list[Wrong] = []
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
            found = f"holds {quoted(mark[0])}, which stands for a picture; send the picture as a part in its place"
            self.add(param, found, "invalid_text")
        return text

    def name(self, param: str, text: str) -> str:
        """A text that answers can hold."""
        if "\0" in text:
            self.add(param, "holds a NUL character; remove it", "invalid_text")
        if SURROGATE.search(text):
            self.add(param, "holds half of a character (a lone surrogate); write the whole of it", "invalid_text")
        return text

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

    def distinct(self, param: str, *kinds_of_text: Sequence[str]) -> None:
        """No two options read the same. kinds_of_text: their names, or the whole of them; one kind of fault is told."""
        for texts in kinds_of_text:
            seen: dict[str, int] = {}
            before = len(self.wrongs)
            for number, text in enumerate(texts):
                if (first := seen.setdefault(text, number)) != number:
                    found = f"options {first} and {number} both read {quoted(text)}; expected texts that differ"
                    self.add(param, found, "duplicate_choice")
            if len(self.wrongs) > before:
                return

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
        """A picture's bytes; their number is checked before they are decoded."""
        most = self.limits.picture_bytes
        if (size := len(text) * 3 // 4 - text.count("=", -2 if len(text) > 1 else 0)) > most:
            found = f"a picture of {size:,} bytes; expected at most {most:,}: send a smaller one"
            self.add(param, found, "picture_too_large", 413)
            return b""
        try:
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
        """The picture of a data URL, or one that is to be fetched."""
        if data := DATA_URL.match(url):
            return self.base64(param, url[data.end() :])
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
