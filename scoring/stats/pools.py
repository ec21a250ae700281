"""Pools of members: how their probabilities become one, and what each of them is worth in it.

log_p: (M, N, K) log-probabilities of M members for the same rows in the same order; NaN where a row has fewer options.
answers: (N,) indices of the right options. clusters: (N,) numbers of pictures, or None.
"""

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from scoring.errors import ScoringError, counted, first_of
from scoring.stats.calibration import BOUNDS, log_probabilities, row_losses
from scoring.stats.checks import OFF
from scoring.stats.resampling import mean_error

KINDS = ("log", "linear", "vote")  # of pools
FEWEST_FOR_WEIGHTS = 1_000  # labelled rows, for weights by `nll_weights`
FOLDS = 5  # of cross-validation
NO_GAIN = 5e-5  # of NLL in nats: what four decimals show as 0
TIE = 1e-3  # share of the log pool in a vote: it breaks ties, and nothing else

# Whether two members are one:
ROUNDING = 5e-5  # of probabilities with four digits
NEAR = 1e-3  # between log-probabilities that are the same number, written in another way
FEWEST_ALIKE, SAMPLE = 5, 300  # rows that must say so; rows that are compared first
LEAST, LEAST_OF_LOG = 0.01, 1e-6  # probabilities below which an option says nothing, or nothing in logarithms


class EnsembleError(ScoringError):
    """Members that cannot be pooled; says which, why, and what to do."""


def parse_weights(text: str, count: int) -> list[float] | None:
    """The finite numbers of a text that separates them by commas; None if it holds anything but `count` of them."""
    try:
        numbers = [float(cell) for cell in text.split(",")]
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def pool(
    log_p: np.ndarray, kind: str = "log", weights: np.ndarray | None = None, temperature: float = 1.0
) -> np.ndarray:
    """(N, K) log-probabilities of the pool.

    kind: `log`, the mean of log-probabilities, normalised again; `linear`, the mean of probabilities; `vote`, the share
    of the members that give this answer, with ties broken by the log pool. weights: (M,), scaled to sum to 1; None for
    equal ones. temperature: of the pool. Raises EnsembleError for another kind, members of unlike shapes, weights that
    are not one from 0 on for each member, or a linear pool of what are no log-probabilities.
    """
    log_p = _checked(log_p, kind)
    members = len(log_p)
    weights = np.full(members, 1 / members) if weights is None else _shares(weights, members)
    missing = np.isnan(log_p).any(0)
    if not missing.any() and kind == "log":
        return log_probabilities(np.tensordot(weights, log_p, 1), temperature)
    filled = np.where(missing, -np.inf, log_p)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.tensordot(weights, np.where(missing, 0, log_p), 1)
        pooled = np.where(missing, np.nan, mean)
        if kind == "linear":
            p = np.tensordot(weights, np.exp(filled), 1)
            _check_sums(p, missing)
            pooled = np.log(p)
        elif kind == "vote":
            votes = np.zeros(filled.shape[1:])
            best = filled.argmax(2)
            for weight, answers in zip(weights, best):
                votes[np.arange(len(answers)), answers] += weight
            pooled = np.log((1 - TIE) * votes + TIE * np.exp(log_probabilities(pooled)))
    return log_probabilities(np.where(missing, np.nan, pooled), temperature)


def _checked(log_p: np.ndarray, kind: str) -> np.ndarray:
    """(M, N, K) log-probabilities. Raises EnsembleError where they are not, or for an unknown kind of pool."""
    if kind not in KINDS:
        raise EnsembleError(f"pool of kind {kind!r}; expected {', '.join(KINDS)}")
    shapes = [np.shape(member) for member in log_p]
    if not shapes or len(shapes[0]) != 2 or len(set(shapes)) > 1:
        raise EnsembleError(
            f"members of shapes {first_of(map(str, shapes)) or 'none'}; expected (N, K) log-probabilities of each, for "
            "the same rows and options, NaN where a row has fewer"
        )
    return np.asarray(log_p)


def _shares(weights: np.ndarray, members: int) -> np.ndarray:
    """(M,) weights that sum to 1. Raises EnsembleError where they are not one number from 0 on for each member."""
    shares = np.asarray(weights, float)
    if shares.shape != (members,) or not np.isfinite(shares).all() or shares.min() < 0 or not shares.sum():
        raise EnsembleError(
            f"weights {np.array2string(shares, separator=', ', threshold=20)}; expected {members} numbers from 0 on, "
            "one for each member, not all 0"
        )
    normalised: np.ndarray = shares / np.sum(shares)
    return normalised


def _check_sums(p: np.ndarray, missing: np.ndarray) -> None:
    """Raises EnsembleError where members' mean probabilities do not sum to 1. missing: (N, K) bool."""
    off = ~(np.abs((sums := p.sum(1)) - 1) <= OFF)
    if off.any() and (wrong := off & ~missing.any(1)).any():
        listed = first_of(f"{row} ({sums[row]:.6g})" for row in np.flatnonzero(wrong).tolist())
        raise EnsembleError(
            f"{counted(int(wrong.sum()), 'row')} with mean probabilities that do not sum to 1 (by number, from 0: "
            f"{listed}); expected log-probabilities: take the log-softmax of logits first"
        )


