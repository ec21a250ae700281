"""What comes out of a library call: an `Answer` for each row, in `Answers` with all that a run knows. No torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from scoring.inputs.prompt import LETTERS
from scoring.library.answer import NAN, Answer
from scoring.library.labels import GivenAnswers, answer_table, columns_by, labelled
from scoring.library.results import IN_MEMORY, calibrated, evaluated, loaded, pooled, saved
from scoring.library.wording import for_callers, for_programs
from scoring.scores.evaluation import compare_scores, exposure_warnings
from scoring.scores.finalize import ScoredRun, scores_of
from scoring.scores.folder import Columns, Scores, Source, columns_of
from scoring.scores.logits import OptionLogits
from scoring.scores.pooling import PoolOptions
from scoring.scores.probabilities import margins, mean_label_mass, pooled_log_probabilities, predictions
from scoring.scores.suspects import suspects_of
from scoring.stats.calibration import Calibration
from scoring.stats.pools import PoolSettings
from scoring.stats.sets import SetRequest
from scoring.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Answer", "Answers", "pool_answers"]


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of N rows without reading a picture: task types, right letters ("" unknown), options' texts.

    pool: how members are pooled; None for equal weights. has_sets: whether option sets were asked for.
    """

    task_types: list[str]
    answers: list[str]
    options: list[tuple[str, ...]]
    pool: PoolSettings | None = None
    has_sets: bool = False


