"""A table of questions -> `Question`s, with every problem of the whole table found in one reading.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the whole reading
unreliable: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from PIL import Image

from scoring.errors import InputError, Problem, quoted
from scoring.inputs.pictures import (
    DEFAULT_LIMITS,
    PictureError,
    PictureLimits,
    locate,
    open_picture,
    read_picture,
    upright_size,
)
from scoring.inputs.prompt import LETTERS
from scoring.inputs.rows import Row, TextTable, normalized, open_table, table_fault

LONGEST_CELL = 200_000  # characters; longer than any model's context
READERS = 4  # threads that look at pictures
_NAMED = ("id", "path", "question", "answer", "task_type", "task_hint")
_KNOWN = (*_NAMED, *LETTERS)
_ANSWER = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:]*")  # b, B, (b), b. and so on
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """One row. `options` in the data's order; `answer` a letter or ""; `fault` what makes it unusable or "".

    `read_table` gives `picture` as a file; a caller of the library may give an opened picture instead. `limits`: how
    large the file may be when it is decoded.
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
    limits: PictureLimits = DEFAULT_LIMITS


@dataclass
class Table:
    """A table as read: all rows, also faulty ones, in the file's order."""

    file: Path
    digest: str  # SHA-256 of the file's bytes
    questions: list[Question]
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # our name -> the file's, where they differ
    images: str | None = None  # the folder of the pictures, if one was given

    def about(self) -> dict[str, Any]:
        """What a result records of the table it is made from."""
        return {"file": str(self.file), "sha256": self.digest} | ({"columns": self.columns} if self.columns else {})

    @property
    def good(self) -> list[Question]:
        """The questions without a fault."""
        return [question for question in self.questions if not question.fault]

    @property
    def letters(self) -> str:
        """The letters of the table's options: "abcd" for four columns."""
        return LETTERS[: max(len(question.options) for question in self.questions)]


@dataclass(frozen=True)
class TableOptions:
    """How a table and its pictures are read.

    images: the folder that `path` is relative to; None: the table's own folder.
    allow_outside: accept pictures outside that folder.
    columns: our name of a column -> the file's, for columns that have other names there.
    deep: decode every pixel instead of reading the headers alone.
    limits: how large pictures may be, now and when they are decoded for the model.
    """

    images: str | Path | None = None
    allow_outside: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    deep: bool = False
    limits: PictureLimits = DEFAULT_LIMITS


class PictureProgress(Protocol):
    """Passes items on, and shows how many of `total` are done."""

    def __call__(self, items: Iterable[T], total: int, /) -> Iterable[T]: ...


def read_questions(file: str | Path, images: str | Path | None = None, allow_outside: bool = False) -> list[Question]:
    """All questions of a table. Raises InputError, with everything that is wrong, if any row is faulty.

    images, allow_outside: as in `TableOptions`.
    """
    table = read_table(file, TableOptions(images, allow_outside))
    if table.problems:
        raise InputError(table.problems)
    return table.questions


def read_table(file: str | Path, options: TableOptions | None = None, progress: PictureProgress | None = None) -> Table:
    """Read a table and look at every picture it names, each once.

    Raises InputError for table faults; row faults are listed in the result.
    """
    file, options = Path(file), options or TableOptions()
    text = open_table(file, {*_KNOWN, *normalized(options.columns.values())})
    columns = _find_columns(file, text.header, options.columns)
    paths, numbered = _survey(text, columns)
    layout = _Layout(
        file=file,
        columns=columns,
        options=[columns[letter] for letter in LETTERS if letter in columns],
        pictures=_look_at_pictures(file, paths, options, progress),
        numbered=numbered,
        limits=options.limits,
    )
    questions, problems = [], []
    for row in text.rows():
        reader = _RowReader(layout, row)
        questions.append(reader.question())
        problems += reader.problems
    notices = list(text.notices)
    if numbered:
        notices.append(f"{file}: every answer is a number; read as 1 = a, 2 = b and so on")
    return Table(
        file,
        text.digest,
        questions,
        problems,
        notices + _oddities(file, columns, questions),
        options.columns,
        str(Path(options.images).resolve()) if options.images else None,
    )


