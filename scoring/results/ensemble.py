"""Pools of members: how their probabilities become one, and what each of them is worth in it.

p, log_p: (M, N, K) of M members on the same N rows, in one order; NaN where a row has fewer options.
"""

import numpy as np

from scoring.results.calibration import log_probabilities, row_losses
from scoring.results.resampling import mean_error

FEWEST_FOR_WEIGHTS = 1_000  # labelled rows
TIE = 1e-3  # share of the log pool in a vote: it breaks ties, and nothing else


class EnsembleError(ValueError):
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
        weights = _best_weights(log_p[:, ~held], answers[~held])
        gains[held] = row_losses(pool(log_p[:, held]), answers[held]) - row_losses(
            pool(log_p[:, held], weights=weights), answers[held]
        )
    gain, error = gains.mean(), mean_error(gains, clusters)
    told = f"on rows held out of the fit {'gain' if gain > 0 else 'lose'} {abs(gain):.4f} ± {error:.4f} NLL"
    if gain <= error:
        return equal, f"equal weights: fitted ones {told}"
    return _best_weights(log_p, answers), f"fitted weights {told}"


def _best_weights(log_p: np.ndarray, answers: np.ndarray) -> np.ndarray:
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
