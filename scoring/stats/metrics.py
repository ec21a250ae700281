"""Metrics of answers and probabilities, each with its uncertainty.

p: (N, K) probabilities, NaN or 0 where a row has fewer options. y: (N,) indices of the right options. clusters: (N,)
numbers of pictures, or None, see `stats/resampling.py`, which has the intervals. confidence: (N,) probabilities of the
likeliest options. right: (N,) 1.0 where that option is right, else 0.0.

Every metric is a function of weighted sums over rows, so that one sparse product gives those of all bootstrap draws.
AUROC and AURC depend on ranks: for their draws rows are summed by five-hundredths of the ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
from scipy.fft import dct, idct, rfft
from scipy.sparse import csr_array
from scipy.special import ndtr

from scoring.stats.checks import check_rows
from scoring.stats.resampling import (
    FEWEST_DRAWS,
    Estimate,
    Interval,
    Share,
    bootstrap_weights,
    chunks,
    cluster_count,
    clusters_of,
    draws_for,
    latent_correlation,
    length_interval,
    share_of,
    with_interval,
)

BINS = 15  # of equal mass, for the expected calibration errors
RANKS = 500  # groups of ranks, for AUROC and AURC of draws
CELLS = 512  # of confidence, for the smooth calibration error


# ------------------------------------------------------------------ what is written
class NoiseFloor(TypedDict):
    """Mean and 95 % quantile of the ECE that a perfectly calibrated model would show on as many rows."""

    floor_mean: float
    floor_95: float


class CalibrationError(Estimate, NoiseFloor):
    """An ECE with its interval and its noise floor."""


class LetterMetrics(TypedDict):
    """rows: with this right answer. recall: the share of them answered so; None of no rows. predicted: of all rows."""

    rows: int
    recall: float | None
    predicted: float


class RowMetrics(TypedDict):
    """Every metric of a set of rows. nll: in nats. letters: by option index."""

    rows: int
    accuracy: Share
    nll: Estimate
    brier: Estimate
    auroc: Estimate
    aurc: Estimate
    ece: CalibrationError
    rms_calibration_error: Estimate
    smooth_ece: Estimate
    classwise_ece: Estimate
    recall_std: Estimate
    letters: list[LetterMetrics]


class MemberMetrics(TypedDict):
    """The metrics by which members of an ensemble are compared. nll: in nats."""

    accuracy: Share
    nll: Estimate
    brier: Estimate
    ece: CalibrationError


# ------------------------------------------------------------------ metrics as functions of rows
def accuracy(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> Share:
    """The share of rows whose likeliest option is right, with Wilson's 95 % interval over clusters."""
    return share_of(np.nanargmax(p, axis=1) == y, clusters)


def row_nll(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) negative log-likelihoods in nats, at most 27.6: probabilities are clipped at 1e-12."""
    losses: np.ndarray = -np.log(np.clip(p[np.arange(len(y)), y], 1e-12, None))
    return losses


def row_brier(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) squared distances of the probabilities from the truth, 0 to 2 (Brier, Verification of forecasts, 1950)."""
    truth = np.zeros_like(p)
    truth[np.arange(len(y)), y] = 1
    distances: np.ndarray = ((np.nan_to_num(p) - truth) ** 2).sum(1)
    return distances


