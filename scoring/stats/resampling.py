"""The uncertainty of metrics over rows that belong together: rows of one picture are right or wrong together.

clusters: (N,) integers from 0 on, equal for rows of one picture; None where every row has a picture of its own.
Intervals are bootstrap percentiles over clusters, at levels that allow for their number G (Hesterberg, What Teachers
Should Know About the Bootstrap, 2015): Φ(−√(G / (G − 1)) · t) on both sides, with t of G − 1 degrees of freedom.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NotRequired, TypedDict

import numpy as np
from scipy.special import bdtr, gammaln, ndtr, ndtri, pdtr, roots_hermitenorm, stdtrit

DRAWS, FEWEST_DRAWS = 1_000, 200  # of a bootstrap: fewer for more than 50,000 rows, where they hardly matter
CHUNK = 8_000_000  # weights in memory at a time
FLIPS = 4_000  # random signs of each cluster, for a test
CLOSE = 1e-3  # where a bisection ends, relative to the observed length
LARGE = 1e6  # a multiple of a signal that noise cannot reverse

# How often a row is drawn: a Poisson number of mean 1, looked up by 16 random bits (the Poisson bootstrap).
_POISSON = np.searchsorted(pdtr(np.arange(12), 1), (np.arange(65536) + 0.5) / 65536).astype(np.float32)


class Interval(TypedDict):
    """A 95 % interval."""

    low: float
    high: float


class Estimate(TypedDict):
    """A metric and its 95 % interval; None for all three where the metric is not defined on these rows."""

    value: float | None
    low: float | None
    high: float | None


class Share(Interval):
    """A share of rows and its 95 % interval. design_effect: rows / effective rows, where rows share pictures."""

    value: float
    design_effect: NotRequired[float]


def clusters_of(names: Sequence[str]) -> np.ndarray | None:
    """(N,) numbers that are equal for equal names; None where all names differ."""
    unique, numbers = np.unique(np.asarray(names), return_inverse=True)
    return None if len(unique) == len(numbers) else numbers


def draws_for(rows: int) -> int:
    """The number of bootstrap draws for so many rows."""
    return int(np.clip(DRAWS * 50_000 // max(rows, 1), FEWEST_DRAWS, DRAWS))


def chunks(draws: int, rows: int) -> list[int]:
    """`draws` in parts whose weights of `rows` fit into memory at a time."""
    size = max(1, min(draws, CHUNK // max(rows, 1)))
    return [min(size, draws - start) for start in range(0, draws, size)]


def bootstrap_weights(
    rows: int, clusters: np.ndarray | None, rng: np.random.Generator, draws: int | None = None
) -> Iterator[np.ndarray]:
    """(draws, rows) float32 weights, in chunks of draws: how often each row was drawn, along with its cluster.

    draws: None for `draws_for(rows)`.
    """
    count = rows if clusters is None else int(clusters.max()) + 1
    for size in chunks(draws or draws_for(rows), rows):
        weights = _POISSON[rng.integers(0, 65536, (size, count), dtype=np.uint16)]
        weights[weights.sum(1) == 0] = 1
        yield weights if clusters is None else weights[:, clusters]


def cluster_count(rows: int, clusters: np.ndarray | None) -> int:
    """The number of clusters among `rows` rows."""
    return rows if clusters is None else len(np.unique(clusters))


def tail(count: int) -> float:
    """The share of draws beyond each end of a 95 % interval over `count` clusters: less than 2.5 % for few of them."""
    if count < 2:
        return 0.025
    return float(ndtr(np.sqrt(count / (count - 1)) * stdtrit(count - 1, 0.025)))


def with_interval(value: float, draws: np.ndarray, count: int) -> Estimate:
    """A value and the 95 % interval of its (draws,) bootstrap values over `count` clusters."""
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(draws, [tail(count), 1 - tail(count)])
    return {"value": value, "low": float(low), "high": float(high)}


# ------------------------------------------------------------------ shares
def wilson(right: float, total: float) -> Interval:
    """Wilson's 95 % interval of the share right / total (1927), without scipy.stats, whose import takes half a second.

    Either may be a fraction, of effective rows.
    """
    z, share = float(ndtri(0.975)), right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {"low": max(0.0, float(middle - half)), "high": min(1.0, float(middle + half))}


def effective_rows(hits: np.ndarray, clusters: np.ndarray | None) -> float:
    """How many independent rows would give a share as precisely as these (N,) hits: N / design effect.

    The design effect, at least 1, is the variance of the share over clusters divided by that of independent rows, with
    t for normal quantiles (Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts, 1998). Where all hits are alike it cannot be estimated: then a cluster counts as one row.
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
    deviations = np.bincount(numbers, hits - share)
    variance = count / (count - 1) * (deviations**2).sum() / rows**2
    effect = max(1.0, float(variance / (share * (1 - share) / rows)))
    return rows / effect * float(ndtri(0.975) / -stdtrit(count - 1, 0.025)) ** 2