def read_columns(file: Path, names: Sequence[str], id_column: str = "id") -> dict[str, dict[str, str]]:
    """column -> id -> cell, of any columns of a table. Raises InputError if one is missing.

    Rows of a table without `id_column` are named by their numbers.
    """
    text = open_table(file, {*_KNOWN, *normalized(names)})
    header = [name.strip() for name in text.header]
    index_of = dict(zip(normalized(header), range(len(header)))) | {name: index for index, name in enumerate(header)}
    if missing := [name for name in names if name not in index_of]:
        raise table_fault(file, f"columns {', '.join(header)}", f"a column {missing[0]}", "name one of them with --by")
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    id_index = index_of.get(id_column.strip().casefold(), index_of.get(id_column))
    for row in text.rows():
        if len(row.cells) != len(header):
            count, expected = f"{len(row.cells)} cells in line {row.line}", f"{len(header)}, as in the header"
            raise table_fault(file, count, expected, "`check` lists all such rows")
        row_id = str(row.number) if id_index is None else row.cells[id_index]
        for name in names:
            cells[name][row_id] = row.cells[index_of[name]].strip()
    return cells


# ------------------------------------------------------------------ the columns
def _find_columns(file: Path, header: list[str], renamed: dict[str, str]) -> dict[str, int]:
    """Our name of a column -> its index, for the named columns and the options' letters.

    renamed: `TableOptions.columns`.
    """
    if problems := _check_renamed(file, header, renamed):
        raise InputError(problems)
    our_name = {normalized([file_name])[0]: name for name, file_name in renamed.items()}
    names = [our_name.get(name, "" if name in renamed else name) for name in normalized(header)]
    if problems := _check_names(file, header, names):
        raise InputError(problems)
    return {name: names.index(name) for name in _KNOWN if name in names}


def _check_renamed(file: Path, header: list[str], renamed: dict[str, str]) -> list[Problem]:
    """What is wrong with the names that columns were said to have."""
    names = normalized(header)
    problems = []
    for name, file_name in renamed.items():
        fix = f"correct --column {name}=…"
        if name not in _KNOWN:
            problems.append(
                _table_problem(file, name, "an unknown column name", f"one of {', '.join(_NAMED)}, a, b, …", fix)
            )
        elif normalized([file_name])[0] not in names:
            columns = ", ".join(map(quoted, header))
            found = f"no column {quoted(file_name)} among {columns}"
            problems.append(_table_problem(file, name, found, "its name", fix))
    return problems


def _check_names(file: Path, header: list[str], names: list[str]) -> list[Problem]:
    """What is wrong with the columns of a table. names: ours for each of the header's."""
    problems = [
        _table_problem(file, name, f"{count} columns of that name", "one", "rename or drop the others")
        for name, count in Counter(names).items()
        if count > 1 and name in _KNOWN
    ]
    columns = ", ".join(map(quoted, header))
    problems += [
        _table_problem(file, name, f"no such column among {columns}", f"a column {name!r}", "rename the column")
        for name in ("path", "question")
        if name not in names
    ]
    options = [letter for letter in LETTERS if letter in names]
    if len(options) < 2 or options != list(LETTERS[: len(options)]):
        problems.append(
            _table_problem(
                file,
                "a, b, …",
                f"option columns {', '.join(options) or 'none'}",
                "two or more columns a, b, c, …, without a gap",
                "rename the columns with the options",
            )
        )
    return problems


def _table_problem(file: Path, column: str, found: str, expected: str, fix: str) -> Problem:
    return Problem(str(file), 0, 0, "", column, found, expected, fix)


