"""Members from files: SCORES folders of this product, or anyone's CSV or Parquet with an id and a column a letter.

Such a file may also have `answer`, `task_type` and `member` (several members in one file). What its numbers are is
read from the columns' names and from the numbers, told in every case, and refused where it is not certain.
"""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from scoring.errors import quoted
from scoring.inputs.answers import AnswerTable
from scoring.inputs.digests import question_digest
from scoring.inputs.prompt import LETTERS
from scoring.scores.exposure import CALIBRATION, calibrated_rows
from scoring.scores.folder import Scores, open_scores
from scoring.scores.probabilities import member_logits
from scoring.stats.calibration import Calibration, log_probabilities
from scoring.stats.pools import EnsembleError

FIRST = 10  # of a list of faults that are told
COLUMNS = {"p_{}": "probabilities", "l_{}": "logits", "logit_{}": "logits", "logprob_{}": "log-probabilities", "{}": ""}
FORMATS = ("probabilities", "log-probabilities", "logits", "shares")
OFF = 0.01  # how far from 1 probabilities of a row may sum, as they are rounded
LOWEST = -50.0  # of log-probabilities, below the row's highest
FILES = (".csv", ".tsv", ".parquet")
NAME_IT = (
    "Name what the columns hold with --format: probabilities, log-probabilities, logits, or shares (numbers from 0 on "
    "that are to be divided by their sum, such as per cent or votes)"
)


@dataclass(eq=False)
class Source:
    """One member's numbers: (N, K) logits (raw log-probabilities averaged over orders, or what a file has).

    NaN where a row has fewer options, or no score. questions: columns of questions.parquet, as far as they are known.
    exposed: (N,) flags of `scores/exposure.py`. entry: what run.json tells of the member.
    """

    name: str
    ids: list[str]
    logits: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)
    label_mass: np.ndarray | None = None
    status: list[str] = field(default_factory=list)
    fingerprint: str = ""
    questions: dict[str, list] = field(default_factory=dict)
    entry: dict = field(default_factory=dict)
    exposed: np.ndarray | None = None
    data: dict = field(default_factory=dict)  # what run.json tells of the table
    path: Path = Path()
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict:
        """What the numbers depend on besides the rows."""
        return {
            key: self.entry.get(key) for key in ("fingerprint", "base", "template", "pixels", "quantization", "orders")
        }


def is_file(path: Path) -> bool:
    """Whether this is anyone's file of numbers, and no SCORES folder."""
    return path.suffix.lower() in FILES


def read_sources(
    path: Path, form: str = "auto", answers: AnswerTable | None = None, must_match: bool = True
) -> list[Source]:
    """The members of a SCORES folder, or of anyone's file. Raises EnsembleError or RunError.

    form: what the letters' columns of a file hold, one of FORMATS or `auto`. answers: for rows that have none; a row
    that has another answer is an error, and so is a table with none of the ids, but with must_match False.
    """
    sources = _read_file(path, form) if is_file(path) else sources_of(open_scores(path))
    if answers is None:
        return sources
    filled, note = _with_answers(path, sources, answers, must_match)
    return [replace(source, questions=filled[id(source.questions)], notes=[*source.notes, note]) for source in sources]


def _with_answers(
    path: Path, sources: list[Source], answers: AnswerTable, must_match: bool
) -> tuple[dict[int, dict[str, list]], str]:
    """The members' columns with answers (and task types) of a table where they have none, and what there is to say.

    By the columns' `id()`, for the members of a folder have the same. Raises EnsembleError, see `read_sources`.
    """
    result, other, ids, filled = {}, {}, {}, set()
    for source in sources:
        columns = source.questions
        ids |= dict.fromkeys(source.ids)
        if id(columns) in result:
            continue
        result[id(columns)] = columns = columns | {name: [*columns[name]] for name in ("answer", "task_type")}
        for row, name in enumerate(source.ids):
            theirs, ours = answers.answer.get(name, ""), columns["answer"][row]
            if theirs and ours and theirs != ours:
                other[name] = f"{quoted(name)} ({ours}, and {theirs} in the table)"
            elif theirs and not ours:
                columns["answer"][row] = theirs
                filled.add(name)
            columns["task_type"][row] = columns["task_type"][row] or answers.task_type.get(name, "")
        _check_letters(path, source.ids, columns["answer"], columns["answer"], np.isfinite(source.logits))
    matched = [name for name in ids if name in answers.answer]
    if must_match and not matched and ids:
        there = f"such as {quoted(next(iter(answers.answer)))}" if answers.answer else "for it has no row"
        raise EnsembleError(
            f"{answers.file}: none of its ids, {there}, is an id of {path}, such as {quoted(next(iter(ids)))}; "
            "expected the answers of these rows"
        )
    if other:
        count = f"{len(other):,} row{'s have' if len(other) > 1 else ' has'}"
        raise EnsembleError(
            f"{path}: {count} another answer in {answers.file}: {first_of(other.values())}; expected one right answer "
            "for each id"
        )
    return result, (
        f"{answers.file}: has {len(matched):,} of the {len(ids):,} ids of {path}, fills in "
        f"{len(filled):,} answer{'' if len(filled) == 1 else 's'}"
    )


