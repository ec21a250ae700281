"""Uncertainty of figures over rows that belong together: rows of one picture are right or wrong together.

clusters: (N,) integers from 0 on, equal for rows of one picture; None where every row has a picture of its own.
Intervals are bootstrap percentiles over clusters, at levels that allow for their number (Hesterberg, What Teachers
Should Know About the Bootstrap, 2015): Φ(−√(G / (G − 1)) · t) on both sides, with t of G − 1 degrees of freedom.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from scipy.special import bdtr, gammaln, ndtr, ndtri, pdtr, roots_hermitenorm, stdtrit

DRAWS, FEWEST_DRAWS = 1_000, 200  # fewer over 50,000 rows, where they hardly matter
CHUNK = 8_000_000  # weights that are held at a time
FLIPS = 4_000  # of signs, for a test
CLOSE = 1e-3  # relative: where a bisection ends
LARGE = 1e6  # a multiple of a signal that noise cannot turn round

# How often a row is drawn: a Poisson number of mean 1, looked up by 16 random bits (the Poisson bootstrap).
_POISSON = np.searchsorted(pdtr(np.arange(12), 1), (np.arange(65536) + 0.5) / 65536).astype(np.float32)


def clusters_of(names: Sequence[str]) -> np.ndarray | None:
    """(N,) numbers of equal names; None where all differ."""
    unique, numbers = np.unique(np.asarray(names), return_inverse=True)
    return None if len(unique) == len(numbers) else numbers


def draws_for(rows: int) -> int:
    """How many draws of so many rows are made."""
    return int(np.clip(DRAWS * 50_000 // max(rows, 1), FEWEST_DRAWS, DRAWS))


def chunks(draws: int, rows: int) -> list[int]:
    """Numbers of draws that are held at a time."""
    size = max(1, min(draws, CHUNK // max(rows, 1)))
    return [min(size, draws - start) for start in range(0, draws, size)]


def bootstrap_weights(
    rows: int, clusters: np.ndarray | None, rng: np.random.Generator, draws: int | None = None
) -> Iterator[np.ndarray]:
    """(draws, rows) weights in chunks: how often each row was drawn, with its cluster."""
    drawn = rows if clusters is None else int(clusters.max()) + 1
    for size in chunks(draws or draws_for(rows), rows):
        weights = _POISSON[rng.integers(0, 65536, (size, drawn), dtype=np.uint16)]
        weights[weights.sum(1) == 0] = 1
        yield weights if clusters is None else weights[:, clusters]


def cluster_count(rows: int, clusters: np.ndarray | None) -> int:
    """How many clusters so many rows form."""
    return rows if clusters is None else len(np.unique(clusters))


def tail(count: int) -> float:
    """The share of draws beyond each end of a 95 % interval over `count` clusters; 2.5 % where there are many."""
    if count < 2:
        return 0.025
    return float(ndtr(np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.025)))


def with_interval(value: float, draws: np.ndarray, count: int) -> dict:
    """A value and the 95 % interval of its draws over `count` clusters; None for all where it is not defined."""
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(draws, [tail(count), 1 - tail(count)])
    return {"value": value, "low": float(low), "high": float(high)}


# ------------------------------------------------------------------ shares
def wilson(right: float, total: float) -> dict:
    """Wilson's 95 % interval of a share (without scipy.stats, whose import takes half a second)."""
    z, share = float(ndtri(0.975)), right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {"low": max(0.0, float(middle - half)), "high": min(1.0, float(middle + half))}


def effective_rows(hits: np.ndarray, clusters: np.ndarray | None) -> float:
    """How many independent rows would tell a share as precisely as these (Korn and Graubard, 1998): N / design effect.

    The design effect, at least 1, is the variance of the share over clusters to that of independent rows, with t for
    normal quantiles. Where all hits are alike it cannot be estimated: then a cluster counts as one row.
    """
    rows = len(hits)
    if clusters is None or rows < 2:
        return float(rows)
    numbers = np.unique(clusters, return_inverse=True)[1]
    count, share = int(numbers.max()) + 1, float(np.mean(hits))
    if count == rows:
        return float(rows)
    if count < 2 or share in (0.0, 1.0):
        return float(count)
    off = np.bincount(numbers, hits - share)
    variance = count / (count - 1) * (off**2).sum() / rows**2
    effect = max(1.0, variance / (share * (1 - share) / rows))
    return rows / effect * float(ndtri(0.975) / -stdtrit(count - 1, 0.025)) ** 2


def share_of(hits: np.ndarray, clusters: np.ndarray | None = None) -> dict:
    """A share of rows with Wilson's 95 % interval, as of that many effective rows; `design_effect` with clusters."""
    hits = np.asarray(hits, float)
    share, effective = float(hits.mean()), effective_rows(hits, clusters)
    found = {"value": share} | wilson(share * effective, effective)
    return found if clusters is None else found | {"design_effect": len(hits) / effective}


