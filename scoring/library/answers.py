"""What comes out of a library call: `Answer` for a row, `Answers` for all rows, with all that a run knows. No torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import exposure_warnings
from scoring.scores.finalize import ScoredRun, scores_of
from scoring.scores.folder import Columns, Scores, columns_of
from scoring.scores.logits import SCORED, OptionLogits
from scoring.scores.probabilities import margins, mean_label_mass, pooled_log_probabilities, predictions
from scoring.stats.calibration import Calibration
from scoring.stats.pools import PoolSettings
from scoring.tables.table import Table

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")
IN_MEMORY = Path("answers")  # the name of results that were never written, in messages


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answer(Mapping[str, float]):
    """One row's answer: a mapping from the letters of its options to their probabilities, which sum to 1.

    A row without a score has no probabilities, and "" as its letter: `status` says why.

    letter: of the likeliest option. probabilities: what the mapping holds. margin: the probability of the likeliest
    option minus that of the second; NaN without a score. label_mass: the share of the model's whole softmax that falls
    on the letters, the mean over members and orders; NaN where it is not known. status: `ok`, or why there is no score.
    options: the options' texts, () where they are not known.

    >>> answer = Answer("q1", "b", {"a": 0.25, "b": 0.75}, 0.5)
    >>> answer.letter, answer["b"], max(answer, key=answer.get), answer == {"a": 0.25, "b": 0.75}
    ('b', 0.75, 'b', True)
    """

    id: str
    letter: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    margin: float = NAN
    label_mass: float = NAN
    status: str = SCORED
    options: tuple[str, ...] = ()

    def __getitem__(self, letter: str) -> float:
        return self.probabilities[letter]

    def __iter__(self) -> Iterator[str]:
        return iter(self.probabilities)

    def __len__(self) -> int:
        return len(self.probabilities)

    def __repr__(self) -> str:
        if not self.scored:
            return f"Answer({self.id!r}, no score: {self.status})"
        probabilities = ", ".join(f"{letter} {p:.3f}" for letter, p in self.probabilities.items())
        return f"Answer({self.id!r}, {self.letter!r}: {probabilities})"

    @property
    def scored(self) -> bool:
        """Whether the row has a score."""
        return self.status == SCORED

    @property
    def option(self) -> str:
        """The text of the likeliest option; "" without a score, or where the texts are not known."""
        index = LETTERS.index(self.letter) if self.letter else len(self.options)
        return self.options[index] if index < len(self.options) else ""


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of N rows without reading a picture: task types, right letters ("" unknown), options' texts."""

    task_types: list[str]
    answers: list[str]
    options: list[tuple[str, ...]]


class Answers(Sequence[Answer]):
    """The answers of N rows by M members, scored in O orders of up to K options: what a SCORES folder holds, in memory.

    A sequence of `Answer` in the rows' order; a slice is a list of them.
    """

    def __init__(
        self,
        logits: OptionLogits,
        calibrations: Sequence[Calibration],
        known: _Known,
        scores: Scores | Callable[[], Scores],
        pool: PoolSettings | None = None,
    ):
        """Made by `Scorer.score`, `load` or `pool`. scores: everything, or what makes it when it is needed first."""
        self.option_logits = logits
        self.calibrations = list(calibrations)
        self._known, self._scores, self._pool = known, scores, pool

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
    ) -> "Answers":
        """The answers to a table's questions.

        run_json: what run.json says, except for what follows from the logits, which is added. label_ids: the letters'
        tokens, for a warning about low label mass. exposed: (N, M) flags that say how each member has met each row
        before, of the columns and the table's digest (`Plan.exposed`). It is called when the flags are needed first:
        they, and the columns' digests, take reading every picture's file.
        """
        questions = table.questions

        def scores() -> Scores:
            columns = columns_of(questions)
            flags = np.zeros((len(questions), len(logits.members)), np.uint8)
            if exposed is not None:
                flags = exposed(columns, table.digest)
            columns["exposed"] = flags.tolist()
            values = {"counts": {"rows": len(questions)}, **run_json}
            warnings = exposure_warnings(logits.members, flags)
            run = ScoredRun(IN_MEMORY, values, columns, logits, [*calibrations], [*label_ids], warnings=warnings)
            return scores_of(run)

        known = _Known(
            [question.task_type for question in questions],
            [question.answer for question in questions],
            [tuple(question.options) for question in questions],
        )
        return cls(logits, calibrations, known, scores)

    @classmethod
    def of_scores(cls, scores: Scores) -> "Answers":
        """The answers of an opened SCORES folder, or of one in memory."""
        columns = scores.questions
        options = [tuple(texts) for texts in columns["choices"]]
        known = _Known(columns["task_type"], columns["answer"], options)
        return cls(scores.logits, scores.calibrations, known, scores, scores.pool)

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

    @property
    def status(self) -> list[str]:
        """(N,) `ok`, or why the row has no score."""
        return self.option_logits.status

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
        log_p = pooled_log_probabilities(self.option_logits, self.calibrations, self._known.task_types, self._pool)
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

    @cached_property
    def scores(self) -> Scores:
        """Everything as the rooms below have it. Reads the pictures' files for their digests, where nobody has yet."""
        return self._scores if isinstance(self._scores, Scores) else self._scores()

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers must know, as run.json has it."""
        return list(self.scores.run_json.get("warnings", []))

    def to_frame(self) -> "pd.DataFrame":
        """The columns of probabilities.csv as a pandas DataFrame of N rows; numbers are NaN without a score."""
        import pandas as pd

        letters = LETTERS[: self.logits.shape[3]]
        columns: dict[str, Any] = {"id": self.ids, "pred": self.letters}
        columns |= {f"p_{letter}": self.probabilities[:, index] for index, letter in enumerate(letters)}
        columns |= {
            "margin": self.margins,
            "label_mass": [answer.label_mass for answer in self._rows],
            "status": self.status,
        }
        if any(self.answers):
            pairs = list(zip(self.letters, self.answers))
            columns |= {
                "answer": self.answers,
                "correct": [float(letter == right) if letter and right else NAN for letter, right in pairs],
            }
        return pd.DataFrame(columns)
