"""The shapes of bodies: objects with known fields, in pydantic's types, and what is wrong with one in words of JSON."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    StrictBool,
    StrictStr,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from scoring.errors import quoted
from scoring.serving.request import Wrong, refuse

MOST_ITEMS = 10_000  # of a list of messages or parts
MOST_FIELDS = 100  # of an object whose fields are known
UNKNOWN = "unknown: "  # begins the type of error of a union, and the field that chooses ends it

Model = TypeVar("Model", bound=BaseModel)


class Fields(BaseModel):
    """An object with known fields: another is an error. Values are of the types that are said, never converted."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _object_of_few_fields(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            needed = [name for name, field in cls.model_fields.items() if field.is_required()]
            fields = f"with {' and '.join(needed)}" if needed else f"that may have {' and '.join(cls.model_fields)}"
            raise PydanticCustomError("no_object", "an object {fields}", {"fields": fields})
        if len(value) > MOST_FIELDS:
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


def not_supported(instead: str) -> Any:
    """The type of a field that other servers have: absent, null or false. instead: what to do."""

    def check(value: Any) -> None:
        if value is not None and value is not False:
            raise PydanticCustomError("not_supported", "not supported: {instead}", {"instead": instead})

    return Annotated[None, BeforeValidator(check)]


class RequestFields(Fields):
    """What the requests of both interfaces have."""

    model: StrictStr
    orders: Any = None
    members: StrictBool | None = None
    user: Any = None
    metadata: Any = None
    store: not_supported("no answer is kept here; leave it out") = None  # type: ignore[valid-type]
    stream: not_supported("an answer comes at once; leave it out") = None  # type: ignore[valid-type]
    previous_response_id: not_supported("no answer is kept here; send the whole input") = None  # type: ignore[valid-type]


class QuestionFields(Fields):
    """What this server adds to the questions of both interfaces."""

    hint: StrictStr | None = None
    task_type: StrictStr | None = None


class FirstFault(FailFast):
    """Tells of the first wrong item of a list alone."""

    __hash__ = object.__hash__  # a member of a union needs one


def kinds(models: Mapping[str, Any], field: str = "type", default: str = "") -> Any:
    """The type of an object that one of its fields chooses. default: where it lacks the field."""

    def kind_of(value: Any) -> str:
        found = value.get(field, default) if isinstance(value, dict) else getattr(value, field, None)
        return found if isinstance(found, str) else ""

    return chosen(kind_of, models, field)


def chosen(kind_of: Callable[[Any], Any], models: Mapping[str, Any], field: str = "") -> Any:
    """A union in which `kind_of` chooses by name, so that errors are those of one type alone. field: which it reads."""
    names = {name: f"({name})" for name in models}
    union: Any = None
    for name, model in models.items():
        member = Annotated[model, Tag(names[name])]  # type: ignore[valid-type]
        union = member if union is None else union | member
    choose = Discriminator(
        lambda value: names.get(kind_of(value), "(none)"),
        custom_error_type=f"{UNKNOWN}{field}",
        custom_error_message=_either(list(models)),
    )
    return Annotated[union, choose]


def text_or(others: Any, name: str = "a list of parts") -> Any:
    """A text, or a type of lists."""
    names: dict[type, str] = {str: "a text", list: name}
    return chosen(lambda value: names.get(type(value), ""), {"a text": StrictStr, name: others})


def validated(model: type[Model], body: object, wrongs: list[Wrong]) -> Model:
    """The body as a model, without fields that it need not have: `wrongs` gets those, so that the rest can be checked.

    Raises RequestError with all that does not fit.
    """
    if not isinstance(body, dict):
        refuse([Wrong("", f"the body is {described(body)}; expected a JSON object", "invalid_type")])
        raise AssertionError("refuse raises")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    wrongs += map(_wrong, errors)
    if len(errors) <= MOST_FIELDS:
        rest = _without(body, [error["loc"] for error in errors if _is_needless(error)])
        if not isinstance(rest.get("model"), str):
            rest["model"] = ""
        with suppress(ValidationError):
            return model.model_validate(rest)
    refuse(wrongs)
    raise AssertionError("refuse raises")


def _is_needless(error: ErrorDetails) -> bool:
    """Whether the rest of a body can be checked without the field that is wrong."""
    if error["type"] in ("string_type", "bool_type"):
        return error["loc"][-1] in ("members", "name", "description", "hint", "task_type")
    return error["type"] in ("extra_forbidden", "not_supported")


def _without(body: dict[str, Any], places: Sequence[tuple[str | int, ...]]) -> dict[str, Any]:
    """The body without the fields at these places; what leads to them is copied."""
    whole = dict(body)
    for *steps, last in places:
        holder: Any = whole
        for step in steps:
            is_there = isinstance(step, int) if isinstance(holder, list) else step in holder
            if is_there and isinstance(inner := holder[step], dict | list):  # else the step is the name of a kind
                holder[step] = holder = inner.copy()
        if isinstance(holder, dict):
            holder.pop(last, None)
    return whole


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
    if kind == "not_supported":
        return Wrong(param, error["msg"], "unsupported_parameter")
    if kind in ("too_many_items", "too_many_fields"):
        return Wrong(param, error["msg"], "too_many_items" if kind == "too_many_items" else "invalid_type")
    found, expected = described(given := error["input"]), _expected(error, param)
    if field := kind.removeprefix(UNKNOWN) if (is_unknown := kind.startswith(UNKNOWN)) else "":
        if isinstance(given, dict):
            found = f"{field} {described(given[field])}" if field in given else f"no {field}"
        else:
            expected = f"an object with the {field} {expected}"
    return Wrong(param, f"found {found}; expected {expected}", "invalid_value" if is_unknown else "invalid_type")


def _expected(error: ErrorDetails, param: str) -> str:
    """What a field is to hold, in words of JSON."""
    name = param.rpartition(".")[2]
    of_name = "" if name.endswith("]") else f" of {name}"
    words: dict[str, str] = {
        "string_type": "a text",
        "bool_type": "true or false",
        "list_type": f"a list{of_name}",
        "dict_type": f"an object{of_name}, each under its name",
        "literal_error": error.get("ctx", {}).get("expected", "another value"),
    }
    if error["type"] == "no_object" or error["type"].startswith(UNKNOWN):
        return str(error["msg"])
    return words.get(error["type"], "another value")


def _either(names: Sequence[str]) -> str:
    """A list in words."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def described(value: object) -> str:
    """A value of JSON in a message: itself where it is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float) or isinstance(value, int) and value.bit_length() < 64:
        return repr(value)
    if isinstance(value, int):
        return "a long number"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__
