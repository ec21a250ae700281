"""Answering only where the confidence is high enough: risk and coverage, thresholds with a bound, sets of options.

confidence: (N,) the probability of the likeliest option. right: (N,) 1.0 where that option is right, else 0.0.
"""

from typing import NotRequired, TypedDict

import numpy as np
from scipy.special import betaincinv

from scoring.stats.resampling import effective_rows

THRESHOLDS = np.round(np.arange(0.30, 1.0, 0.01), 2)  # fixed before the rows are seen, so that the bound holds for all
POINTS = 100  # of a risk–coverage curve, at most
METHODS = ("lac", "aps")


class RiskPoint(TypedDict):
    """Among the most confident share of rows (coverage) the share of wrong answers (risk); threshold: to be in it."""

    coverage: float
    risk: float
    threshold: float


class Threshold(TypedDict):
    """The confidence threshold for a target accuracy, see `threshold_for`.

    wanted: the target. threshold: None where none can promise that; coverage is 0 then, accuracy and bound are None.
    reason: why no row may be used. rows, left_out: rows that were used, and not, where some may not be used.
    """

    wanted: float
    threshold: float | None
    coverage: float
    accuracy: float | None
    bound: float | None
    reason: NotRequired[str]
    rows: NotRequired[int]
    left_out: NotRequired[int]


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> list[RiskPoint]:
    """The risk–coverage curve in at most 100 points (El-Yaniv and Wiener, 2010), from the most confident row on."""
    order = np.argsort(-confidence, kind="stable")
    wrong = (1 - right[order]).cumsum()
    counts = np.unique(np.linspace(1, len(order), min(POINTS, len(order))).round().astype(int))
    return [
        {"coverage": count / len(order), "risk": float(wrong[count - 1] / count), "threshold": float(threshold)}
        for count, threshold in zip(counts.tolist(), confidence[order][counts - 1])
    ]


def lower_bound(right: np.ndarray | float, total: np.ndarray | float, level: float) -> np.ndarray:
    """Clopper and Pearson's one-sided lower bound (1934) of the shares right / total, at that confidence level.

    right, total: numbers, or arrays of one shape; they may be fractions, of effective rows.
    """
    right, total = np.asarray(right, float), np.asarray(total, float)
    return np.where(right > 0, betaincinv(np.maximum(right, 1e-9), total - right + 1, 1 - level), 0.0)


def threshold_for(
    confidence: np.ndarray, right: np.ndarray, wanted: float, level: float = 0.95, clusters: np.ndarray | None = None
) -> Threshold:
    """The lowest confidence threshold for a target accuracy.

    With probability `level` over the draw of these rows, answers whose confidence is at least `threshold` are right
    with at least the `wanted` share on rows drawn like these; threshold is None where none can promise that. bound: the
    lower bound of that share, Clopper–Pearson with Bonferroni's correction for the thresholds tried. coverage,
    accuracy: of these rows. clusters: (N,) numbers of pictures, or None; with them the bound is that of as many
    effective rows (`resampling.effective_rows`). Raises ValueError where `wanted` is not between 0 and 1.
    """
    if not 0 < wanted < 1:
        raise ValueError(f"an accuracy of {wanted}; expected a number between 0 and 1")
    corrected = 1 - (1 - level) / len(THRESHOLDS)  # Bonferroni
    order = np.argsort(confidence)
    first = np.searchsorted(confidence[order], THRESHOLDS)
    total = len(confidence) - first
    hits = np.r_[right[order][::-1].cumsum()[::-1], 0.0][first]
    effective = total.astype(float)
    if clusters is not None:
        for start in np.unique(first[total > 0]):
            effective[first == start] = effective_rows(right[order][start:], clusters[order][start:])
    bounds = lower_bound(hits * effective / np.maximum(total, 1), np.maximum(effective, 1), corrected)
    sufficient = np.flatnonzero((bounds >= wanted) & (total > 0))
    if not len(sufficient):
        return no_threshold(wanted)
    lowest = sufficient[0]
    return {
        "wanted": wanted,
        "threshold": float(THRESHOLDS[lowest]),
        "coverage": float(total[lowest] / len(confidence)),
        "accuracy": float(hits[lowest] / total[lowest]),
        "bound": float(bounds[lowest]),
    }