def gained(gain: float, error: float, gain_word: str = "gain", lose_word: str = "lose") -> str:
    """A gain in NLL and its standard error, such as "lose 0.0012 ± 0.0003": the word says the sign."""
    return f"{gain_word if gain > 0 else lose_word} {abs(gain):.4f} ± {error:.4f}"


@dataclass(frozen=True, eq=False)
class NllWeights:
    """Weights of the log pool, as `nll_weights` chooses them.

    weights: (M,), summing to 1. fitted: False for equal ones. why: the reason for the choice, in words.
    """

    weights: np.ndarray
    fitted: bool
    why: str


def nll_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> NllWeights:
    """Weights of the log pool from labelled rows.

    Those with the lowest NLL, if there are at least 1,000 labelled rows, and rows held out of the fit gain more than a
    standard error by them; else equal ones.
    """
    members, rows = len(log_p), len(answers)
    equal = np.full(members, 1 / members)
    if rows < FEWEST_FOR_WEIGHTS:
        return NllWeights(equal, False, f"equal weights: {rows:,} labelled rows are under {FEWEST_FOR_WEIGHTS:,}")
    numbers = np.arange(rows) if clusters is None else clusters
    folds = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    gains = np.empty(rows)
    for fold in range(FOLDS):
        held_out = folds == fold
        weights = lowest_loss(log_p[:, ~held_out], answers[~held_out])
        by_equal, by_fitted = pool(log_p[:, held_out]), pool(log_p[:, held_out], weights=weights)
        gains[held_out] = row_losses(by_equal, answers[held_out]) - row_losses(by_fitted, answers[held_out])
    gain, error = float(gains.mean()), mean_error(gains, clusters)
    comparison = f"on rows held out of the fit {gained(gain, error)} NLL"
    if max(abs(gain), error) < NO_GAIN:
        return NllWeights(equal, False, "equal weights: on rows held out of the fit, fitted ones are no better")
    if gain <= error:
        return NllWeights(equal, False, f"equal weights: fitted ones {comparison}")
    return NllWeights(lowest_loss(log_p, answers), True, f"fitted weights {comparison}")