def share_of(hits: np.ndarray, clusters: np.ndarray | None = None) -> Share:
    """The share of (N,) hits with Wilson's 95 % interval for as many effective rows; `design_effect` with clusters."""
    hits = np.asarray(hits, float)
    share, effective = float(hits.mean()), effective_rows(hits, clusters)
    interval = wilson(share * effective, effective)
    result: Share = {"value": share, "low": interval["low"], "high": interval["high"]}
    if clusters is not None:
        result["design_effect"] = len(hits) / effective
    return result


def mean_error(values: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """The standard error of the mean of (N,) values over clusters; 0 where there are fewer than two."""
    deviations = values - values.mean()
    if clusters is not None:
        deviations = np.bincount(clusters, deviations)
        deviations = deviations[np.unique(clusters)]
    count = len(deviations)
    return float(np.sqrt((deviations**2).sum() * count / (count - 1)) / len(values)) if count > 1 else 0.0


# ------------------------------------------------------------------ tests
def mcnemar(first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None) -> float:
    """Two-sided p-value of the hypothesis that two systems are equally good. first, second: (N,) bool, right or wrong.

    McNemar's exact test (1947). With clusters it is a permutation test: the two systems are swapped for all rows of a
    cluster together, over all swaps. Half of the equally extreme outcomes are counted (mid-p), since the clusters' sums
    are only roughly symmetric.
    """
    gain = second.astype(int) - first.astype(int)
    if clusters is None:
        only_first, only_second = int((gain < 0).sum()), int((gain > 0).sum())
        return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))
    sums = np.rint(np.bincount(clusters, gain)).astype(int)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    chance = np.ones(1)  # the probability of each total of the swapped sums, from the least total to the greatest
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
    from scipy.signal import fftconvolve  # imported late: it takes a while

    product: np.ndarray = np.maximum(fftconvolve(first, second), 0)
    return product


def sign_flip_p(scores: np.ndarray, clusters: np.ndarray | None, seed: int = 0) -> float:
    """p-value of the hypothesis that (N, F) score contributions have mean 0, for any correlation within a cluster.

    The statistic is the squared length of their sum, measured by the clusters' covariance. It is compared with sums in
    which clusters have random signs (Hemerik, Goeman and Finos, Robust testing in generalized linear models by sign
    flipping score contributions, 2020). seed: of the signs.
    """
    if clusters is not None:
        scores = np.stack([np.bincount(clusters, column) for column in scores.T], 1)
    scores = scores[np.abs(scores).sum(1) > 0]
    if not len(scores):
        return 1.0
    inverse = np.linalg.pinv(scores.T @ scores)
    signs = np.random.default_rng(seed).integers(0, 2, (FLIPS, len(scores)), np.int8) * 2.0 - 1

    def length(sums: np.ndarray) -> np.ndarray:
        squared: np.ndarray = ((sums @ inverse) * sums).sum(-1)
        return squared

    flipped = length(signs @ scores)
    return float((1 + (flipped >= length(scores.sum(0)) - 1e-12).sum()) / (1 + FLIPS))


# ------------------------------------------------------------------ metrics that noise makes larger
def length_interval(
    length: Callable[[np.ndarray], np.ndarray], signal: np.ndarray, noise: np.ndarray, count: int
) -> Interval:
    """The 95 % interval of the length of a vector that is observed with noise, such as ECE: the length Σ |gap| of gaps.

    length: (…, D) -> (…), homogeneous: the length of a multiple is that multiple of the length. signal: (D,) as
    observed. noise: (draws, D) bootstrap draws minus the signal. count: clusters.

    Noise makes lengths larger, so that percentiles of draws do not cover. low: the length of the smallest multiple of
    the signal that with noise is as long as observed in 2.5 % of draws; 0 where noise alone is. high: the observed
    length plus what noise along the signal may have taken from it. Simulated coverage: `benchmarks/statistics.py`.
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
    """The correlation ρ, 0 to 0.999, of latent normal variables with which hits vary together as much as observed.

    confidence: (N,) probabilities of a hit. residuals: (N,) hits minus what is expected of them. clusters: (N,). A row
    is a hit where its normal variable is below Φ⁻¹(confidence); a share ρ of the variable's variance is common to its
    cluster. ρ is found from the sum of products over the pairs of rows of a cluster; 0 where that is not above 0.
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
        return float(inside - pairs(confidence))

    low, high = 0.0, 0.999
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < observed else (low, middle)
    return (low + high) / 2