def sources_of(scores: Scores) -> list[Source]:
    """The members of an opened SCORES folder."""
    orders = scores.about["identity"].get("orders", "1")
    settings = {
        key: scores.about["identity"][key]
        for key in ("base", "template", "pixels", "quantization", "letters")
        if key in scores.about["identity"]
    }
    result = []
    for member, (entry, calibration) in enumerate(zip(scores.about["checkpoints"], scores.calibrations)):
        with np.errstate(invalid="ignore"):
            mass = scores.logits.label_mass[:, member]
            mean = np.nansum(mass, 1) / np.maximum(np.isfinite(mass).sum(1), 1)
        result.append(
            Source(
                entry["member"],
                scores.logits.ids,
                member_logits(scores.logits, member),
                calibration,
                np.where(np.isfinite(mass).any(1), mean, np.nan),
                scores.logits.status,
                entry.get("fingerprint") or "",
                scores.questions,
                {"orders": orders, **settings, **entry},
                scores.exposed[:, member],
                entry.get("data") or scores.about.get("data", {}),
                scores.folder,
            )
        )
    return result


# ------------------------------------------------------------------ anyone's files
def _read_file(path: Path, form: str) -> list[Source]:
    table = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    header = table.column_names
    names = [name.strip().lstrip("\ufeff\u200b").lower() for name in header]
    pattern, places = next(
        ((pattern, places) for pattern in COLUMNS if len(places := _letter_columns(names, pattern)) > 1), ("", [])
    )
    if "id" not in names or not places:
        raise EnsembleError(
            f"{path}: columns {', '.join(header)}; expected `id` and a column for each letter, such as p_a, p_b or a, b"
        )
    if twice := [name for name, count in Counter(names).items() if name and count > 1]:
        raise EnsembleError(f"{path}: columns more than once: {first_of(map(quoted, twice))}; expected each name once")
    ids = _texts(table, names.index("id"))
    values = _numbers(path, table, ids, places)
    form, note = _form(path, ids, values, form, pattern, [header[place] for place in places])
    logits = _as_logits(values, form)
    answer, task_type = (
        _texts(table, names.index(name)) if name in names else None for name in ("answer", "task_type")
    )
    member = (
        [cell.strip() for cell in _texts(table, names.index("member"))] if "member" in names else [path.stem] * len(ids)
    )
    sources = []
    for name in dict.fromkeys(member):
        rows = np.array([place for place, other in enumerate(member) if other == name])
        part = [ids[row] for row in rows]
        given = {
            "answer": [answer[row] for row in rows] if answer else None,
            "task_type": [task_type[row] for row in rows] if task_type else None,
        }
        finite = np.isfinite(logits[rows]).any(1)
        sources.append(
            Source(
                name or path.stem,
                part,
                logits[rows],
                status=["ok" if scored else "no number in the file" for scored in finite],
                questions=_columns(path, part, np.isfinite(logits[rows]), given),
                entry={"orders": "1", "file": str(path)},
                exposed=np.zeros(len(rows), np.uint8),
                data={"file": str(path)},
                path=path,
                notes=[note],
            )
        )
    return sources


def _columns(path: Path, ids: list[str], there: np.ndarray, given: dict) -> dict[str, list]:
    """Columns of questions.parquet, from the file's own; a row's digest is of its id."""
    columns: dict[str, list] = {"id": ids}
    for name in ("answer", "task_type"):
        columns[name] = [value.strip() for value in given[name]] if given[name] else [""] * len(ids)
    cells = columns["answer"]
    columns["answer"] = [cell.strip("()[]. ").lower() for cell in cells]
    _check_letters(path, ids, columns["answer"], cells, there)
    empty = {"picture": "", "picture_digest": "", "question": ""}
    columns |= {name: [value] * len(ids) for name, value in empty.items()}
    return columns | {
        "options": there.sum(1).tolist(),
        "digest": [question_digest("", id, ()) for id in ids],
        "choices": [[] for _ in ids],
        "exposed": [[] for _ in ids],
    }


