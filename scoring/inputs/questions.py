"""A table of questions -> `Question`s, with every problem of the whole table found in one reading.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the reading
untrustworthy: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

import csv
import gzip
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from scoring.inputs.pictures import PictureError, locate, open_picture, read_picture, upright_size
from scoring.inputs.problems import InputError, Problem, shown
from scoring.inputs.prompt import LETTERS

LONGEST_CELL = 200_000  # characters; longer than any model's context
_NAMED = ("id", "path", "question", "answer", "task_type", "task_hint")


@dataclass(frozen=True)
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
    progress: Callable[[Iterable, int], Iterable] | None = None,
) -> Table:
    """Read a table and look at every picture it names, each once.

    images: the folder that `path` is relative to; default: the table's own.
    deep: decode every pixel instead of the headers alone.
    progress: wraps the iteration over the pictures, given their number.
    Raises InputError for table faults; row faults are listed in the result.
    """
    file = Path(file)
    data = _read_bytes(file)
    text, notices = _decode(file, data)
    header, rows = _parse(file, text)
    columns = _find_columns(file, header)
    _require_unique_ids(file, columns, rows)
    table = Table(file, hashlib.sha256(data).hexdigest(), [], notices=notices)
    numbered = _answers_are_numbers(columns, rows)
    if numbered:
        table.notices.append(f"{file}: every answer is a number; read as 1 = a, 2 = b and so on")
    root = Path(images) if images else file.parent
    pictures = _look_at_pictures(root, {row.cell(columns, "path") for row in rows}, allow_outside, deep, progress)
    for row in rows:
        question, problems = _read_row(file, columns, row, pictures, numbered)
        table.questions.append(question)
        table.problems += problems
    table.notices += _oddities(file, columns, table.questions)
    return table


def read_columns(file: Path, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """column -> id -> cell, of any columns of a table. Raises InputError where one is missing."""
    header, rows = _parse(file, _decode(file, _read_bytes(file))[0])
    places = _find_columns(file, header) | {name.strip(): at for at, name in enumerate(header)}
    if missing := [name for name in names if name not in places]:
        raise _table_problem(
            file, f"columns {', '.join(header)}", f"a column {missing[0]}", "name one of them with --by"
        )
    ids = [row.cells[places["id"]] if "id" in places else str(row.number) for row in rows]
    return {name: dict(zip(ids, (row.cell(places, name) for row in rows))) for name in names}


# ------------------------------------------------------------------ the file
@dataclass(frozen=True)
class _Row:
    number: int
    line: int
    cells: list[str]

    def cell(self, columns: dict[str, int], name: str) -> str:
        return self.cells[columns[name]].strip() if name in columns else ""


def _table_problem(file: Path, found: str, expected: str, fix: str, column: str = "") -> InputError:
    return InputError([Problem(str(file), 0, 0, "", column, found, expected, fix)])


def _read_bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError:
        raise _table_problem(file, "no such file", "a CSV file", "check the path") from None
    except IsADirectoryError:
        raise _table_problem(file, "a folder", "a CSV file", "name the file in it") from None
    except (OSError, EOFError) as error:
        raise _table_problem(file, f"an unreadable file ({error})", "a CSV file", "check the file") from None


def _decode(file: Path, data: bytes) -> tuple[str, list[str]]:
    """The text and, where the encoding had to be guessed, a notice."""
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise _table_problem(file, "an Excel workbook", "a CSV file", "save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        candidates = ["utf-16"]
    elif data[1:2] == b"\0" or data[:1] == b"\0":
        candidates = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        candidates = ["utf-8-sig", "cp949"]
    failure = None
    for encoding in candidates:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            failure = failure or error
        else:
            return text, [f"{file}: not UTF-8; read as cp949 (Korean Windows)"] if encoding == "cp949" else []
    line = data[: failure.start].count(b"\n") + 1
    raise _table_problem(
        file,
        f"byte 0x{data[failure.start]:02x} in line {line}, not text in {' or '.join(candidates)}",
        "UTF-8",
        "save the file as 'CSV UTF-8'",
    )


def _parse(file: Path, text: str) -> tuple[list[str], list[_Row]]:
    """Header and rows; raises where a row has another number of cells or the quoting is broken."""
    csv.field_size_limit(1 << 30)
    first = text.split("\n", 1)[0].split("\r", 1)[0]
    delimiter = max(",;\t", key=lambda sign: len(set(_normal(first.split(sign))) & {*_NAMED, *LETTERS}))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, problems, line = [], [], 1
    try:
        header = next(reader, [])
        line = reader.line_num + 1
        for cells in reader:
            start, line = line, reader.line_num + 1
            if not cells:
                continue  # an empty line
            row = _Row(len(rows) + 1, start, cells)
            rows.append(row)
            if len(cells) != len(header):
                problems.append(
                    Problem(
                        str(file),
                        row.number,
                        start,
                        "",
                        "",
                        f"{len(cells)} cells",
                        f"{len(header)}, as in the header",
                        "put quotation marks around cells with separators or line breaks",
                    )
                )
    except csv.Error as error:
        raise _table_problem(
            file,
            f"broken quoting from line {line} on ({error})",
            "quotation marks in pairs, doubled inside a cell",
            "correct the quotation marks there",
        ) from None
    if problems:
        raise InputError(problems)
    if not rows:
        raise _table_problem(
            file, "no rows" if header else "an empty file", "a header and at least one row", "check the file"
        )
    return header, rows


def _normal(names: list[str]) -> list[str]:
    return [name.strip().strip('"').casefold() for name in names]


def _find_columns(file: Path, header: list[str]) -> dict[str, int]:
    """Column name -> index, for the named columns and the options' letters."""
    names = _normal(header)
    problems = []

    def fault(column: str, found: str, expected: str, fix: str) -> None:
        problems.append(Problem(str(file), 0, 0, "", column, found, expected, fix))

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


