"""What every reader makes of a file: the names of its columns, and its rows."""

import json
import math
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from scoring.errors import InputError, Problem


class Row(NamedTuple):
    """One row of a table.

    number: from 1, without a header. line: where the row begins in a file of text, from 1; 0 where there are no lines.
    cells: a value for each column, as the file has it: text, or a number, list and so on where the format has types.
    """

    number: int
    line: int
    cells: list[Any]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectCell:
    """A cell of rows in memory that is no plain value, such as an opened picture."""

    value: Any

    def __str__(self) -> str:
        """What it is, for messages."""
        kind = type(self.value)
        package = f"{kind.__module__.split('.')[0]}.".removeprefix("builtins.")
        return f"<{package}{kind.__qualname__}>"


class Records(Protocol):
    """A table that is open for reading.

    file: or the folder of a table in several files. files: that hold the rows. format: in words, such as `CSV` or
    `Parquet`. header: the columns' names. digest: SHA-256 of the bytes, unpacked. notices: what had to be guessed.
    count: of the rows; None where only reading them tells it.
    """

    @property
    def file(self) -> Path: ...
    @property
    def files(self) -> list[Path]: ...
    @property
    def format(self) -> str: ...
    @property
    def header(self) -> list[str]: ...
    @property
    def digest(self) -> str: ...
    @property
    def notices(self) -> list[str]: ...
    @property
    def count(self) -> int | None: ...

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        """Every row, from the first, on each call. Raises InputError where the file is broken.

        without: columns that the caller does not need; where leaving them out saves reading, their cells are None.
        after: leave out the rows up to this number; the others keep their numbers. Where the format allows it, what is
        left out is not read.
        """
        ...

    def place_of(self, number: int) -> tuple[Path, int]:
        """The file that holds the row of this number, and the row's number in it."""
        ...


class OneFile:
    """The places of a table's rows that are all in one file."""

    file: Path

    @property
    def files(self) -> list[Path]:
        return [self.file]

    def place_of(self, number: int) -> tuple[Path, int]:
        return self.file, number


def visible(name: str) -> str:
    """A column's name without characters that cannot be seen, such as byte order marks."""
    return "".join(sign for sign in name if unicodedata.category(sign) != "Cf")


def normalized(names: Iterable[str]) -> list[str]:
    """Names of columns in the form in which they are compared."""
    return [unicodedata.normalize("NFKC", visible(name)).strip().strip('"').casefold() for name in names]


def as_text(value: Any) -> str:
    """A cell as text; "" for a missing one (None or NaN). Text stays as written; lists and objects become JSON."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool | list | dict):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value)


def table_fault(file: Path, found: str, expected: str, fix: str) -> InputError:
    """An error with one problem that concerns the whole table."""
    return InputError([Problem(str(file), 0, 0, "", "", found, expected, fix)])