def mean_error(values: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Standard error of the mean of (N,) values over clusters; 0 where there are not two."""
    off = values - values.mean()
    if clusters is not None:
        off = np.bincount(clusters, off)
        off = off[np.unique(clusters)]
    count = len(off)
    return float(np.sqrt((off**2).sum() * count / (count - 1)) / len(values)) if count > 1 else 0.0


# ------------------------------------------------------------------ tests
def mcnemar(first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Two-sided p-value that two systems, right (True) or wrong on the same rows, are equally good.

    McNemar's exact test. With clusters its generalisation: which system is which is flipped for all rows of a cluster
    together, over all flips, and of equally extreme outcomes half are counted (mid-p), since the clusters' sums are
    symmetric only about.
    """
    gain = second.astype(int) - first.astype(int)
    if clusters is None:
        only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
        return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))
    sums = np.rint(np.bincount(clusters, gain)).astype(int)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    chance = np.ones(1)  # of each sum of flipped sums, from the least to the greatest
    for size, count in zip(*np.unique(np.abs(sums), return_counts=True)):
        heads = np.arange(count + 1)
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = np.exp(
            gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * np.log(2)
        )
        chance = _convolve(chance, step)
    total, outcome = np.abs(sums).sum(), abs(sums.sum())
    distance = np.abs(np.arange(-total, total + 1))
    return float(min(1.0, chance[distance > outcome].sum() + chance[distance == outcome].sum() / 2))


def _convolve(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if len(first) * len(second) < 10_000_000:
        return np.convolve(first, second)
    from scipy.signal import fftconvolve  # here: its import takes a while

    return np.maximum(fftconvolve(first, second), 0)


def sign_flip_p(scores: np.ndarray, clusters: np.ndarray | None, seed: int = 0) -> float:
    """p-value that (N, K) score contributions have mean 0, whatever the correlation of rows within a cluster.

    The squared length of their sum, measured by the clusters' own covariance, against sums in which clusters have
    random signs (Hemerik, Goeman and Finos, Robust testing in generalized linear models by sign flipping, 2020).
    """
    if clusters is not None:
        scores = np.stack([np.bincount(clusters, column) for column in scores.T], 1)
    scores = scores[np.abs(scores).sum(1) > 0]
    if not len(scores):
        return 1.0
    inverse = np.linalg.pinv(scores.T @ scores)
    signs = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(scores)), np.int8) * 2.0 - 1

    def length(sums: np.ndarray) -> np.ndarray:
        return ((sums @ inverse) * sums).sum(-1)

    flipped = length(signs @ scores)
    return float((1 + (flipped >= length(scores.sum(0)) - 1e-12).sum()) / (1 + FLIPS))


# ------------------------------------------------------------------ figures that noise makes larger
def length_interval(
    length: Callable[[np.ndarray], np.ndarray], signal: np.ndarray, noise: np.ndarray, count: int
) -> dict:
    """The 95 % interval of the length of a vector that is seen with noise, such as ECE: of gaps, Σ |gap|.

    length: (…, D) -> (…), of a multiple it is the multiple. signal: (D,) as observed; noise: (draws, D) of bootstrap
    draws minus the signal; count: clusters. Noise makes lengths larger, so percentiles of draws do not cover. `low`:
    the shortest multiple of the signal whose length with noise is as large as observed in 2.5 % of draws; 0 where noise
    alone is. `high`: what noise along the signal, which may have made it shorter, allows for: no length was made
    shorter than that. Simulated coverage: `benchmarks/statistics.py`.
    """
    observed, beyond = float(length(signal)), tail(count)

    def upper(multiple: float) -> float:
        return float(np.quantile(length(multiple * signal + noise), 1 - beyond))

    low, high = 0.0, 1.0
    if upper(0.0) < observed:
        while high - low > CLOSE:
            middle = (low + high) / 2
            low, high = (middle, high) if upper(middle) < observed else (low, middle)
    shorter = length(LARGE * signal + noise) - LARGE * observed
    return {"low": low * observed, "high": observed + max(0.0, -float(np.quantile(shorter, beyond)))}


# ------------------------------------------------------------------ hits that come together
def latent_correlation(confidence: np.ndarray, residuals: np.ndarray, clusters: np.ndarray) -> float:
    """ρ of the normal variables behind hits, such that hits with these probabilities vary together as they do here.

    Hits of a cluster: Φ⁻¹(confidence) above a normal variable, of which the cluster shares the part ρ. residuals: hit
    minus what is expected of it. By the sum of products over pairs of a cluster; 0 where they do not vary together.
    """

    def pairs(values: np.ndarray) -> float:
        return float((np.bincount(clusters, values) ** 2).sum() - (values**2).sum())

    observed = pairs(residuals)
    if observed <= 0:
        return 0.0
    bound, nodes = ndtri(np.clip(confidence, 1e-9, 1 - 1e-9)), list(zip(*roots_hermitenorm(31)))
    total = sum(weight for _, weight in nodes)

    def expected(rho: float) -> float:
        inside = sum(
            weight / total * pairs(ndtr((bound - np.sqrt(rho) * node) / np.sqrt(1 - rho))) for node, weight in nodes
        )
        return inside - pairs(confidence)

    low, high = 0.0, 0.999
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < observed else (low, middle)
    return (low + high) / 2
