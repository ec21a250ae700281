"""How good answers and probabilities are: every figure with its uncertainty.

p: (N, K) probabilities, NaN or 0 where a row has fewer options. y: (N,) the right option's index.

Intervals are bootstrap percentiles over pictures: rows of one picture are drawn together, since they are right or
wrong together. Every figure is a function of weighted sums over rows, so that one sparse product gives those of all
draws; for the two that look at ranks, rows are summed by a five-hundredth of the ranks.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.fft import dct, idct, rfft
from scipy.sparse import csr_array
from scipy.special import ndtri, pdtr

BINS = 15
RANKS = 500
CELLS = 512  # of confidence, for the smooth calibration error
DRAWS, FEWEST_DRAWS = 1_000, 200  # fewer over 50,000 rows, where they hardly matter
CHUNK = 8_000_000  # weights that are held at a time


def wilson(right: int, total: int) -> dict:
    """Wilson's 95 % interval of a share (without scipy.stats, whose import takes half a second)."""
    z, share = float(ndtri(0.975)), right / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * np.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return {"low": max(0.0, float(middle - half)), "high": min(1.0, float(middle + half))}


def accuracy(p: np.ndarray, y: np.ndarray) -> dict:
    """Share of rows whose likeliest option is right, with Wilson's 95 % interval."""
    right = int((np.nanargmax(p, axis=1) == y).sum())
    return {"value": right / len(y)} | wilson(right, len(y))


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


def smooth_error(residuals: np.ndarray, width: float) -> np.ndarray:
    """∫ |Σ residual · kernel| over confidence, for (…, CELLS) sums of residuals a row; kernel: reflected Gaussian.

    Reflected at both ends, sums have a period of 2 CELLS, in which a cosine transform makes the smoothing a product.
    """
    sigma = width * CELLS
    reach = np.arange(int(5 * sigma + 0.5) + 1)
    kernel = np.exp(-0.5 * (reach / sigma) ** 2) * np.where(reach, 2, 1)  # both sides
    gains = rfft(np.bincount(reach % (2 * CELLS), kernel / kernel.sum(), 2 * CELLS)).real[:CELLS]
    return np.abs(idct(dct(residuals) * gains)).sum(-1)


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


def noise_floor(confidence: np.ndarray, rng: np.random.Generator, draws: int | None = None) -> dict:
    """What the ECE of a perfectly calibrated model with these confidences would be on as many rows: mean, 95 %."""
    draws, bins = draws or draws_for(len(confidence)), equal_mass_bins(confidence)
    order = np.argsort(bins, kind="stable")
    sure = confidence[order].astype(np.float32)
    starts = np.searchsorted(bins[order], np.arange(bins.max() + 1))
    found = []
    for size in _chunks(draws, len(sure)):
        gaps = (rng.random((size, len(sure)), dtype=np.float32) < sure) - sure
        found.append(np.abs(np.add.reduceat(gaps, starts, axis=1, dtype=np.float64)).sum(1) / len(sure))
    found = np.concatenate(found)
    return {"floor_mean": float(found.mean()), "floor_95": float(np.quantile(found, 0.95))}


