"""Calibration: from label logits to probabilities that are right as often as they say, and the file that keeps it.

A temperature divides all logits of a row: T > 1 where the model is surer than it is right. It never changes the
answer. Fitted by the likelihood of labelled rows that the checkpoint was not trained on
(Guo et al., On Calibration of Modern Neural Networks, 2017). A bias for each letter, and a temperature for each task
type, are added only where a likelihood-ratio test says that they earn it.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.special import chdtri, log_softmax

from scoring.inputs.objects import FileError, as_object, read_json
from scoring.inputs.prompt import LETTERS

BOUNDS = (0.05, 20.0)  # labels that are all wrong have their best temperature at infinity
FEWEST, FEWEST_OF_GROUP, FOLDS = 20, 100, 5
MOST_BIAS = 5.0


@dataclass
class Calibration:
    """`calibration.json`: what makes probabilities of logits, what it was fitted on, and what it is good for.

    temperature; letters: a log-bias for each letter, added after the temperature (none: not needed); groups: other
    temperatures by task type. nll_before, nll_after: on the rows it was fitted on. gain: NLL saved a row on rows that
    were held out of the fit (cross-validation), with its standard error. nonconformity: sorted 1 − p(answer) of the
    rows, each by a temperature that was fitted without it: for sets of options.
    """

    temperature: float = 1.0
    letters: list[float] = field(default_factory=list)
    groups: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    nll_before: float = float("nan")
    nll_after: float = float("nan")
    standard_error: float = float("nan")  # of log(temperature)
    gain: float = float("nan")
    gain_error: float = float("nan")
    choice: list[str] = field(default_factory=list)  # what was looked at, and why it was taken or not
    note: str = ""
    nonconformity: list[float] = field(default_factory=list)
    fingerprint: dict = field(default_factory=dict)

    def __post_init__(self):
        for name, value in {"temperature": self.temperature, **self.groups}.items():
            if not 0 < value < np.inf:
                raise ValueError(f"{name} is {value}; expected a temperature above 0")

    def to_json(self) -> dict:
        return {
            key: (None if isinstance(value, float) and not np.isfinite(value) else value)
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, values: dict, source: object) -> "Calibration":
        """As `to_json` wrote it into `source`. Raises FileError."""
        filled = {key: float("nan") if value is None else value for key, value in values.items()}
        return as_object(cls, filled, source)

    def apply(self, logits: np.ndarray, task_types: list[str] | None = None) -> np.ndarray:
        """(N, K) log-probabilities of (N, K) logits; task_types: (N,), for temperatures that differ by it."""
        temperature: float | np.ndarray = self.temperature
        if self.groups and task_types is not None:
            temperature = np.array([self.groups.get(name, self.temperature) for name in task_types])[:, None]
        if self.letters:
            logits = logits / temperature + np.array(self.letters)[: logits.shape[-1]]
            return log_probabilities(logits)
        return log_probabilities(logits, temperature)


def read_calibration(path: Path) -> Calibration | None:
    """A checkpoint's calibration; None where there is no file. Raises FileError."""
    values = read_json(path)
    if values is None:
        return None
    if not isinstance(values.get("fingerprint"), dict) or "orders" not in values["fingerprint"]:
        raise FileError(f"{path}: found no calibration; expected a file that `calibrate` wrote")
    return Calibration.from_json(values, path)


def log_probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """(…, K) log-softmax of logits over the options that are there; NaN where there is none."""
    missing = np.isnan(logits)
    if not missing.any():
        return log_softmax(logits.astype(np.float64) / temperature, axis=-1)
    filled = np.where(missing, -np.inf, logits.astype(np.float64) / temperature)
    filled = np.where(missing.all(-1, keepdims=True), 0.0, filled)
    return np.where(missing, np.nan, log_softmax(filled, axis=-1))


