"""Tables as the commands read them: their notices and problems are printed, or raised."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from scoring.errors import InputError, Problem, describe
from scoring.terminal.options import TableOptions
from scoring.terminal.progress import Console

if TYPE_CHECKING:
    from scoring.inputs.picture_store import PictureStore
    from scoring.inputs.questions import Question
    from scoring.tables.row_pictures import PictureProgress
    from scoring.tables.table import Table

DEMO_ROWS = 80  # of a benchmark without arguments
T = TypeVar("T")


def read_all_rows(
    console: Console, data: Path, options: TableOptions, deep: bool = False, store: "PictureStore | None" = None
) -> "Table":
    """The table with its faulty rows. deep: decode every picture. store: for those that cells hold; None: the cache."""
    from scoring.inputs.picture_store import PictureStore
    from scoring.inputs.pictures import PictureLimits
    from scoring.tables import reading as tables

    limits = PictureLimits.of(options.picture_pixels, options.picture_bytes)
    table_options = tables.TableOptions(
        images=options.images,
        allow_outside=options.allow_outside,
        columns=column_names(options),
        deep=deep,
        limits=limits,
        encoding=options.encoding,
        answers=options.meaning,
        text_only_rows=options.text_only_rows,
        layout=options.layout,
        split=options.split,
        store=store or PictureStore(),
    )
    return tables.read_table(data, table_options, picture_progress(console))


def column_names(options: TableOptions, config: Path | None = None) -> dict[str, str]:
    """Our name of a column -> the table's: of --column, else of --columns, else of the section [columns] of `config`.

    Raises FileError where a file cannot be read as such names.
    """
    from scoring.tables.column_names import read_column_names

    names = read_column_names(config, section_only=True) if config else {}
    if options.columns_file:
        names |= read_column_names(options.columns_file)
    return names | options.columns


def picture_progress(console: Console) -> "PictureProgress":
    """Shows how many pictures are done, where there are many."""

    def progress(pictures: Iterable[T], total: int | None) -> Iterable[T]:
        return console.count(pictures, total, "picture")

    return progress


def read(console: Console, data: Path, options: TableOptions, deep: bool = False) -> "Table":
    """The table, its notices printed. deep: decode every picture.

    Raises InputError with all its problems. With --skip-bad-rows they are printed instead, if at least one row is good.
    """
    table = read_all_rows(console, data, options, deep)
    tell_notices(console, table)
    if table.problems and not (options.skip_bad_rows and table.good):
        raise InputError(table.problems)
    if table.problems:
        tell_left_out(console, table)
    return table


def mark_for_bases(table: "Table", bases: Iterable[Path]) -> "Table":
    """The table with a problem for each row that one of these bases cannot take. Raises FamilyError."""
    from scoring.inputs.families.registry import family_of
    from scoring.tables.unseen_pictures import mark_unseen

    for base in dict.fromkeys(bases):
        table = mark_unseen(table, family_of(base))
    return table


def for_bases(console: Console, table: "Table", bases: Iterable[Path], skip: bool) -> "Table":
    """The table for these bases, of which some may see no pictures.

    Raises InputError with all rows that have pictures, where a base sees none. skip: they are printed instead and left
    out, if at least one row has none. Raises FamilyError for a base of no known family.
    """
    known = len(table.problems)
    table = mark_for_bases(table, bases)
    if not (unseen := table.problems[known:]):
        return table
    if not (skip and table.good):
        raise InputError(unseen)
    console.say(describe(unseen))
    console.say(f"going on without {len(unseen):,} of {len(table.questions):,} rows, which have pictures")
    return table


def tell_notices(console: Console, table: "Table") -> None:
    """Print what a table was read as, if that is not as usual, and what may be a mistake in it."""
    if not table.is_usual:
        console.say(f"{table.file}: read as {table.reading()}")
    for notice in table.notices:
        console.say(notice)


def tell_left_out(console: Console, table: "Table") -> None:
    """Print what is wrong with faulty rows, and how many there are."""
    console.say(describe(table.problems))
    count = len(table.questions)
    console.say(f"going on without {count - len(table.good):,} of {count:,} rows")


def answered(table: "Table") -> "list[Question]":
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


def or_demo(data: Path | None, ckpt: str | None, limit: int | None) -> tuple[Path, str, int | None]:
    """(table, checkpoint, rows) of a benchmark: those of the repository's demo where no table is named.

    rows: the most to use; None for all. Raises click.UsageError where there is no demo, or a table without checkpoint.
    """
    if data is not None:
        if ckpt is None:
            raise click.UsageError("name the checkpoint with --ckpt")
        return data, ckpt, limit
    demo = Path(__file__).resolve().parents[2] / "demo"
    if not (demo / "test.csv").exists():
        raise click.UsageError(
            "the demo is not installed with the package; run bench from a clone, or give DATA and --ckpt"
        )
    return demo / "test.csv", ckpt or str(demo / "checkpoints" / "fold0"), limit or DEMO_ROWS