def _check_letters(path: Path, ids: list[str], letters: list[str], cells: list[str], there: np.ndarray) -> None:
    """EnsembleError where an answer is no letter of an option with a number.

    cells: as the table has them. there: (N, K) bool, which options have a number.
    """
    faults = [
        f"{quoted(ids[row])} ({quoted(cells[row])})"
        for row, letter in enumerate(letters)
        if letter
        and there[row].any()
        and (len(letter) > 1 or letter not in LETTERS or not there[row][LETTERS.index(letter) :][:1].any())
    ]
    if faults:
        raise EnsembleError(
            f"{path}: answers that are no letter of an option with a number: {first_of(faults)}; expected letters, "
            "such as a"
        )


def _texts(table: pa.Table, column: int) -> list[str]:
    return ["" if value is None else str(value) for value in table.column(column).to_pylist()]


def _numbers(path: Path, table: pa.Table, ids: list[str], places: list[int]) -> np.ndarray:
    """(N, K) of the letters' columns: NaN for an empty cell, −∞ as it is. Raises EnsembleError for everything else."""
    values, faults = np.full((len(ids), len(places)), np.nan), []
    for letter, place in enumerate(places):
        cells = table.column(place)
        if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
            try:
                values[:, letter] = pc.cast(cells, pa.float64()).fill_null(np.nan).to_numpy()
                continue
            except pa.ArrowException:  # whole numbers beyond 2**53, dictionaries
                cells = _as_text(path, table.column_names[place], cells)
        cells = pc.utf8_trim_whitespace(cells)
        cells = pc.if_else(pc.equal(cells, ""), None, cells)
        try:
            values[:, letter] = pc.cast(cells, pa.float64()).fill_null(np.nan).to_numpy()
            continue
        except pa.ArrowInvalid:  # Python reads more spellings, such as +0.5
            pass
        for row, cell in enumerate(cells.to_pylist()):
            try:
                values[row, letter] = np.nan if cell is None else float(cell)
            except ValueError:
                faults.append(f"{quoted(ids[row])} ({table.column_names[place]} is {quoted(cell)})")
    faults += [
        f"{quoted(ids[row])} ({table.column_names[places[letter]]} is infinite)"
        for row, letter in zip(*np.nonzero(np.isposinf(values)))
    ]
    if faults:
        raise EnsembleError(f"{path}: expected numbers; row{'s' * (len(faults) > 1)} {first_of(faults)}")
    return values


