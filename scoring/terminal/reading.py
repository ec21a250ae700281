"""Tables as the commands read them: their notices and problems are printed, or raised."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from scoring.errors import InputError, Problem, describe
from scoring.terminal.errors import BAD_INPUT, SOME_UNSCORED
from scoring.terminal.options import TableOptions
from scoring.terminal.progress import Console

if TYPE_CHECKING:
    from scoring.inputs.questions import Question, Table

DEMO_ROWS = 80  # of a benchmark without arguments
T = TypeVar("T")


def read_all_rows(console: Console, data: Path, options: TableOptions, deep: bool = False) -> "Table":
    """The table with its faulty rows. deep: decode every picture."""
    from scoring.inputs import questions
    from scoring.inputs.pictures import PictureLimits

    def progress(pictures: Iterable[T], total: int) -> Iterable[T]:
        return console.count(pictures, total, "picture")

    limits = PictureLimits.of(options.picture_pixels, options.picture_bytes)
    table_options = questions.TableOptions(
        images=options.images,
        allow_outside=options.allow_outside,
        columns=options.columns,
        deep=deep,
        limits=limits,
        encoding=options.encoding,
        answers=options.meaning,
        text_only_rows=options.text_only_rows,
    )
    return questions.read_table(data, table_options, progress)


def read(console: Console, data: Path, options: TableOptions, deep: bool = False) -> "Table":
    """The table, its notices printed.

    Raises InputError with all its problems. With --skip-bad-rows they are printed instead, if at least one row is good.
    """
    table = read_all_rows(console, data, options, deep)
    if not table.is_usual:
        console.say(f"{table.file}: read as {table.reading()}")
    for notice in table.notices:
        console.say(notice)
    if table.problems and not (options.skip_bad_rows and table.good):
        raise InputError(table.problems)
    if table.problems:
        console.say(describe(table.problems))
        count = len(table.questions)
        console.say(f"going on without {count - len(table.good):,} of {count:,} rows")
    return table


def check_as_json(console: Console, data: Path, options: TableOptions, deep: bool) -> int:
    """Print the result of `check` as JSON on stdout; return the exit code."""
    report: dict[str, Any] = {
        "file": str(data),
        "readable": True,
        "rows": 0,
        "good": 0,
        "options": 0,
        "pictures": 0,
        "answers": 0,
    }
    try:
        table = read_all_rows(console, data, options, deep)
        report |= {
            "rows": len(table.questions),
            "good": len(table.good),
            "options": len(table.letters),
            "pictures": len({picture for question in table.good for picture in question.pictures}),
            "answers": sum(bool(question.answer) for question in table.good),
            "format": table.format,
            "layout": table.layout,
            "columns": table.columns,
            "reading": table.answers,
            "notices": table.notices,
        }
        problems = table.problems
    except InputError as error:
        report |= {"readable": False, "notices": []}
        problems = error.problems
    code = 0
    if problems:
        code = SOME_UNSCORED if options.skip_bad_rows and report["good"] else BAD_INPUT
    report |= {"problems": [asdict(problem) for problem in problems], "exit": code}
    click.echo(json.dumps(report, ensure_ascii=False, indent=1))
    return code


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
