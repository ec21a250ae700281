"""A table of questions -> `Question`s, with every problem of the whole table found in one reading.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the reading
untrustworthy: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from scoring.errors import InputError, Problem, shown
from scoring.inputs.pictures import PictureError, locate, open_picture, read_picture, upright_size
from scoring.inputs.prompt import LETTERS
from scoring.inputs.rows import Row, TextTable, normal, open_table, table_fault

LONGEST_CELL = 200_000  # characters; longer than any model's context
_NAMED = ("id", "path", "question", "answer", "task_type", "task_hint")


@dataclass(frozen=True, slots=True)
class Question:
    """One row. `options` in the data's order; `answer` a letter or ""; `fault` what makes it unusable or "".

    `read_table` gives `picture` as a file; a library's caller may give the opened picture instead.
    """

    id: str
    row: int
    picture: Path | Image.Image | None
    question: str
    options: tuple[str, ...]
    answer: str = ""
    task_type: str = ""
    task_hint: str = ""
    fault: str = ""
    size: tuple[int, int] = (0, 0)  # of the upright picture, from its header


@dataclass
class Table:
    """A table as read: all rows, also faulty ones, in the file's order."""

    file: Path
    digest: str  # SHA-256 of the file's bytes
    questions: list[Question]
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # our name -> the file's, where they differ
    images: str | None = None  # the folder of the pictures, where it was named

    def about(self) -> dict:
        """What a result tells of the table it is made of."""
        return {"file": str(self.file), "sha256": self.digest} | ({"columns": self.columns} if self.columns else {})

    @property
    def good(self) -> list[Question]:
        return [question for question in self.questions if not question.fault]

    @property
    def letters(self) -> str:
        """The letters of the table's options: "abcd" for four columns."""
        return LETTERS[: max(len(question.options) for question in self.questions)]


def read_questions(file: str | Path, images: str | Path | None = None, allow_outside: bool = False) -> list[Question]:
    """All questions of a table. Raises InputError, with everything that is wrong, if any row is faulty."""
    table = read_table(file, images, allow_outside)
    if table.problems:
        raise InputError(table.problems)
    return table.questions


