"""Pools of members: how their probabilities become one, and what each of them is worth in it.

p, log_p: (M, N, K) of M members on the same N rows, in one order; NaN where a row has fewer options.
"""

import numpy as np

from scoring.errors import UserError
from scoring.stats.calibration import BOUNDS, log_probabilities, row_losses
from scoring.stats.resampling import mean_error

FEWEST_FOR_WEIGHTS = 1_000  # labelled rows
ROUNDING = 5e-5  # of probabilities with four digits
NEAR = 1e-3  # between log-probabilities that are the same number, written in another way
FEWEST_ALIKE, SAMPLE = 5, 300  # rows in which members must be alike to be one; rows that are looked at first
NOTHING = 5e-5  # of NLL: what four decimals show as 0
TIE = 1e-3  # share of the log pool in a vote: it breaks ties, and nothing else


class EnsembleError(UserError):
    """Members that cannot be pooled; says which, why, and what to do."""


def parse_weights(text: str, count: int) -> list[float] | None:
    """Finite numbers separated by commas; None where it is not `count` of them."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def pool(
    log_p: np.ndarray, kind: str = "log", weights: np.ndarray | None = None, temperature: float = 1.0
) -> np.ndarray:
    """(N, K) log-probabilities of the pool.

    log: mean of log-probabilities, normalised again. linear: mean of probabilities. vote: share of the members that
    answer so; ties go to the log pool. weights: (M,), equal where not given.
    """
    members = len(log_p)
    weights = np.full(members, 1 / members) if weights is None else np.asarray(weights, float) / np.sum(weights)
    missing = np.isnan(log_p).any(0)
    if not missing.any() and kind == "log":
        return log_probabilities(np.tensordot(weights, log_p, 1), temperature)
    filled = np.where(missing, -np.inf, log_p)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.tensordot(weights, np.where(missing, 0, log_p), 1)
        found = np.where(missing, np.nan, mean)
        if kind == "linear":
            found = np.log(np.tensordot(weights, np.exp(filled), 1))
        elif kind == "vote":
            votes = np.zeros(filled.shape[1:])
            best = filled.argmax(2)
            for weight, answers in zip(weights, best):
                votes[np.arange(len(answers)), answers] += weight
            found = np.log((1 - TIE) * votes + TIE * np.exp(log_probabilities(found)))
    return log_probabilities(np.where(missing, np.nan, found), temperature)


def gained(gain: float, error: float, gain_word: str = "gain", lose_word: str = "lose") -> str:
    """A gain in NLL and its standard error, in words that hold its sign."""
    return f"{gain_word if gain > 0 else lose_word} {abs(gain):.4f} ± {error:.4f}"


def nll_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> tuple[np.ndarray, str]:
    """Weights of the log pool with the lowest NLL, where the rows are enough to tell; else equal ones. And why.

    Taken with at least 1,000 labelled rows and a gain on rows held out of the fit of more than its standard error.
    """
    members, rows = len(log_p), len(answers)
    equal = np.full(members, 1 / members)
    if rows < FEWEST_FOR_WEIGHTS:
        return equal, f"equal weights: {rows:,} labelled rows are under {FEWEST_FOR_WEIGHTS:,}"
    numbers = np.arange(rows) if clusters is None else clusters
    part = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % 5
    gains = np.empty(rows)
    for held in (part == number for number in range(5)):
        weights = lowest_loss(log_p[:, ~held], answers[~held])
        gains[held] = row_losses(pool(log_p[:, held]), answers[held]) - row_losses(
            pool(log_p[:, held], weights=weights), answers[held]
        )
    gain, error = gains.mean(), mean_error(gains, clusters)
    told = f"on rows held out of the fit {gained(gain, error)} NLL"
    if max(abs(gain), error) < NOTHING:
        return equal, "equal weights: on rows held out of the fit, fitted ones are no better"
    if gain <= error:
        return equal, f"equal weights: fitted ones {told}"
    return lowest_loss(log_p, answers), f"fitted weights {told}"


def lowest_loss(log_p: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(M,) weights of the log pool with the lowest NLL on these rows, at temperature 1."""
    from scipy.optimize import minimize

    rows = np.arange(len(answers))
    filled = np.nan_to_num(log_p, nan=0.0)
    missing = np.isnan(log_p).any(0)

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        weights = np.exp(free - free.max())
        weights /= weights.sum()
        found = log_probabilities(np.where(missing, np.nan, np.tensordot(weights, filled, 1)))
        rest = np.nan_to_num(np.exp(found))
        rest[rows, answers] -= 1
        slope = (filled * rest).sum((1, 2))  # of the loss by each weight
        return -found[rows, answers].sum(), weights * (slope - weights @ slope)

    best = minimize(loss, np.zeros(len(log_p)), jac=True, method="L-BFGS-B", options={"gtol": 1e-6})
    weights = np.exp(best.x - best.x.max())
    return weights / weights.sum()


