"""A SCORES folder: what `score` leaves, read and written."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv

from scoring.files.reading import FileError, as_object, read_json
from scoring.files.writing import write_table
from scoring.inputs.digests import picture_digests, picture_path, question_digest
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.scores.logits import Layout, OptionLogits, read_parts
from scoring.scores.probabilities import (
    member_log_probabilities,
    pool_members,
    write_probabilities,
    write_submission,
)
from scoring.stats.calibration import Calibration
from scoring.stats.pools import PoolSettings
from scoring.stats.sets import OptionSets, SetRequest, conformal_sets
from scoring.tables.sample import SampleSubmission


class RunError(FileError):
    """A folder that cannot be used: another run's results, or not a SCORES folder."""


# ------------------------------------------------------------------ what is written
Columns = dict[str, list[Any]]  # of questions.parquet, see `columns_of`


def columns_of(questions: list[Question], exposed: np.ndarray | None = None) -> Columns:
    """What later steps need of the data: the columns of questions.parquet.

    exposed: (N, M) flags that say how each member has met each row before (`scores/exposure.py`).
    """
    pictures = picture_digests(questions)
    columns = {
        "id": [question.id for question in questions],
        "answer": [question.answer for question in questions],
        "task_type": [question.task_type for question in questions],
        "options": [len(question.options) for question in questions],
        "picture": [picture_path(question.picture) for question in questions],
        "picture_digest": pictures,
        "digest": [
            question_digest(picture, question.question, question.options)
            for picture, question in zip(pictures, questions)
        ],
        "question": [question.question for question in questions],
        "choices": [list(question.options) for question in questions],
        "exposed": [[]] * len(questions) if exposed is None else exposed.tolist(),
    }
    if any(len(question.pictures) > 1 for question in questions):
        columns["more_pictures"] = [list(map(picture_path, question.pictures[1:])) for question in questions]
    return columns


def typed_columns(columns: Columns) -> dict[str, list[Any] | pa.Array]:
    """The same columns with Arrow types that do not depend on their values."""
    typed = columns | {
        "options": pa.array(columns["options"], pa.int32()),
        "choices": pa.array(columns["choices"], pa.list_(pa.string())),
        "exposed": pa.array(columns["exposed"], pa.list_(pa.uint8())),
    }
    optional = {"fold": pa.int32(), "more_pictures": pa.list_(pa.string())}
    return typed | {name: pa.array(columns[name], kind) for name, kind in optional.items() if name in columns}


@dataclass(frozen=True)
class ResultOptions:
    """What results hold besides pooled probabilities.

    sets: option sets for the column `set`, or the request for those that the calibrations give. pool: how members are
    pooled; None for the mean of their log-probabilities. sample: whose header, ids and order submission.csv has.
    """

    sets: SetRequest | OptionSets | None = None
    pool: PoolSettings | None = None
    sample: SampleSubmission | None = None


def write_results(
    out: Path,
    questions: list[Question] | Columns,
    logits: OptionLogits,
    calibrations: list[Calibration],
    options: ResultOptions | None = None,
) -> tuple[np.ndarray, OptionSets | None]:
    """Write probabilities.csv, submission.csv and questions.parquet; for several members members/NAME.csv of each too.

    Returns the (N, K) pooled log-probabilities, and the option sets.
    """
    options = options or ResultOptions()
    columns = questions if isinstance(questions, dict) else columns_of(questions)
    members = member_log_probabilities(logits, calibrations, columns["task_type"])
    log_p = pool_members(members, options.pool)
    answers = columns["answer"] if any(columns["answer"]) else None
    write_table(out / "questions.parquet", pa.table(typed_columns(columns)))
    if len(logits.members) > 1:
        (out / "members").mkdir(exist_ok=True)
        for index, (name, member) in enumerate(zip(logits.members, members)):
            write_probabilities(out / "members" / f"{name}.csv", logits.of_member(index), member, answers)
    sets = options.sets
    if isinstance(sets, SetRequest):
        sets = conformal_sets(log_p, calibrations, sets, members)
    write_probabilities(out / "probabilities.csv", logits, log_p, answers, sets.held if sets else None)
    write_submission(out / "submission.csv", logits, log_p, options.sample)
    return log_p, sets


def check_replaceable(out: Path, overwrite: bool) -> None:
    """Raises RunError where `out` holds files that must not be replaced."""
    if not overwrite and out.exists() and any(out.iterdir()):
        raise RunError(f"{out} exists; choose another --out, or replace it with --overwrite")


# ------------------------------------------------------------------ what is read
@dataclass(frozen=True)
class MemberEntry:
    """A member in run.json. adapters: fingerprints of the folds that scored out-of-fold rows; None for other rows."""

    member: str
    temperature: float
    fingerprint: str | None = None
    calibration: dict[str, Any] | None = None
    orders: str | None = None
    adapters: list[str] | None = None


@dataclass(frozen=True)
class Identity:
    """What the logits depend on; of a pool, of anyone's numbers, little of it is known. letters: such as `abcd`."""

    letters: str
    orders: str = "1"
    base: str | None = None
    pixels: int | None = None
    quantization: str | None = None
    dtype: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class TableEntry:
    """The table that was read, see `Table.about`."""

    file: str = ""
    sha256: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SetsEntry:
    """The option sets that were asked for, see `SetRequest`."""

    level: float
    method: str = "lac"


