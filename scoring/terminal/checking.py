"""What `check` prints of one table or several: problems, then an overview of what they hold and share."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scoring.errors import counted, describe, first_of, quoted
from scoring.terminal.errors import BAD_INPUT, SOME_UNSCORED
from scoring.terminal.options import TableOptions
from scoring.terminal.progress import Console
from scoring.terminal.reading import picture_progress, read_all_rows

if TYPE_CHECKING:
    from scoring.tables.checked import Checked, CheckedTable
    from scoring.tables.overview import Balance, Overlap, TableOverview
    from scoring.tables.table import Table

NAMED = 5  # rows, pictures or groups of them that a line names
WORST_LAST = (0, SOME_UNSCORED, BAD_INPUT)  # exit codes


@dataclass(frozen=True)
class CheckRequest:
    """reading: how the tables are read. deep: decode every picture. write: where the good rows go; None for nowhere.

    bases: that are to answer.
    """

    reading: TableOptions
    deep: bool
    as_json: bool
    write: Path | None
    bases: Sequence[Path] = ()


def check_tables(console: Console, files: Sequence[Path], request: CheckRequest) -> int:
    """Print all that is to be known of the tables; return the worst of their exit codes.

    Raises FileError where the good rows cannot be written to the file that `request` names.
    """
    if request.write and len(files) > 1:
        raise click.UsageError("--write takes one table; run the command once for each")
    from scoring.inputs.picture_store import PictureStore
    from scoring.tables.checked import check_table, compare

    found: list[CheckedTable] = []
    codes: list[int] = []  # of each by itself
    for file in files:
        store = PictureStore(keep=request.write is not None)
        read = partial(read_all_rows, console, file, request.reading, request.deep, store)
        found.append(check_table(file, read, request.bases))
        codes.append(_exit_code(found[-1], request))
        if not request.as_json:
            _print_checked(console, found[-1], codes[-1])
    code = max(codes, key=WORST_LAST.index)
    checked = compare(found, picture_progress(console))
    if request.as_json:
        click.echo(json.dumps(_report(checked, codes, code), ensure_ascii=False, indent=1))
    else:
        _print_overview(checked)
    if request.write:
        for table in found[0].usable:
            _write(console, table, request.write, request.as_json)
    return code


def _exit_code(checked: "CheckedTable", request: CheckRequest) -> int:
    """The exit code that a table deserves by itself."""
    leaves_out = checked.usable and (request.reading.skip_bad_rows or request.write)
    faulty = SOME_UNSCORED if leaves_out else BAD_INPUT
    return faulty if checked.problems else 0


def _write(console: Console, table: "Table", path: Path, quiet: bool) -> None:
    """Write the good rows. quiet: print notices alone, as stdout holds JSON."""
    from scoring.tables.clean_table import write_clean

    for notice in write_clean(table, path):
        console.say(notice)
    if not quiet:
        click.echo(f"{counted(len(table.good), 'good row')}: {path}")


# ------------------------------------------------------------------ for programs
def _report(checked: "Checked", codes: Sequence[int], code: int) -> dict[str, Any]:
    """That of the one table; of several a list of them, with what they share. codes: the exit code of each."""
    tables = [_table_report(*each) for each in zip(checked.tables, codes)]
    if len(tables) == 1:
        return tables[0]
    return {"tables": tables, "overlaps": [asdict(overlap) for overlap in checked.overlaps], "exit": code}


def _table_report(checked: "CheckedTable", code: int) -> dict[str, Any]:
    table = checked.table
    report: dict[str, Any] = {"file": str(checked.file), "readable": table is not None}
    report |= {"rows": 0, "good": 0, "options": 0, "pictures": 0, "answers": 0}
    if table:
        report |= {
            "rows": len(table.questions),
            "options": len(table.letters),
            "format": table.format,
            "layout": table.layout,
            "own_letters": table.own_letters,
            "split": table.split,
            "columns": table.columns,
            "reading": table.answers,
        }
    report["notices"] = checked.notices
    if counted := checked.overview:
        report |= {"good": counted.good, "pictures": counted.pictures, "answers": counted.balance.answers}
        report |= {"balance": asdict(counted.balance), "copies": counted.copies}
        report |= {"contradictions": counted.contradictions, "same_pictures": counted.same_pictures}
    return report | {"problems": [asdict(problem) for problem in checked.problems], "exit": code}


# ------------------------------------------------------------------ for people
def _print_checked(console: Console, checked: "CheckedTable", code: int) -> None:
    """Notices and problems on stderr; what a table with good rows holds on stdout. code: its exit code."""
    from scoring.tables.usable import tell_left_out, tell_notices

    table = checked.table
    if table:
        tell_notices(table, console.say)
    if code == BAD_INPUT:
        click.echo(f"error: {describe(checked.problems)}", err=True)
    elif table and checked.problems:
        tell_left_out(table, console.say)
    for table in checked.usable:
        if table.is_usual:  # otherwise it is said already
            console.say(f"{checked.file}: read as {table.reading()}")
        pictures = len({picture for question in table.good for picture in question.pictures})
        click.echo(
            f"{checked.file}: {len(table.good):,} good rows, {len(table.letters)} options, {pictures:,} pictures"
            f"{', with answers' if any(question.answer for question in table.good) else ', no answers'}"
        )


def _print_overview(checked: "Checked") -> None:
    tables = [each.overview for each in checked.tables if each.overview]
    several = len(tables) > 1
    notes = [note for table in tables for note in _notes(table, shares_are_shown=several)]
    notes += [note for overlap in checked.overlaps for note in _overlap_notes(overlap)]
    if several:
        from scoring.report.tables import Table, to_text  # imported late: it takes a third of a small check

        click.echo("\n" + to_text(Table("Tables", *_grid(tables), notes=notes)))
    else:
        for note in notes:
            click.echo(note)


def _grid(tables: "Sequence[TableOverview]") -> tuple[list[str], list[list[str]]]:
    """Header and rows: what each table holds, and the share of each letter among its answers."""
    letters = max((list(table.balance.counts) for table in tables), key=len)
    rows = [
        [
            table.file,
            *(f"{count:,}" for count in (table.rows, table.good, table.pictures, table.balance.answers)),
            *(_share(table.balance, letter) for letter in letters),
            f"{table.repeated:,}",
        ]
        for table in tables
    ]
    return ["", "rows", "good", "pictures", "answers", *letters, "copies"], rows


def _share(balance: "Balance", letter: str) -> str:
    return f"{balance.counts[letter] / balance.answers:.1%}" if letter in balance.counts else ""


def _notes(table: "TableOverview", shares_are_shown: bool) -> list[str]:
    """What a table's answers look like, if that is not shown yet or is unusual, and what occurs twice in it."""
    notes = [] if shares_are_shown and not table.balance.is_far_from_even else _balance_notes(table.balance)
    if table.copies:
        rows_ask = "row asks" if table.repeated == 1 else "rows ask"
        same = _named_groups(table.copies)
        notes.append(f"{table.repeated:,} {rows_ask} again what an earlier one asks about the same picture: {same}")
    if table.contradictions:
        count = len(table.contradictions)
        have = "question that is asked again has" if count == 1 else "questions that are asked again have"
        notes.append(f"{count:,} {have} different answers: {_named_groups(table.contradictions)}")
    if table.same_pictures:
        count = len(table.same_pictures)
        have = "picture has" if count == 1 else "pictures have"
        notes.append(f"{count:,} {have} several names: {_named_groups(table.same_pictures)}")
    if not (table.copies or table.same_pictures):
        notes.append("no row and no picture occurs twice")
    return [f"{table.file}: {note}" for note in notes]