# ------------------------------------------------------------------ all rows, before each is read
def _survey(table: TextTable, columns: dict[str, int]) -> tuple[set[str], bool]:
    """All `path` cells, and whether answers are numbers. Raises InputError if rows are ragged or ids are repeated."""
    problems: list[Problem] = []
    paths: set[str] = set()
    first_row: dict[str, int] = {}  # with each id
    letters = [letter for letter in LETTERS if letter in columns]
    numbered = "answer" in columns
    rows = answers = 0
    for row in table.rows():
        rows, cells = row.number, row.cells
        if len(cells) != len(table.header):
            problems.append(_ragged(table, row))
            continue
        paths.add(cells[columns["path"]].strip())
        if "id" in columns and (name := cells[columns["id"]]).strip() and first_row.setdefault(name, rows) != rows:
            problems.append(_repeated(table, row, name, first_row[name]))
        if numbered and (answer := cells[columns["answer"]].strip()):
            answers += 1
            is_number = re.fullmatch(r"[1-9]\d?", answer) and int(answer) <= len(letters)
            numbered = bool(is_number) and answer not in {cells[columns[letter]].strip() for letter in letters}
    if problems:
        raise InputError(problems)
    if not rows:
        raise table_fault(table.file, "no rows", "a header and at least one row", "check the file")
    return paths - {""}, numbered and answers > 0


def _ragged(table: TextTable, row: Row) -> Problem:
    """The problem of a row with more or fewer cells than the header."""
    found, expected = f"{len(row.cells)} cells", f"{len(table.header)}, as in the header"
    fix = "put quotation marks around cells with separators or line breaks"
    return Problem(str(table.file), row.number, row.line, "", "", found, expected, fix)


def _repeated(table: TextTable, row: Row, row_id: str, first: int) -> Problem:
    """The problem of a row whose id the row with the number `first` has already."""
    found = f"{quoted(row_id)} again (first in row {first})"
    fix = "make the ids unique or drop the column"
    return Problem(str(table.file), row.number, row.line, row_id, "id", found, "a unique id for each row", fix)


class _LocatedPicture(NamedTuple):
    path: Path
    size: tuple[int, int]  # upright


def _look_at_pictures(
    file: Path, cells: set[str], options: TableOptions, progress: PictureProgress | None
) -> dict[str, _LocatedPicture | PictureError]:
    """Each distinct `path` cell -> its file and upright size, or what is wrong with it."""
    root = Path(options.images) if options.images else file.parent

    def look(cell: str) -> _LocatedPicture | PictureError:
        try:
            path = locate(root, cell, options.allow_outside)
            if options.deep:
                return _LocatedPicture(path, read_picture(path, options.limits).size)
            with open_picture(path, options.limits) as picture:
                return _LocatedPicture(path, upright_size(picture))
        except PictureError as error:
            return error

    names = sorted(cells)
    with ThreadPoolExecutor(READERS) as threads:
        results = threads.map(look, names)
        return dict(zip(names, progress(results, len(names)) if progress else results))


# ------------------------------------------------------------------ one row
def read_answer(cell: str, options: tuple[str, ...], numbered: bool) -> str | None:
    """The letter that an answer cell means; None if it means no option."""
    letters = LETTERS[: len(options)]
    if numbered:
        return letters[int(cell) - 1] if int(cell) <= len(letters) else None
    match = _ANSWER.fullmatch(cell)
    if match and match[1].lower() in letters:
        return match[1].lower()
    same = [letter for letter, option in zip(letters, options) if option.strip() == cell]
    return same[0] if len(same) == 1 else None


@dataclass(frozen=True)
class _Layout:
    """What is known of a table before its rows are read.

    columns: our name of a column -> its index. options: the indices of the options' columns. pictures: by their `path`
    cells. numbered: whether answers are numbers.
    """

    file: Path
    columns: dict[str, int]
    options: list[int]
    pictures: dict[str, _LocatedPicture | PictureError]
    numbered: bool
    limits: PictureLimits