def equal_mass_bins(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(N,) numbers of the bins of (N,) values, from the lowest: `bins` of equal size, fewer for fewer values.

    Equal values are in the order of the rows.
    """
    count = min(bins, len(values))
    numbers = np.empty(len(values), np.int32)
    for number, rows in enumerate(np.array_split(np.argsort(values, kind="stable"), count)):
        numbers[rows] = number
    return numbers


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error, 0 to 1, over bins of equal mass: Σ share of rows · |accuracy − mean confidence|.

    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, 2015.
    """
    gaps = np.bincount(equal_mass_bins(confidence, bins), right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def smoothed(residuals: np.ndarray, width: float) -> np.ndarray:
    """(…, CELLS) sums of residuals by cells of confidence, smoothed by a Gaussian that is reflected at 0 and 1.

    width: the Gaussian's standard deviation, in units of confidence. The reflected sums have a period of 2 CELLS, so
    that a cosine transform turns the smoothing into a product.
    """
    sigma = width * CELLS
    reach = np.arange(int(5 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2) * np.where(reach, 2, 1)  # of both sides together
    gains = rfft(np.bincount(reach % (2 * CELLS), kernel / kernel.sum(), 2 * CELLS)).real[:CELLS]
    result: np.ndarray = idct(dct(residuals) * gains)
    return result


def smooth_error(residuals: np.ndarray, width: float) -> np.ndarray:
    """(…,) calibration errors smoothed at this width: ∫ |Σ residual · kernel| over confidence.

    residuals: (…, CELLS) sums of right − confidence by cells of confidence, divided by the number of rows.
    """
    return _absolute(smoothed(residuals, width))


def smooth_width(residuals: np.ndarray) -> float:
    """The width at which the smoothed calibration error equals the width, for (CELLS,) residuals.

    Błasiok and Nakkiran, Smooth ECE: principled reliability diagrams via kernel smoothing, 2023.
    """
    low, high = 1e-4, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if smooth_error(residuals, middle) > middle else (low, middle)
    return (low + high) / 2


def auroc(confidence: np.ndarray, right: np.ndarray) -> float:
    """How often a right answer has more confidence than a wrong one, 0 to 1; NaN where all are right or all wrong.

    Ties count half: the Mann–Whitney statistic.
    """
    _, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    positive, ranks = right.sum(), (count.cumsum() - (count - 1) / 2)[group]
    negative = len(right) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[right > 0].sum() - positive * (positive + 1) / 2) / (positive * negative))


def aurc(confidence: np.ndarray, right: np.ndarray) -> float:
    """Area under the risk–coverage curve, 0 to 1: the mean share of wrong answers among the 1, 2, … N most confident.

    Geifman and El-Yaniv, Selective classification for deep neural networks, 2017. Rows of equal confidence are in their
    order.
    """
    wrong = 1 - right[np.argsort(-confidence, kind="stable")]
    return float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())