def lowest_loss(log_p: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(M,) weights that sum to 1 and give the log pool the lowest NLL on these rows, at temperature 1."""
    from scipy.optimize import minimize

    rows = np.arange(len(answers))
    filled = np.nan_to_num(log_p, nan=0.0)
    missing = np.isnan(log_p).any(0)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.exp(free - free.max())
        weights /= weights.sum()
        log_q = log_probabilities(np.where(missing, np.nan, np.tensordot(weights, filled, 1)))
        residual = np.nan_to_num(np.exp(log_q))
        residual[rows, answers] -= 1
        slope = (filled * residual).sum((1, 2))  # of the loss by each weight
        return -log_q[rows, answers].sum(), weights * (slope - weights @ slope)

    best = minimize(loss, np.zeros(len(log_p)), jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
    weights: np.ndarray = np.exp(best.x - best.x.max())
    weights /= weights.sum()
    return weights


# ------------------------------------------------------------------ members that are one
def likeness(first: np.ndarray, second: np.ndarray) -> str | None:
    """How two members' (N, K) log-probabilities differ, if they are one member; None if they are two.

    "" for equal numbers; else words to be added to "the same": the numbers may be written in another way, rounded to
    four digits, or scaled by one temperature. Only rows with a score of both are compared.
    """
    if np.array_equal(first, second, equal_nan=True) and np.isfinite(first).any():
        return ""
    both = np.isfinite(first).any(1) & np.isfinite(second).any(1)
    p, q = (np.where(np.isfinite(log_p[both]), log_p[both], -np.inf) for log_p in (first, second))
    if not both.any() or (np.isfinite(p) != np.isfinite(q)).any():
        return None
    sample = slice(None, None, max(1, len(p) // SAMPLE))
    if _difference(p[sample], q[sample], 0) is None:
        return None
    return _difference(p, q, FEWEST_ALIKE)


def _difference(p: np.ndarray, q: np.ndarray, fewest: int) -> str | None:
    """See `likeness`. p, q: −∞ where there is no option. fewest: rows in which a second option must say something."""
    second = np.sort(np.maximum(p, q), axis=1)[:, -2] if p.shape[1] > 1 else np.full(len(p), -np.inf)
    if (second > np.log(LEAST_OF_LOG)).sum() >= fewest and same_logarithms(p, q).all():
        return ", written in another way"
    if (second > np.log(LEAST)).sum() < fewest:
        return None
    return ", but for rounding" if _same_rounded(p, q) else _temperature_apart(p, q)


def _temperature_apart(p: np.ndarray, q: np.ndarray) -> str | None:
    """See `likeness`: the temperature that turns the one into the other, in words; None if none does."""
    compared = np.minimum(p, q) > np.log(LEAST)
    count = np.maximum(compared.sum(1, keepdims=True), 1)
    z, w = (np.where(compared, log_p, 0) for log_p in (p, q))
    z, w = (np.where(compared, log_p - log_p.sum(1, keepdims=True) / count, 0) for log_p in (z, w))
    product, lower = (z * w).sum(), min((z * z).sum(), (w * w).sum())
    if product <= 0:
        return None
    flat, sharp = (p, q) if lower == (z * z).sum() else (q, p)
    ratio = float(product / lower)
    scaled = log_probabilities(np.where(np.isfinite(flat), flat * ratio, np.nan))
    same = ratio <= BOUNDS[1] and _same_rounded(np.nan_to_num(scaled, nan=-np.inf), sharp, ratio)
    return f", but for one temperature ({ratio:.2f})" if same else None


def same_logarithms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Which log-probabilities of two arrays of one shape are the same number, but for how it is written.

    Those of probabilities below a millionth all are.
    """
    with np.errstate(invalid="ignore"):
        same: np.ndarray = (np.maximum(p, q) < np.log(LEAST_OF_LOG)) | (np.abs(p - q) <= NEAR)
    return same


def _same_rounded(p: np.ndarray, q: np.ndarray, factor: float = 1.0) -> bool:
    """Whether (N, K) probabilities are the same to four digits, also if the row was normalised after rounding.

    factor: by which the rounding was enlarged.
    """
    return bool((np.abs(np.exp(p) - np.exp(q)) <= factor * ROUNDING * p.shape[1] + 1e-6).all())


# ------------------------------------------------------------------ what members are worth
class Agreement(TypedDict):
    """How often members give the same answer.

    pairwise: (M, M) shares of rows. fleiss_kappa: None where all answers are one letter. all_agree: share of rows.
    """

    pairwise: list[list[float]]
    fleiss_kappa: float | None
    all_agree: float


def agreement(log_p: np.ndarray) -> Agreement:
    """How often members agree (Fleiss, Measuring nominal scale agreement among many raters, 1971)."""
    answers = np.where(np.isnan(log_p), -np.inf, log_p).argmax(2)
    members, rows = answers.shape
    same = (answers[:, None] == answers[None]).mean(2)
    counts = np.stack([(answers == letter).sum(0) for letter in range(log_p.shape[2])], 1)  # (N, K)
    observed = ((counts**2).sum(1) - members).mean() / (members * (members - 1))
    expected = ((counts.sum(0) / (rows * members)) ** 2).sum()
    kappa = float((observed - expected) / (1 - expected)) if expected < 1 else None
    return {
        "pairwise": same.tolist(),
        "fleiss_kappa": kappa,
        "all_agree": float((answers == answers[:1]).all(0).mean()),
    }


@dataclass(frozen=True)
class PoolSettings:
    """How members become one, see `pool`. weights: one for each member; None for equal ones."""

    kind: str = "log"
    weights: list[float] | None = None
    temperature: float = 1.0

    def pool(self, log_p: np.ndarray) -> np.ndarray:
        """(N, K) log-probabilities of the pool of (M, N, K) members."""
        weights = None if self.weights is None else np.array(self.weights)
        return pool(log_p, self.kind, weights, self.temperature)

    def without(self, member: int) -> "PoolSettings":
        """Those of the pool of the other members; their weights are equal if all are 0."""
        weights = None if self.weights is None else self.weights[:member] + self.weights[member + 1 :]
        return replace(self, weights=weights if weights and sum(weights) else None)


class Gain(TypedDict):
    """What a pool gains by a member.

    nll: mean NLL in nats of the pool of the others, minus that of the whole pool. error: its standard error over
    pictures. accuracy: that of the whole pool minus that of the others. hurts: whether the others' NLL is lower by more
    than twice the error.
    """

    nll: float
    error: float
    accuracy: float
    hurts: bool


def leave_one_out(
    log_p: np.ndarray, answers: np.ndarray, settings: PoolSettings, clusters: np.ndarray | None = None
) -> list[Gain]:
    """For each member, what the pool gains by it."""
    pooled = settings.pool(log_p)
    losses, right = row_losses(pooled, answers), np.nanargmax(pooled, 1) == answers
    result: list[Gain] = []
    for member in range(len(log_p)):
        others = [other for other in range(len(log_p)) if other != member]
        rest = settings.without(member).pool(log_p[others])
        saved = row_losses(rest, answers) - losses
        error = mean_error(saved, clusters)
        result.append(
            {
                "nll": float(saved.mean()),
                "error": error,
                "accuracy": float(right.mean() - (np.nanargmax(rest, 1) == answers).mean()),
                "hurts": bool(saved.mean() < -2 * error < 0),
            }
        )
    return result
