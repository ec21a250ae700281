"""Rows in whatever form a program holds them -> the `Table` that the rest reads, and one asked question -> `Question`.

Dicts and DataFrames mean what the same columns in a file would. What is wrong with one row is that row's fault.
"""

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from scoring.errors import InputError, Problem, quoted
from scoring.inputs.digests import READERS, picture_digest, picture_key
from scoring.inputs.picture_objects import type_name
from scoring.inputs.pictures import DEFAULT_LIMITS, OR_FOLDER, PictureError, PictureLimits
from scoring.inputs.questions import Question
from scoring.library.checked_questions import SizedPicture, checked
from scoring.library.pictures import sized_picture
from scoring.readers.in_memory import table_of_dicts, table_of_frame
from scoring.readers.records import Records, table_fault
from scoring.readers.splits import rows_of_split
from scoring.tables.layouts import RowFault
from scoring.tables.reading import TableOptions, read_records, read_table
from scoring.tables.row_pictures import PictureReader
from scoring.tables.table import Table

ROWS, FRAME = "rows", "DataFrame"  # what messages call rows without a file
EXPECTED = "a table's path, a DataFrame, or a list of dicts or Questions"
LONGEST_PATH = 4_096  # characters; no system has longer ones
ARGUMENTS = {"task_hint": "hint"}  # a field of `Question` -> the argument of `question_of`, where they differ


def as_table(rows: Any, images: str | Path | None = None, options: TableOptions | None = None) -> Table:
    """The questions of a table's path, a `Table`, a pandas DataFrame, or an iterable of dicts and `Question`s.

    images: the folder that relative paths of pictures are relative to; None: the table's own folder, or the current
    one for rows without a file. Pictures of these may also be in other folders, unless `images` is given. In place of
    a path a cell may hold whatever `as_picture` takes. What is wrong with a row is its `fault`, and in `problems`.
    Raises InputError where the rows as a whole cannot be read: none at all, repeated ids, columns that are no texts.
    """
    if isinstance(rows, Table):
        return rows
    options = options or TableOptions()
    if images is not None:
        options = replace(options, images=images)
    if isinstance(rows, str | os.PathLike):
        return read_table(path_of(os.fspath(rows)), options)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        table = _read(table_of_frame(rows, FRAME), options)
    elif way := next((name for name in ("to_dicts", "to_pylist") if hasattr(rows, name)), ""):
        raise table_fault(Path(ROWS), type_name(rows), EXPECTED, f"give the result of its {way}()")
    elif isinstance(rows, Mapping | bytes | Question) or not isinstance(rows, Iterable):
        fix = "put it into a list" if isinstance(rows, Mapping | Question) else "give the rows in one of these forms"
        raise table_fault(Path(ROWS), type_name(rows), EXPECTED, fix)
    else:
        table = _of_rows(list(rows), options)
    return replace(table, digest=_digest(table.questions))


def table_of(questions: list[Question]) -> Table:
    """Checked questions, such as those of `question_of`, as a table that is not checked again."""
    return Table(Path(ROWS), "", questions, format=ROWS)


def question_of(  # noqa: PLR0913 - what a call of `ask` gives
    pictures: object,
    question: str,
    options: Sequence[str],
    *,
    hint: str = "",
    task_type: str = "",
    id: str = "1",
    limits: PictureLimits = DEFAULT_LIMITS,
    wordless: bool = False,
) -> Question:
    """One question that is asked. `<image 2>` in a text is the place of the second picture, as in tables.

    pictures: one of whatever `as_picture` takes, a list or tuple of several, or None. options: 2 to 26 texts.
    limits: of each picture. wordless: the question may be in pictures alone.
    Raises PictureError where only a picture is wrong, else InputError with all that is wrong, by argument.
    """
    given = Question(id, 1, _listed(pictures), question, options, "", task_type, hint, limits=limits)  # type: ignore[arg-type]
    result, faults = checked(given, [_look(value, limits, Path.cwd()) for value in given.pictures])
    if isinstance(question, str) and not question.strip() and given.pictures and not wordless:
        faults.insert(0, RowFault("question", "an empty text", "a question", "fill it in"))
    faults = [fault._replace(fix=fault.fix.replace(OR_FOLDER, "")) for fault in faults]  # a question has no such folder
    if faults and all(fault.column == "pictures" for fault in faults):
        raise PictureError(*faults[0][1:])
    if faults:
        raise InputError([Problem(ARGUMENTS.get(name, name), 0, 0, "", "", *what) for name, *what in faults])
    return result


def path_of(text: str) -> Path:
    """Raises InputError for a text that cannot be a path."""
    if not text.strip() or "\n" in text or "\0" in text or len(text) > LONGEST_PATH:
        found = f"the text {quoted(text)}, which is no path"
        raise table_fault(Path(ROWS), found, EXPECTED, "give the path of the table, or its rows")
    return Path(text)