class Answers(Sequence[Answer]):
    """The answers of N rows by M members, scored in O orders of up to K options: what a SCORES folder holds, in memory.

    A sequence of `Answer` in the rows' order; a slice is a list of them.

    >>> from tempfile import NamedTemporaryFile
    >>> with NamedTemporaryFile("w", suffix=".csv") as file:
    ...     _ = file.write("id,p_a,p_b\\nq1,0.9,0.1\\nq2,0.2,0.8\\n"), file.flush()
    ...     answers = Answers.load(file.name, answers=["a", "a"])
    >>> answers.letters, answers.answers, answers.evaluate()["overall"]["accuracy"]["value"]
    (['a', 'b'], ['a', 'a'], 0.5)
    """

    def __init__(
        self,
        logits: OptionLogits,
        calibrations: Sequence[Calibration],
        known: _Known,
        scores: Scores | Callable[[], Scores],
    ):
        """Made by `Scorer.score`, `load` or `pool`. scores: everything, or what makes it when it is needed first."""
        self.option_logits = logits
        self.calibrations = list(calibrations)
        self._known, self._scores = known, scores

    @classmethod
    def of(  # noqa: PLR0913 - what a run knows, each by its name
        cls,
        *,
        table: Table,
        logits: OptionLogits,
        calibrations: Sequence[Calibration],
        run_json: Mapping[str, Any],
        label_ids: Sequence[int] = (),
        exposed: Callable[[Columns, str], np.ndarray] | None = None,
        sets: SetRequest | None = None,
    ) -> "Answers":
        """The answers to a table's questions.

        run_json: what run.json says; what follows from the logits is added. label_ids: the letters' tokens, for a
        warning about low label mass. exposed: (N, M) flags of how each member has met each row before, by the columns
        and the table's digest (`Plan.exposed`); called when they are needed first, since digests take reading every
        picture's file. sets: option sets to add.
        """
        questions = table.questions

        def scores() -> Scores:
            columns = columns_of(questions)
            unknown = np.zeros((len(questions), len(logits.members)), np.uint8)
            flags = exposed(columns, table.digest) if exposed else unknown
            columns["exposed"] = flags.tolist()
            values = {**run_json, "counts": {"rows": len(questions), **run_json.get("counts", {})}}
            told = exposure_warnings(logits.members, flags)
            return scores_of(ScoredRun(IN_MEMORY, values, columns, logits, [*calibrations], [*label_ids], sets, told))

        known = _Known(
            [question.task_type for question in questions],
            [question.answer for question in questions],
            [tuple(question.options) for question in questions],
            has_sets=sets is not None,
        )
        return cls(logits, calibrations, known, scores)

    @classmethod
    def of_scores(cls, scores: Scores) -> "Answers":
        """The answers of an opened SCORES folder, or of one in memory."""
        columns = scores.questions
        options = [tuple(texts) for texts in columns["choices"]]
        known = _Known(columns["task_type"], columns["answer"], options, scores.pool, bool(scores.run.sets))
        return cls(scores.logits, scores.calibrations, known, scores)

    def __reduce__(self) -> tuple[Any, ...]:
        return Answers.of_scores, (self.scores,)

    # -------------------------------------------------------------- rows
    def __len__(self) -> int:
        return len(self.option_logits.ids)

    @overload
    def __getitem__(self, row: int) -> Answer: ...
    @overload
    def __getitem__(self, row: slice) -> list[Answer]: ...
    def __getitem__(self, row: int | slice) -> Answer | list[Answer]:
        return self._rows[row]

    def __repr__(self) -> str:
        scored, members = int(self.option_logits.scored.sum()), ", ".join(self.members)
        return f"Answers({len(self):,} rows, {scored:,} scored, by {members})"

    @cached_property
    def _rows(self) -> list[Answer]:
        mass = np.where(self.option_logits.scored, mean_label_mass(self.option_logits), np.nan).tolist()
        rows = zip(self.probabilities.tolist(), self.ids, self.letters, self.margins.tolist(), mass, self.status)
        return [
            Answer(
                id, letter, {LETTERS[index]: p for index, p in enumerate(row) if p == p}, margin, mass, status, texts
            )
            for (row, id, letter, margin, mass, status), texts in zip(rows, self._known.options)
        ]

    # -------------------------------------------------------------- arrays
    @property
    def ids(self) -> list[str]:
        """(N,) of the rows."""
        return self.option_logits.ids

    @property
    def members(self) -> list[str]:
        """(M,) names: of checkpoints, or of what was pooled."""
        return self.option_logits.members

    @property
    def orders(self) -> str:
        """The orders of the options that the rows were scored in, such as `1` or `cyclic`."""
        return self.option_logits.orders

    @property
    def logits(self) -> np.ndarray:
        """(N, M, O, K) float32 raw logits by the data's option; NaN where a row has no such option, order or score."""
        return self.option_logits.logits

    @property
    def label_mass(self) -> np.ndarray:
        """(N, M, O) float32, the share of the whole softmax that falls on the row's letters; NaN where not known."""
        return self.option_logits.label_mass

    @property
    def top_token(self) -> np.ndarray:
        """(N, M, O) int64, the id of the vocabulary's likeliest token; -1 where it is not known."""
        return self.option_logits.top_token

    @cached_property
    def status(self) -> list[str]:
        """(N,) `ok`, or why the row has no score."""
        return list(map(for_programs, self.option_logits.status))

    @property
    def answers(self) -> list[str]:
        """(N,) the right letters, "" where they are not known."""
        return self._known.answers

    @cached_property
    def log_probabilities(self) -> np.ndarray:
        """(N, K) of the calibrated pool of all members; NaN where a row has fewer options, or no score."""
        scored = self.option_logits.scored
        if not scored.any():
            return np.full((len(self), self.logits.shape[3]), np.nan)
        log_p = pooled_log_probabilities(
            self.option_logits, self.calibrations, self._known.task_types, self._known.pool
        )
        return np.where(scored[:, None], log_p, np.nan)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """(N, K) of the calibrated pool of all members; NaN where a row has fewer options, or no score."""
        p: np.ndarray = np.exp(self.log_probabilities)
        return p

    @cached_property
    def letters(self) -> list[str]:
        """(N,) of the likeliest options; "" without a score."""
        if not self.option_logits.scored.any():
            return [""] * len(self)
        return predictions(self.option_logits, self.log_probabilities)

    @cached_property
    def margins(self) -> np.ndarray:
        """(N,) probability of the likeliest option minus that of the second; NaN without a score."""
        if not self.option_logits.scored.any():
            return np.full(len(self), np.nan)
        return np.where(self.option_logits.scored, margins(self.log_probabilities), np.nan)

    @property
    def scores(self) -> Scores:
        """Everything as the rooms below have it. Reads the pictures' files for their digests, where nobody has yet."""
        if not isinstance(self._scores, Scores):
            self._scores = self._scores()  # from now on the table with its pictures is not needed
        return self._scores

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers must know, as run.json has it."""
        return list(self.scores.run_json.get("warnings", []))

    @cached_property
    def sets(self) -> list[str] | None:
        """(N,) the letters of each row's option set, such as `ac`; None where no sets were asked for."""
        if not self._known.has_sets:
            return None
        held = self.scores.option_sets().tolist()
        return ["".join(letter for letter, in_set in zip(LETTERS, row) if in_set) for row in held]

    def to_frame(self) -> "pd.DataFrame":
        """The columns of probabilities.csv as a pandas DataFrame of N rows; numbers are NaN without a score."""
        import pandas as pd

        letters = LETTERS[: self.logits.shape[3]]
        columns: dict[str, Any] = {"id": self.ids, "pred": self.letters}
        columns |= {f"p_{letter}": self.probabilities[:, index] for index, letter in enumerate(letters)}
        mass = [answer.label_mass for answer in self._rows]
        columns |= {"margin": self.margins, "label_mass": mass, "status": self.status}
        if self.sets is not None:
            columns["set"] = self.sets
        if any(self.answers):
            pairs = list(zip(self.letters, self.answers))
            columns |= {
                "answer": self.answers,
                "correct": [float(letter == right) if letter and right else NAN for letter, right in pairs],
            }
        return pd.DataFrame(columns)

    # -------------------------------------------------------------- files
    @for_callers
    def save(
        self, folder: str | PathLike[str], *, overwrite: bool = False, sample: str | PathLike[str] | None = None
    ) -> Path:
        """Write a SCORES folder, which every command and `load` read; its path.

        overwrite: replace the results that the folder holds. sample: a sample submission, whose header, ids and order
        submission.csv takes. Raises RunError where the folder holds files that must not be replaced, InputError where
        the sample has an id that no row has.
        """
        return saved(self.scores, Path(folder), overwrite, Path(sample) if sample else None)

    @classmethod
    @for_callers
    def load(
        cls,
        path: str | PathLike[str],
        *,
        form: str = "auto",
        answers: GivenAnswers | None = None,
        calibrations: Sequence[Calibration] = (),
    ) -> "Answers":
        """The answers in a SCORES folder, or in anyone's file of numbers as `evaluate` reads it; nothing is written.

        form: what the letters' columns of a file hold: probabilities, log-probabilities, logits, shares or `auto`.
        answers: right letters for rows that have none, see `evaluate`. calibrations: of the members, in place of their
        own. Raises RunError or FileError for a folder, EnsembleError or InputError for a file, that cannot be used.
        """
        return cls.of_scores(loaded(Path(path), form, answers, calibrations))

    @for_callers
    def report(self, path: str | PathLike[str], *, rows: int = 1000) -> Path:
        """Write an HTML page with the figures, tables and rows, at most so many; its path."""
        from scoring.report.page import write_report  # here: it imports what draws

        out = Path(path)
        with TemporaryDirectory() as folder:
            return write_report(self.save(Path(folder) / out.stem), out, rows)

    # -------------------------------------------------------------- figures
    @for_callers
    def evaluate(
        self,
        *,
        answers: GivenAnswers | None = None,
        by: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
        accuracy: float = 0.95,
    ) -> dict[str, Any]:
        """Every metric with its 95 % interval, as metrics.json has them; nothing is written.

        answers: right letters for rows that have none: {id: letter}, a list in the rows' order ("" where unknown), or a
        table's path. by: columns to group by too: (N,) values by name, or names of columns of the table that was
        scored. accuracy: what the confidence threshold must promise. Raises RunError where no scored row has an answer,
        EnsembleError for an answer that is none of its row's options or differs from the row's own.
        """
        return evaluated(scores := labelled(self.scores, answers), columns_by(scores, by), accuracy)

    @for_callers
    def suspects(self, *, answers: GivenAnswers | None = None) -> list[dict[str, Any]]:
        """Rows whose right letter is probably wrong, least credible first, as `evaluate` writes them to suspects.csv.

        Of the rows that no member was trained on those that are `flagged`, and others up to 20: with id, answer, pred,
        p_answer, p_pred, label_quality, flagged, picture and question. answers: see `evaluate`.
        """
        scores = labelled(self.scores, answers)
        columns = suspects_of(scores, scores.answered)
        return [dict(zip(columns, values)) for values in zip(*columns.values())]

    @for_callers
    def compare(self, other: "Answers") -> dict[str, Any]:
        """These answers against others, on the rows (by id) that are scored and answered in both.

        Returns what `evaluate A B` writes to comparison.json. Raises RunError where there is no such row, or one id has
        different questions or answers.
        """
        return compare_scores(self.scores, other.scores)

    @for_callers
    def calibrate(
        self,
        *,
        answers: GivenAnswers | None = None,
        member: str | None = None,
        ckpt: str | PathLike[str] | None = None,
    ) -> Calibration:
        """A calibration, fitted on the labelled rows that the member was not trained on, as `calibrate` fits it.

        answers: see `evaluate`. member: which one, where there are several. ckpt: the checkpoint (or folder of folds)
        that scored the rows; the calibration is written into its folder, where `Scorer.load` finds it. Raises RunError
        or EnsembleError where no row can be used, MismatchError where the checkpoint has not scored these rows.
        """
        scores = labelled(self.scores, answers)
        return calibrated(scores, member, None if ckpt is None else str(ckpt))

    @for_callers
    def pool(  # noqa: PLR0913 - the options of `ensemble`, each by its name
        self,
        *others: "Answers | str | PathLike[str]",
        kind: str = "log",
        weights: str | Sequence[float] = "equal",
        fit: "Answers | str | PathLike[str] | None" = None,
        calibrations: Sequence[Calibration] = (),
        answers: GivenAnswers | None = None,
        sets: float | SetRequest | None = None,
        names: Sequence[str] | None = None,
    ) -> "Answers":
        """The members of these and other answers (or folders, files) as one pool, as `ensemble` makes it.

        Rows are matched by id. kind: `log`, `linear` or `vote`. weights: `equal`, `nll`, `fit` or `greedy` (these three
        need `fit`), or a number for each member. fit: labelled rows that no member was trained on, answered by the same
        members. calibrations: of members, in place of their own. answers: see `evaluate`. sets: add sets of options, of
        which this share holds the right one; they need `fit`. names: of the members. Raises EnsembleError, RunError or
        SetsError.
        """
        options = PoolOptions(
            kind,
            weights if isinstance(weights, str) else ",".join(str(float(weight)) for weight in weights),
            fit=None if fit is None else source_of(fit),
            calibrations=calibrations,
            answers=None if answers is None else answer_table(answers, self.ids),
            sets=SetRequest(sets) if isinstance(sets, float) else sets,
            names=names,
        )
        return pool_answers([self, *others], options)


def pool_answers(
    parts: Sequence[Answers | str | PathLike[str]],
    options: PoolOptions | None = None,
    run_json: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Answers:
    """The members of all parts as one pool, see `Answers.pool`. run_json, warnings: further values for run.json."""
    return Answers.of_scores(pooled([source_of(part) for part in parts], options, run_json, warnings))


def source_of(part: Answers | str | PathLike[str]) -> Source:
    """What the rooms below take: results in memory, a SCORES folder or a file of numbers."""
    return part.scores if isinstance(part, Answers) else Path(part)
