"""Anyone's file of numbers: CSV, JSON or Parquet with `id` and a column for each letter.

It may also have `answer`, `task_type` and `member` (several members in one file). The columns' names and the numbers
show what the numbers are. A note says how they were read; where that is not certain, the file is refused.
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from scoring.errors import first_of, quoted
from scoring.inputs.digests import question_digest
from scoring.inputs.prompt import LETTERS
from scoring.readers.json_rows import looks_like_json
from scoring.readers.opening import HEAD, open_table
from scoring.readers.other_files import check_is_text
from scoring.readers.records import as_text, normalized
from scoring.readers.unpacking import open_unpacked
from scoring.scores.folder import Columns
from scoring.stats.calibration import log_probabilities
from scoring.stats.checks import OFF
from scoring.stats.pools import EnsembleError

FORMATS = ("probabilities", "log-probabilities", "logits", "shares")
COLUMNS = {  # pattern of the letters' column names -> what they hold, or "" where the numbers must show it
    "p_{}": "probabilities",
    "l_{}": "logits",
    "logit_{}": "logits",
    "logprob_{}": "log-probabilities",
    "{}": "",
}
LOWEST = -50.0  # log-probability of an impossible option, relative to the row's highest
SUFFIXES = (".csv", ".tsv", ".parquet", ".json", ".jsonl")
NAME_IT = (
    "Name what the columns hold with --format: probabilities, log-probabilities, logits, or shares (numbers from 0 on "
    "that are to be divided by their sum, such as per cent or votes)"
)


@dataclass(frozen=True, eq=False)
class MemberNumbers:
    """What a file holds of one member: (N,) ids, (N, K) log-probabilities, and columns of questions.parquet."""

    name: str
    ids: list[str]
    log_p: np.ndarray
    questions: Columns


def is_number_file(path: Path) -> bool:
    """Whether this is a file of numbers by its name, and not a SCORES folder."""
    return path.suffix.lower() in SUFFIXES and not path.is_dir()  # a folder may be named after its table


def read_number_file(path: Path, form: str = "auto") -> tuple[list[MemberNumbers], str]:
    """The members of a file, and a note that says what its numbers were read as. Raises EnsembleError.

    form: what the letters' columns hold: one of FORMATS, or `auto`.
    """
    table = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_text(path)
    header = table.column_names
    names = normalized(header)
    pattern, letter_columns = _letter_columns(path, header, names)
    ids = _texts(table, names.index("id"))
    source = _Source(path, ids, [header[column] for column in letter_columns])
    values = _numbers(source, [table.column(column) for column in letter_columns])
    kind, reason = _kind(source, values, form, pattern)
    log_p = _as_log_probabilities(values, kind)
    given = {name: _texts(table, names.index(name)) for name in ("answer", "task_type") if name in names}
    row_members = [path.stem] * len(ids)
    if "member" in names:
        row_members = [cell.strip() for cell in _texts(table, names.index("member"))]
    members = []
    for name in dict.fromkeys(row_members):
        rows = np.array([row for row, member in enumerate(row_members) if member == name])
        member_ids, member_log_p = [ids[row] for row in rows], log_p[rows]
        cells = {column: [values[row] for row in rows] for column, values in given.items()}
        questions = _questions(path, member_ids, np.isfinite(member_log_p), cells)
        members.append(MemberNumbers(name or path.stem, member_ids, member_log_p, questions))
    return members, f"{path}: {source.columns[0]} … {source.columns[-1]} read as {kind}, {reason}"


@dataclass(frozen=True)
class _Source:
    """What messages about numbers name: the file, the rows' ids, the letters' columns."""

    path: Path
    ids: list[str]
    columns: list[str]


def _questions(path: Path, ids: list[str], present: np.ndarray, cells: dict[str, list[str]]) -> Columns:
    """Columns of questions.parquet, as far as the file has them. A row's digest is that of its id.

    present: (N, K) bool, which options have a number. cells: the file's columns `answer` and `task_type`, if any.
    """
    count = len(ids)
    answers, task_types = ([cell.strip() for cell in cells.get(name, [""] * count)] for name in ("answer", "task_type"))
    letters = [answer.strip("()[]. ").lower() for answer in answers]
    check_answers(path, ids, letters, answers, present)
    return {
        "id": ids,
        "answer": letters,
        "task_type": task_types,
        "picture": [""] * count,
        "picture_digest": [""] * count,
        "question": [""] * count,
        "options": present.sum(1).tolist(),
        "digest": [question_digest("", id, ()) for id in ids],
        "choices": [[] for _ in ids],
        "exposed": [[] for _ in ids],
    }


def check_answers(path: Path, ids: list[str], letters: list[str], cells: list[str], present: np.ndarray) -> None:
    """EnsembleError where an answer is not the letter of an option that has a number; rows without numbers pass.

    letters: (N,) "" without an answer. cells: (N,) as the table has them. present: (N, K) bool, which options have a
    number.
    """
    faults = [
        f"{quoted(ids[row])} ({quoted(cells[row])})"
        for row, letter in enumerate(letters)
        if letter
        and present[row].any()
        and (len(letter) > 1 or letter not in LETTERS or not present[row][LETTERS.index(letter) :][:1].any())
    ]
    if faults:
        raise EnsembleError(
            f"{path}: answers that are no letter of an option with a number: {first_of(faults)}; expected letters, "
            "such as a"
        )


# ------------------------------------------------------------------ cells
def _read_parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise EnsembleError(f"{path}: cannot be read ({error}); expected a Parquet file of numbers") from None


def _read_text(path: Path) -> pa.Table:
    """The file's columns, as text, without rows that have none. Raises InputError, or EnsembleError."""
    head = b""
    if path.exists():
        with open_unpacked(path) as file:
            head = file.read(HEAD)
    if _is_plain(head):
        check_is_text(path, head)
        table = _read_csv(path)
    else:
        table = _read_rows(path)
    blank = pa.array([False] * len(table))
    if len(table) and (columns := table.columns):
        blank = reduce(pc.and_, (pc.equal(pc.utf8_trim_whitespace(column), "") for column in columns))
    return table.filter(pc.invert(blank))