def _require_unique_ids(file: Path, columns: dict[str, int], rows: list[_Row]) -> None:
    if "id" not in columns:
        return
    rows_of: dict[str, list[_Row]] = {}
    for row in rows:
        rows_of.setdefault(row.cells[columns["id"]], []).append(row)
    problems = [
        Problem(
            str(file),
            row.number,
            row.line,
            name,
            "id",
            f"{shown(name)} again (first in row {first.number})",
            "an id for each row alone",
            "make the ids unique or drop the column",
        )
        for name, (first, *others) in rows_of.items()
        if name.strip()
        for row in others
    ]
    if problems:
        raise InputError(problems)


# ------------------------------------------------------------------ the rows
def _answers_are_numbers(columns: dict[str, int], rows: list[_Row]) -> bool:
    answers = [answer for row in rows if (answer := row.cell(columns, "answer"))]
    letters = [letter for letter in LETTERS if letter in columns]
    if not answers or not all(re.fullmatch(r"[1-9]\d?", answer) and int(answer) <= len(letters) for answer in answers):
        return False
    return not any(row.cell(columns, "answer") in {row.cell(columns, letter) for letter in letters} for row in rows)


def _read_answer(cell: str, options: tuple[str, ...], numbered: bool) -> str | None:
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

    names = sorted(cells - {""})
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(look, names)
        return dict(zip(names, progress(found, len(names)) if progress else found))


def _read_row(
    file: Path, columns: dict[str, int], row: _Row, pictures: dict, numbered: bool
) -> tuple[Question, list[Problem]]:
    identity = row.cells[columns["id"]] if "id" in columns else str(row.number)
    problems = []

    def fault(column: str, found: str, expected: str, fix: str) -> None:
        problems.append(Problem(str(file), row.number, row.line, identity, column, found, expected, fix))

    for name, index in columns.items():
        if "\0" in row.cells[index]:
            fault(name, "a NUL character", "text", "remove it")
        elif len(row.cells[index]) > LONGEST_CELL:
            fault(name, f"{len(row.cells[index]):,} characters", f"at most {LONGEST_CELL:,}", "shorten the cell")
    if not identity.strip():
        fault("id", "an empty cell", "an id", "fill it in")
    if not row.cell(columns, "question"):
        fault("question", "an empty cell", "a question", "fill it in or drop the row")
    picture, size, cell = None, (0, 0), row.cell(columns, "path")
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
    if cell := row.cell(columns, "answer"):
        answer = _read_answer(cell, options, numbered)
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
        row.cell(columns, "task_type"),
        row.cell(columns, "task_hint"),
        size=size,
    )
    return (replace(question, fault=problems[0].text) if problems else question), problems


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