def _as_text(path: Path, name: str, cells: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return pc.cast(cells, pa.string())
    except pa.ArrowException:
        raise EnsembleError(f"{path}: column {name} holds {cells.type}; expected numbers") from None


def _parquet(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise EnsembleError(f"{path}: cannot be read ({error}); expected a Parquet file of numbers") from None


def _csv(path: Path) -> pa.Table:
    """The file's columns, as text; separated by commas, semicolons or tabs, whichever the header has most of."""
    ragged = []

    def skip(row) -> str:
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


def _letter_columns(names: list[str], pattern: str) -> list[int]:
    places = []
    for letter in LETTERS:
        if pattern.format(letter) not in names:
            break
        places.append(names.index(pattern.format(letter)))
    return places


# ------------------------------------------------------------------ what the numbers are
def _form(
    path: Path, ids: list[str], values: np.ndarray, form: str, pattern: str, columns: list[str]
) -> tuple[str, str]:
    """What the numbers are, and a note that says so. Raises EnsembleError where that is not certain, or not so."""
    read_as = f"{path}: {columns[0]} … {columns[-1]} read as "
    if form == "auto":
        form, why = COLUMNS[pattern], "by their names"
        if not form:
            form, why = _shown_form(path, ids, values)
    else:
        why = "as --format says"
    there = np.isfinite(values)
    scored = there.any(1)
    wrong = np.zeros(len(values), bool)
    if form in ("probabilities", "shares"):
        lowest = np.where(there, values, np.inf).min(1)
        if (lowest < 0).any():
            rows = [f"{quoted(ids[row])} ({lowest[row]:.4g})" for row in np.flatnonzero(lowest < 0)]
            raise EnsembleError(f"{path}: {form} must not be negative; they are in {first_of(rows)}. {NAME_IT}")
        sums = np.where(there, values, 0).sum(1)
        wrong = scored & ((np.abs(sums - 1) > OFF) if form == "probabilities" else (sums <= 0))
    elif form == "log-probabilities":
        with np.errstate(over="ignore"):
            sums = np.exp(np.minimum(np.where(there, values, -np.inf), 50)).sum(1)
        wrong = scored & ~(np.abs(sums - 1) <= OFF)
    if wrong.any():
        rows = [f"{quoted(ids[row])} ({sums[row]:.4f})" for row in np.flatnonzero(wrong)]
        to = "more than 0" if form == "shares" else "1"
        raise EnsembleError(f"{path}: {form} of a row must sum to {to}; not so in {first_of(rows)}. {NAME_IT}")
    return form, f"{read_as}{form}, {why}"


def _shown_form(path: Path, ids: list[str], values: np.ndarray) -> tuple[str, str]:
    """What numbers in columns a, b, … show themselves to be. Raises EnsembleError where that is not certain."""
    there = np.isfinite(values)
    scored = there.any(1)
    if not scored.any():
        return "logits", "since there is no number"
    sums = np.where(there, values, 0).sum(1)[scored]
    with np.errstate(over="ignore"):
        exponents = np.exp(np.minimum(np.where(there, values, -np.inf), 50)).sum(1)[scored]
    inside = ((values >= 0) & (values <= 1) | ~there).all()
    if inside and (np.abs(sums - 1) <= OFF).all():
        return "probabilities", "since each row sums to 1"
    if (np.where(there, values, 0) <= 0).all() and (np.abs(exponents - 1) <= OFF).all():
        return "log-probabilities", "since the exponentials of each row sum to 1"
    alike = np.ptp(sums) <= OFF * max(np.abs(np.median(sums)), 1)
    row = ids[int(np.flatnonzero(scored)[np.abs(sums - 1).argmax()])]
    if inside or (alike and len(sums) > 1 and (np.where(there, values, 0) >= 0).all()):
        raise EnsembleError(
            f"{path}: the columns of letters are neither probabilities (row {quoted(row)} sums to "
            f"{sums[np.abs(sums - 1).argmax()]:.4f}, not to 1) nor like logits. {NAME_IT}"
        )
    return "logits", "since rows do not sum to 1, and neither do their exponentials"


def _as_logits(values: np.ndarray, form: str) -> np.ndarray:
    """(N, K) log-probabilities; an option with probability 0 keeps a very low one, for it is there."""
    if form == "shares":
        values = values / np.nansum(values, 1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        if form in ("probabilities", "shares"):
            values = np.log(np.clip(values, 1e-12, None))
        highest = np.nanmax(np.where(np.isnan(values), -np.inf, values), 1, keepdims=True)
        values = np.where(np.isneginf(values), highest + LOWEST, values)
    return log_probabilities(np.where(np.isfinite(values), values, np.nan))


# ------------------------------------------------------------------ calibrations from files
DEPENDS_ON = ("base", "template", "pixels", "quantization", "letters")  # what logits depend on, besides adapter, orders


def settings_of(source: Source) -> dict:
    """What a calibration of the member belongs to: its name, adapter and orders, and whatever else is known of it."""
    known = {key: source.entry[key] for key in DEPENDS_ON if source.entry.get(key)}
    orders = source.entry.get("orders", "1")
    return {"member": source.name, "adapter": source.fingerprint or None, **known, "orders": orders}


def match_calibrations(sources: list[Source], given: Sequence[Calibration]) -> list[Calibration]:
    """Each member's calibration: one that was given for it (by adapter, else by name), else its own.

    The rows that a given one was fitted on are flagged in the member's `exposed`. Raises EnsembleError for one that
    fits no member, or that was made for other settings than the member's.
    """
    result = [source.calibration for source in sources]
    meant_by = [_meant(sources, calibration.fingerprint) for calibration in given]
    if unused := [one.fingerprint for one, meant in zip(given, meant_by) if not meant]:
        names = [f"{other.name} ({other.fingerprint})" if other.fingerprint else other.name for other in sources]
        made_for = ", ".join(str(wanted.get("member") or wanted.get("adapter")) for wanted in unused)
        raise EnsembleError(f"--calibration: made for {made_for}; expected one of the members: {', '.join(names)}")
    for calibration, meant in zip(given, meant_by):
        wanted = calibration.fingerprint
        fitting = [place for place in meant if not _other_settings(sources[place], wanted)]
        if not fitting:
            raise EnsembleError("--calibration: " + "; ".join(_other_settings(sources[meant[0]], wanted)))
        for place in fitting:
            result[place], source = calibration, sources[place]
            exposed = np.zeros(len(source.ids), np.uint8) if source.exposed is None else source.exposed
            met = calibrated_rows(source.questions, source.logits, calibration.digests, calibration.numbers)
            source.exposed = exposed & np.uint8(255 - CALIBRATION) | np.where(met, CALIBRATION, 0).astype(np.uint8)
    return result


def _meant(sources: list[Source], wanted: dict) -> list[int]:
    """The members that a calibration names: by adapter, else by name."""
    if wanted.get("adapter"):
        return [place for place, source in enumerate(sources) if source.fingerprint == wanted["adapter"]]
    return [place for place, source in enumerate(sources) if source.name == wanted.get("member")]


def _other_settings(source: Source, wanted: dict) -> list[str]:
    """Faults: settings that a calibration and the member both tell, and differently.

    A member with fewer letters, such as abc of abcd, has no other ones.
    """
    faults = []
    orders = source.entry.get("orders", "1")
    if wanted.get("orders", "1") != orders:
        faults.append(
            f"orders is {wanted.get('orders', '1')}, but {source.name} was scored in orders {orders}; calibrate rows "
            "scored in these"
        )
    for key in DEPENDS_ON:
        made, its = wanted.get(key), source.entry.get(key)
        if made and its and made != its and not (key == "letters" and made.startswith(its)):
            faults.append(
                f"{key} is {made}, but {source.name} was scored with {key} {its}; calibrate rows scored with that"
            )
    return faults


# ------------------------------------------------------------------ members side by side
def aligned(sources: Sequence[Source]) -> np.ndarray:
    """(M, N, K) logits of all members, in the rows and their order of the first; rows are matched by id.

    Rows of one id must have the same options, and where they are known, the same picture, question and texts of
    options. Raises EnsembleError, all faults at once.
    """
    first, faults, parts = sources[0], [], []
    letters = max(source.logits.shape[1] for source in sources)
    known = set(first.ids)
    for source in sources:
        if repeated := _repeated(source.ids):
            faults.append(f"{source.name}: ids more than once: {first_of(repeated)}")
            continue
        rows: list[int] = list(range(len(first.ids)))
        if source.ids != first.ids:
            own = {id: row for row, id in enumerate(source.ids)}
            missing, extra = [id for id in first.ids if id not in own], [id for id in source.ids if id not in known]
            if missing:
                faults.append(f"{source.name}: ids of {first.name} that are missing: {first_of(map(quoted, missing))}")
            if extra:
                faults.append(f"{source.name}: ids that {first.name} does not have: {first_of(map(quoted, extra))}")
            if missing or extra:
                continue
            rows = [own[id] for id in first.ids]
        wide = np.full((len(first.ids), letters), np.nan)
        wide[:, : source.logits.shape[1]] = source.logits[rows]
        parts.append(wide)
        faults += _other_rows(first, source, rows, np.isfinite(parts[0]), np.isfinite(wide))
    if faults:
        raise EnsembleError("\n".join(faults))
    return np.stack(parts)


def _other_rows(first: Source, source: Source, rows: list[int], ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    """Faults of rows that have one id and are not one question. ours, theirs: (N, K) which options have numbers."""
    faults = []
    scored = ours.any(1) & theirs.any(1)

    def letters(there: np.ndarray) -> str:
        return "".join(letter for letter, is_there in zip(LETTERS, there) if is_there)

    counts = scored & (ours.sum(1) != theirs.sum(1))
    if counts.any():
        listed = [
            f"{quoted(first.ids[row])} ({ours[row].sum()} and {theirs[row].sum()})" for row in np.flatnonzero(counts)
        ]
        faults.append(f"{source.name}: another number of options than in {first.name}: {first_of(listed)}")
    other = scored & ~counts & (ours != theirs).any(1)
    if other.any():
        listed = [
            f"{quoted(first.ids[row])} ({letters(ours[row])} and {letters(theirs[row])})"
            for row in np.flatnonzero(other)
        ]
        faults.append(f"{source.name}: other options than in {first.name}: {first_of(listed)}")
    for name, what in (("picture_digest", "picture"), ("question", "question"), ("choices", "options' texts")):
        mine, its = first.questions.get(name), source.questions.get(name)
        if source is first or not mine or not its:
            continue
        listed = [
            quoted(first.ids[row]) for row, at in enumerate(rows) if mine[row] and its[at] and mine[row] != its[at]
        ]
        if listed:
            faults.append(f"{source.name}: another {what} under the id of {first.name}: {first_of(listed)}")
    return faults


def _repeated(ids: list[str]) -> list[str]:
    if len(set(ids)) == len(ids):
        return []
    seen: set[str] = set()
    return [quoted(id) for id in ids if id in seen or seen.add(id)]


def first_of(items) -> str:
    """The first of a list of faults, and how many more there are."""
    items = list(items)
    return ", ".join(items[:FIRST]) + (f" … and {len(items) - FIRST:,} more" if len(items) > FIRST else "")