def _is_plain(head: bytes) -> bool:
    """Whether a file that begins like this is text in UTF-8 with its header first, which is read fastest."""
    start = head.removeprefix(b"\xef\xbb\xbf")
    wide = b"\0" in head or head[:2] in (b"\xff\xfe", b"\xfe\xff")
    return not (wide or looks_like_json(start) or start[:5].lower() in (b"sep=;", b"sep=,", b"sep=\t", b"sep=|"))


def _read_rows(path: Path) -> pa.Table:
    """A file of another encoding or kind, row by row."""
    records = open_table(path, {"id", "answer", "p_a", "p_b", "a", "b"})
    rows = list(records.rows())
    if ragged := [f"line {row.line} ({len(row.cells)})" for row in rows if len(row.cells) != len(records.header)]:
        count = len(records.header)
        raise EnsembleError(f"{path}: expected {count} cells in every row, not so in {first_of(ragged)}")
    columns = zip(*([as_text(cell) for cell in row.cells] for row in rows)) if rows else [()] * len(records.header)
    return pa.table([pa.array(cells, pa.string()) for cells in columns], names=records.header)


def _read_csv(path: Path) -> pa.Table:
    """The file's columns, as text; separated by commas, semicolons or tabs, whichever the header has most of."""
    ragged = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        ragged.append(f"line {row.number} ({row.actual_columns})")
        return "skip"

    try:
        with open(path, "rb") as file:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="")
            delimiter = max(",;\t", key=text.readline().count)
            text.seek(0)
            names = next(csv.reader(text, delimiter=delimiter), [])
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(use_threads=False),
            arrow_csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=True, invalid_row_handler=skip
            ),
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise EnsembleError(
            f"{path}: cannot be read ({error}); expected a CSV with an id and a column a letter"
        ) from None
    if ragged:
        raise EnsembleError(f"{path}: expected {len(names)} cells in every row, not so in {first_of(ragged)}")
    return table


