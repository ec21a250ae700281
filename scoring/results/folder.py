"""A SCORES folder: what `score` leaves, read and written."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.inputs.objects import FileError, as_object, read_json
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.results.calibration import Calibration
from scoring.results.files import write_table
from scoring.results.logits import OptionLogits, read_parts
from scoring.results.probabilities import (
    member_log_probabilities,
    pooled_log_probabilities,
    write_probabilities,
    write_submission,
)
from scoring.results.selective import guarantee, option_sets, set_quantile


class RunError(FileError):
    """A folder that cannot be used: another run's results, or not a SCORES folder."""


def question_digest(question: Question) -> str:
    """16 hexadecimal digits of what is asked: picture's file name, question, options. Not the id, nor the answer."""
    name = getattr(question.picture, "name", "")
    return hashlib.sha256(repr((name, question.question, question.options)).encode()).hexdigest()[:16]


def columns_of(questions: list[Question]) -> dict[str, list]:
    """What later steps need of the data: the columns of questions.parquet."""
    return {
        "id": [question.id for question in questions],
        "answer": [question.answer for question in questions],
        "task_type": [question.task_type for question in questions],
        "options": [len(question.options) for question in questions],
        "picture": [str(question.picture or "") for question in questions],
        "digest": [question_digest(question) for question in questions],
        "question": [question.question for question in questions],
        "choices": [list(question.options) for question in questions],
    }


def typed_columns(columns: dict[str, list]) -> dict[str, list | pa.Array]:
    """The same, of types that do not depend on what is in them."""
    options, choices = pa.array(columns["options"], pa.int32()), pa.array(columns["choices"], pa.list_(pa.string()))
    return columns | {"options": options, "choices": choices}


def write_results(
    out: Path,
    questions: list[Question] | dict[str, list],
    logits: OptionLogits,
    calibrations: list[Calibration],
    sets: float | None = None,
    how: dict | None = None,
) -> np.ndarray:
    """probabilities.csv, submission.csv and questions.parquet; of several members each one's in members/NAME.csv too.

    The (N, K) pooled log-probabilities are returned. sets: how often the column `set` must hold the right option; see
    `conformal_sets`. how: the pool's kind, weights and temperature; the mean of log-probabilities where not given.
    """
    columns = questions if isinstance(questions, dict) else columns_of(questions)
    log_p = pooled_log_probabilities(logits, calibrations, columns["task_type"], how)
    answers = columns["answer"] if any(columns["answer"]) else None
    write_table(out / "questions.parquet", pa.table(typed_columns(columns)))
    if len(logits.members) > 1:
        (out / "members").mkdir(exist_ok=True)
        parts = member_log_probabilities(logits, calibrations, columns["task_type"])
        for at, (member, part) in enumerate(zip(logits.members, parts)):
            write_probabilities(out / "members" / f"{member}.csv", logits, part, answers, member=at)
    held = conformal_sets(log_p, calibrations, sets)[0] if sets else None
    write_probabilities(out / "probabilities.csv", logits, log_p, answers, held)
    write_submission(out / "submission.csv", logits, log_p)
    return log_p


def conformal_sets(log_p: np.ndarray, calibrations: list[Calibration], level: float) -> tuple[np.ndarray, float, str]:
    """(N, K) which options a row's set holds, the quantile, what they promise. Raises RunError where they cannot."""
    if len(calibrations) != 1:
        raise RunError(
            f"--sets: {len(calibrations)} checkpoints are pooled, and their calibrations are each one's own; sets need "
            "labelled rows scored by this very pool. Score one checkpoint"
        )
    known = calibrations[0].nonconformity
    if not known:
        raise RunError(
            "--sets: the checkpoint's calibration keeps no labelled rows; make one with `calibrate SCORES --ckpt CKPT`"
        )
    quantile = min(set_quantile(np.array(known), level), 1.0)
    return option_sets(np.exp(log_p), quantile), quantile, guarantee(level, len(known))


@dataclass
class Scores:
    """A SCORES folder as read: raw logits, the calibrated pool, and what is known of the rows."""

    folder: Path
    about: dict  # run.json
    logits: OptionLogits
    calibrations: list[Calibration]
    questions: dict[str, list]  # columns of questions.parquet: see `columns_of`

    @cached_property
    def log_p(self) -> np.ndarray:
        """(N, K) pooled log-probabilities."""
        return pooled_log_probabilities(self.logits, self.calibrations, self.questions["task_type"], self.how)

    @cached_property
    def members(self) -> np.ndarray:
        """(M, N, K) each member's log-probabilities."""
        return member_log_probabilities(self.logits, self.calibrations, self.questions["task_type"])

    @property
    def how(self) -> dict:
        """Kind, weights and temperature of the pool."""
        told = self.about.get("pool", {})
        return {name: told[name] for name in ("kind", "weights", "temperature") if name in told}

    @cached_property
    def answered(self) -> np.ndarray:
        """Rows that have a score and an answer."""
        return np.flatnonzero(self.logits.scored & np.array([bool(answer) for answer in self.questions["answer"]]))

    def answers(self, rows: np.ndarray) -> np.ndarray:
        """(R,) the right option's index of rows that have an answer."""
        return np.array([LETTERS.index(self.questions["answer"][row]) for row in rows], int)

    def column(self, name: str, rows: np.ndarray) -> list[str]:
        return [self.questions[name][row] or "unknown" for row in rows]

    def pictures(self, rows: np.ndarray) -> list[str]:
        """What rows have in common that are right or wrong together; a row without a picture stands for itself."""
        return [self.questions["picture"][row] or f"row {row}" for row in rows]


@dataclass
class _Member:
    """An entry of `checkpoints` in run.json: what is read of it later."""

    member: str
    temperature: float
    fingerprint: str | None = None
    calibration: dict | None = None


@dataclass
class _Identity:
    letters: str
    orders: str = "1"
    pixels: int | None = None


@dataclass
class _Data:
    file: str = ""
    sha256: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass
class _Pool:
    kind: str = "log"
    weights: list[float] = field(default_factory=list)
    temperature: float = 1.0


@dataclass
class _About:
    """What later steps read of run.json, and what kind of value it must be."""

    checkpoints: list[_Member]
    identity: _Identity
    pool: _Pool = field(default_factory=_Pool)
    data: _Data = field(default_factory=_Data)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def open_scores(folder: Path) -> Scores:
    """Raises RunError where this is no finished SCORES folder, FileError where a part of it is damaged."""
    path = folder / "run.json"
    about = read_json(path)
    if about is None:
        raise RunError(f"{folder}: not a finished SCORES folder (no run.json); expected what `score` wrote")
    known = as_object(_About, about, path)
    try:
        questions = pq.read_table(folder / "questions.parquet").to_pydict()
        count = len(questions["id"])  # of folders that do not tell the texts yet
        questions = {"question": [""] * count, "choices": [[]] * count} | questions
        if missing := {"answer", "task_type", "options", "picture", "digest"} - set(questions):
            raise KeyError(", ".join(sorted(missing)))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise RunError(f"{folder}: questions.parquet cannot be read ({error}); expected what `score` wrote") from None
    members = [entry.member for entry in known.checkpoints]
    letters, orders = len(known.identity.letters), known.identity.orders
    logits = read_parts(folder / "logits", questions["id"], members, letters, orders)
    calibrations = [
        Calibration.from_json(entry.calibration or {"temperature": entry.temperature}, path)
        for entry in known.checkpoints
    ]
    return Scores(folder, about, logits, calibrations, questions)
