"""Calibration: from label logits to probabilities that are right as often as they say, and the file that keeps it.

A temperature divides all logits of a row: T > 1 where the model is surer than it is right. It never changes the
answer. Fitted by the likelihood of labelled rows that the checkpoint was not trained on
(Guo et al., On Calibration of Modern Neural Networks, 2017).

What is kept: the likeliest temperature where it is flatter (T > 1); a sharper one (T < 1) only if it is significantly
likelier, else T = 1: a needless T > 1 costs less than it saves, a needless T < 1 more. What rows held out of the fit
gain or lose by it is told, and decides nothing: of few rows the wrong ones decide the fit, which misses them where they
are held out (`benchmarks/LOG.md`). A bias for each letter, and a temperature for each task type, only where they are
significantly likelier than the temperature alone and rows held out gain. Tests are at 5 %: likelihood ratios, or where
rows share pictures, signs of the pictures' scores (`resampling.sign_flip_p`).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.special import chdtri, log_softmax

from scoring.files.reading import FileError, as_object, read_json
from scoring.inputs.prompt import LETTERS
from scoring.stats.resampling import mean_error, sign_flip_p
from scoring.stats.selective import nonconformity

BOUNDS = (0.05, 20.0)  # labels that are all wrong have their best temperature at infinity
FEWEST, FEWEST_OF_GROUP, FOLDS = 20, 100, 5
LEVEL = 0.05  # of the tests
MOST_BIAS = 5.0


@dataclass
class Calibration:
    """`calibration.json`: what makes probabilities of logits, what it was fitted on, and what it is good for.

    temperature; letters: a log-bias for each letter, added after the temperature (none: not needed); groups: other
    temperatures by task type. all_orders: with `--orders pride`, the temperature of the rows that were shown in all
    orders (none: as the others). nll_before, nll_after: on the rows it was fitted on. gain: NLL saved a row on rows
    that were held out of the fit (cross-validation), with its standard error. selected: on so many of the rows the
    checkpoint's epoch was chosen.

    For sets of options, a value for each row it was fitted on, by a calibration that was fitted without it:
    nonconformity, 1 − p(answer); cumulative, the sum of p of the options that are as likely as the answer or likelier;
    shares, how much the row counts, where pictures have different numbers of rows; folds, the number of the fold that
    scored it, where folds are pooled.

    To recognise the rows it was fitted on: digests, and for rows of which nothing but an id is known (their digest is
    the id's), numbers, the log-probabilities of the row's options before the calibration.
    """

    temperature: float = 1.0
    letters: list[float] = field(default_factory=list)
    groups: dict[str, float] = field(default_factory=dict)
    all_orders: float | None = None
    rows: int = 0
    pictures: int = 0
    selected: int = 0
    nll_before: float = float("nan")
    nll_after: float = float("nan")
    standard_error: float = float("nan")  # of log(temperature)
    gain: float = float("nan")
    gain_error: float = float("nan")
    choice: list[str] = field(default_factory=list)  # what was looked at, and why it was taken or not
    note: str = ""
    nonconformity: list[float] = field(default_factory=list)
    cumulative: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)  # of the rows it was fitted on
    fingerprint: dict = field(default_factory=dict)
    numbers: list[list[float]] = field(default_factory=list)  # of these rows too, [] for a row with a digest of content

    def __post_init__(self):
        for name, value in {"temperature": self.temperature, "all_orders": self.all_orders, **self.groups}.items():
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name} is {value}; expected a temperature above 0")
        if self.shares and len(self.shares) != len(self.nonconformity):
            raise ValueError(f"{len(self.shares)} shares of {len(self.nonconformity)} rows; expected one each")

    def temperature_alone(self) -> "Calibration":
        """What of it serves other orders too: letters, task types, sets belong to the orders that it was fitted for."""
        return Calibration(
            self.temperature, rows=self.rows, selected=self.selected, note=self.note, digests=self.digests
        )

    def without_letters(self) -> "Calibration":
        """The same for options that stood at several letters: a bias of letters says nothing about those."""
        return replace(self, letters=[]) if self.letters else self

    def to_json(self) -> dict:
        return {
            key: (None if isinstance(value, float) and not np.isfinite(value) else value)
            for key, value in asdict(self).items()
        }

    def stripped(self) -> dict:
        """`to_json` without what it keeps of each row."""
        of_rows = ("nonconformity", "cumulative", "shares", "folds", "digests", "numbers")
        return self.to_json() | dict.fromkeys(of_rows, [])

    @classmethod
    def from_json(cls, values: dict, source: object) -> "Calibration":
        """As `to_json` wrote it into `source`. Raises FileError."""
        optional = ("all_orders",)
        filled = {
            key: float("nan") if value is None and key not in optional else value for key, value in values.items()
        }
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


def fit_temperature(logits: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> Calibration:
    """The temperature with the lowest NLL on (N, K) logits and (N,) answers. clusters: numbers of pictures, or None.

    T = 1, with a note that says why, for fewer than 20 rows, where every row is right (any sharper is likelier, so the
    rows do not say how sure to be), and where a sharper one (T < 1) is not significantly likelier: few rows that happen
    to be right must not make a model surer. The upper bound, with a note, where the logits say nothing about the rows.
    """
    return _fit_temperature(logits, answers, clusters)[0]


def _fit_temperature(
    logits: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[Calibration, bool]:
    """The calibration, and whether the rows had something to say."""
    count = len(answers)
    fitted = Calibration(rows=count)
    if count < FEWEST:
        fitted.note = f"{count} labelled rows are too few to fit a temperature ({FEWEST} at least): T = 1"
        return fitted, False
    best, at_bound = _best_temperature(logits, answers)
    fitted.nll_before, fitted.nll_after, fitted.temperature = nll(logits, answers), nll(logits, answers, best), best
    ratio = 2 * count * (fitted.nll_before - fitted.nll_after)
    if at_bound and best > 1:
        fitted.note = (
            f"the logits say nothing about these labels, or the opposite: T stays at its bound {BOUNDS[1]:g}; "
            "are the answers of these rows right?"
        )
    elif at_bound:
        fitted.note = (
            f"all {count:,} rows are right by far: any sharper would be likelier, so they do not say how sure to be: "
            "T = 1"
        )
    elif best < 1:
        likelier, why = _significant(ratio, 1, logits, answers, 1.0, [], [logits], clusters)
        if not likelier:
            fitted.note = f"{best:.2f} would be sharper, not significantly ({why}): T = 1"
    if (fitted.note and best < 1) or ratio < 0:
        fitted.temperature, fitted.nll_after = 1.0, fitted.nll_before
    fitted.standard_error = standard_error(logits, fitted.temperature)
    return fitted, not at_bound


def _significant(
    ratio: float,
    extra: int,
    logits: np.ndarray,
    answers: np.ndarray,
    temperature: float,
    nuisance: list[np.ndarray],
    features: list[np.ndarray],
    clusters: np.ndarray | None,
) -> tuple[bool, str]:
    """Whether `extra` more parameters are significantly likelier, and by which figures.

    ratio: 2·n·ΔNLL. features, nuisance: see `efficient_scores`.
    """
    if clusters is None:
        bound = float(chdtri(extra, LEVEL))
        return ratio > bound, f"2·n·ΔNLL {ratio:.1f} against {bound:.1f}"
    p = sign_flip_p(efficient_scores(logits, answers, temperature, nuisance, features), clusters)
    return p < LEVEL, f"p = {p:.2g} over {len(np.unique(clusters)):,} pictures"


def efficient_scores(
    logits: np.ndarray,
    answers: np.ndarray,
    temperature: float,
    nuisance: list[np.ndarray],
    features: list[np.ndarray],
) -> np.ndarray:
    """(N, F) rows' contributions to the score of further parameters at 0, less what fitted ones explain of it.

    The model is a conditional logit: a parameter multiplies its feature, (N, K) by row and option, and adds to the
    logits over the temperature. nuisance: features of parameters that were fitted already.
    """
    p = np.nan_to_num(np.exp(log_probabilities(logits, temperature)))
    known = np.stack([np.nan_to_num(feature.astype(np.float64)) for feature in [*nuisance, *features]])
    expected = (known * p).sum(2)  # (F, N)
    scores = known[:, np.arange(len(answers)), answers] - expected
    information = np.einsum("ank,bnk,nk->ab", known, known, p, optimize=True) - expected @ expected.T
    fitted = len(nuisance)
    if fitted:
        explained = information[fitted:, :fitted] @ np.linalg.pinv(information[:fitted, :fitted])
        return (scores[fitted:] - explained @ scores[:fitted]).T
    return scores.T


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
    """Task types with enough rows for a temperature of their own; rows without one are no group."""
    return [
        str(name) for name, count in zip(*np.unique(types, return_counts=True)) if name and count >= FEWEST_OF_GROUP
    ]


def fit_groups(
    logits: np.ndarray,
    answers: np.ndarray,
    types: np.ndarray,
    shrunk: bool = True,
    clusters: np.ndarray | None = None,
) -> Calibration:
    """A common temperature, and one for each task type of at least 100 rows, shrunk toward the common one.

    By as much as the groups' temperatures differ less than their standard errors explain (DerSimonian and Laird, 1986).
    """
    found = fit_temperature(logits, answers, clusters)
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
    """(N, K) log-probabilities of each row by a fit without it and its picture.

    In 5 parts; of under 100 pictures each by itself, where the few rows that are wrong decide, and luck of the parts.

    fit(logits, answers, types, clusters).
    """
    numbers = np.arange(len(answers)) if clusters is None else clusters
    part = numbers
    if len(np.unique(numbers)) >= FEWEST_OF_GROUP:
        part = np.random.default_rng(0).permutation(numbers.max() + 1)[numbers] % FOLDS
    log_p = np.empty(logits.shape)
    for held in (part == number for number in np.unique(part)):
        theirs = None if clusters is None else clusters[~held]
        fitted = fit(logits[~held], answers[~held], types[~held], theirs)
        log_p[held] = fitted.apply(logits[held], types[held].tolist())
    return log_p


def _moved(saved: np.ndarray, clusters: np.ndarray | None) -> str:
    gain = saved.mean()
    return f"{'gain' if gain > 0 else 'lose'} {abs(gain):.4f} ± {mean_error(saved, clusters):.4f} NLL"


def calibrate(
    logits: np.ndarray,
    answers: np.ndarray,
    task_types: list[str] | None = None,
    clusters: np.ndarray | None = None,
    one_order: bool = True,
    fingerprint: dict | None = None,
    more: bool = True,
) -> Calibration:
    """The calibration that these labelled rows support, by the rule at the head of this module.

    Of a letter bias and temperatures by task type, where both are earned, the one that gains more on rows held out.
    logits: (N, K), averaged over option orders where there are several; one_order: whether a letter is an option.
    task_types: "" where a row has none. clusters: numbers of pictures, which stay together in cross-validation and
    tests. more: False for a temperature alone.
    """
    task_types = task_types or [""] * len(answers)
    types, count = np.array(task_types, dtype=str), len(answers)
    chosen, usable = _fit_temperature(logits, answers, clusters)
    raw = log_probabilities(logits)
    unseen, choice = raw, []  # log-probabilities by a fit without the row

    def losses(log_p: np.ndarray) -> np.ndarray:
        return row_losses(log_p, answers)

    if usable and chosen.temperature != 1:
        held_out = _held_out(_temperature, logits, answers, types, clusters)
        saved = losses(raw) - losses(held_out)
        unseen = held_out
        told = f"rows held out of the fit {_moved(saved, clusters)}"
        if chosen.temperature > 1 and saved.mean() < 0:
            told += "; kept all the same: a flatter temperature saves more where it is needed than it costs elsewhere"
        choice.append(f"temperature {chosen.temperature:.3f}: {told}")
    elif not usable:
        unseen = chosen.apply(logits)
    if not choice:
        choice.append(f"temperature {chosen.temperature:.3f}{': ' * bool(chosen.note)}{chosen.note}")
    if usable and more:
        plain, simple = losses(unseen), chosen
        nuisance = [logits] if simple.temperature != 1 else []
        for candidate in _candidates(logits, answers, types, one_order):
            if candidate.why_not:
                choice.append(f"{candidate.name}: not looked at, {candidate.why_not}")
                continue
            after = losses(candidate.likeliest().apply(logits, task_types)).mean()
            features, extra = candidate.features(), candidate.extra
            if not nuisance:  # the temperature was not fitted either
                features, extra = [logits, *features], extra + 1
            before = losses(simple.apply(logits)).mean()
            ratio = 2 * count * (before - after)
            likelier, why = _significant(
                ratio, extra, logits, answers, simple.temperature, nuisance, features, clusters
            )
            held_out = _held_out(candidate.fit, logits, answers, types, clusters)
            saved = plain - losses(held_out)
            earned = likelier and saved.mean() > 0
            choice.append(
                f"{candidate.name}: {'earned' if earned else 'not earned'}, {why}; rows held out of the fit "
                f"{_moved(saved, clusters)} over the temperature"
            )
            if earned and losses(held_out).mean() < losses(unseen).mean():
                unseen, chosen = held_out, candidate.fit(logits, answers, types, clusters)
    chosen.fingerprint, chosen.choice, chosen.rows = fingerprint or {}, choice, count
    chosen.pictures = count if clusters is None else len(np.unique(clusters))
    chosen.nll_before = float(losses(raw).mean()) if count else float("nan")
    chosen.nll_after = float(losses(chosen.apply(logits, task_types)).mean()) if count else float("nan")
    if usable:
        saved = losses(raw) - losses(unseen)
        chosen.gain, chosen.gain_error = float(saved.mean()), mean_error(saved, clusters)
        chosen.standard_error = standard_error(logits, chosen.temperature)
    _keep_rows(chosen, np.exp(unseen), answers, clusters)
    return chosen


def _keep_rows(chosen: Calibration, p: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None) -> None:
    """What sets of options need of the labelled rows. p: (N, K) probabilities by a fit without the row."""
    rows = np.arange(len(answers))
    for name, method in (("nonconformity", "lac"), ("cumulative", "aps")):
        values = nonconformity(p, method)[rows, answers] if len(rows) else np.empty(0)
        setattr(chosen, name, np.round(values, 6).tolist())
    if clusters is not None:
        sizes = np.bincount(clusters)
        if len(np.unique(sizes[sizes > 0])) > 1:
            chosen.shares = (1 / sizes[clusters] / chosen.pictures).tolist()


@dataclass
class _Candidate:
    """More than a temperature: what it would take, and why it is not looked at ("" where it is).

    extra: further parameters; fit(logits, answers, types, clusters); likeliest: the fit without any shrinking;
    features: of its parameters, see `efficient_scores`.
    """

    name: str
    extra: int
    why_not: str
    fit: Callable[..., Calibration]
    likeliest: Callable[[], Calibration]
    features: Callable[[], list[np.ndarray]]


def _candidates(logits: np.ndarray, answers: np.ndarray, types: np.ndarray, one_order: bool) -> list[_Candidate]:
    letters = logits.shape[1]
    names = groups_of(types)
    apart = names[: len(names) - bool(np.isin(types, names).all())]  # the last is what the others leave

    def by_letter() -> list[np.ndarray]:
        return [np.where(np.isnan(logits), 0, np.arange(letters) == letter) for letter in range(1, letters)]

    def by_type() -> list[np.ndarray]:
        return [np.where((types == name)[:, None], logits, 0) for name in apart]

    why_no_groups = "" if apart else f"too few task types with {FEWEST_OF_GROUP} rows"
    return [
        _Candidate(
            "letter bias",
            letters - 1,
            _why_no_letters(answers, logits, one_order),
            lambda z, y, _, __: fit_letters(z, y),
            lambda: fit_letters(logits, answers),
            by_letter,
        ),
        _Candidate(
            "temperature by task type",
            len(apart),
            why_no_groups,
            lambda z, y, t, c: fit_groups(z, y, t, clusters=c),
            lambda: fit_groups(logits, answers, types, shrunk=False),
            by_type,
        ),
    ]


def _temperature(logits: np.ndarray, answers: np.ndarray, _, clusters: np.ndarray | None) -> Calibration:
    return fit_temperature(logits, answers, clusters)


def _why_no_letters(answers: np.ndarray, logits: np.ndarray, one_order: bool) -> str:
    if not one_order:
        return "several option orders average it out"
    count = np.bincount(answers, minlength=logits.shape[1])
    if (count == 0).any():
        return f"no answer of these rows is {', '.join(LETTERS[at] for at in np.flatnonzero(count == 0))}"
    return "" if len(answers) >= FEWEST_OF_GROUP else f"{len(answers)} rows are under {FEWEST_OF_GROUP}"
