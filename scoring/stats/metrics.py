"""How good answers and probabilities are: every figure with its uncertainty.

p: (N, K) probabilities, NaN or 0 where a row has fewer options. y: (N,) the right option's index. clusters: (N,)
numbers of pictures, see `stats/resampling.py`, which has the intervals.

Every figure is a function of weighted sums over rows, so that one sparse product gives those of all draws; for the two
that look at ranks, rows are summed by a five-hundredth of the ranks.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.fft import dct, idct, rfft
from scipy.sparse import csr_array
from scipy.special import ndtr

from scoring.stats.resampling import (
    FEWEST_DRAWS,
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

BINS = 15
RANKS = 500
CELLS = 512  # of confidence, for the smooth calibration error


def accuracy(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> dict:
    """Share of rows whose likeliest option is right, with Wilson's 95 % interval over clusters."""
    return share_of(np.nanargmax(p, axis=1) == y, clusters)


def row_nll(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) negative log-likelihoods in nats."""
    return -np.log(np.clip(p[np.arange(len(y)), y], 1e-12, None))


def row_brier(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) squared distances to the truth, from 0 to 2 (Brier, 1950)."""
    hit = np.zeros_like(p)
    hit[np.arange(len(y)), y] = 1
    return ((np.nan_to_num(p) - hit) ** 2).sum(1)


