"""Small JSON files, from anyone: an object, with fields of the right kind, or an error that names file and field."""

import json
from pathlib import Path
from typing import TypeVar

from scoring.errors import UserError

T = TypeVar("T")


class FileError(UserError):
    """A file that does not hold what it should; the message says which file, what was found and what was expected."""


def read_json(path: Path) -> dict | None:
    """The object in a file; None where there is no file. Raises FileError where it holds something else."""
    if not path.exists():
        return None
    if path.is_dir():
        raise FileError(f"{path}: found a folder; expected a file with a JSON object")
    try:
        found = json.loads(path.read_text("utf-8"))
        if isinstance(found, dict):
            return found
        problem = f"a {type(found).__name__}"
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        problem = str(error)
    raise FileError(f"{path}: found {problem}; expected a JSON object; the file is damaged")


def read_object(kind: type[T], path: Path) -> T | None:
    """The dataclass that a file holds, see `as_object`; None where there is no file."""
    values = read_json(path)
    return None if values is None else as_object(kind, values, path)


def as_object(kind: type[T], values: dict, source: object) -> T:
    """A dataclass made of the object `values`, which was read from `source`. Keys that it does not know are left out.

    Raises FileError where a value is not of its field's type, or not what the dataclass's own checks want: all at once.
    """
    from pydantic import TypeAdapter, ValidationError  # here: who reads no file does not wait for it

    try:
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)  # of JSON, objects make dataclasses
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False):
            place = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "value_error":  # of the dataclass's own checks
                faults.append(str(fault["ctx"]["error"]))
            elif fault["type"] == "missing":
                faults.append(f"found no {place}; expected one")
            else:
                found = repr(fault["input"])
                found = found if len(found) <= 60 else found[:60] + "…"
                faults.append(f"{place} is {found}; expected {fault['msg'].removeprefix('Input should be ')}")
    raise FileError(f"{source}: {'; '.join(faults)}; the file is damaged, or was made for something else") from None
