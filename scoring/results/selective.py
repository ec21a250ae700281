"""Answering only where it is sure enough: risk and coverage, thresholds with a bound, and sets of options."""

import numpy as np
from scipy.special import betaincinv

THRESHOLDS = np.round(np.arange(0.30, 1.0, 0.01), 2)  # that are tried; fixed, so that the bound holds for all at once
POINTS = 100  # of a curve


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> list[dict]:
    """The curve: for the surest share of rows (coverage) the share of wrong answers among them (risk)."""
    order = np.argsort(-confidence, kind="stable")
    missed = (1 - right[order]).cumsum()
    places = np.unique(np.linspace(1, len(order), min(POINTS, len(order))).round().astype(int))
    return [
        {"coverage": place / len(order), "risk": float(missed[place - 1] / place), "threshold": float(sure)}
        for place, sure in zip(places.tolist(), confidence[order][places - 1])
    ]


def lower_bound(right: np.ndarray | int, total: np.ndarray | int, level: float) -> np.ndarray:
    """Clopper and Pearson's one-sided lower bound of a share, at that level of confidence."""
    right, total = np.asarray(right, float), np.asarray(total, float)
    return np.where(right > 0, betaincinv(np.maximum(right, 1e-9), total - right + 1, 1 - level), 0.0)


def threshold_for(confidence: np.ndarray, right: np.ndarray, wanted: float, level: float = 0.95) -> dict:
    """The lowest confidence from which on answers are right often enough.

    With 95 % certainty over the draw of these rows, answers at or above `threshold` are right with at least the
    `wanted` share on rows drawn like these: Clopper–Pearson, Bonferroni over the thresholds tried. `threshold` is
    None where no threshold can promise that.
    """
    each = 1 - (1 - level) / len(THRESHOLDS)
    order = np.argsort(confidence)
    first = np.searchsorted(confidence[order], THRESHOLDS)
    total = len(confidence) - first
    hits = np.r_[right[order][::-1].cumsum()[::-1], 0.0][first]
    bounds = lower_bound(hits, np.maximum(total, 1), each)
    good = np.flatnonzero((bounds >= wanted) & (total > 0))
    if not len(good):
        return {"wanted": wanted, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}
    at = good[0]
    return {
        "wanted": wanted,
        "threshold": float(THRESHOLDS[at]),
        "coverage": float(total[at] / len(confidence)),
        "accuracy": float(hits[at] / total[at]),
        "bound": float(bounds[at]),
    }


def set_quantile(nonconformity: np.ndarray, level: float) -> float:
    """The finite-sample quantile of 1 − p(answer) on n labelled rows: their ⌈(n + 1)·level⌉-th smallest.

    Infinity where n is too small for that level: then a set holds every option.
    """
    values = np.sort(np.asarray(nonconformity, float))
    place = int(np.ceil((len(values) + 1) * level - 1e-9))
    return float(values[place - 1]) if place <= len(values) else float("inf")


def option_sets(p: np.ndarray, quantile: float) -> np.ndarray:
    """(N, K) bool: options whose 1 − p is at most the quantile (LAC: Sadinle, Lei and Wasserman, 2019)."""
    there = np.isfinite(p)
    return there & (1 - np.where(there, p, 0) <= quantile + 1e-12)


def guarantee(level: float, rows: int) -> str:
    """What the sets promise, in words."""
    return (
        f"if rows to come are exchangeable with the {rows:,} labelled rows (drawn like them, in any order), a set "
        f"holds the right option with probability at least {level:.0%}, over the draw of both. This is an average "
        "over rows: not a promise for each row, nor for each task type."
    )