def equal_mass_bins(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """(N,) which of `bins` equal parts of the sorted values a row falls into (ties in the order of the rows)."""
    count = min(bins, len(values))
    parts = np.array_split(np.argsort(values, kind="stable"), count)
    found = np.empty(len(values), np.int32)
    for number, part in enumerate(parts):
        found[part] = number
    return found


def ece(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass: Σ share · |accuracy − confidence|."""
    gaps = np.bincount(equal_mass_bins(confidence, bins), right - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def smoothed(residuals: np.ndarray, width: float) -> np.ndarray:
    """(…, CELLS) sums of residuals over confidence, smoothed by a Gaussian that is reflected at both ends.

    With reflections sums have a period of 2 CELLS, in which a cosine transform makes the smoothing a product.
    """
    sigma = width * CELLS
    reach = np.arange(int(5 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2) * np.where(reach, 2, 1)  # both sides
    gains = rfft(np.bincount(reach % (2 * CELLS), kernel / kernel.sum(), 2 * CELLS)).real[:CELLS]
    return idct(dct(residuals) * gains)


def smooth_error(residuals: np.ndarray, width: float) -> np.ndarray:
    """∫ |Σ residual · kernel| over confidence, for (…, CELLS) sums of residuals a row."""
    return _absolute(smoothed(residuals, width))


def smooth_width(residuals: np.ndarray) -> float:
    """The width at which the smooth calibration error equals the width (Błasiok and Nakkiran, 2023)."""
    low, high = 1e-4, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if smooth_error(residuals, middle) > middle else (low, middle)
    return (low + high) / 2


def auroc(confidence: np.ndarray, right: np.ndarray) -> float:
    """How often a right answer is surer than a wrong one, ties counting half; NaN where all are right or wrong."""
    _, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    positive, ranks = right.sum(), (count.cumsum() - (count - 1) / 2)[group]
    negative = len(right) - positive
    if not positive or not negative:
        return float("nan")
    return float((ranks[right > 0].sum() - positive * (positive + 1) / 2) / (positive * negative))


def aurc(confidence: np.ndarray, right: np.ndarray) -> float:
    """Mean share of wrong answers among the surest 1, 2, … N rows (area under the risk–coverage curve)."""
    wrong = 1 - right[np.argsort(-confidence, kind="stable")]
    return float((wrong.cumsum() / np.arange(1, len(wrong) + 1)).mean())


def noise_floor(
    confidence: np.ndarray,
    rng: np.random.Generator,
    draws: int | None = None,
    right: np.ndarray | None = None,
    clusters: np.ndarray | None = None,
) -> dict:
    """What the ECE of a perfectly calibrated model with these confidences would be on as many rows: mean, 95 %.

    right, clusters: (N,) hits, and the pictures that they belong to: a picture's hits then come together as they do
    here (`latent_correlation`).
    """
    draws, bins = draws or draws_for(len(confidence)), equal_mass_bins(confidence)
    order = np.argsort(bins, kind="stable")
    sure = confidence[order].astype(np.float32)
    starts = np.searchsorted(bins[order], np.arange(bins.max() + 1))
    rho = 0.0
    if clusters is not None and right is not None:
        off = right - confidence
        mean = np.bincount(bins, off) / np.bincount(bins)
        rho = latent_correlation(confidence, off - mean[bins], clusters)
    errors = []
    for size in chunks(draws, len(sure)):
        if rho:
            shared = rng.standard_normal((size, int(clusters.max()) + 1), np.float32)[:, clusters[order]]
            alone = rng.standard_normal((size, len(sure)), np.float32)
            below = ndtr(np.float32(np.sqrt(rho)) * shared + np.float32(np.sqrt(1 - rho)) * alone)
        else:
            below = rng.random((size, len(sure)), dtype=np.float32)
        gaps = (below < sure) - sure
        errors.append(np.abs(np.add.reduceat(gaps, starts, axis=1, dtype=np.float64)).sum(1) / len(sure))
    errors = np.concatenate(errors)
    return {"floor_mean": float(errors.mean()), "floor_95": float(np.quantile(errors, 0.95))}


@dataclass
class Sums:
    """Columns of numbers a row, by name, whose weighted sums every figure is made of."""

    rows: int
    names: dict[str, slice] = field(default_factory=dict)
    places: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)
    width: int = 0

    def add(self, name: str, values: np.ndarray, place: np.ndarray | None = None, size: int = 1) -> None:
        """values: (N,), counted in the column `place` (N,) of `size`."""
        self.places.append((0 if place is None else place) + np.full(self.rows, self.width, np.int64))
        self.values.append(np.broadcast_to(np.asarray(values, np.float64), self.rows))
        self.names[name], self.width = slice(self.width, self.width + size), self.width + size

    @cached_property
    def matrix(self) -> csr_array:
        """(width, N)"""
        count = len(self.places)
        columns = np.tile(np.arange(self.rows), count)
        data = np.concatenate(self.values).astype(np.float32)
        return csr_array((data, (np.concatenate(self.places), columns)), shape=(self.width, self.rows))

    def of(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """name -> (draws, size) sums for (draws, N) weights."""
        totals = (self.matrix @ np.ascontiguousarray(weights.T)).T.astype(np.float64)
        return {name: totals[:, place] for name, place in self.names.items()}


def _absolute(vector: np.ndarray) -> np.ndarray:
    return np.abs(vector).sum(-1)


def _euclidean(vector: np.ndarray) -> np.ndarray:
    return np.sqrt((vector**2).sum(-1))


LENGTHS = {  # figures that are the length of a vector: noise makes them larger
    "ece": _absolute,
    "rms_calibration_error": _euclidean,
    "smooth_ece": _absolute,
    "classwise_ece": _absolute,
    "recall_std": _euclidean,
}


def _vectors(sums: dict[str, np.ndarray], letters: int, width: float) -> dict[str, np.ndarray]:
    """name -> (draws, D) vectors whose lengths are figures, from weighted sums."""
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


def _figures(sums: dict[str, np.ndarray], part: float) -> dict[str, np.ndarray]:
    """name -> (draws,) from weighted sums. part: of its cell of ranks that a row has seen, on average."""
    total = sums["one"]
    hits, misses = sums["rank right"], sums["rank wrong"]  # the surest first
    seen, missed = (values.cumsum(1) - values * (1 - part) for values in (hits + misses, misses))
    pairs = hits.sum(1) * misses.sum(1)
    below = misses.sum(1, keepdims=True) - misses.cumsum(1) + misses / 2  # wrong ones that are less sure
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "nll": (sums["nll"] / total)[:, 0],
            "brier": (sums["brier"] / total)[:, 0],
            "auroc": np.where(pairs > 0, (hits * below).sum(1) / pairs, np.nan),
            "aurc": ((hits + misses) * missed / np.maximum(seen, 1e-9)).sum(1) / total[:, 0],
        }


def _debiased(sums: dict[str, np.ndarray]) -> float:
    """RMS calibration error less what noise adds to its square (Kumar, Liang and Ma, 2019)."""
    count = np.maximum(sums["bin"], 1e-9)
    share, sure = sums["bin right"] / count, sums["bin confidence"] / count
    noise = share * (1 - share) / np.maximum(sums["bin"] - 1, 1)
    squared = (sums["bin"] * ((share - sure) ** 2 - noise)).sum(1) / sums["one"][:, 0]
    return float(np.sqrt(np.maximum(squared, 0))[0])


def measure(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0) -> dict:
    """Every metric of these rows: name -> value, low, high (95 %); None where it is not defined.

    accuracy has Wilson's interval; `ece` its noise floor too. `letters`: for each, rows, recall, share of predictions.
    """
    p, rng = np.nan_to_num(np.asarray(p, np.float64)), np.random.default_rng(seed)
    rows, letters = p.shape
    best = p.argmax(1)
    confidence, right = p.max(1), (best == y).astype(float)
    cells = np.minimum((confidence * CELLS).astype(np.int64), CELLS - 1)
    bins = equal_mass_bins(confidence)
    sums = Sums(rows)
    for name, values in (("one", np.ones(rows)), ("nll", row_nll(p, y)), ("brier", row_brier(p, y))):
        sums.add(name, values)
    for name, values in (("bin", np.ones(rows)), ("bin right", right), ("bin confidence", confidence)):
        sums.add(name, values, bins, BINS)
    for letter in range(letters):
        sums.add(f"gap {letter}", (y == letter) - p[:, letter], equal_mass_bins(p[:, letter]), BINS)
    sums.add("letter", np.ones(rows), y, letters)
    sums.add("letter right", right, y, letters)
    sums.add("cell", right - confidence, cells, CELLS)
    ranks = min(RANKS, rows)
    place = np.searchsorted(np.sort(-confidence), -confidence) * ranks // rows  # equal ones together
    sums.add("rank right", right, place, ranks)
    sums.add("rank wrong", 1 - right, place, ranks)
    whole = sums.of(np.ones((1, rows), np.float32))
    width = smooth_width(whole["cell"][0] / rows)
    part = (rows / ranks + 1) / (2 * rows / ranks)
    figures: dict[str, list] = {"nll": [], "brier": [], "auroc": [], "aurc": []}
    vectors: dict[str, list] = {name: [] for name in LENGTHS}
    for weights in bootstrap_weights(rows, clusters, rng):
        drawn = sums.of(weights)
        for kept, values in ((figures, _figures(drawn, part)), (vectors, _vectors(drawn, letters, width))):
            for name, value in values.items():
                kept[name].append(value)
    count = cluster_count(rows, clusters)
    result = {"rows": rows, "accuracy": accuracy(p, y, clusters)}
    values = {name: float(value[0]) for name, value in _figures(whole, part).items()}
    values |= {"auroc": auroc(confidence, right), "aurc": aurc(confidence, right)}
    for name, value in values.items():
        result[name] = with_interval(value, np.concatenate(figures[name]), count)
    for name, signal in _vectors(whole, letters, width).items():
        length, noise = LENGTHS[name], np.concatenate(vectors[name]) - signal[0]
        result[name] = {"value": float(length(signal[0]))} | length_interval(length, signal[0], noise, count)
    debiased = _debiased(whole)
    rms = result["rms_calibration_error"]
    result["rms_calibration_error"] = rms | {"value": debiased, "low": min(rms["low"], debiased)}
    result["ece"] |= noise_floor(confidence, rng, right=right, clusters=clusters)
    count, hits = np.bincount(y, minlength=letters), np.bincount(y, right, minlength=letters)
    shares = np.bincount(best, minlength=letters) / rows
    result["letters"] = [
        {"rows": int(n), "recall": hit / n if n else None, "predicted": share}
        for n, hit, share in zip(count, hits.tolist(), shares.tolist())
    ]
    return result


def measure_members(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0) -> list[dict]:
    """Accuracy, NLL, Brier and ECE of each of (M, N, K) members, as `measure` has them, from the same draws for all."""
    p, rng = np.nan_to_num(np.asarray(p, np.float64)), np.random.default_rng(seed)
    rows = p.shape[1]
    sums = Sums(rows)
    sums.add("one", np.ones(rows))
    for number, member in enumerate(p):
        sums.add(f"nll {number}", row_nll(member, y))
        sums.add(f"brier {number}", row_brier(member, y))
        confidence = member.max(1)
        sums.add(f"ece {number}", (member.argmax(1) == y) - confidence, equal_mass_bins(confidence), BINS)
    whole = sums.of(np.ones((1, rows), np.float32))
    draws = [sums.of(weights) for weights in bootstrap_weights(rows, clusters, rng, draws_for(p.shape[0] * p.shape[1]))]
    count, result = cluster_count(rows, clusters), []
    for number, member in enumerate(p):
        figures = {"accuracy": accuracy(member, y, clusters)}
        for name in ("nll", "brier", "ece"):
            value, *drawn = (sums[f"{name} {number}"] / sums["one"] for sums in (whole, *draws))
            if name == "ece":
                interval = length_interval(_absolute, value[0], np.concatenate(drawn) - value[0], count)
                figures[name] = {"value": float(_absolute(value[0]))} | interval
            else:
                figures[name] = with_interval(float(value[0, 0]), np.concatenate(drawn)[:, 0], count)
        hits = (member.argmax(1) == y).astype(float)
        figures["ece"] |= noise_floor(member.max(1), rng, FEWEST_DRAWS, hits, clusters)
        result.append(figures)
    return result


def evaluate(
    p: np.ndarray, y: np.ndarray, by: dict[str, list[str]] | None = None, clusters: list[str] | None = None
) -> dict:
    """`measure` of all rows, and of each group of each column in `by`: column -> a name for each row.

    clusters: what is drawn together, such as the picture of each row.
    """

    def of(rows: np.ndarray) -> dict:
        together = clusters_of([clusters[row] for row in rows]) if clusters is not None else None
        return measure(p[rows], y[rows], together)

    result = {"overall": of(np.arange(len(y))), "by": {}}
    for column, names in (by or {}).items():
        names = np.array(names)
        if len(groups := np.unique(names)) > 1:
            result["by"][column] = {str(name): of(np.flatnonzero(names == name)) for name in groups}
    return result