@dataclass(frozen=True)
class RunRecord:
    """What later steps read of run.json, under the file's own names; other keys are ignored."""

    checkpoints: list[MemberEntry]
    identity: Identity
    base: str | None = None
    pool: PoolSettings | None = None
    sets: SetsEntry | None = None
    data: TableEntry = field(default_factory=TableEntry)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


@dataclass
class Scores:
    """A SCORES folder as read, or as it could be written: raw logits, the calibrated pool, what is known of the rows.

    folder: of results that were never written a name for messages. run_json: everything in run.json, to be passed on to
    files made of this one; `run` has what is read of it. sets: the option sets, where they are not to be read from the
    folder.
    """

    folder: Path
    run_json: dict[str, Any]
    logits: OptionLogits
    calibrations: list[Calibration]
    questions: Columns
    sets: OptionSets | None = None

    @cached_property
    def run(self) -> RunRecord:
        """run.json. Raises FileError where one of its values has another type."""
        return as_object(RunRecord, self.run_json, self.folder / "run.json")

    @cached_property
    def log_p(self) -> np.ndarray:
        """(N, K) pooled log-probabilities."""
        return pool_members(self.members, self.pool)

    @cached_property
    def members(self) -> np.ndarray:
        """(M, N, K) each member's log-probabilities."""
        return member_log_probabilities(self.logits, self.calibrations, self.questions["task_type"])

    @property
    def pool(self) -> PoolSettings | None:
        """How the members were pooled; None for the run of a single checkpoint, or of several with equal weights."""
        return self.run.pool

    @cached_property
    def answered(self) -> np.ndarray:
        """(R,) indices of the rows that have a score and an answer."""
        return np.flatnonzero(self.logits.scored & np.array([bool(answer) for answer in self.questions["answer"]]))

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """(R,) the right option's index of rows that have an answer."""
        return np.array([LETTERS.index(self.questions["answer"][row]) for row in rows], int)

    def column(self, name: str, rows: np.ndarray) -> list[str]:
        """(R,) cells of a column; `unknown` for an empty one."""
        return [self.questions[name][row] or "unknown" for row in rows]

    def pictures(self, rows: np.ndarray) -> list[str]:
        """(R,) a name of each row's picture: rows of one picture are right or wrong together."""
        digests, names = self.questions["picture_digest"], self.questions["picture"]
        return [digests[row] or names[row] or f"row {row}" for row in rows]

    def option_sets(self) -> np.ndarray:
        """(N, K) bool: which options the row's set holds; of a folder from the column `set` of probabilities.csv."""
        if self.sets is not None:
            return self.sets.held
        cells = arrow_csv.read_csv(
            self.folder / "probabilities.csv",
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(include_columns=["set"], column_types={"set": pa.string()}),
        )["set"].to_pylist()
        letters = LETTERS[: self.log_p.shape[1]]
        return np.array([[letter in (cell or "") for letter in letters] for cell in cells], bool)

    @cached_property
    def exposed(self) -> np.ndarray:
        """(N, M) flags of `scores/exposure.py`: how each member has met each row before it scored it."""
        exposed = np.zeros((len(self.logits.ids), len(self.logits.members)), np.uint8)
        for row, flags in enumerate(self.questions["exposed"]):
            exposed[row, : len(flags)] = flags
        return exposed


def open_scores(folder: Path) -> Scores:
    """A SCORES folder. Raises RunError where it is none, or not finished; FileError where a part of it is damaged."""
    path = folder / "run.json"
    run_json = read_json(path)
    if run_json is None:
        raise RunError(f"{folder}: not a finished SCORES folder (no run.json); expected what `score` wrote")
    run = as_object(RunRecord, run_json, path)
    try:
        questions = pq.read_table(folder / "questions.parquet").to_pydict()
        count = len(questions["id"])
        if "picture_digest" not in questions:  # in folders of early versions digests depend on the pictures' names
            questions |= {"picture_digest": [""] * count, "digest": [""] * count}
        empty = {"question": [""] * count, "choices": [[]] * count, "exposed": [[]] * count}  # in early versions
        questions = empty | questions
        if missing := {"answer", "task_type", "options", "picture", "digest"} - set(questions):
            raise KeyError(", ".join(sorted(missing)))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError(f"{folder}: questions.parquet cannot be read ({error}); expected what `score` wrote") from None
    members = [entry.member for entry in run.checkpoints]
    layout = Layout(questions["id"], members, len(run.identity.letters), run.identity.orders)
    logits = read_parts(folder / "logits", layout)
    calibrations = [
        Calibration.from_json(entry.calibration or {"temperature": entry.temperature}, path)
        for entry in run.checkpoints
    ]
    return Scores(folder, run_json, logits, calibrations, questions)


Source = Path | Scores  # where results come from: a SCORES folder, opened or not, or a file of numbers


def opened(source: Source) -> Scores:
    """The SCORES folder, see `open_scores`."""
    return source if isinstance(source, Scores) else open_scores(source)


def path_of(source: Source) -> Path:
    """What messages call it."""
    return source.folder if isinstance(source, Scores) else source