def _letter_columns(path: Path, header: list[str], names: list[str]) -> tuple[str, list[int]]:
    """The pattern of COLUMNS that the file follows, and the letters' columns. Raises EnsembleError.

    header: names of columns as in the file. names: the same in lower case, without blanks around them.
    """
    for pattern in COLUMNS:
        columns = []
        for letter in LETTERS:
            if pattern.format(letter) not in names:
                break
            columns.append(names.index(pattern.format(letter)))
        if len(columns) > 1:
            break
    if "id" not in names or len(columns) < 2:
        raise EnsembleError(
            f"{path}: columns {', '.join(header)}; expected `id` and a column for each letter, such as p_a, p_b or a, b"
        )
    if repeated := [name for name, count in Counter(names).items() if name and count > 1]:
        listed = first_of(map(quoted, repeated))
        raise EnsembleError(f"{path}: columns more than once: {listed}; expected each name once")
    return pattern, columns


def _texts(table: pa.Table, column: int) -> list[str]:
    return ["" if value is None else str(value) for value in table.column(column).to_pylist()]


def _numbers(source: _Source, columns: list[pa.ChunkedArray]) -> np.ndarray:
    """(N, K) of the letters' columns: NaN for an empty cell, −∞ as it is. Raises EnsembleError for everything else."""
    values = np.full((len(source.ids), len(columns)), np.nan)
    faults = []
    for index, cells in enumerate(columns):
        values[:, index], column_faults = _column_numbers(source, source.columns[index], cells)
        faults += column_faults
    faults += [
        f"{quoted(source.ids[row])} ({source.columns[index]} is infinite)"
        for row, index in zip(*np.nonzero(np.isposinf(values)))
    ]
    if faults:
        rows = "row" if len(faults) == 1 else "rows"
        raise EnsembleError(f"{source.path}: expected numbers; {rows} {first_of(faults)}")
    return values


