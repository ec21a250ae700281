"""Weights of a log pool, fitted on labelled rows that no member was trained on, and what each choice would give.

Many different members with equal weights lose to the best of them; fitted weights do not, from about a hundred rows on.
Cross-validation decides whether they are worth it: five folds, rows of one picture together.

log_p: (M, N, K) log-probabilities of M members, NaN where a row has fewer options. answers: (N,) indices of the right
options. clusters: (N,) numbers of pictures, or None.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np

from scoring.stats.calibration import BOUNDS, fit_temperature, log_probabilities, row_losses
from scoring.stats.pools import NO_GAIN, gained, lowest_loss
from scoring.stats.resampling import cluster_count, mean_error

FOLDS = 5  # of cross-validation
PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)  # on convex weights; the strongest that is as good as the best is taken
STEPS = 15  # of greedy selection
MOST_ROWS = 4_000  # to compare choices on: more would say no more about which is better
SMALLEST = 1e-3  # share of all weights below which a weight is 0


@dataclass(frozen=True)
class PoolWeights:
    """Weights of a log pool.

    weights: (M,), summing to 1. temperature: of the pool. Of those that `fit_weights` chooses, why: the reason, in
    words; fit: how they were fitted, to repeat it on other rows, None for equal ones.
    """

    weights: np.ndarray
    temperature: float
    why: str = ""
    fit: "Fit | None" = None


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray | None], PoolWeights]  # of log_p, answers, clusters


def equal_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """Equal weights, and the temperature of their pool."""
    members = len(log_p)
    weights = np.full(members, 1 / members)
    pooled = apply_weights(PoolWeights(weights, 1.0), log_p)
    return PoolWeights(weights, fit_temperature(pooled, answers, clusters).temperature)


def best_single(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """The member that has the lowest NLL at its own temperature, with that temperature."""
    temperatures = [fit_temperature(member, answers, clusters).temperature for member in log_p]
    losses = [
        row_losses(log_probabilities(member, temperature), answers).mean()
        for member, temperature in zip(log_p, temperatures)
    ]
    best = int(np.argmin(losses))
    return PoolWeights(np.eye(len(log_p))[best], temperatures[best])


def convex_weights(
    log_p: np.ndarray, answers: np.ndarray, penalty: float, clusters: np.ndarray | None = None
) -> PoolWeights:
    """Weights of at least 0 that minimise the log pool's mean NLL + penalty · Σ (weight − equal weight)².

    Their sum is free and gives the pool's temperature, its inverse: so the problem is convex. Equal weights where that
    temperature would be out of bounds: such members say nothing about these rows.
    """
    from scipy.optimize import minimize

    members, rows = len(log_p), np.arange(len(answers))
    missing = np.isnan(log_p).any(0)
    filled = np.where(missing, 0.0, log_p)
    flat = filled.reshape(members, -1)
    equal = equal_weights(log_p, answers, clusters)
    start = equal.weights / equal.temperature

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        pooled = (weights @ flat).reshape(missing.shape)
        log_q = log_probabilities(np.where(missing, np.nan, pooled))
        residual = np.nan_to_num(np.exp(log_q))
        residual[rows, answers] -= 1
        offset = weights - start
        slope = flat @ residual.ravel() / len(rows) + 2 * penalty * offset
        return float(-log_q[rows, answers].mean() + penalty * offset @ offset), slope

    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * members, options={"maxiter": 300})
    total = best.x.sum()
    if not 1 / BOUNDS[1] <= total <= 1 / BOUNDS[0]:
        return equal
    weights = np.where(best.x < SMALLEST * total, 0, best.x)
    return PoolWeights(weights / weights.sum(), float(1 / weights.sum()))


def likeliest_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """The weights with the lowest NLL of the pool at temperature 1, and then its temperature."""
    weights = lowest_loss(log_p, answers)
    pooled = apply_weights(PoolWeights(weights, 1.0), log_p)
    return PoolWeights(weights, fit_temperature(pooled, answers, clusters).temperature)


def greedy_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """Greedy selection: add the member, with replacement, that makes the pool's NLL lowest; the best of 15 steps.

    Caruana et al., Ensemble selection from libraries of models, 2004.
    """
    members = len(log_p)
    counts, total = np.zeros(members), np.zeros(log_p.shape[1:])
    best: tuple[float, np.ndarray, float] = (np.inf, np.full(members, 1 / members), 1.0)
    for step in range(1, STEPS + 1):
        trials = []
        for member in range(members):
            pooled = log_probabilities((total + log_p[member]) / step)
            temperature = fit_temperature(pooled, answers, clusters).temperature
            trials.append((row_losses(log_probabilities(pooled, temperature), answers).mean(), member, temperature))
        lowest, member, temperature = min(trials)
        counts[member] += 1
        total = total + log_p[member]
        if lowest < best[0]:
            best = (lowest, counts / step, temperature)
    return PoolWeights(best[1], best[2])


def fit_weights(
    log_p: np.ndarray, answers: np.ndarray, kind: str = "fit", clusters: np.ndarray | None = None
) -> PoolWeights:
    """Fitted weights where rows held out of the fit gain more than a standard error by them, else equal ones.

    log_p: each member at its own temperature. kind: `greedy`, or `fit` for convex weights with a penalty that
    cross-validation chooses.
    """
    rows, pictures = len(answers), cluster_count(len(answers), clusters)
    if rows < 2 * FOLDS or pictures < 2:
        few = f"{rows:,} labelled rows are" if pictures > 1 or rows < 2 * FOLDS else "labelled rows of one picture are"
        return PoolWeights(
            equal_weights(log_p, answers, clusters).weights, 1.0, f"equal weights: {few} too few to fit any"
        )
    equal = held_out_losses(equal_weights, log_p, answers, clusters)
    fit: Fit = greedy_weights
    penalty = None
    if kind == "fit":
        penalty, losses = _choose_penalty(log_p, answers, equal, clusters)
        fit = convex_fit(penalty)
    else:
        losses = held_out_losses(fit, log_p, answers, clusters)
    gain, error = float((equal - losses).mean()), mean_error(equal - losses, clusters)
    comparison = f"on rows held out of the fit they {gained(gain, error)} NLL"
    if gain <= error:
        why = f"equal weights: fitted ones ({kind}) do not earn it, {comparison}"
        if penalty == max(PENALTIES) or max(abs(gain), error) < NO_GAIN:
            why = f"equal weights: rows held out of the fit prefer them to any others ({kind})"
        return replace(equal_weights(log_p, answers, clusters), why=why)
    return replace(fit(log_p, answers, clusters), why=f"fitted weights ({kind}): {comparison}", fit=fit)


def _choose_penalty(
    log_p: np.ndarray, answers: np.ndarray, equal: np.ndarray, clusters: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """The penalty of convex weights, and (N,) losses of held-out rows with it.

    It is the strongest whose loss is within a tenth of a standard error of the lowest. equal: (N,) losses of held-out
    rows with equal weights, which the standard error is measured against.
    """
    losses = {penalty: held_out_losses(convex_fit(penalty), log_p, answers, clusters) for penalty in PENALTIES}
    lowest = min(losses.values(), key=lambda values: values.mean())
    near_lowest = [
        penalty
        for penalty, values in losses.items()
        if (values - lowest).mean() <= 0.1 * mean_error(values - equal, clusters)
    ]
    return max(near_lowest), losses[max(near_lowest)]


def held_out_losses(
    fit: Fit,
    log_p: np.ndarray,
    answers: np.ndarray,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """(N,) losses in nats of each row by a pool that was fitted without it and its picture, in five folds."""
    return row_losses(held_out_pool(fit, log_p, answers, clusters), answers)


def held_out_pool(
    fit: Fit,
    log_p: np.ndarray,
    answers: np.ndarray,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """(N, K) log-probabilities of each row by a pool that was fitted without it and its picture, in five folds."""
    numbers = np.arange(len(answers)) if clusters is None else clusters
    folds = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    log_q = np.empty(log_p.shape[1:])
    for fold in np.unique(folds):
        fitted_on, held_out = folds != fold, folds == fold
        pictures = None if clusters is None else clusters[fitted_on]
        fitted = fit(log_p[:, fitted_on], answers[fitted_on], pictures)
        log_q[held_out] = apply_weights(fitted, log_p[:, held_out])
    return log_q


def apply_weights(fitted: PoolWeights, log_p: np.ndarray) -> np.ndarray:
    """(N, K) log-probabilities of the log pool with these weights, at its temperature."""
    missing = np.isnan(log_p).any(0)
    pooled = np.tensordot(fitted.weights, np.where(missing, 0.0, log_p), 1)
    return log_probabilities(np.where(missing, np.nan, pooled), fitted.temperature)


class WeightChoice(TypedDict):
    """What a way of weighting gives on rows held out of its fit.

    gain, error: mean NLL in nats that it saves against equal weights, and its standard error over pictures.
    """

    weights: str
    accuracy: float
    nll: float
    gain: float
    error: float


def choices(
    log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None, greedy: bool = True
) -> list[WeightChoice]:
    """What each way of weighting gives on rows held out of its fit, from the lowest NLL to the highest.

    On a random sample of 4,000 rows where there are more. Nothing where all rows show one picture, since none can be
    held out. greedy: False leaves out greedy selection, which takes ten times as long as the others together.
    """
    if cluster_count(len(answers), clusters) < 2:
        return []
    if len(answers) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).permutation(len(answers))[:MOST_ROWS])
        log_p, answers = log_p[:, rows], answers[rows]
        clusters = None if clusters is None else np.unique(clusters[rows], return_inverse=True)[1]
    fits: dict[str, Fit] = {"equal": equal_weights, "fit": convex_fit(PENALTIES[-2])}
    fits |= {"greedy": greedy_weights} if greedy else {}
    fits["best single"] = best_single
    held_out = {name: held_out_pool(fit, log_p, answers, clusters) for name, fit in fits.items()}
    equal = row_losses(held_out["equal"], answers)
    result: list[WeightChoice] = []
    for name, log_q in held_out.items():
        losses = row_losses(log_q, answers)
        result.append(
            {
                "weights": name,
                "accuracy": float((np.nanargmax(log_q, 1) == answers).mean()),
                "nll": float(losses.mean()),
                "gain": float((equal - losses).mean()),
                "error": mean_error(equal - losses, clusters),
            }
        )
    return sorted(result, key=lambda choice: choice["nll"])


def convex_fit(penalty: float) -> Fit:
    """`convex_weights` with this penalty."""

    def fit(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
        return convex_weights(log_p, answers, penalty, clusters)

    return fit
