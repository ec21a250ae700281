"""Weights of a log pool, fitted on labelled rows that no member was trained on, and what each choice would give.

Many unlike members with equal weights lose to the best of them; fitted weights do not, from about a hundred rows on.
Whether they are worth it, rows held out of the fit say: five parts, rows of one picture together.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from scoring.stats.calibration import BOUNDS, fit_temperature, log_probabilities, row_losses
from scoring.stats.pools import NOTHING as NO_GAIN
from scoring.stats.pools import gained, lowest_loss
from scoring.stats.resampling import mean_error

FOLDS = 5
PULLS = (10.0, 1.0, 0.1, 0.01, 0.001)  # toward equal weights; the strongest is taken that is as good as the best
STEPS = 15  # of greedy selection
MOST_ROWS = 4_000  # that choices are compared on: a sample of more would say no more about which is better
NOTHING = 1e-3  # a weight below this share is none


@dataclass
class PoolWeights:
    """weights: (M,), summing to 1. temperature: of the pool. why: what there is to say about the choice."""

    weights: np.ndarray
    temperature: float
    why: str = ""
    pull: float | None = None  # of convex weights


Fit = Callable[[np.ndarray, np.ndarray, np.ndarray | None], PoolWeights]  # (log_p, answers, clusters)


def equal_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """Equal weights, and the temperature of their pool.

    log_p: (M, N, K) of M members; answers: (N,); clusters: numbers of pictures, or None. So in all fits below.
    """
    members = len(log_p)
    weights = np.full(members, 1 / members)
    pooled = apply_weights(PoolWeights(weights, 1.0), log_p)
    return PoolWeights(weights, fit_temperature(pooled, answers, clusters).temperature)


def best_single(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """The member with the lowest NLL alone, and its temperature."""
    temperatures = [fit_temperature(part, answers, clusters).temperature for part in log_p]
    losses = [
        row_losses(log_probabilities(part, temperature), answers).mean()
        for part, temperature in zip(log_p, temperatures)
    ]
    best = int(np.argmin(losses))
    return PoolWeights(np.eye(len(log_p))[best], temperatures[best])


def convex_weights(
    log_p: np.ndarray, answers: np.ndarray, pull: float, clusters: np.ndarray | None = None
) -> PoolWeights:
    """Weights from 0 on with the lowest NLL of the log pool + pull · Σ (weight − equal)².

    The weights are fitted without a sum, so that they hold the pool's temperature too: a convex problem.
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
        rest = np.nan_to_num(np.exp(log_q))
        rest[rows, answers] -= 1
        off = weights - start
        slope = flat @ rest.ravel() / len(rows) + 2 * pull * off
        return float(-log_q[rows, answers].mean() + pull * off @ off), slope

    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * members, options={"maxiter": 300})
    total = best.x.sum()
    if not 1 / BOUNDS[1] <= total <= 1 / BOUNDS[0]:  # members that say nothing about these rows
        return equal
    weights = np.where(best.x < NOTHING * total, 0, best.x)
    return PoolWeights(weights / weights.sum(), float(1 / weights.sum()))


def likeliest_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """Weights with the lowest NLL of the pool as it is, and then its temperature."""
    weights = lowest_loss(log_p, answers)
    pooled = apply_weights(PoolWeights(weights, 1.0), log_p)
    return PoolWeights(weights, fit_temperature(pooled, answers, clusters).temperature)


