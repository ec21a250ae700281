"""`metrics`: every metric of probabilities and right answers that a program has as arrays."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scoring.errors import counted, first_of
from scoring.inputs.prompt import LETTERS
from scoring.library.answers import Answers
from scoring.library.labels import GivenAnswers
from scoring.library.wording import for_callers
from scoring.stats.checks import MetricsError
from scoring.stats.metrics import RowMetrics, measure


@for_callers
def metrics(
    probabilities: Any, answers: Any = None, *, clusters: Sequence[Any] | np.ndarray | None = None, seed: int = 0
) -> RowMetrics:
    """Every metric of N rows (accuracy, NLL in nats, Brier score, ECE, AUROC …) with its 95 % interval.

    probabilities: (N, K), an array or lists or a DataFrame, NaN where a row has fewer options; or `Answers`, whose
    scored rows with an answer count, and whose rows of one picture are drawn together. answers: (N,) indices of the
    right options, from 0 on, or their letters; of `Answers` right letters for the rows without, or None. clusters: (N,)
    names or numbers of what is drawn together for the intervals, such as the rows' pictures. seed: of the bootstrap.
    Raises MetricsError where these are no probabilities, or an answer is no option.

    >>> result = metrics([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]], ["a", "b", "b"])
    >>> round(result["accuracy"]["value"], 3), round(result["nll"]["value"], 3)
    (0.667, 1.057)
    """
    if isinstance(probabilities, Answers):
        return _of_answers(probabilities, answers, clusters)
    if answers is None:
        raise MetricsError("answers=None; expected the right option of each row: its index, from 0 on, or its letter")
    p = _numbers(probabilities)
    numbers = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    return measure(p, _indices(answers), numbers, seed)


def _of_answers(given: Answers, answers: GivenAnswers | None, clusters: object) -> RowMetrics:
    if clusters is not None:
        raise MetricsError("clusters= of Answers: these know their pictures; give clusters with arrays")
    overall: RowMetrics = given.evaluate(answers=answers)["overall"]
    return overall


def _numbers(probabilities: Any) -> np.ndarray:
    """(N, K) float64. Raises MetricsError where they are none."""
    try:
        return np.asarray(probabilities, np.float64)
    except (TypeError, ValueError) as error:
        expected = "(N, K) numbers, NaN where a row has fewer options"
        raise MetricsError(f"probabilities: {error}; expected {expected}") from None


def _indices(answers: Any) -> np.ndarray:
    """(N,) indices of right options, of indices or letters. Raises MetricsError for other texts."""
    values = np.asarray(answers)
    if values.dtype.kind not in "UO":
        return values
    if all(isinstance(value, (int, np.integer)) for value in values.flat):
        return values.astype(int)
    texts = [str(value).lower() for value in values.flat]
    if wrong := [f"{row} ({text!r})" for row, text in enumerate(texts) if len(text) != 1 or text not in LETTERS]:
        raise MetricsError(
            f"{counted(len(wrong), 'answer')} that is no letter. By number, from 0: {first_of(wrong)}; expected "
            "letters such as a, or indices from 0 on"
        )
    return np.array([LETTERS.index(text) for text in texts], int).reshape(values.shape)
