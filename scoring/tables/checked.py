"""What a check finds: of each table its problems and what it holds, of several what they share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scoring.errors import InputError, Problem
from scoring.tables.overview import Overlap, TableOverview, overview
from scoring.tables.row_pictures import PictureProgress
from scoring.tables.table import Table
from scoring.tables.usable import mark_for_bases


@dataclass(frozen=True)
class CheckedTable:
    """A table that was checked.

    table: with its faulty rows; None where it cannot be read. problems: everything that is wrong. overview: how its
    answers are spread, and what occurs twice; None where no row is good.
    """

    file: Path
    table: Table | None
    problems: list[Problem]
    overview: TableOverview | None = None

    @property
    def usable(self) -> list[Table]:
        """The table, if a row of it is good."""
        return [self.table] if self.table and self.table.good else []

    @property
    def notices(self) -> list[str]:
        """What is allowed, but may be a mistake."""
        return self.table.notices if self.table else []


@dataclass(frozen=True)
class Checked:
    """Tables that were checked, in their order. overlaps: what each usable one shares with each later one."""

    tables: list[CheckedTable]
    overlaps: list[Overlap] = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        """Those of all tables; empty where every row is good."""
        return [problem for table in self.tables for problem in table.problems]

    @property
    def notices(self) -> list[str]:
        """Those of all tables."""
        return [notice for table in self.tables for notice in table.notices]


def check_table(file: Path, read: Callable[[], Table], bases: Sequence[Path] = ()) -> CheckedTable:
    """What is wrong with a table, which `read` reads with its faulty rows. bases: that are to answer it.

    Raises FamilyError for a base of no known family.
    """
    try:
        table = mark_for_bases(read(), bases)
    except InputError as error:
        return CheckedTable(file, None, error.problems)
    return CheckedTable(file, table, table.problems)


def compare(checked: Sequence[CheckedTable], progress: PictureProgress | None = None) -> Checked:
    """The tables with their overviews, and what they share."""
    found = overview([table for each in checked for table in each.usable], progress)
    counted = iter(found.tables)
    tables = [replace(each, overview=next(counted)) if each.usable else each for each in checked]
    return Checked(tables, found.overlaps)
