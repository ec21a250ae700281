"""What a call goes on with of a table: its good rows, where the others may be left out, and what is told of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from scoring.errors import InputError, Problem, counted, describe
from scoring.inputs.questions import Question
from scoring.messages import Say
from scoring.tables.large import LargeTable
from scoring.tables.table import Table

T = TypeVar("T", bound=Table | LargeTable)


def usable(table: T, skip: bool, say: Say) -> T:
    """The table, its notices told. Raises InputError with all its problems.

    skip: they are told instead, if at least one row is good.
    """
    tell_notices(table, say)
    if table.problems and not (skip and table.good_count):
        raise InputError(table.problems)
    if table.problems:
        tell_left_out(table, say)
    return table


def mark_for_bases(table: Table, bases: Iterable[Path]) -> Table:
    """The table with a problem for each row that one of these bases cannot take. Raises FamilyError."""
    from scoring.inputs.families.registry import family_of  # imported late: a check without bases needs none of it
    from scoring.tables.unseen_pictures import mark_unseen

    for base in dict.fromkeys(bases):
        table = mark_unseen(table, family_of(base))
    return table


def for_bases(table: Table, bases: Iterable[Path], skip: bool, say: Say) -> Table:
    """The table for these bases, of which some may see no pictures.

    Raises InputError with all rows that have pictures, where a base sees none. skip: they are told instead and left
    out, if at least one row has none. Raises FamilyError for a base of no known family.
    """
    known = len(table.problems)
    table = mark_for_bases(table, bases)
    if not (unseen := table.problems[known:]):
        return table
    if not (skip and table.good):
        raise InputError(unseen)
    say(describe(unseen))
    say(f"going on without {len(unseen):,} of {len(table.questions):,} rows, which have pictures")
    return table


def check_for_bases(table: LargeTable, bases: Iterable[Path], skip: bool, say: Say) -> None:
    """The same for a table that is read by ranges, whose rows are marked when they are read."""
    from scoring.inputs.families.registry import family_of

    blind = [family for base in dict.fromkeys(bases) if not (family := family_of(base)).sees_pictures]
    count, good = table.counts.good_with_pictures, table.good_count
    if not blind or not count:
        return
    found = f"pictures in {counted(count, 'row')} of {good:,}, which a {blind[0].name} base does not see"
    if not skip or count == good:
        fix = "name a base that sees pictures, or leave the column out"
        raise InputError([Problem(str(table.file), 0, 0, "", "path", found, "questions in words alone", fix)])
    say(f"{table.file}: {found}; going on without them")


def answered(table: Table) -> list[Question]:
    """The good rows of a table. Raises InputError where one has no answer."""
    missing = [
        Problem(
            file=str(table.file),
            row=question.row,
            line=0,
            id=question.id,
            column="answer",
            found="no answer",
            expected="the letter of the right option",
            fix="fill it in, or drop the row",
        )
        for question in table.good
        if not question.answer
    ]
    if missing:
        raise InputError(missing)
    return table.good


def tell_notices(table: Table | LargeTable, say: Say) -> None:
    """Tell what a table was read as, if that is not as usual, and what may be a mistake in it."""
    if not table.is_usual:
        say(f"{table.file}: read as {table.reading()}")
    for notice in table.notices:
        say(notice)


def tell_left_out(table: Table | LargeTable, say: Say) -> None:
    """Tell what is wrong with faulty rows, and how many there are."""
    say(describe(table.problems))
    say(f"going on without {table.count - table.good_count:,} of {table.count:,} rows")