def greedy_weights(log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> PoolWeights:
    """Members drawn one after the other, with replacement, each so that the pool's NLL is lowest; the best of 15 steps.

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
    """Weights by `fit` (convex, its pull chosen by cross-validation) or `greedy`, where rows held out prefer them.

    Else equal ones. log_p: (M, N, K), each member at its own temperature. clusters: numbers of pictures, or None.
    """
    rows, pictures = len(answers), _pictures(answers, clusters)
    if rows < 2 * FOLDS or pictures < 2:
        few = f"{rows:,} labelled rows are" if pictures > 1 or rows < 2 * FOLDS else "labelled rows of one picture are"
        return PoolWeights(
            equal_weights(log_p, answers, clusters).weights, 1.0, f"equal weights: {few} too few to fit any"
        )
    equal = held_out_losses(equal_weights, log_p, answers, clusters)
    fit, pull = greedy_weights, None
    if kind == "fit":
        tried = {pull: held_out_losses(pulled(pull), log_p, answers, clusters) for pull in PULLS}
        losses = min(tried.values(), key=lambda part: part.mean())
        # the strongest pull whose loss is within a tenth of a standard error of the lowest
        near = {
            pull: part
            for pull, part in tried.items()
            if (part - losses).mean() <= 0.1 * mean_error(part - equal, clusters)
        }
        pull = max(near)
        losses, fit = near[pull], pulled(pull)
    else:
        losses = held_out_losses(greedy_weights, log_p, answers, clusters)
    gain, error = float((equal - losses).mean()), mean_error(equal - losses, clusters)
    told = f"on rows held out of the fit they {gained(gain, error)} NLL"
    if gain <= error:
        found = equal_weights(log_p, answers, clusters)
        found.why = f"equal weights: fitted ones ({kind}) do not earn it, {told}"
        if pull == max(PULLS) or max(abs(gain), error) < NO_GAIN:
            found.why = f"equal weights: rows held out of the fit prefer them to any others ({kind})"
        return found
    found = fit(log_p, answers, clusters)
    found.why, found.pull = f"fitted weights ({kind}): {told}", pull
    return found


def held_out_losses(
    fit: Fit,
    log_p: np.ndarray,
    answers: np.ndarray,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """(N,) losses of each row by a pool that was fitted without it and its picture, in five parts."""
    log_q = held_out_pool(fit, log_p, answers, clusters)
    return row_losses(log_q, answers)


def held_out_pool(
    fit: Fit,
    log_p: np.ndarray,
    answers: np.ndarray,
    clusters: np.ndarray | None = None,
) -> np.ndarray:
    """(N, K) log-probabilities of each row by a pool that was fitted without it and its picture, in five parts."""
    numbers = np.arange(len(answers)) if clusters is None else clusters
    part = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    log_q = np.empty(log_p.shape[1:])
    for held in (part == number for number in np.unique(part)):
        theirs = None if clusters is None else clusters[~held]
        log_q[held] = apply_weights(fit(log_p[:, ~held], answers[~held], theirs), log_p[:, held])
    return log_q


def apply_weights(fitted: PoolWeights, log_p: np.ndarray) -> np.ndarray:
    """(N, K) log-probabilities of the log pool."""
    missing = np.isnan(log_p).any(0)
    pooled = np.tensordot(fitted.weights, np.where(missing, 0.0, log_p), 1)
    return log_probabilities(np.where(missing, np.nan, pooled), fitted.temperature)


def choices(
    log_p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None, greedy: bool = True
) -> list[dict]:
    """What each way of weighting gives on rows held out of its fit, the best first: accuracy, NLL, its standard error.

    On a sample of 4,000 rows where there are more; nothing where all rows show one picture, since none could be held
    out. gain: NLL saved against equal weights, with its standard error over pictures. greedy: False leaves out greedy
    selection, which takes ten times as long as the others together.
    """
    if _pictures(answers, clusters) < 2:
        return []
    if len(answers) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).permutation(len(answers))[:MOST_ROWS])
        log_p, answers = log_p[:, rows], answers[rows]
        clusters = None if clusters is None else np.unique(clusters[rows], return_inverse=True)[1]
    ways = {"equal": equal_weights, "fit": pulled(PULLS[-2]), "greedy": greedy_weights, "best single": best_single}
    if not greedy:
        del ways["greedy"]
    held_out = {name: held_out_pool(fit, log_p, answers, clusters) for name, fit in ways.items()}
    equal = row_losses(held_out["equal"], answers)
    result = []
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
    return sorted(result, key=lambda part: part["nll"])


def _pictures(answers: np.ndarray, clusters: np.ndarray | None) -> int:
    """How many pictures the rows show; without `clusters` each shows another one."""
    return len(answers) if clusters is None else len(np.unique(clusters))


def pulled(pull: float) -> Fit:
    """`convex_weights` with that pull."""
    return lambda log_p, answers, clusters=None: convex_weights(log_p, answers, pull, clusters)
