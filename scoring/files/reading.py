"""Small JSON files from anyone: an object with fields of the right type, or an error that names file and field."""

import json
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from scoring.errors import ScoringError

T = TypeVar("T")
LONGEST_VALUE = 60  # characters of a wrong value in a message


class FileError(ScoringError):
    """A file that does not hold what it should; the message says which file, what was found and what was expected."""


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None if there is no file. Raises FileError if it holds something else."""
    if not path.exists():
        return None
    if path.is_dir():
        raise FileError(f"{path}: found a folder; expected a file with a JSON object")
    try:
        value = json.loads(path.read_text("utf-8"))
        if isinstance(value, dict):
            return value
        problem = f"a {type(value).__name__}"
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        problem = str(error)
    raise FileError(f"{path}: found {problem}; expected a JSON object; the file is damaged")


def read_object(kind: type[T], path: Path) -> T | None:
    """The dataclass that a file holds, see `as_object`; None if there is no file."""
    values = read_json(path)
    return None if values is None else as_object(kind, values, path)


def as_object(kind: type[T], values: dict[str, Any], source: object) -> T:
    """A dataclass made of the object `values`, which was read from `source`. Unknown keys are ignored.

    Raises FileError, with all faults at once, if a value has another type than its field or fails the dataclass's own
    checks.
    """
    from pydantic import ValidationError  # imported late: callers that read no file need not wait for it

    validator = validator_of(kind)  # type: ignore[arg-type]  # mypy takes type[T] for unhashable
    try:
        # As JSON, since only there nested objects become dataclasses.
        result: T = validator.validate_json(json.dumps(values), strict=True)
        return result
    except ValidationError as error:
        faults = []
        for details in error.errors(include_url=False):
            name = ".".join(map(str, details["loc"]))
            if details["type"] == "value_error":  # raised by the dataclass's own checks
                faults.append(str(details["ctx"]["error"]))
            elif details["type"] == "missing":
                faults.append(f"found no {name}; expected one")
            else:
                value = repr(details["input"])
                value = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…"
                faults.append(f"{name} is {value}; expected {details['msg'].removeprefix('Input should be ')}")
    raise FileError(f"{source}: {'; '.join(faults)}; the file is damaged, or was made for something else") from None


@cache
def validator_of(kind: type[Any]) -> Any:
    """pydantic's validator of a dataclass. Making it takes longer than to use it on a small file."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
