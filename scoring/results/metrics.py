"""How good answers and probabilities are: each figure with its uncertainty.

p: (N, K) probabilities, NaN or 0 where a row has fewer options. y: (N,) the right option's index.
"""

import numpy as np
from scipy.stats import binomtest

BINS = 15
DRAWS = 1_000


def accuracy(p: np.ndarray, y: np.ndarray) -> dict:
    """Share of rows whose likeliest option is right, with Wilson's 95 % interval."""
    right = int((np.nanargmax(p, axis=1) == y).sum())
    return {"value": right / len(y)} | wilson(right, len(y))


def wilson(right: int, total: int) -> dict:
    """Wilson's 95 % interval of a share."""
    interval = binomtest(right, total).proportion_ci(method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided p-value that two systems, right (True) or wrong on the same rows, are equally good."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return 1.0 if only_first == only_second == 0 else float(binomtest(only_first, only_first + only_second).pvalue)


def row_nll(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) negative log-likelihoods in nats."""
    return -np.log(np.clip(p[np.arange(len(y)), y], 1e-12, None))


def row_brier(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) squared distances to the truth, from 0 to 2 (Brier, 1950)."""
    hit = np.zeros_like(p)
    hit[np.arange(len(y)), y] = 1
    return ((np.nan_to_num(p) - hit) ** 2).sum(1)


def mean_with_interval(values: np.ndarray, rng: np.random.Generator) -> dict:
    """Mean with a 95 % bootstrap interval (percentiles)."""
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "low": float(low), "high": float(high)}


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Expected calibration error over bins of equal mass: Σ share · |accuracy − confidence|.

    confidence, right: (…, N); returns (…).
    """
    count = confidence.shape[-1]
    order = np.argsort(confidence, axis=-1, kind="stable")
    gaps = np.take_along_axis(right - confidence, order, axis=-1)
    starts = np.array([len(part) for part in np.array_split(np.arange(count), min(bins, count))]).cumsum()[:-1]
    return np.abs(np.add.reduceat(gaps, [0, *starts], axis=-1)).sum(-1) / count


def ece_with_floor(p: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> dict:
    """ECE of the top answer, its bootstrap interval, and its noise floor.

    The floor is what a perfectly calibrated model with these very probabilities would show on as many rows:
    its mean and 95 % quantile over simulated answers. An ECE within the floor's band is no sign of miscalibration.
    """
    confidence, right = np.nanmax(p, axis=1), (np.nanargmax(p, axis=1) == y).astype(float)
    boot, floor = [], []
    for _ in range(0, DRAWS, rows := max(1, min(DRAWS, 1_000_000 // len(y)))):
        drawn = rng.integers(0, len(y), (rows, len(y)))
        boot.append(ece(confidence[drawn], right[drawn]))
        floor.append(
            ece(np.broadcast_to(confidence, drawn.shape), (rng.random(drawn.shape) < confidence).astype(float))
        )
    low, high = np.quantile(np.concatenate(boot), [0.025, 0.975])
    simulated = np.concatenate(floor)
    return {
        "value": float(ece(confidence, right)),
        "low": float(low),
        "high": float(high),
        "floor_mean": float(simulated.mean()),
        "floor_95": float(np.quantile(simulated, 0.95)),
    }


def evaluate(p: np.ndarray, y: np.ndarray, groups: list[str] | None = None) -> dict:
    """All metrics over all rows and, where `groups` names one for each row, for every group with its size."""

    def of(rows: np.ndarray) -> dict:
        rng = np.random.default_rng(0)
        return {
            "rows": int(len(rows)),
            "accuracy": accuracy(p[rows], y[rows]),
            "nll": mean_with_interval(row_nll(p[rows], y[rows]), rng),
            "brier": mean_with_interval(row_brier(p[rows], y[rows]), rng),
            "ece": ece_with_floor(p[rows], y[rows], rng),
        }

    result = {"overall": of(np.arange(len(y)))}
    if groups and len(set(groups)) > 1:
        names = np.array(groups)
        result["groups"] = {name: of(np.flatnonzero(names == name)) for name in sorted(set(groups))}
    return result