# ------------------------------------------------------------------ members that are one
def likeness(first: np.ndarray, second: np.ndarray) -> str | None:
    """What two members' (N, K) log-probabilities differ in ("" for nothing), if they are one member; else None.

    It may be how the numbers are written, rounding to four digits, or one temperature. Compared on the rows that both
    have a score for.
    """
    if np.array_equal(first, second, equal_nan=True) and np.isfinite(first).any():
        return ""
    both = np.isfinite(first).any(1) & np.isfinite(second).any(1)
    p, q = (np.where(np.isfinite(part[both]), part[both], -np.inf) for part in (first, second))
    if not both.any() or (np.isfinite(p) != np.isfinite(q)).any():
        return None
    few = slice(None, None, max(1, len(p) // SAMPLE))
    return _apart(p, q, FEWEST_ALIKE) if _apart(p[few], q[few], 0) is not None else None


def _apart(p: np.ndarray, q: np.ndarray, fewest: int) -> str | None:
    """See `likeness`. p, q: −∞ where there is no option. fewest: rows in which a second option must say something."""
    second = np.sort(np.maximum(p, q), axis=1)[:, -2] if p.shape[1] > 1 else np.full(len(p), -np.inf)
    if (second > np.log(1e-6)).sum() >= fewest and same_logarithms(p, q).all():
        return ", written in another way"
    if (second > np.log(0.01)).sum() < fewest:
        return None
    if _same_rounded(p, q):
        return ", but for rounding"
    seen = np.minimum(p, q) > np.log(0.01)
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    z, w = (np.where(seen, part, 0) for part in (p, q))
    z, w = (np.where(seen, part - part.sum(1, keepdims=True) / count, 0) for part in (z, w))
    product, lower = (z * w).sum(), min((z * z).sum(), (w * w).sum())
    if product <= 0:
        return None
    flat, sharp = (p, q) if lower == (z * z).sum() else (q, p)
    ratio = float(product / lower)
    scaled = log_probabilities(np.where(np.isfinite(flat), flat * ratio, np.nan))
    same = ratio <= BOUNDS[1] and _same_rounded(np.nan_to_num(scaled, nan=-np.inf), sharp, ratio)
    return f", but for one temperature ({ratio:.2f})" if same else None


def same_logarithms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Which log-probabilities of two arrays are the same number, written in another way; under a millionth all are."""
    with np.errstate(invalid="ignore"):
        return (np.maximum(p, q) < np.log(1e-6)) | (np.abs(p - q) <= NEAR)


def _same_rounded(p: np.ndarray, q: np.ndarray, times: float = 1.0) -> bool:
    """Whether probabilities are the same to four digits, also where the others of the row were rounded and normalised.

    times: how much the rounding is enlarged.
    """
    return bool((np.abs(np.exp(p) - np.exp(q)) <= times * ROUNDING * p.shape[1] + 1e-6).all())


# ------------------------------------------------------------------ what members are worth
def agreement(log_p: np.ndarray) -> dict:
    """Pairwise share of rows with the same answer (M, M), and Fleiss' kappa over all members (1971)."""
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


def leave_one_out(
    log_p: np.ndarray,
    answers: np.ndarray,
    kind: str,
    weights: np.ndarray,
    temperature: float,
    clusters: np.ndarray | None = None,
) -> list[dict]:
    """For each member what the pool gains by it: NLL and accuracy of the others' pool minus the whole pool's.

    error: standard error of the NLL's, over clusters (numbers of pictures, or None). A member hurts where the others
    alone have the lower NLL by twice that.
    """
    whole = pool(log_p, kind, weights, temperature)
    loss, right = row_losses(whole, answers), np.nanargmax(whole, 1) == answers
    found = []
    for member in range(len(log_p)):
        others = [at for at in range(len(log_p)) if at != member]
        left = np.asarray(weights, float)[others]
        rest = pool(log_p[others], kind, left if left.sum() else None, temperature)
        saved = row_losses(rest, answers) - loss
        error = mean_error(saved, clusters)
        found.append(
            {
                "nll": float(saved.mean()),
                "error": error,
                "accuracy": float(right.mean() - (np.nanargmax(rest, 1) == answers).mean()),
                "hurts": bool(saved.mean() < -2 * error < 0),
            }
        )
    return found
