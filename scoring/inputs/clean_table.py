"""The good rows of a table, whatever its format and columns, as a CSV in our own: what `check --write` leaves."""

import json
from collections.abc import Sequence
from pathlib import Path

from scoring.files.reading import FileError
from scoring.files.writing import columns_as_csv, write_text
from scoring.inputs.answer_reading import AnswerError, read_answer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question, Table

WAYS_TO_ANSWER = ("{0}", "({0})", "[{0}]", "{0}.", "{0})", "Answer: {0}", "{0}. {1}")  # by letter, and text


def write_clean(table: Table, path: Path) -> list[str]:
    """Write the rows without a fault to `path`, so that reading it gives the same questions. Returns notices.

    Its columns are id, path, question, a, b, …, answer, task_type and task_hint; answers are letters. Pictures are
    named relative to the file's own folder if they are all inside it, else to the folder of the table's pictures; a
    notice says how to read it then. A file that holds just this stays as it is. Raises FileError where it holds
    something else, and where no row is good.
    """
    rows = table.good
    if not rows:
        raise FileError(f"{table.file}: found no row without a fault; expected at least one to write to {path}")
    pictures, notices = _picture_cells(table, rows, path)
    columns = {"id": [row.id for row in rows], "path": pictures, "question": [_question_cell(row) for row in rows]}
    for place, letter in enumerate(LETTERS[: max(len(row.options) for row in rows)]):
        columns[letter] = [row.options[place] if place < len(row.options) else "" for row in rows]
    columns["answer"] = [_answer_cell(row) for row in rows]
    columns["task_type"] = [row.task_type for row in rows]
    columns["task_hint"] = [row.task_hint for row in rows]
    _write_once(path, columns_as_csv(columns))
    return notices


def _write_once(path: Path, text: str) -> None:
    """Write a file that is not there yet, or holds the same. Raises FileError where it holds something else."""
    if path.exists():
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise FileError(f"{path} exists and holds something else; choose another name for --write, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _picture_cells(table: Table, rows: Sequence[Question], path: Path) -> tuple[list[str], list[str]]:
    """(N,) the `path` cell of each row, and what to say of them."""
    files = [picture for row in rows for picture in row.pictures if isinstance(picture, Path)]
    folder = table.images or table.file.parent
    own, given = path.parent.resolve(), Path(folder).resolve()
    if all(file.is_relative_to(own) for file in files):
        root, notices = own, []
    elif all(file.is_relative_to(given) for file in files):
        root, notices = given, [f"{path}: its pictures are relative to {folder}; read it with --images {folder}"]
    else:
        root, notices = None, [f"{path}: its pictures are in several folders; read it with --allow-outside"]
    cells = [_picture_cell(row, root) for row in rows]
    if files and not all(cells):
        notices.append(f"{path}: some rows have no picture; read it with --text-only-rows")
    return cells, notices


def _picture_cell(row: Question, root: Path | None) -> str:
    """A picture's name, a JSON list of several, or nothing."""
    files = [picture for picture in row.pictures if isinstance(picture, Path)]
    names = [(file.relative_to(root) if root else file).as_posix() for file in files]
    return json.dumps(names, ensure_ascii=False) if len(names) > 1 else "".join(names)


def _question_cell(row: Question) -> str:
    """The question; where its picture says it all, the mark of that, which is left out when it is read."""
    return row.question if row.question.strip() else "<image 1>"


def _answer_cell(row: Question) -> str:
    """The row's letter, in a way that is read as it even where an option's text is the bare letter of another."""
    if not row.answer:
        return ""
    text = row.options[LETTERS.index(row.answer)]
    cells = [way.format(row.answer, text.strip()) for way in WAYS_TO_ANSWER]
    return next((cell for cell in cells if _means(cell, row)), row.answer)


def _means(cell: str, row: Question) -> bool:
    try:
        return read_answer(cell, row.options) == row.answer
    except AnswerError:
        return False