def _balance_notes(balance: "Balance") -> list[str]:
    if not balance.answers:
        return []
    shares = ", ".join(f"{letter} {_share(balance, letter)}" for letter in balance.counts)
    if not balance.is_far_from_even:
        return [f"answers: {shares}"]
    return [
        f"answers: {shares}; far from even: chi-square {balance.chi_square:.1f} with {balance.degrees} degrees of "
        f"freedom, p = {balance.p:.1g}, over {balance.tested:,} rows, each with those of as many options"
    ]


def _overlap_notes(overlap: "Overlap") -> list[str]:
    """What a table has of an earlier one, and what that means for a model that was trained on the earlier one."""
    first, second = overlap.first, overlap.second
    if not overlap.picture_rows and not overlap.rows:
        return [f"{first} and {second} share no row and no picture"]
    notes = []
    if count := len(overlap.rows):
        rows_are = "row is" if count == 1 else "rows are"
        notes.append(
            f"{count:,} {rows_are} also in {first}: {first_of(map(quoted, overlap.rows), NAMED)}; a model trained on "
            f"that table has seen {'it' if count == 1 else 'them'}"
        )
    if overlap.pictures:
        pictures_are = "picture is" if overlap.pictures == 1 else "pictures are"
        rows = counted(len(overlap.picture_rows), "row")
        notes.append(
            f"{overlap.pictures:,} {pictures_are} also in {first}, of {rows} here: "
            f"{first_of(map(quoted, overlap.picture_rows), NAMED)}; a model trained on that table has seen "
            f"{'it' if overlap.pictures == 1 else 'them'}"
        )
    return [f"{second}: {note}" for note in notes]


def _named_groups(groups: list[list[str]]) -> str:
    """The first of them, such as 'a' = 'b', 'c' = 'd'."""
    return first_of((" = ".join(map(quoted, group[:NAMED])) for group in groups), NAMED)
