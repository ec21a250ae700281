"""Members from files: SCORES folders of this product, or anyone's CSV with an id and a column for each letter."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from scoring.inputs.problems import shown
from scoring.inputs.prompt import LETTERS
from scoring.results.calibration import Calibration, log_probabilities
from scoring.results.ensemble import EnsembleError
from scoring.results.folder import open_scores
from scoring.results.probabilities import member_logits

FIRST = 10  # of a list of faults that are told
COLUMNS = ("p_{}", "l_{}", "logit_{}", "logprob_{}", "{}")


@dataclass
class Source:
    """One member's numbers: (N, K) logits (raw log-probabilities averaged over orders, or what a file has).

    NaN where a row has fewer options, or no score. questions: columns of questions.parquet, where they are known.
    """

    name: str
    ids: list[str]
    logits: np.ndarray
    calibration: Calibration = field(default_factory=Calibration)
    label_mass: np.ndarray | None = None
    status: list[str] = field(default_factory=list)
    fingerprint: str = ""
    questions: dict[str, list] = field(default_factory=dict)
    entry: dict = field(default_factory=dict)  # what run.json tells of the member


def read_sources(path: Path, form: str = "auto") -> list[Source]:
    """The members of a SCORES folder, or the one of a CSV file. Raises EnsembleError or RunError."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return [_read_csv(path, form)]
    scores = open_scores(path)
    entries = zip(scores.about["checkpoints"], scores.calibrations)
    with np.errstate(invalid="ignore"):
        return [
            Source(
                entry["member"],
                scores.logits.ids,
                member_logits(scores.logits, at),
                calibration,
                np.nanmean(scores.logits.label_mass[:, at], 1),
                scores.logits.status,
                entry.get("fingerprint") or "",
                scores.questions,
                entry,
            )
            for at, (entry, calibration) in enumerate(entries)
        ]


def _read_csv(path: Path, form: str) -> Source:
    table = _table(path)
    header = table.column_names
    names = [name.strip().lower() for name in header]
    places = next((found for pattern in COLUMNS if len(found := _letter_columns(names, pattern)) > 1), None)
    if "id" not in names or places is None:
        raise EnsembleError(
            f"{path}: columns {', '.join(header)}; expected `id` and a column for each letter, such as p_a, p_b or a, b"
        )
    ids = table.column(names.index("id")).to_pylist()
    values, faults = np.full((len(ids), len(places)), np.nan), []
    for at, place in enumerate(places):
        cells = pc.utf8_trim_whitespace(table.column(place))
        cells = pc.if_else(pc.equal(cells, ""), None, cells)
        try:
            values[:, at] = pc.cast(cells, pa.float64()).fill_null(np.nan).to_numpy()
            continue
        except pa.ArrowInvalid:  # Python reads more spellings, such as +0.5
            pass
        for row, cell in enumerate(cells.to_pylist()):
            try:
                values[row, at] = np.nan if cell is None else float(cell)
            except ValueError:
                faults.append(f"{shown(ids[row])} ({header[place]} is {shown(cell)})")
    if faults:
        raise EnsembleError(f"{path}: expected numbers; rows {_told(faults)}")
    form = _form(path, ids, values, form)
    with np.errstate(divide="ignore"):
        logits = np.log(np.clip(values, 1e-12, None)) if form == "probabilities" else values
    status = ["ok" if scored else "no number in the file" for scored in np.isfinite(logits).any(1)]
    return Source(path.stem, ids, log_probabilities(logits), status=status)


def _table(path: Path) -> pa.Table:
    """The file's columns, as text."""
    ragged = []

    def told(row) -> str:
        ragged.append(f"line {row.number} ({row.actual_columns})")
        return "skip"

    parse = arrow_csv.ParseOptions(
        delimiter="\t" if path.suffix.lower() == ".tsv" else ",",
        newlines_in_values=True,
        ignore_empty_lines=False,
        invalid_row_handler=told,
    )
    try:
        with open(path, "rb") as file:
            names = next(csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=parse.delimiter), [])
        table = arrow_csv.read_csv(
            path,
            arrow_csv.ReadOptions(use_threads=False),
            parse,
            arrow_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        )
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise EnsembleError(
            f"{path}: cannot be read ({error}); expected a CSV with an id and a column a letter"
        ) from None
    if ragged:
        raise EnsembleError(f"{path}: expected {len(names)} cells in every row, not so in {_told(ragged)}")
    return table