def noise_floor(
    confidence: np.ndarray,
    rng: np.random.Generator,
    draws: int | None = None,
    right: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> NoiseFloor:
    """The ECE that a perfectly calibrated model with these confidences would show on as many rows: mean and 95 %.

    draws: simulated hits of all rows; None for `draws_for`. right, clusters: with both, hits of a picture are simulated
    with the correlation that they have here (`latent_correlation`).
    """
    draws, bins = draws or draws_for(len(confidence)), equal_mass_bins(confidence)
    order = np.argsort(bins, kind="stable")
    expected = confidence[order].astype(np.float32)
    starts = np.searchsorted(bins[order], np.arange(bins.max() + 1))
    rho = 0.0
    if clusters is not None and right is not None:
        residuals = right - confidence
        mean = np.bincount(bins, residuals) / np.bincount(bins)
        rho = latent_correlation(confidence, residuals - mean[bins], clusters)
    chunk_errors = []
    for size in chunks(draws, len(expected)):
        if clusters is not None and rho:
            shared = rng.standard_normal((size, int(clusters.max()) + 1), np.float32)[:, clusters[order]]
            alone = rng.standard_normal((size, len(expected)), np.float32)
            uniform = ndtr(np.float32(np.sqrt(rho)) * shared + np.float32(np.sqrt(1 - rho)) * alone)
        else:
            uniform = rng.random((size, len(expected)), dtype=np.float32)
        gaps = (uniform < expected) - expected
        chunk_errors.append(np.abs(np.add.reduceat(gaps, starts, axis=1, dtype=np.float64)).sum(1) / len(expected))
    errors = np.concatenate(chunk_errors)
    return {"floor_mean": float(errors.mean()), "floor_95": float(np.quantile(errors, 0.95))}


# ------------------------------------------------------------------ metrics as functions of weighted sums
@dataclass
class Sums:
    """Numbers of each of N rows, by name, whose weighted sums all metrics are made of.

    A name has `size` sums. Each row adds its value to one of them: columns say which, of all names' sums together.
    """

    rows: int
    slices: dict[str, slice] = field(default_factory=dict)
    columns: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    width: int = 0

    def add(self, name: str, values: np.ndarray, column: np.ndarray | None = None, size: int = 1) -> None:
        """values: (N,), each added to the sum `column` (N,) of `size`; None for the first."""
        self.columns.append((0 if column is None else column) + np.full(self.rows, self.width, np.int64))
        self.values.append(np.broadcast_to(np.asarray(values, np.float64), self.rows))
        self.slices[name], self.width = slice(self.width, self.width + size), self.width + size

    @cached_property
    def matrix(self) -> csr_array:
        """(width, N)"""
        rows = np.tile(np.arange(self.rows), len(self.columns))
        data = np.concatenate(self.values).astype(np.float32)
        return csr_array((data, (np.concatenate(self.columns), rows)), shape=(self.width, self.rows))

    def of(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """name -> (draws, size) sums for (draws, N) weights."""
        totals = (self.matrix @ np.ascontiguousarray(weights.T)).T.astype(np.float64)
        return {name: totals[:, columns] for name, columns in self.slices.items()}


def _absolute(vector: np.ndarray) -> np.ndarray:
    """(…,) sums of the absolute values of (…, D) vectors."""
    length: np.ndarray = np.abs(vector).sum(-1)
    return length


def _euclidean(vector: np.ndarray) -> np.ndarray:
    """(…,) lengths of (…, D) vectors."""
    length: np.ndarray = np.sqrt((vector**2).sum(-1))
    return length


LENGTHS = {  # metrics that are the length of a vector: noise makes them larger
    "ece": _absolute,
    "rms_calibration_error": _euclidean,
    "smooth_ece": _absolute,
    "classwise_ece": _absolute,
    "recall_std": _euclidean,
}


def _row_sums(p: np.ndarray, y: np.ndarray) -> Sums:
    """The sums that `_vectors` and `_figures` are made of."""
    rows, letters = p.shape
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    one = np.ones(rows)
    sums = Sums(rows)
    for name, values in (("one", one), ("nll", row_nll(p, y)), ("brier", row_brier(p, y))):
        sums.add(name, values)
    bins = equal_mass_bins(confidence)
    for name, values in (("bin", one), ("bin right", right), ("bin confidence", confidence)):
        sums.add(name, values, bins, BINS)
    for letter in range(letters):
        sums.add(f"gap {letter}", (y == letter) - p[:, letter], equal_mass_bins(p[:, letter]), BINS)
    sums.add("letter", one, y, letters)
    sums.add("letter right", right, y, letters)
    cells = np.minimum((confidence * CELLS).astype(np.int64), CELLS - 1)
    sums.add("cell", right - confidence, cells, CELLS)
    ranks = min(RANKS, rows)
    group = np.searchsorted(np.sort(-confidence), -confidence) * ranks // rows  # rows of equal confidence together
    sums.add("rank right", right, group, ranks)
    sums.add("rank wrong", 1 - right, group, ranks)
    return sums


def _vectors(sums: dict[str, np.ndarray], letters: int, width: float) -> dict[str, np.ndarray]:
    """name -> (draws, D) vectors whose lengths are metrics. width: of the smooth calibration error."""
    total = sums["one"]
    gaps = sums["bin right"] - sums["bin confidence"]
    answered = sums["letter"] > 0
    recall = sums["letter right"] / np.maximum(sums["letter"], 1e-9)
    count = np.maximum(answered.sum(1, keepdims=True), 1)
    mean = np.where(answered, recall, 0).sum(1, keepdims=True) / count
    return {
        "ece": gaps / total,
        "rms_calibration_error": gaps / np.sqrt(np.maximum(sums["bin"], 1e-9) * total),
        "smooth_ece": smoothed(sums["cell"] / total, width),
        "classwise_ece": np.concatenate([sums[f"gap {letter}"] for letter in range(letters)], 1) / total / letters,
        "recall_std": np.where(answered, recall - mean, 0) / np.sqrt(count),
    }


def _figures(sums: dict[str, np.ndarray], seen_share: float) -> dict[str, np.ndarray]:
    """name -> (draws,) metrics that are no length of a vector.

    seen_share: the mean share of a group of ranks that comes up to a row of it.
    """
    total = sums["one"]
    hits, misses = sums["rank right"], sums["rank wrong"]  # from the most confident on
    seen, missed = (values.cumsum(1) - values * (1 - seen_share) for values in (hits + misses, misses))
    pairs = hits.sum(1) * misses.sum(1)
    below = misses.sum(1, keepdims=True) - misses.cumsum(1) + misses / 2  # wrong rows of less confidence
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "nll": (sums["nll"] / total)[:, 0],
            "brier": (sums["brier"] / total)[:, 0],
            "auroc": np.where(pairs > 0, (hits * below).sum(1) / pairs, np.nan),
            "aurc": ((hits + misses) * missed / np.maximum(seen, 1e-9)).sum(1) / total[:, 0],
        }


def _debiased(sums: dict[str, np.ndarray]) -> float:
    """RMS calibration error, less what noise adds to its square (Kumar, Liang and Ma, Verified calibration, 2019)."""
    count = np.maximum(sums["bin"], 1e-9)
    share, confidence = sums["bin right"] / count, sums["bin confidence"] / count
    noise = share * (1 - share) / np.maximum(sums["bin"] - 1, 1)
    squared = (sums["bin"] * ((share - confidence) ** 2 - noise)).sum(1) / sums["one"][:, 0]
    return float(np.sqrt(np.maximum(squared, 0))[0])


# ------------------------------------------------------------------ all metrics of some rows
def measure(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0) -> RowMetrics:
    """Every metric of these rows, with 95 % intervals; None for value and interval where one is not defined.

    Values of `auroc` and `aurc` are exact; their intervals are by groups of ranks. `rms_calibration_error` is debiased.
    seed: of the bootstrap and of the noise floor. Raises MetricsError where these are no probabilities with an answer
    each, see `checks.check_rows`.
    """
    check_rows(p := np.asarray(p, np.float64), y := np.asarray(y), clusters)
    p, rng = np.nan_to_num(p), np.random.default_rng(seed)
    rows, letters = p.shape
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    sums = _row_sums(p, y)
    totals = sums.of(np.ones((1, rows), np.float32))
    width = smooth_width(totals["cell"][0] / rows)
    rows_a_rank = rows / min(RANKS, rows)
    seen_share = (rows_a_rank + 1) / (2 * rows_a_rank)
    figures, vectors = [], []  # of chunks of draws
    for weights in bootstrap_weights(rows, clusters, rng):
        drawn = sums.of(weights)
        figures.append(_figures(drawn, seen_share))
        vectors.append(_vectors(drawn, letters, width))
    count = cluster_count(rows, clusters)
    values = {name: float(value[0]) for name, value in _figures(totals, seen_share).items()}
    values |= {"auroc": auroc(confidence, right), "aurc": aurc(confidence, right)}
    estimates = {name: with_interval(value, _joined(figures, name), count) for name, value in values.items()}
    for name, (signal,) in _vectors(totals, letters, width).items():
        interval = length_interval(LENGTHS[name], signal, _joined(vectors, name) - signal, count)
        length = float(LENGTHS[name](signal))
        if name == "rms_calibration_error":
            length = _debiased(totals)
            interval["low"] = min(interval["low"], length)
        estimates[name] = {"value": length, **interval}
    return {
        "rows": rows,
        "accuracy": accuracy(p, y, clusters),
        "nll": estimates["nll"],
        "brier": estimates["brier"],
        "auroc": estimates["auroc"],
        "aurc": estimates["aurc"],
        "ece": {**estimates["ece"], **noise_floor(confidence, rng, right=right, clusters=clusters)},
        "rms_calibration_error": estimates["rms_calibration_error"],
        "smooth_ece": estimates["smooth_ece"],
        "classwise_ece": estimates["classwise_ece"],
        "recall_std": estimates["recall_std"],
        "letters": _letters(p, y),
    }


def _joined(of_chunks: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """(draws, …) values of a metric, from those of chunks of draws."""
    return np.concatenate([values[name] for values in of_chunks])


def _letters(p: np.ndarray, y: np.ndarray) -> list[LetterMetrics]:
    """How often each letter is right, is answered, and is answered where it is right."""
    rows, letters = p.shape
    best = p.argmax(1)
    count = np.bincount(y, minlength=letters).tolist()
    hits = np.bincount(y, (best == y).astype(float), minlength=letters).tolist()
    shares = (np.bincount(best, minlength=letters) / rows).tolist()
    return [
        {"rows": number, "recall": hit / number if number else None, "predicted": share}
        for number, hit, share in zip(count, hits, shares)
    ]


def measure_members(
    p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0
) -> list[MemberMetrics]:
    """Accuracy, NLL, Brier score and ECE of each of (M, N, K) members, as `measure` has them.

    All members share the bootstrap draws. seed: of the draws and of the noise floors.
    """
    p, rng = np.nan_to_num(np.asarray(p, np.float64)), np.random.default_rng(seed)
    members, rows, _ = p.shape
    sums = Sums(rows)
    sums.add("one", np.ones(rows))
    for number, member in enumerate(p):
        sums.add(f"nll {number}", row_nll(member, y))
        sums.add(f"brier {number}", row_brier(member, y))
        confidence = member.max(1)
        sums.add(f"ece {number}", (member.argmax(1) == y) - confidence, equal_mass_bins(confidence), BINS)
    totals = sums.of(np.ones((1, rows), np.float32))
    draws = [sums.of(weights) for weights in bootstrap_weights(rows, clusters, rng, draws_for(members * rows))]
    count = cluster_count(rows, clusters)

    def mean(name: str) -> tuple[np.ndarray, np.ndarray]:
        """(size,) means of a name's sums over all rows, and (draws, size) over those of each draw."""
        value, *drawn = (sums_of[name] / sums_of["one"] for sums_of in (totals, *draws))
        return value[0], np.concatenate(drawn)

    def mean_estimate(name: str) -> Estimate:
        value, drawn = mean(name)
        return with_interval(float(value[0]), drawn[:, 0], count)

    result: list[MemberMetrics] = []
    for number, member in enumerate(p):
        gaps, drawn_gaps = mean(f"ece {number}")
        interval: Interval = length_interval(_absolute, gaps, drawn_gaps - gaps, count)
        right = (member.argmax(1) == y).astype(float)
        floor = noise_floor(member.max(1), rng, FEWEST_DRAWS, right, clusters)
        result.append(
            {
                "accuracy": accuracy(member, y, clusters),
                "nll": mean_estimate(f"nll {number}"),
                "brier": mean_estimate(f"brier {number}"),
                "ece": {"value": float(_absolute(gaps)), **interval, **floor},
            }
        )
    return result


def evaluate(
    p: np.ndarray, y: np.ndarray, by: dict[str, list[str]] | None = None, clusters: Sequence[str] | None = None
) -> dict[str, Any]:
    """`measure` of all rows (overall), and of each group of each column (by: column -> group -> RowMetrics).

    by: column -> (N,) names of groups; a column with one group is left out. clusters: (N,) what is drawn together, such
    as the picture of each row.
    """

    def measure_rows(rows: np.ndarray) -> RowMetrics:
        together = clusters_of([clusters[row] for row in rows]) if clusters is not None else None
        return measure(p[rows], y[rows], together)

    groups: dict[str, dict[str, RowMetrics]] = {}
    overall = measure_rows(np.arange(len(y)))
    for column, values in (by or {}).items():
        names = np.array(values)
        if len(unique := np.unique(names)) > 1:
            groups[column] = {str(name): measure_rows(np.flatnonzero(names == name)) for name in unique}
    return {"overall": overall, "by": groups}