class _RowReader:
    """Reads one row; `problems` lists what is wrong with it once `question` was called."""

    __slots__ = ("layout", "row", "id", "problems")

    def __init__(self, layout: _Layout, row: Row):
        self.layout, self.row = layout, row
        self.id = row.cells[layout.columns["id"]] if "id" in layout.columns else str(row.number)
        self.problems: list[Problem] = []

    def question(self) -> Question:
        """The row's question, also if it is faulty."""
        self._check_cells()
        picture, size = self._picture()
        options = self._options()
        answer = self._answer(options)
        return Question(
            id=self.id,
            row=self.row.number,
            picture=picture,
            question=self.row.cells[self.layout.columns["question"]],
            options=options,
            answer=answer,
            task_type=sys.intern(self._stripped("task_type")),
            task_hint=self._stripped("task_hint"),
            fault=self.problems[0].text if self.problems else "",
            size=size,
            limits=self.layout.limits,
        )

    def _stripped(self, name: str) -> str:
        """The cell of a column without spaces around it; "" if the table has no such column."""
        columns = self.layout.columns
        return self.row.cells[columns[name]].strip() if name in columns else ""

    def _add_problem(self, column: str, found: str, expected: str, fix: str) -> None:
        file, row = str(self.layout.file), self.row
        self.problems.append(Problem(file, row.number, row.line, self.id, column, found, expected, fix))

    def _check_cells(self) -> None:
        """Cells that no text can be, an empty id, an empty question."""
        if max(map(len, self.row.cells)) > LONGEST_CELL or "\0" in "".join(self.row.cells):
            for name, index in self.layout.columns.items():
                cell = self.row.cells[index]
                if "\0" in cell:
                    self._add_problem(name, "a NUL character", "text", "remove it")
                elif len(cell) > LONGEST_CELL:
                    self._add_problem(
                        name, f"{len(cell):,} characters", f"at most {LONGEST_CELL:,}", "shorten the cell"
                    )
        if not self.id.strip():
            self._add_problem("id", "an empty cell", "an id", "fill it in")
        if not self._stripped("question"):
            self._add_problem("question", "an empty cell", "a question", "fill it in or drop the row")

    def _picture(self) -> tuple[Path | None, tuple[int, int]]:
        """The picture's file and its upright size; None and (0, 0) if it cannot be used."""
        cell = self._stripped("path")
        if not cell:
            self._add_problem("path", "an empty cell", "a picture file", "fill it in or drop the row")
            return None, (0, 0)
        picture = self.layout.pictures[cell]
        if isinstance(picture, PictureError):
            self._add_problem("path", f"{quoted(cell)}: {picture.found}", picture.expected, picture.fix)
            return None, (0, 0)
        return picture

    def _options(self) -> tuple[str, ...]:
        """The options up to the last that is filled in; all cells if an empty one stands between."""
        cells = tuple([self.row.cells[index] for index in self.layout.options])
        filled = [bool(cell.strip()) for cell in cells]
        count = sum(filled)
        if not all(filled[:count]):
            empty = LETTERS[filled.index(False)]
            self._add_problem(
                empty, "an empty option before a filled one", "options without a gap", "move them together"
            )
            return cells
        if count < 2:
            self._add_problem("b", f"{count} options", "at least 2", "fill the options in or drop the row")
        return cells[:count]

    def _answer(self, options: tuple[str, ...]) -> str:
        """The right option's letter; "" if there is none, or none that can be understood."""
        cell = self._stripped("answer")
        if not cell:
            return ""
        letter = read_answer(cell, options, self.layout.numbered)
        if letter is None:
            expected = f"one of {', '.join(LETTERS[: len(options)])} or an option's text"
            self._add_problem("answer", quoted(cell), expected, "correct the answer")
        return letter or ""


def _oddities(file: Path, columns: dict[str, int], questions: list[Question]) -> list[str]:
    """Notices of what is allowed but may be a mistake."""
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