def read_table(
    file: str | Path,
    images: str | Path | None = None,
    allow_outside: bool = False,
    deep: bool = False,
    columns: dict[str, str] | None = None,
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> Table:
    """Read a table and look at every picture it names, each once.

    images: the folder that `path` is relative to; default: the table's own.
    deep: decode every pixel instead of the headers alone.
    columns: our name -> the file's, for columns that are called otherwise there.
    progress: wraps the iteration over the pictures, given their number.
    Raises InputError for table faults; row faults are listed in the result.
    """
    file = Path(file)
    text = open_table(file, {*_NAMED, *LETTERS, *normal(list((columns or {}).values()))})
    places = _find_columns(file, text.header, columns or {})
    paths, numbered = _survey(text, places)
    pictures = _look_at_pictures(Path(images) if images else file.parent, paths, allow_outside, deep, progress)
    named = str(Path(images).resolve()) if images else None
    table = Table(file, text.digest, [], notices=text.notices, columns=columns or {}, images=named)
    if numbered:
        table.notices.append(f"{file}: every answer is a number; read as 1 = a, 2 = b and so on")
    for row in text.rows():
        question, problems = _read_row(file, places, row, pictures, numbered)
        table.questions.append(question)
        table.problems += problems
    table.notices += _oddities(file, places, table.questions)
    return table


def read_columns(file: Path, names: Sequence[str], id_column: str = "id") -> dict[str, dict[str, str]]:
    """column -> id -> cell, of any columns of a table. Raises InputError where one is missing."""
    text = open_table(file, {*_NAMED, *LETTERS, *normal(list(names))})
    header = [name.strip() for name in text.header]
    places = dict(zip(normal(header), range(len(header)))) | {name: at for at, name in enumerate(header)}
    if missing := [name for name in names if name not in places]:
        raise table_fault(file, f"columns {', '.join(header)}", f"a column {missing[0]}", "name one of them with --by")
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    at = places.get(id_column.strip().casefold(), places.get(id_column))
    for row in text.rows():
        if len(row.cells) != len(header):
            found_cells, expected = f"{len(row.cells)} cells in line {row.line}", f"{len(header)}, as in the header"
            raise table_fault(file, found_cells, expected, "`check` tells all such rows")
        identity = str(row.number) if at is None else row.cells[at]
        for name in names:
            found[name][identity] = row.cells[places[name]].strip()
    return found


# ------------------------------------------------------------------ the columns
def _find_columns(file: Path, header: list[str], called: dict[str, str]) -> dict[str, int]:
    """Our name of a column -> its place, for the named columns and the options' letters. called: as in `read_table`."""
    names = normal(header)
    problems = []

    def fault(column: str, found: str, expected: str, fix: str) -> None:
        problems.append(Problem(str(file), 0, 0, "", column, found, expected, fix))

    for ours, theirs in called.items():
        if ours not in (*_NAMED, *LETTERS):
            fault(ours, "no such column here", f"one of {', '.join(_NAMED)}, a, b, …", f"correct --column {ours}=…")
        elif normal([theirs])[0] not in names:
            among = ", ".join(map(shown, header))
            fault(ours, f"no column {shown(theirs)} among {among}", "its name", f"correct --column {ours}=…")
    if problems:
        raise InputError(problems)
    ours_of = {normal([theirs])[0]: ours for ours, theirs in called.items()}
    names = [ours_of.get(name, "" if name in called else name) for name in names]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name in (*_NAMED, *LETTERS)]
    for name in repeated:
        fault(name, f"{names.count(name)} columns of that name", "one", "rename or drop the others")
    for name in ("path", "question"):
        if name not in names:
            fault(
                name, f"no such column among {', '.join(map(shown, header))}", f"a column {name!r}", "rename the column"
            )
    options = [letter for letter in LETTERS if letter in names]
    if len(options) < 2 or options != list(LETTERS[: len(options)]):
        fault(
            "a, b, …",
            f"option columns {', '.join(options) or 'none'}",
            "two or more columns a, b, c, …, without a gap",
            "rename the columns with the options",
        )
    if problems:
        raise InputError(problems)
    return {name: names.index(name) for name in (*_NAMED, *options) if name in names}


# ------------------------------------------------------------------ the rows
def _survey(table: TextTable, columns: dict[str, int]) -> tuple[set[str], bool]:
    """All `path` cells, and whether answers are numbers. Raises InputError where rows cannot be told apart."""
    problems: list[Problem] = []
    paths: set[str] = set()
    first_of: dict[str, int] = {}
    letters = [letter for letter in LETTERS if letter in columns]
    numbered = "answer" in columns
    number = answers = 0

    def fault(row: Row, identity: str, column: str, found: str, expected: str, fix: str) -> None:
        problems.append(Problem(str(table.file), row.number, row.line, identity, column, found, expected, fix))

    for row in table.rows():
        number, _, cells = row
        if len(cells) != len(table.header):
            fix = "put quotation marks around cells with separators or line breaks"
            fault(row, "", "", f"{len(cells)} cells", f"{len(table.header)}, as in the header", fix)
            continue
        paths.add(cells[columns["path"]].strip())
        if "id" in columns and (name := cells[columns["id"]]).strip() and first_of.setdefault(name, number) != number:
            found = f"{shown(name)} again (first in row {first_of[name]})"
            fault(row, name, "id", found, "an id for each row alone", "make the ids unique or drop the column")
        if numbered and (answer := cells[columns["answer"]].strip()):
            answers += 1
            is_place = re.fullmatch(r"[1-9]\d?", answer) and int(answer) <= len(letters)
            numbered = bool(is_place) and answer not in {cells[columns[letter]].strip() for letter in letters}
    if problems:
        raise InputError(problems)
    if not number:
        raise table_fault(table.file, "no rows", "a header and at least one row", "check the file")
    return paths - {""}, numbered and answers > 0


