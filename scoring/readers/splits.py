"""The rows of one split of a table that tells each row's split in a column."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scoring.errors import first_of, quoted
from scoring.readers.records import Records, Row, as_text, normalized, table_fault

COLUMN = "split"
NAMED = 1_000  # splits that are remembered for a message


@dataclass(frozen=True)
class SplitTable:
    """The rows of `table` whose cell in the column `split` is `split`; they keep their numbers.

    Its digest is that of the table and the split: tables of two splits are two tables.
    """

    table: Records
    split: str
    column: int

    @property
    def file(self) -> Path:
        return self.table.file

    @property
    def files(self) -> list[Path]:
        return self.table.files

    @property
    def format(self) -> str:
        return f"{self.table.format}, rows of the split {quoted(self.split)}"

    @property
    def header(self) -> list[str]:
        return self.table.header

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.table.digest}\n{self.split}".encode()).hexdigest()

    @property
    def notices(self) -> list[str]:
        return self.table.notices

    @property
    def count(self) -> int | None:
        return None

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        """Raises InputError at the end if no row is of the split, which a reading from the first row alone can tell.

        Rows that do not fit the header are passed on. after: a number in the whole table.
        """
        others: dict[str, None] = {}
        found = False
        for row in self.table.rows(without, after):
            if len(row.cells) != len(self.header):
                yield row
                continue
            split = as_text(row.cells[self.column]).strip()
            if split == self.split:
                found = True
                yield row
            elif len(others) < NAMED:
                others[split] = None
        if not found and not after:
            names = first_of(map(quoted, others)) or "no rows"
            raise table_fault(
                self.file,
                f"no row of the split {quoted(self.split)}; the splits are {names}",
                "one of them",
                "correct --split",
            )

    def place_of(self, number: int) -> tuple[Path, int]:
        return self.table.place_of(number)


def rows_of_split(table: Records, split: str) -> SplitTable:
    """Raises InputError if the table has no column `split`."""
    names = normalized(table.header)
    if COLUMN not in names:
        raise table_fault(
            table.file,
            f"no column {COLUMN!r} among {first_of(map(quoted, table.header), 30)}",
            f"a column that tells each row's split, since --split {split} is given",
            "leave --split out, or add the column",
        )
    return SplitTable(table, split, names.index(COLUMN))
