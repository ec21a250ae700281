"""What arrays of probabilities and answers must be: those that are not are refused, with the rows and the reason."""

from collections.abc import Sequence

import numpy as np

from scoring.errors import ScoringError, counted, first_of

OFF = 0.01  # how far from 1 the rounded probabilities of a row may sum


class MetricsError(ScoringError):
    """Probabilities or answers that have no metrics; says which rows, why, and what to do."""


def check_rows(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> None:
    """Raises MetricsError, with all faults at once, where these are not rows that metrics can be computed of.

    p: (N, K) probabilities, NaN where a row has fewer options. y: (N,) indices of the right options. clusters: (N,) or
    None. Rows are numbered from 0 in messages.
    """
    if p.ndim != 2 or y.shape != p.shape[:1] or (clusters is not None and np.shape(clusters) != y.shape):
        others = "" if clusters is None else f", clusters {np.shape(clusters)}"
        raise MetricsError(
            f"shapes: probabilities {p.shape}, answers {y.shape}{others}; expected (N, K), a row of K options for each "
            "question, and (N,)"
        )
    if not len(p):
        raise MetricsError("no rows; expected one or more: give the labelled rows that have a score")
    if not np.issubdtype(y.dtype, np.integer):
        raise MetricsError(f"answers of type {y.dtype}; expected indices of the right options, from 0 on")
    missing = np.isnan(p)
    sums = np.where(missing, 0.0, p).sum(1)
    lowest = np.where(missing, 0.0, p).min(1, initial=0.0)
    unscored, negative = missing.all(1), lowest < 0
    unlike_1 = ~(np.abs(sums - 1) <= OFF) & ~unscored & ~negative
    outside = (y < 0) | (y >= p.shape[1])
    lacking = ~outside & ~unscored & missing[np.arange(len(y)), np.where(outside, 0, y)]
    faults = [
        *_fault(unscored, (), "no probability; leave out rows without a score"),
        *_fault(
            negative, lowest, "negative probabilities; expected numbers from 0 to 1, not logits or their logarithms"
        ),
        *_fault(unlike_1, sums, "probabilities that do not sum to 1; expected a sum of 1 over the row's options"),
        *_fault(outside, y, f"an answer that is no option; expected the right option's index, 0 to {p.shape[1] - 1}"),
        *_fault(lacking, y, "an answer whose probability is NaN; expected one of the options that the row has"),
    ]
    if faults:
        raise MetricsError("\n".join(faults))


def _fault(wrong: np.ndarray, found: np.ndarray | Sequence[float], text: str) -> list[str]:
    """A line about the rows that are wrong, with what was found in the first of them. wrong: (N,) bool."""
    if not wrong.any():
        return []
    rows = np.flatnonzero(wrong).tolist()
    listed = first_of(f"{row} ({found[row]:.6g})" if len(found) else str(row) for row in rows)
    return [f"{counted(len(rows), 'row')} with {text}. By number, from 0: {listed}"]
