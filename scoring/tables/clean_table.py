"""The good rows of a table, whatever its format and columns, as a CSV in our own: what `check --write` leaves."""

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from scoring.files.reading import FileError
from scoring.files.writing import columns_as_csv, write_text, write_whole
from scoring.inputs.digests import picture_digest, picture_key
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import Picture, PictureLimits, open_picture, read_picture
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.tables.answer_reading import AnswerError, read_answer
from scoring.tables.overview import picture_folder
from scoring.tables.table import Table

CHECKED = PictureLimits(sys.maxsize, sys.maxsize)  # for pictures that were checked when the table was read
WAYS_TO_ANSWER = ("{0}", "({0})", "[{0}]", "{0}.", "{0})", "Answer: {0}", "{0}. {1}")  # by letter, and text


def write_clean(table: Table, path: Path) -> list[str]:
    """Write the rows without a fault to `path`, so that reading it gives the same questions. Returns notices.

    Its columns are id, path, question, a, b, …, answer, task_type and task_hint; answers are letters. Pictures are
    named relative to the file's own folder if they are all inside it, else to the folder of the table's pictures; a
    notice says how to read it then. Pictures that the table or a program holds become files in a folder beside `path`.
    A file that holds just this stays as it is. Raises FileError where it holds something else, and where no row is
    good.
    """
    rows = table.good
    if not rows:
        raise FileError(f"{table.file}: found no row without a fault; expected at least one to write to {path}")
    held = _files_of_held(rows, path)
    files = [[_file_of(picture, held) for picture in row.pictures] for row in rows]
    cells, notices = _picture_cells(table, files, path)
    columns = {"id": [row.id for row in rows], "path": cells, "question": [_question_cell(row) for row in rows]}
    for place, letter in enumerate(LETTERS[: max(len(row.options) for row in rows)]):
        columns[letter] = [row.options[place] if place < len(row.options) else "" for row in rows]
    columns["answer"] = [_answer_cell(row) for row in rows]
    columns["task_type"] = [row.task_type for row in rows]
    columns["task_hint"] = [row.task_hint for row in rows]
    text = columns_as_csv(columns)
    if path.exists():
        if not (path.is_file() and path.read_bytes() == text.encode()):
            raise FileError(f"{path} exists and holds something else; choose another name for --write, or remove it")
        return notices
    path.parent.mkdir(parents=True, exist_ok=True)
    for picture in _held(rows):
        file = held[picture_key(picture)]
        file.parent.mkdir(exist_ok=True)
        write_whole(file, partial(_copy, picture))
    write_text(path, text)
    return notices


def _held(rows: Sequence[Question]) -> list[Picture]:
    """The pictures without a file of their own, each once: that the table holds, or a program."""
    store = PictureStore()
    pictures = {picture_key(picture): picture for row in rows for picture in row.pictures}
    return [picture for picture in pictures.values() if not isinstance(picture, Path) or store.digest_of(picture)]


def _files_of_held(rows: Sequence[Question], path: Path) -> dict[object, Path]:
    """Each of these pictures, by its key -> the file that it gets in a folder beside `path`."""
    folder = path.parent.resolve() / f"{path.stem}_pictures"
    return {picture_key(picture): folder / _file_name(picture) for picture in _held(rows)}


def _file_of(picture: Picture, held: Mapping[object, Path]) -> Path:
    key = picture_key(picture)
    return picture if isinstance(picture, Path) and key not in held else held[key]


def _file_name(picture: Picture) -> str:
    if isinstance(picture, Path):
        return picture.name
    if isinstance(picture, bytes):
        with open_picture(picture, CHECKED) as opened:
            return PictureStore(keep=False).file_of(picture, opened.format or "").name
    return f"{picture_digest(picture)}.png"


def _copy(picture: Picture, target: BinaryIO) -> None:
    if isinstance(picture, Path):
        with open(picture, "rb") as file:
            shutil.copyfileobj(file, target)
    elif isinstance(picture, bytes):
        target.write(picture)
    else:
        read_picture(picture, CHECKED).save(target, "PNG")


def _picture_cells(table: Table, files: Sequence[list[Path]], path: Path) -> tuple[list[str], list[str]]:
    """(N,) the `path` cell of each row, and what to say of them. files: (N,) those of each row."""
    folder, own = picture_folder(table), path.parent.resolve()
    given = folder.resolve()
    root: Path | None
    if all(file.is_relative_to(own) for names in files for file in names):
        root, notices = own, []
    elif all(file.is_relative_to(given) for names in files for file in names):
        root, notices = given, [f"{path}: its pictures are relative to {folder}; read it with --images {folder}"]
    else:
        root, notices = None, [f"{path}: its pictures are in several folders; read it with --allow-outside"]
    if any(files) and not all(files):
        notices.append(f"{path}: some rows have no picture; read it with --text-only-rows")
    return [_picture_cell(names, root) for names in files], notices


def _picture_cell(files: list[Path], root: Path | None) -> str:
    """A picture's name, a JSON list of several (or of one that looks like a list), or nothing."""
    names = [(file.relative_to(root) if root else file).as_posix() for file in files]
    if len(names) == 1 and names[0][0] not in "[{":
        return names[0]
    return json.dumps(names, ensure_ascii=False) if names else ""


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