def read_answer(cell: str, options: tuple[str, ...], numbered: bool) -> str | None:
    """The letter that an answer cell means; None where it means no option."""
    letters = LETTERS[: len(options)]
    if numbered:
        return letters[int(cell) - 1] if int(cell) <= len(letters) else None
    match = re.fullmatch(r"[(\[]?\s*([A-Za-z])\s*[)\].:]*", cell)
    if match and match[1].lower() in letters:
        return match[1].lower()
    same = [letter for letter, option in zip(letters, options) if option.strip() == cell]
    return same[0] if len(same) == 1 else None


def _look_at_pictures(
    root: Path, cells: set[str], allow_outside: bool, deep: bool, progress
) -> dict[str, tuple | PictureError]:
    """Each distinct `path` cell -> its file and upright size, or what is wrong with it."""

    def look(cell: str) -> tuple[Path, tuple[int, int]] | PictureError:
        try:
            path = locate(root, cell, allow_outside)
            if deep:
                return path, read_picture(path).size
            with open_picture(path) as picture:
                return path, upright_size(picture)
        except PictureError as error:
            return error

    names = sorted(cells)
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(look, names)
        return dict(zip(names, progress(found, len(names)) if progress else found))


def _read_row(
    file: Path, columns: dict[str, int], row: Row, pictures: dict, numbered: bool
) -> tuple[Question, list[Problem]]:
    identity = row.cells[columns["id"]] if "id" in columns else str(row.number)
    problems: list[Problem] = []

    def stripped(name: str) -> str:
        return row.cells[columns[name]].strip() if name in columns else ""

    def fault(column: str, found: str, expected: str, fix: str) -> None:
        problems.append(Problem(str(file), row.number, row.line, identity, column, found, expected, fix))

    doubtful = any(len(cell) > LONGEST_CELL or "\0" in cell for cell in row.cells)
    for name, index in columns.items() if doubtful else ():
        if "\0" in row.cells[index]:
            fault(name, "a NUL character", "text", "remove it")
        elif len(row.cells[index]) > LONGEST_CELL:
            fault(name, f"{len(row.cells[index]):,} characters", f"at most {LONGEST_CELL:,}", "shorten the cell")
    if not identity.strip():
        fault("id", "an empty cell", "an id", "fill it in")
    if not stripped("question"):
        fault("question", "an empty cell", "a question", "fill it in or drop the row")
    picture, size, cell = None, (0, 0), stripped("path")
    if not cell:
        fault("path", "an empty cell", "a picture file", "fill it in or drop the row")
    elif isinstance(pictures[cell], PictureError):
        fault("path", f"{shown(cell)}: {pictures[cell].found}", pictures[cell].expected, pictures[cell].fix)
    else:
        picture, size = pictures[cell]
    cells = [row.cells[columns[letter]] for letter in LETTERS if letter in columns]
    filled = [bool(text.strip()) for text in cells]
    count = sum(filled)
    options = tuple(cells[:count]) if all(filled[:count]) else tuple(cells)
    if not all(filled[:count]):
        fault(
            LETTERS[filled.index(False)],
            "an empty option before a filled one",
            "options without a gap",
            "move them together",
        )
    elif count < 2:
        fault("b", f"{count} options", "at least 2", "fill the options in or drop the row")
    answer = ""
    if cell := stripped("answer"):
        answer = read_answer(cell, options, numbered)
        if answer is None:
            fault(
                "answer",
                shown(cell),
                f"one of {', '.join(LETTERS[: len(options)])} or an option's text",
                "correct the answer",
            )
    question = Question(
        identity,
        row.number,
        picture,
        row.cells[columns["question"]],
        options,
        answer or "",
        sys.intern(stripped("task_type")),
        stripped("task_hint"),
        problems[0].text if problems else "",
        size,
    )
    return question, problems


def _oddities(file: Path, columns: dict[str, int], questions: list[Question]) -> list[str]:
    """What is allowed but worth a look."""
    notices = []
    equal = [
        question.row
        for question in questions
        if len(set(question.options)) < len(question.options) and not question.fault
    ]
    if equal:
        notices.append(f"{file}: {len(equal)} rows have equal options (first: row {equal[0]})")
    unanswered = sum(not question.answer and not question.fault for question in questions)
    if "answer" in columns and 0 < unanswered < len(questions):
        notices.append(f"{file}: {unanswered} of {len(questions)} rows have no answer")
    return notices