def no_threshold(wanted: float, reason: str = "") -> Threshold:
    """The result of `threshold_for` where no threshold can promise enough. reason: why no row may be used, or ""."""
    result: Threshold = {"wanted": wanted, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}
    if reason:
        result["reason"] = reason
    return result


# ------------------------------------------------------------------ sets of options
def nonconformity(p: np.ndarray, method: str = "lac", rng: np.random.Generator | None = None) -> np.ndarray:
    """(N, K) nonconformity of each option, for (N, K) probabilities; infinity where a row has no such option.

    A set holds the options up to a quantile of the right options' nonconformity on labelled rows.

    lac: 1 − p (Sadinle, Lei and Wasserman, Least ambiguous set-valued classifiers with bounded error levels, 2019).
    aps: the sum of the probabilities from the likeliest option down to this one, equal ones in the order of their
    letters. With rng a random share of the option's own probability counts: sets then hold the answer exactly as often
    as asked, but may be empty (Romano, Sesia and Candès, Classification with valid and adaptive coverage, 2020).
    """
    present = np.isfinite(p)
    filled = np.where(present, p, 0)
    if method == "lac":
        return np.where(present, 1 - filled, np.inf)
    order = np.argsort(-filled, axis=1, kind="stable")
    cumulative = np.empty_like(filled)
    np.put_along_axis(cumulative, order, np.take_along_axis(filled, order, 1).cumsum(1), 1)
    if rng is not None:
        cumulative -= rng.random((len(p), 1)) * filled
    return np.where(present, cumulative, np.inf)


def set_quantile(
    values: np.ndarray, level: float, shares: np.ndarray | None = None, pictures: int | None = None
) -> float:
    """The finite-sample quantile of (n,) nonconformities of labelled rows' answers: the ⌈(n + 1)·level⌉-th smallest.

    Infinity where the rows are too few for that level: a set then holds every option.

    pictures: the number G of pictures, where several rows show one. The quantile is then valid for a row of a new
    picture: the smallest value up to which the rows' shares sum to (1 + 1/G)·level. shares: (n,), of equal sum for each
    picture; None for equal shares (Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023).
    """
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    count = pictures or len(values)
    if not count:
        return float("inf")
    weights = np.full(len(values), 1 / len(values)) if shares is None else np.asarray(shares, float)[order]
    sufficient = weights.cumsum() >= level * (1 + 1 / count) - 1e-9
    return float(values[order][sufficient.argmax()]) if sufficient.any() else float("inf")


def option_sets(
    p: np.ndarray, quantile: float, method: str = "lac", rng: np.random.Generator | None = None
) -> np.ndarray:
    """(N, K) bool: the options of (N, K) probabilities whose nonconformity is at most the quantile."""
    held: np.ndarray = np.isfinite(p) & (nonconformity(p, method, rng) <= quantile + 1e-12)
    return held


def guarantee(level: float, rows: int, pictures: int | None = None, selected: int = 0) -> str:
    """The promise that sets make, in words. selected: how many of the labelled rows chose the checkpoint's epoch."""
    of_pictures = f" of {pictures:,} pictures" if pictures and pictures < rows else ""
    if selected:
        return (
            f"no promise: the epoch of the checkpoint was chosen on {selected:,} of the {rows:,} labelled rows, so "
            f"that sets hold the right option a little less often than {level:.0%} (with three epochs .892 for .90). "
            "For a promise, score other labelled rows and `calibrate` on them."
        )
    return (
        f"if {'pictures' if of_pictures else 'rows'} to come are exchangeable with the {rows:,} labelled "
        f"rows{of_pictures} (drawn like them, in any order), a set holds the right option with probability at least "
        f"{level:.0%}, over the draw of both. This is an average over rows: not a promise for each row, nor for each "
        "task type."
    )