def _letter_columns(names: list[str], pattern: str) -> list[int]:
    found = []
    for letter in LETTERS:
        if pattern.format(letter) not in names:
            break
        found.append(names.index(pattern.format(letter)))
    return found


def _form(path: Path, ids: list[str], values: np.ndarray, form: str) -> str:
    """What the numbers are: as named, or as they show. Probabilities that do not sum to 1 are an error."""
    there = np.isfinite(values)
    scored = there.any(1)
    with np.errstate(over="ignore"):
        sums = {
            "probabilities": np.where(there, values, 0).sum(1),
            "log-probabilities": np.where(there, np.exp(np.minimum(np.nan_to_num(values), 50)), 0).sum(1),
        }
    inside = ((values >= 0) & (values <= 1)) | ~there
    if form == "auto":
        if inside.all() and np.median(np.abs(sums["probabilities"][scored] - 1)) < 0.05:
            form = "probabilities"
        elif np.median(np.abs(sums["log-probabilities"][scored] - 1)) < 0.01:
            form = "log-probabilities"
        else:
            form = "logits"
    if form in sums:
        off = scored & ~(np.abs(sums[form] - 1) <= 1e-3)
        if form == "probabilities":
            off |= ~inside.all(1)
        if off.any():
            told = [f"{shown(ids[at])} ({sums[form][at]:.4f})" for at in np.flatnonzero(off)]
            raise EnsembleError(f"{path}: {form} of a row must sum to 1; not so in {_told(told)}; or name its --format")
    return form


def aligned(sources: list[Source]) -> np.ndarray:
    """(M, N, K) logits of all members, in the rows and their order of the first; rows are matched by id.

    Raises EnsembleError, all faults at once.
    """
    first, faults, found = sources[0], [], []
    letters = max(source.logits.shape[1] for source in sources)
    place = {id: row for row, id in enumerate(first.ids)}
    for source in sources:
        if repeated := _repeated(source.ids):
            faults.append(f"{source.name}: ids more than once: {_told(repeated)}")
            continue
        rows: list[int] | slice = slice(None)
        if source.ids != first.ids:
            own = {id: row for row, id in enumerate(source.ids)}
            missing, extra = [id for id in first.ids if id not in own], [id for id in source.ids if id not in place]
            if missing:
                faults.append(f"{source.name}: ids of {first.name} that are missing: {_told(map(shown, missing))}")
            if extra:
                faults.append(f"{source.name}: ids that {first.name} does not have: {_told(map(shown, extra))}")
            if missing or extra:
                continue
            rows = [own[id] for id in first.ids]
        wide = np.full((len(first.ids), letters), np.nan)
        wide[:, : source.logits.shape[1]] = source.logits[rows]
        found.append(wide)
        counts, theirs = np.isfinite(found[0]).sum(1), np.isfinite(wide).sum(1)
        if (other := np.flatnonzero((counts != theirs) & (counts > 0) & (theirs > 0))).size:
            told = [f"{shown(first.ids[row])} ({counts[row]} and {theirs[row]})" for row in other]
            faults.append(f"{source.name}: another number of options than in {first.name}: {_told(told)}")
    if faults:
        raise EnsembleError("\n".join(faults))
    return np.stack(found)


def _repeated(ids: list[str]) -> list[str]:
    if len(set(ids)) == len(ids):
        return []
    seen: set[str] = set()
    return [shown(id) for id in ids if id in seen or seen.add(id)]


def _told(items) -> str:
    items = list(items)
    return ", ".join(items[:FIRST]) + (f" … and {len(items) - FIRST:,} more" if len(items) > FIRST else "")