def row_losses(log_p: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(N,) negative log-likelihoods in nats of (N, K) log-probabilities; answers (N,) are option indices."""
    return -log_p[np.arange(len(answers)), answers]


def nll(logits: np.ndarray, answers: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
    """Mean negative log-likelihood in nats of (N, K) logits; answers (N,) are option indices."""
    return float(row_losses(log_probabilities(logits, temperature), answers).mean())


def fit_temperature(logits: np.ndarray, answers: np.ndarray) -> Calibration:
    """The temperature with the lowest NLL on (N, K) logits and (N,) answers.

    T = 1, with a note that says why, for fewer than 20 rows, where every row is right (any sharper is likelier, so the
    rows do not say how sure to be), and where a sharper one (T < 1) is not significantly likelier: few rows that happen
    to be right must not make a model surer. The upper bound, with a note, where the logits say nothing about the rows.
    """
    return _fit_temperature(logits, answers)[0]


def _fit_temperature(logits: np.ndarray, answers: np.ndarray) -> tuple[Calibration, bool]:
    """The calibration, and whether the rows had something to say."""
    count = len(answers)
    found = Calibration(rows=count)
    if count < FEWEST:
        found.note = f"{count} labelled rows are too few to fit a temperature ({FEWEST} at least): T = 1"
        return found, False
    best, at_bound = _best_temperature(logits, answers)
    found.nll_before, found.nll_after, found.temperature = nll(logits, answers), nll(logits, answers, best), best
    ratio, bound = 2 * count * (found.nll_before - found.nll_after), float(chdtri(1, 0.05))
    if at_bound and best > 1:
        found.note = (
            f"the logits say nothing about these labels, or the opposite: T stays at its bound {BOUNDS[1]:g}; "
            "are the answers of these rows right?"
        )
    elif at_bound:
        found.note = (
            f"all {count:,} rows are right by far: any sharper would be likelier, so they do not say how sure to be: "
            "T = 1"
        )
    elif best < 1 and ratio <= bound:
        found.note = f"{best:.2f} would be sharper, not significantly (2·n·ΔNLL {ratio:.1f} against {bound:.1f}): T = 1"
    if (found.note and best < 1) or ratio < 0:
        found.temperature, found.nll_after = 1.0, found.nll_before
    found.standard_error = standard_error(logits, found.temperature)
    return found, not at_bound


def _best_temperature(logits: np.ndarray, answers: np.ndarray) -> tuple[float, bool]:
    """The likeliest temperature, and whether it is a bound.

    Where the answers' logits sum to what the probabilities expect: the loss is convex in 1/T.
    """
    from scipy.optimize import brentq  # here: who only applies a calibration does not wait for it

    missing = np.isnan(logits)
    z = np.where(missing, -np.inf, logits.astype(np.float64))
    z = np.where(missing, 0.0, z - z.max(1, keepdims=True))
    right = z[np.arange(len(answers)), answers].sum()

    def slope(log_t: float) -> float:
        p = np.where(missing, 0.0, np.exp(z * np.exp(-log_t)))
        return float(((p * z).sum(1) / p.sum(1)).sum() - right)

    (low, high), (sharp, flat) = np.log(BOUNDS), (slope(np.log(bound)) for bound in BOUNDS)
    if sharp <= 0 <= flat:  # the logits of a row are all alike
        return 1.0, False
    if sharp <= 0 or flat >= 0:
        return BOUNDS[0 if sharp <= 0 else 1], True
    return float(np.exp(brentq(slope, low, high, xtol=1e-10))), False


def standard_error(logits: np.ndarray, temperature: float) -> float:
    """Of log T: 1 / √(Σ variance of z/T under p)."""
    p = np.nan_to_num(np.exp(log_probabilities(logits, temperature)))
    scaled = np.nan_to_num(logits.astype(np.float64) / temperature)
    variance = (p * scaled**2).sum(1) - (p * scaled).sum(1) ** 2
    return float(1 / np.sqrt(max(variance.sum(), 1e-12)))


def fit_letters(logits: np.ndarray, answers: np.ndarray) -> Calibration:
    """Temperature and a bias for each letter but the first, with the lowest NLL."""
    from scipy.optimize import minimize

    count, letters = logits.shape
    z = np.nan_to_num(logits.astype(np.float64))
    rows = np.arange(count)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        sharpness, bias = np.exp(-parameters[0]), np.r_[0.0, parameters[1:]]
        log_p = log_probabilities(np.where(np.isfinite(logits), z * sharpness + bias, np.nan))
        rest = np.nan_to_num(np.exp(log_p))
        rest[rows, answers] -= 1  # d loss / d (z/T + b)
        return -log_p[rows, answers].sum(), np.r_[-(rest * z).sum() * sharpness, rest.sum(0)[1:]]

    start = np.r_[np.log(_best_temperature(logits, answers)[0]), np.zeros(letters - 1)]
    bounds = [tuple(np.log(BOUNDS)), *[(-MOST_BIAS, MOST_BIAS)] * (letters - 1)]
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-7})
    return Calibration(float(np.exp(best.x[0])), [0.0, *best.x[1:].tolist()], rows=count)


def groups_of(types: np.ndarray) -> list[str]:
    """Task types with enough rows for a temperature of their own."""
    return [str(name) for name, count in zip(*np.unique(types, return_counts=True)) if count >= FEWEST_OF_GROUP]


def fit_groups(logits: np.ndarray, answers: np.ndarray, types: np.ndarray, shrunk: bool = True) -> Calibration:
    """A common temperature, and one for each task type of at least 100 rows, shrunk toward the common one.

    By as much as the groups' temperatures differ less than their standard errors explain (DerSimonian and Laird, 1986).
    """
    found = fit_temperature(logits, answers)
    names = groups_of(types)
    if not names:
        return found
    rows = [types == name for name in names]
    own = np.array([_best_temperature(logits[part], answers[part])[0] for part in rows])
    off = np.log(own / found.temperature)
    weight = np.array([standard_error(logits[part], t) for part, t in zip(rows, own)]) ** -2.0
    spread = (weight * (off - (weight * off).sum() / weight.sum()) ** 2).sum() - (len(names) - 1)
    between = max(0.0, spread / max(weight.sum() - (weight**2).sum() / weight.sum(), 1e-12))
    kept = between / (between + 1 / weight) if shrunk else 1.0
    found.groups = dict(zip(names, (found.temperature * np.exp(kept * off)).tolist()))
    return found


# ------------------------------------------------------------------ what to choose
def _held_out(fit, logits, answers, types, clusters) -> np.ndarray:
    """(N,) losses of each row by a fit without it and its picture, in 5 parts; fit(logits, answers, types)."""
    numbers = np.arange(len(answers)) if clusters is None else clusters
    part = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    losses = np.empty(len(answers))
    for held in (part == number for number in np.unique(part)):
        found = fit(logits[~held], answers[~held], types[~held])
        losses[held] = row_losses(found.apply(logits[held], types[held].tolist()), answers[held])
    return losses


def calibrate(
    logits: np.ndarray,
    answers: np.ndarray,
    task_types: list[str] | None = None,
    clusters: np.ndarray | None = None,
    one_order: bool = True,
    fingerprint: dict | None = None,
    more: bool = True,
) -> Calibration:
    """The calibration that these labelled rows support: a temperature, and more of it only where that is earned.

    A letter bias or temperatures by task type are taken where 2·n·ΔNLL exceeds chi-squared's 95 % for their further
    parameters and rows held out of the fit gain too; of two that pass, the one that gains more.
    logits: (N, K), averaged over option orders where there are several; one_order: whether a letter is an option.
    clusters: numbers of pictures, which stay together in cross-validation. more: False for a temperature alone.
    """
    task_types = task_types or [""] * len(answers)
    types, count = np.array(task_types, dtype=str), len(answers)
    chosen, usable = _fit_temperature(logits, answers)
    told = [f"temperature {chosen.temperature:.3f}{': ' * bool(chosen.note)}{chosen.note}"]
    losses = None
    if usable:
        fits = {
            "letter bias": (_letters, logits.shape[1] - 1, _why_no_letters(answers, logits, one_order)),
            "temperature by task type": (fit_groups, *_why_no_groups(types)),
        }
        losses = plain = _held_out(_temperature, logits, answers, types, clusters)
        simple = chosen
        for name, (fit, extra, why_not) in fits.items() if more else ():
            if why_not:
                told.append(f"{name}: not looked at, {why_not}")
                continue
            likeliest = (
                fit_groups(logits, answers, types, shrunk=False) if fit is fit_groups else fit(logits, answers, types)
            )
            after = row_losses(likeliest.apply(logits, task_types), answers).mean()
            extra += simple.temperature == 1.0  # which was not fitted
            ratio, bound = 2 * count * (simple.nll_after - after), chdtri(extra, 0.05)
            held = _held_out(fit, logits, answers, types, clusters)
            gain, error = (plain - held).mean(), (plain - held).std(ddof=1) / np.sqrt(count)
            earned = ratio > bound and gain > 0
            told.append(
                f"{name}: {'earned' if earned else 'not earned'}, 2·n·ΔNLL {ratio:.1f} against {bound:.1f}; "
                f"held-out rows {'gain' if gain > 0 else 'lose'} {abs(gain):.4f} ± {error:.4f} NLL over the temperature"
            )
            if earned and held.mean() < losses.mean():
                losses, chosen = held, fit(logits, answers, types)
    chosen.fingerprint, chosen.choice, chosen.rows = fingerprint or {}, told, count
    chosen.nll_before = nll(logits, answers) if count else float("nan")
    chosen.nll_after = float(row_losses(chosen.apply(logits, task_types), answers).mean()) if count else float("nan")
    if losses is None:
        losses = row_losses(chosen.apply(logits, task_types), answers)
    else:
        saved = row_losses(log_probabilities(logits), answers) - losses
        chosen.gain, chosen.gain_error = float(saved.mean()), float(saved.std(ddof=1) / np.sqrt(count))
        chosen.standard_error = standard_error(logits, chosen.temperature)
    chosen.nonconformity = np.round(np.sort(1 - np.exp(-losses)), 6).tolist()
    return chosen


def _temperature(logits: np.ndarray, answers: np.ndarray, _) -> Calibration:
    return fit_temperature(logits, answers)


def _letters(logits: np.ndarray, answers: np.ndarray, _) -> Calibration:
    return fit_letters(logits, answers)


def _why_no_letters(answers: np.ndarray, logits: np.ndarray, one_order: bool) -> str:
    if not one_order:
        return "several option orders average it out"
    count = np.bincount(answers, minlength=logits.shape[1])
    if (count == 0).any():
        return f"no answer of these rows is {', '.join(LETTERS[at] for at in np.flatnonzero(count == 0))}"
    return "" if len(answers) >= FEWEST_OF_GROUP else f"{len(answers)} rows are under {FEWEST_OF_GROUP}"


def _why_no_groups(types: np.ndarray) -> tuple[int, str]:
    """(further parameters, why not)"""
    names = groups_of(types)
    extra = len(names) - bool(np.isin(types, names).all())
    return extra, "" if extra else f"too few task types with {FEWEST_OF_GROUP} rows"
