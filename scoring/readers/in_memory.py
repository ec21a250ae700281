"""Rows that a program holds, as dicts or as a DataFrame: the same cells as a file of these rows would have.

Cells that are no plain values, such as opened pictures, stay what they are, each in an `ObjectCell`.
"""

import datetime
import numbers
import os
import sys
import uuid
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scoring.errors import quoted
from scoring.readers.records import ObjectCell, OneFile, Row, table_fault

PLAIN = (str, bytes, bool, numbers.Number, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, set, frozenset)


@dataclass(frozen=True)
class MemoryTable(OneFile):
    """A table of rows in memory. file: what messages call it. digest: "", since there are no bytes."""

    file: Path
    format: str
    header: list[str]
    items: list[Row]
    notices: list[str] = field(default_factory=list)
    digest: str = ""

    @property
    def count(self) -> int:
        return len(self.items)

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        return islice(self.items, bisect_right(self.items, after, key=lambda row: row.number), None)


def table_of_dicts(rows: Iterable[tuple[int, Mapping[Any, Any]]], name: str) -> MemoryTable:
    """(number, row) each -> a table; its columns are all keys, in the order in which they first occur.

    Raises InputError for keys that are no texts.
    """
    listed = list(rows)
    header = list(dict.fromkeys(key for _, row in listed for key in row))
    _check_names(header, name)
    cells = _Cells()
    return MemoryTable(
        Path(name), name, header, [Row(number, 0, [cells.of(row.get(key)) for key in header]) for number, row in listed]
    )


def table_of_frame(frame: Any, name: str) -> MemoryTable:
    """A pandas DataFrame -> a table. An index with a name is a column, as in the files that pandas writes.

    Raises InputError for columns whose names are no texts, or the same.
    """
    names = [index for index in frame.index.names if index is not None]
    if names and not {*names} & {*frame.columns}:
        frame = frame.reset_index()
    header = list(frame.columns)
    _check_names(header, name)
    if len(set(header)) < len(header):
        twice = next(column for column in header if header.count(column) > 1)
        found = f"two columns {quoted(twice)}"
        raise table_fault(Path(name), found, "columns with different names", "rename one of them")
    cells = _Cells()
    rows = enumerate(frame.itertuples(index=False, name=None), 1)
    return MemoryTable(Path(name), name, header, [Row(number, 0, [*map(cells.of, row)]) for number, row in rows])


def _check_names(header: list[Any], name: str) -> None:
    for column in header:
        if not isinstance(column, str):
            found = f"a column named {column!r}, {type(column).__name__}"
            raise table_fault(Path(name), found, "columns whose names are texts", "rename it")


class _Cells:
    """Makes cells of values. An object that occurs in several cells is one object, so that a picture is read once."""

    def __init__(self) -> None:
        self._objects: dict[int, ObjectCell] = {}

    def of(self, value: Any) -> Any:
        """A plain value as it is, a list or dict of cells, None for a missing value, or an object."""
        if value is None or type(value) in (str, int, float, bytes, bool):
            return value
        if isinstance(value, np.generic):
            return self.of(value.item()) if not isinstance(value, str | bytes) else value
        if isinstance(value, np.ndarray) and value.ndim == 0:
            return self.of(value.item())
        is_list = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype != np.uint8  # which may be bytes
        if is_list or isinstance(value, list | tuple):
            return [self.of(item) for item in value]
        if isinstance(value, Mapping):
            return {str(key): self.of(item) for key, item in value.items()}
        if _is_missing(value):
            return None
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if isinstance(value, PLAIN):
            return value
        return self._objects.setdefault(id(value), ObjectCell(value))


def _is_missing(value: Any) -> bool:
    """Whether this is pandas' NA or NaT."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is pandas.NA or value is pandas.NaT)