def _column_numbers(source: _Source, name: str, cells: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(N,) numbers of a column, NaN for an empty cell; and the cells that are no number."""
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        try:
            return _cast(cells), []
        except pa.ArrowException:  # whole numbers beyond 2**53, dictionaries
            cells = _as_text(source.path, name, cells)
    cells = pc.utf8_trim_whitespace(cells)
    cells = pc.if_else(pc.equal(cells, ""), None, cells)
    try:
        return _cast(cells), []
    except pa.ArrowInvalid:  # Python reads more spellings, such as +0.5
        pass
    values, faults = np.full(len(cells), np.nan), []
    for row, cell in enumerate(cells.to_pylist()):
        try:
            values[row] = np.nan if cell is None else float(cell)
        except ValueError:
            faults.append(f"{quoted(source.ids[row])} ({name} is {quoted(cell)})")
    return values, faults


def _cast(cells: pa.ChunkedArray) -> np.ndarray:
    numbers: np.ndarray = pc.cast(cells, pa.float64()).fill_null(np.nan).to_numpy()
    return numbers


def _as_text(path: Path, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(cells, pa.string())
    except pa.ArrowException:
        raise EnsembleError(f"{path}: column {name} holds {cells.type}; expected numbers") from None


# ------------------------------------------------------------------ what the numbers are
def _kind(source: _Source, values: np.ndarray, form: str, pattern: str) -> tuple[str, str]:
    """What the numbers are, one of FORMATS, and why. Raises EnsembleError where they are not, or it is not certain.

    form: as the user named it, or `auto`. pattern: that of the columns' names.
    """
    if form != "auto":
        kind, reason = form, "as --format says"
    elif COLUMNS[pattern]:
        kind, reason = COLUMNS[pattern], "by their names"
    else:
        kind, reason = _apparent_kind(source, values)
    if kind in ("probabilities", "shares"):
        _check_not_negative(source, values, kind)
    if kind != "logits":
        _check_sums(source, values, kind)
    return kind, reason


def _check_not_negative(source: _Source, values: np.ndarray, kind: str) -> None:
    lowest = np.where(np.isfinite(values), values, np.inf).min(1)
    if (lowest < 0).any():
        rows = [f"{quoted(source.ids[row])} ({lowest[row]:.4g})" for row in np.flatnonzero(lowest < 0)]
        raise EnsembleError(f"{source.path}: {kind} must not be negative; they are in {first_of(rows)}. {NAME_IT}")


def _check_sums(source: _Source, values: np.ndarray, kind: str) -> None:
    """EnsembleError where the probabilities of a row do not sum to 1, or its shares not to more than 0."""
    scored = np.isfinite(values).any(1)
    sums = _sums_of_exponentials(values) if kind == "log-probabilities" else _sums(values)
    wrong = scored & ((sums <= 0) if kind == "shares" else ~(np.abs(sums - 1) <= OFF))
    if wrong.any():
        rows = [f"{quoted(source.ids[row])} ({sums[row]:.4f})" for row in np.flatnonzero(wrong)]
        total = "more than 0" if kind == "shares" else "1"
        raise EnsembleError(
            f"{source.path}: {kind} of a row must sum to {total}; not so in {first_of(rows)}. {NAME_IT}"
        )


def _sums(values: np.ndarray) -> np.ndarray:
    """(N,) of the finite numbers of each row."""
    sums: np.ndarray = np.where(np.isfinite(values), values, 0).sum(1)
    return sums


def _sums_of_exponentials(values: np.ndarray) -> np.ndarray:
    """(N,) of the finite numbers of each row; large ones are capped, since any sum far from 1 says the same."""
    with np.errstate(over="ignore"):
        sums: np.ndarray = np.exp(np.minimum(np.where(np.isfinite(values), values, -np.inf), 50)).sum(1)
    return sums


def _apparent_kind(source: _Source, values: np.ndarray) -> tuple[str, str]:
    """What numbers in columns a, b, … are, by their sums, and why. Raises EnsembleError where that is not certain."""
    present = np.isfinite(values)
    scored = present.any(1)
    if not scored.any():
        return "logits", "since there is no number"
    sums, exponentials = _sums(values)[scored], _sums_of_exponentials(values)[scored]
    between = ((values >= 0) & (values <= 1) | ~present).all()  # 0 and 1
    if between and (np.abs(sums - 1) <= OFF).all():
        return "probabilities", "since each row sums to 1"
    if (np.where(present, values, 0) <= 0).all() and (np.abs(exponentials - 1) <= OFF).all():
        return "log-probabilities", "since the exponentials of each row sum to 1"
    same_sums = np.ptp(sums) <= OFF * max(np.abs(np.median(sums)), 1)
    if between or (same_sums and len(sums) > 1 and (np.where(present, values, 0) >= 0).all()):
        farthest = int(np.abs(sums - 1).argmax())
        row = source.ids[int(np.flatnonzero(scored)[farthest])]
        raise EnsembleError(
            f"{source.path}: the columns of letters are neither probabilities (row {quoted(row)} sums to "
            f"{sums[farthest]:.4f}, not to 1) nor like logits. {NAME_IT}"
        )
    return "logits", "since rows do not sum to 1, and neither do their exponentials"


def _as_log_probabilities(values: np.ndarray, kind: str) -> np.ndarray:
    """(N, K); an option with probability 0 keeps a very low one, because the row does have that option."""
    if kind == "shares":
        values = values / np.nansum(values, 1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind in ("probabilities", "shares"):
            values = np.log(np.clip(values, 1e-12, None))
        highest = np.nanmax(np.where(np.isnan(values), -np.inf, values), 1, keepdims=True)
        values = np.where(np.isneginf(values), highest + LOWEST, values)
    return log_probabilities(np.where(np.isfinite(values), values, np.nan))
