"""Answering only where it is sure enough: risk and coverage, thresholds with a bound, and sets of options."""

import numpy as np
from scipy.special import betaincinv

from scoring.stats.resampling import effective_rows

THRESHOLDS = np.round(np.arange(0.30, 1.0, 0.01), 2)  # that are tried; fixed, so that the bound holds for all at once
POINTS = 100  # of a curve
METHODS = ("lac", "aps")


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> list[dict]:
    """The curve: for the surest share of rows (coverage) the share of wrong answers among them (risk)."""
    order = np.argsort(-confidence, kind="stable")
    missed = (1 - right[order]).cumsum()
    places = np.unique(np.linspace(1, len(order), min(POINTS, len(order))).round().astype(int))
    return [
        {"coverage": place / len(order), "risk": float(missed[place - 1] / place), "threshold": float(sure)}
        for place, sure in zip(places.tolist(), confidence[order][places - 1])
    ]


def lower_bound(right: np.ndarray | float, total: np.ndarray | float, level: float) -> np.ndarray:
    """Clopper and Pearson's one-sided lower bound of a share, at that level of confidence."""
    right, total = np.asarray(right, float), np.asarray(total, float)
    return np.where(right > 0, betaincinv(np.maximum(right, 1e-9), total - right + 1, 1 - level), 0.0)


def threshold_for(
    confidence: np.ndarray, right: np.ndarray, wanted: float, level: float = 0.95, clusters: np.ndarray | None = None
) -> dict:
    """The lowest confidence from which on answers are right often enough.

    With 95 % certainty over the draw of these rows, answers at or above `threshold` are right with at least the
    `wanted` share on rows drawn like these: Clopper–Pearson, Bonferroni over the thresholds tried. `threshold` is
    None where no threshold can promise that. clusters: pictures of the rows; the bound is then that of as many
    effective rows (`resampling.effective_rows`; Korn and Graubard, 1998).
    """
    if not 0 < wanted < 1:
        raise ValueError(f"an accuracy of {wanted}; expected a number between 0 and 1")
    each = 1 - (1 - level) / len(THRESHOLDS)
    order = np.argsort(confidence)
    first = np.searchsorted(confidence[order], THRESHOLDS)
    total = len(confidence) - first
    hits = np.r_[right[order][::-1].cumsum()[::-1], 0.0][first]
    effective = total.astype(float)
    if clusters is not None:
        for start in np.unique(first[total > 0]):
            effective[first == start] = effective_rows(right[order][start:], clusters[order][start:])
    bounds = lower_bound(hits * effective / np.maximum(total, 1), np.maximum(effective, 1), each)
    good = np.flatnonzero((bounds >= wanted) & (total > 0))
    if not len(good):
        return no_threshold(wanted)
    lowest = good[0]
    return {
        "wanted": wanted,
        "threshold": float(THRESHOLDS[lowest]),
        "coverage": float(total[lowest] / len(confidence)),
        "accuracy": float(hits[lowest] / total[lowest]),
        "bound": float(bounds[lowest]),
    }


def no_threshold(wanted: float, reason: str = "") -> dict:
    """What `threshold_for` gives where no threshold can promise enough. reason: why no row may be used, if none may."""
    chosen = {"wanted": wanted, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}
    return chosen | ({"reason": reason} if reason else {})


# ------------------------------------------------------------------ sets of options
def nonconformity(p: np.ndarray, method: str = "lac", rng: np.random.Generator | None = None) -> np.ndarray:
    """(N, K) how little each option conforms: a set holds the options up to a quantile of the answers'.

    lac: 1 − p (Sadinle, Lei and Wasserman, 2019). aps: the sum of the probabilities from the likeliest option down to
    this one, equal ones by their letters; with rng the option's own counts for a random share (Romano, Sesia and
    Candès, 2020: sets then hold the answer exactly as often as asked, but may be empty). Infinity where a row has no
    such option.
    """
    there = np.isfinite(p)
    filled = np.where(there, p, 0)
    if method == "lac":
        return np.where(there, 1 - filled, np.inf)
    order = np.argsort(-filled, axis=1, kind="stable")
    before = np.take_along_axis(filled, order, 1).cumsum(1)
    up_to = np.empty_like(filled)
    np.put_along_axis(up_to, order, before, 1)
    if rng is not None:
        up_to -= rng.random((len(p), 1)) * filled
    return np.where(there, up_to, np.inf)


def set_quantile(
    values: np.ndarray, level: float, shares: np.ndarray | None = None, pictures: int | None = None
) -> float:
    """The finite-sample quantile of the answers' nonconformity on n labelled rows: their ⌈(n + 1)·level⌉-th smallest.

    pictures: how many the rows show, where several rows show one: the quantile then holds for a row of a picture to
    come: the smallest value up to which rows weigh (1 + 1/G)·level, with shares (n,) of equal weight for each of the G
    pictures (Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023). Infinity where the
    rows are too few for that level: then a set holds every option.
    """
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    count = pictures or len(values)
    if not count:
        return float("inf")
    weights = np.full(len(values), 1 / len(values)) if shares is None else np.asarray(shares, float)[order]
    enough = weights.cumsum() >= level * (1 + 1 / count) - 1e-9
    return float(values[order][enough.argmax()]) if enough.any() else float("inf")


def option_sets(
    p: np.ndarray, quantile: float, method: str = "lac", rng: np.random.Generator | None = None
) -> np.ndarray:
    """(N, K) bool: the options whose nonconformity is at most the quantile."""
    return np.isfinite(p) & (nonconformity(p, method, rng) <= quantile + 1e-12)


def guarantee(level: float, rows: int, pictures: int | None = None, selected: int = 0) -> str:
    """What the sets promise, in words. selected: on so many of the rows the checkpoint's epoch was chosen."""
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