def draws_for(rows: int) -> int:
    return int(np.clip(DRAWS * 50_000 // max(rows, 1), FEWEST_DRAWS, DRAWS))


def _chunks(draws: int, rows: int) -> list[int]:
    size = max(1, min(draws, CHUNK // max(rows, 1)))
    return [min(size, draws - at) for at in range(0, draws, size)]


# How often a row is drawn: a Poisson number of mean 1, looked up by 16 random bits (the Poisson bootstrap).
_POISSON = np.searchsorted(pdtr(np.arange(12), 1), (np.arange(65536) + 0.5) / 65536).astype(np.float32)


def bootstrap_weights(rows: int, clusters: np.ndarray | None, rng: np.random.Generator, draws: int | None = None):
    """(draws, rows) weights in chunks. clusters: (rows,) numbers of what is drawn together, or None."""
    drawn = rows if clusters is None else int(clusters.max()) + 1
    for size in _chunks(draws or draws_for(rows), rows):
        weights = _POISSON[rng.integers(0, 65536, (size, drawn), dtype=np.uint16)]
        weights[weights.sum(1) == 0] = 1
        yield weights if clusters is None else weights[:, clusters]


def clusters_of(names: list[str]) -> np.ndarray | None:
    """(N,) numbers of equal names; None where all differ."""
    unique, numbers = np.unique(np.asarray(names), return_inverse=True)
    return None if len(unique) == len(numbers) else numbers


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


def _figures(sums: dict[str, np.ndarray], letters: int, width: float, len_cell: float) -> dict[str, np.ndarray]:
    """name -> (draws,) from weighted sums."""
    total = sums["one"]
    count = np.maximum(sums["bin"], 1e-9)
    share, sure = sums["bin right"] / count, sums["bin confidence"] / count
    spread = share * (1 - share) / np.maximum(sums["bin"] - 1, 1)
    squared = (sums["bin"] * ((share - sure) ** 2 - spread)).sum(1) / total[:, 0]
    gaps = np.stack([np.abs(sums[f"gap {letter}"]).sum(1) for letter in range(letters)])
    hits, misses = sums["rank right"], sums["rank wrong"]  # the surest first
    part = (len_cell + 1) / (2 * len_cell)  # of its cell that a row has seen, on average
    seen, missed = (values.cumsum(1) - values * (1 - part) for values in (hits + misses, misses))
    pairs = hits.sum(1) * misses.sum(1)
    below = misses.sum(1, keepdims=True) - misses.cumsum(1) + misses / 2  # wrong ones that are less sure
    answered = sums["letter"] > 0
    recall = np.where(answered, sums["letter right"] / np.maximum(sums["letter"], 1e-9), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "nll": (sums["nll"] / total)[:, 0],
            "brier": (sums["brier"] / total)[:, 0],
            "ece": np.abs(sums["bin right"] - sums["bin confidence"]).sum(1) / total[:, 0],
            "rms_calibration_error": np.sqrt(np.maximum(squared, 0)),
            "smooth_ece": smooth_error(sums["cell"] / total, width),
            "classwise_ece": gaps.mean(0) / total[:, 0],
            "auroc": np.where(pairs > 0, (hits * below).sum(1) / pairs, np.nan),
            "aurc": ((hits + misses) * missed / np.maximum(seen, 1e-9)).sum(1) / total[:, 0],
            "recall_std": np.nanstd(recall, axis=1),
        }


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
    values = {name: float(value[0]) for name, value in _figures(whole, letters, width, rows / ranks).items()}
    values |= {"auroc": auroc(confidence, right), "aurc": aurc(confidence, right)}
    drawn: dict[str, list] = {name: [] for name in values}
    for weights in bootstrap_weights(rows, clusters, rng):
        for name, value in _figures(sums.of(weights), letters, width, rows / ranks).items():
            drawn[name].append(value)
    result = {"rows": rows, "accuracy": accuracy(p, y)}
    for name, value in values.items():
        result[name] = with_interval(value, np.concatenate(drawn[name]))
    result["ece"] |= noise_floor(confidence, rng)
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
    sums = Sums(p.shape[1])
    sums.add("one", np.ones(p.shape[1]))
    for at, part in enumerate(p):
        sums.add(f"nll {at}", row_nll(part, y))
        sums.add(f"brier {at}", row_brier(part, y))
        sure = part.max(1)
        sums.add(f"ece {at}", (part.argmax(1) == y) - sure, equal_mass_bins(sure), BINS)
    whole = sums.of(np.ones((1, p.shape[1]), np.float32))
    count = draws_for(p.shape[0] * p.shape[1])
    draws = [sums.of(weights) for weights in bootstrap_weights(p.shape[1], clusters, rng, count)]
    found = []
    for at, part in enumerate(p):
        figures = {"accuracy": accuracy(part, y)}
        for name in ("nll", "brier", "ece"):
            value, *drawn = (np.abs(one[f"{name} {at}"]).sum(1) / one["one"][:, 0] for one in (whole, *draws))
            figures[name] = with_interval(float(value[0]), np.concatenate(drawn))
        figures["ece"] |= noise_floor(part.max(1), rng, FEWEST_DRAWS)
        found.append(figures)
    return found


def with_interval(value: float, draws: np.ndarray) -> dict:
    """A value and the middle 95 % of its draws; None for all where it is not defined."""
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return {"value": None, "low": None, "high": None}
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": value, "low": float(low), "high": float(high)}


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