def _read(records: Records, options: TableOptions) -> Table:
    """The table of rows in memory."""
    if options.split is not None:
        records = rows_of_split(records, options.split)
    root, outside = Path(options.images or Path.cwd()), options.allow_outside or options.images is None
    return read_records(records, options, PictureReader(root, outside, options.limits, options.deep, store=None))


def _of_rows(rows: list[Any], options: TableOptions) -> Table:
    """The table of dicts, Questions, and what is no row at all."""
    if not rows:
        raise table_fault(Path(ROWS), "no rows", EXPECTED, "give at least one row")
    dicts = [(number, row) for number, row in enumerate(rows, 1) if isinstance(row, Mapping)]
    if dicts:
        table = _read(table_of_dicts(dicts, ROWS), options)
    else:
        images = str(Path(options.images).resolve()) if options.images else None
        table = Table(Path(ROWS), "", [], images=images, format=ROWS)
    if len(dicts) == len(rows):
        return table
    questions = {question.row: question for question in table.questions}
    problems = list(table.problems)
    looked = _look_at_pictures([row for row in rows if isinstance(row, Question)], options)
    for number, row in enumerate(rows, 1):
        if isinstance(row, Question):
            pictures = [looked[_key(value, _limits_of(row))] for value in _listed(row.pictures)]
            question, faults = checked(row, pictures)
        elif not isinstance(row, Mapping):
            question, fix = Question("", number, (), "", ()), "correct the row or drop it"
            faults = [RowFault("", type_name(row), "a dict or a Question", fix)]
        else:
            continue
        found = [Problem(ROWS, number, 0, question.id, *fault) for fault in faults]
        questions[number] = replace(question, row=number, fault=question.fault or (found[0].text if found else ""))
        problems += found
    merged = _with_ids([questions[number] for number in sorted(questions)])
    return replace(table, questions=merged, problems=sorted(problems, key=lambda problem: problem.row))


def _with_ids(questions: list[Question]) -> list[Question]:
    """The same; what is no row gets an id that no other has. Raises InputError for repeated ids."""
    row_of: dict[str, int] = {}
    problems = []
    for question in questions:
        if question.id.strip() and (first := row_of.setdefault(question.id, question.row)) != question.row:
            found = f"{quoted(question.id)} again (first in row {first})"
            where = (ROWS, question.row, 0, question.id, "id")
            problems.append(Problem(*where, found, "a unique id for each row", "make the ids unique"))
    if problems:
        raise InputError(problems)
    named = []
    for question in questions:
        name = str(question.row)
        while name in row_of:
            name = f"row {name}"
        named.append(question if question.id.strip() else replace(question, id=name))
    return named


# ------------------------------------------------------------------ pictures of Questions
def _listed(pictures: object) -> tuple[object, ...]:
    """Those of one, several or no picture."""
    if pictures is None:
        return ()
    return tuple(pictures) if isinstance(pictures, list | tuple) else (pictures,)


def _key(value: object, limits: PictureLimits) -> object:
    """What tells a picture from others, in whatever form it is."""
    return value if isinstance(value, str | bytes | Path) else id(value), limits


def _limits_of(question: Question) -> PictureLimits:
    return question.limits if isinstance(question.limits, PictureLimits) else DEFAULT_LIMITS


def _look(value: object, limits: PictureLimits, folder: Path) -> SizedPicture | PictureError:
    try:
        return SizedPicture(*sized_picture(value, limits, folder))
    except PictureError as error:
        return error.alone()


def _look_at_pictures(
    questions: Sequence[Question], options: TableOptions
) -> dict[object, SizedPicture | PictureError]:
    """By `_key`, what is found of each picture; each is looked at once."""
    folder = Path(options.images or Path.cwd())
    values = {
        _key(value, _limits_of(question)): (value, _limits_of(question))
        for question in questions
        for value in _listed(question.pictures)
    }
    with ThreadPoolExecutor(READERS) as threads:
        found = threads.map(lambda item: _look(item[0], item[1], folder), values.values())
        return dict(zip(values, found))


def _digest(questions: Sequence[Question]) -> str:
    """SHA-256 of what the rows ask. Files count by their paths, as in a table; other pictures by their content."""
    held = {
        picture_key(picture): picture
        for question in questions
        for picture in question.pictures
        if not isinstance(picture, Path)
    }
    with ThreadPoolExecutor(READERS) as threads:
        digest_of = dict(zip(held, threads.map(picture_digest, held.values())))
    digest = hashlib.sha256()
    for row in questions:
        pictures = [digest_of.get(picture_key(picture), str(picture_key(picture))) for picture in row.pictures]
        asked = (row.id, row.question, row.options, row.answer, row.task_type, row.task_hint, row.fault)
        digest.update(repr((asked, pictures)).encode())
    return digest.hexdigest()
