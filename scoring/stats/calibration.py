"""Calibration: from label logits to probabilities that are right as often as they say, and the file that holds it.

A temperature T divides all logits of a row: T > 1 where the model is overconfident, T < 1 where it is underconfident.
It never changes an answer. It is fitted by maximum likelihood on labelled rows that the checkpoint was not trained on
(Guo et al., On Calibration of Modern Neural Networks, 2017).

The rule of `calibrate`:

- T > 1: the likeliest temperature is taken. A needless T > 1 costs less than it saves.
- T < 1: it is taken only if it is significantly likelier than T = 1. A needless T < 1 costs more than it saves.
- What rows held out of the fit gain or lose by the temperature is reported but decides nothing: of few rows the wrong
  ones decide the fit, which misses them where they are held out (`benchmarks/LOG.md`).
- A bias for each letter, or a temperature for each task type, is taken only if it is significantly likelier than the
  temperature alone and rows held out of the fit gain by it. If both are, the one that gains more is taken.

Tests are at the 5 % level: likelihood ratios, or where rows share pictures, sign flips of the pictures' scores
(`resampling.sign_flip_p`).
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import chdtri, log_softmax

from scoring.files.reading import FileError, as_object, read_json
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.stats.resampling import cluster_count, mean_error, sign_flip_p
from scoring.stats.selective import nonconformity

BOUNDS = (0.05, 20.0)  # of a temperature: labels that are all wrong have their best temperature at infinity
FEWEST = 20  # rows, to fit a temperature
FEWEST_OF_GROUP = 100  # rows, to fit a letter bias, or the temperature of a task type
FOLDS = 5  # of cross-validation
LEVEL = 0.05  # of the tests
MOST_BIAS = 5.0  # of a letter, in nats


# ------------------------------------------------------------------ a calibration, and its file
@dataclass
class Calibration:
    """`calibration.json`: what turns logits into probabilities, which rows it was fitted on, and how good it is.

    temperature: divides logits. letters: (K,) a bias for each letter in nats, added after the temperature; [] for none.
    groups: task type -> a temperature of its own. all_orders: with `--orders pride`, the temperature of the rows that
    were shown in all orders; None if it is that of the others.

    rows, pictures: how many it was fitted on. selected: how many of the rows chose the checkpoint's epoch. nll_before,
    nll_after: mean NLL in nats on these rows. standard_error: of log(temperature). gain, gain_error: mean NLL that rows
    held out of the fit save (cross-validation), and its standard error. NaN: not known, null in the file. choice: what
    was considered, and why it was taken or not. note: why the temperature is 1 or at its bound.

    For sets of options, a number for each row, by a calibration that was fitted without that row. nonconformity:
    1 − p(answer). cumulative: the sum of p over the options that are at least as likely as the answer. shares: the
    weight of the row, where pictures have different numbers of rows. folds: the fold that scored the row, where folds
    are pooled.

    To recognise the rows: digests, one a row. A row of which only the id is known has the digest of its id, and in
    numbers the log-probabilities of its options before the calibration; [] for the other rows.

    Raises ValueError for a temperature that is not above 0, or shares that do not match the rows.

    >>> np.exp(Calibration(temperature=2.0).apply(np.array([[2.0, 0.0]]))).round(2).tolist()
    [[0.73, 0.27]]
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
    standard_error: float = float("nan")
    gain: float = float("nan")
    gain_error: float = float("nan")
    choice: list[str] = field(default_factory=list)
    note: str = ""
    nonconformity: list[float] = field(default_factory=list)
    cumulative: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    folds: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    numbers: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, value in {"temperature": self.temperature, "all_orders": self.all_orders, **self.groups}.items():
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name} is {value}; expected a temperature above 0")
        if self.shares and len(self.shares) != len(self.nonconformity):
            raise ValueError(f"{len(self.shares)} shares of {len(self.nonconformity)} rows; expected one each")

    def temperature_alone(self) -> "Calibration":
        """The part that is valid for other option orders: letters, groups and sets are valid only for its own."""
        return Calibration(
            self.temperature, rows=self.rows, selected=self.selected, note=self.note, digests=self.digests
        )

    def without_letters(self) -> "Calibration":
        """For options that stood at several letters, which a bias of letters says nothing about."""
        return replace(self, letters=[]) if self.letters else self

    def to_json(self) -> dict[str, Any]:
        """What the file holds; None for numbers that are not finite."""
        return {
            key: (None if isinstance(value, float) and not np.isfinite(value) else value)
            for key, value in asdict(self).items()
        }

    def stripped(self) -> dict[str, Any]:
        """`to_json` with empty lists instead of a value for each row."""
        of_rows = ("nonconformity", "cumulative", "shares", "folds", "digests", "numbers")
        return self.to_json() | dict.fromkeys(of_rows, [])

    def save(self, path: str | PathLike[str]) -> None:
        """Write the file, which commands and `load` read."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Calibration":
        """The calibration of one member in a file that `save` or `calibrate` wrote. Raises FileError."""
        values = read_json(Path(path))
        if values is None or not isinstance(values.get("fingerprint"), dict):
            found = "no such file" if values is None else "found no calibration of one member"
            raise FileError(f"{path}: {found}; expected a file that `calibrate` wrote")
        return cls.from_json(values, path)

    @classmethod
    def from_json(cls, values: dict[str, Any], source: object) -> "Calibration":
        """The inverse of `to_json`. source: where the values come from, for the message of a FileError."""
        optional = ("all_orders",)
        filled = {
            key: float("nan") if value is None and key not in optional else value for key, value in values.items()
        }
        return as_object(cls, filled, source)

    def apply(self, logits: np.ndarray, task_types: Sequence[str] | None = None) -> np.ndarray:
        """(N, K) log-probabilities of (N, K) logits; task_types: (N,), for groups, which None leaves out."""
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


# ------------------------------------------------------------------ probabilities and losses
def log_probabilities(logits: np.ndarray, temperature: float | np.ndarray = 1.0) -> np.ndarray:
    """(…, K) log-softmax of (…, K) logits, as float64, over the options that a row has; NaN where it has none.

    temperature: a number, or an array that broadcasts to the logits.
    """
    missing = np.isnan(logits)
    log_p: np.ndarray
    if not missing.any():
        log_p = log_softmax(logits.astype(np.float64) / temperature, axis=-1)
        return log_p
    filled = np.where(missing, -np.inf, logits.astype(np.float64) / temperature)
    filled = np.where(missing.all(-1, keepdims=True), 0.0, filled)
    log_p = np.where(missing, np.nan, log_softmax(filled, axis=-1))
    return log_p


def row_losses(log_p: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(N,) negative log-likelihoods in nats of (N, K) log-probabilities; answers: (N,) indices of the right options."""
    losses: np.ndarray = -log_p[np.arange(len(answers)), answers]
    return losses


def nll(logits: np.ndarray, answers: np.ndarray, temperature: float | np.ndarray = 1.0) -> float:
    """Mean negative log-likelihood in nats of (N, K) logits; answers: (N,) indices of the right options."""
    return float(row_losses(log_probabilities(logits, temperature), answers).mean())


# ------------------------------------------------------------------ what is computed: fits
@dataclass(frozen=True)
class LabelledRows:
    """Rows to fit a calibration on.

    logits: (N, K), averaged over option orders where there are several; NaN where a row has fewer options. answers:
    (N,) indices of the right options. task_types: (N,) names, "" for a row without one; None where no row has one.
    clusters: (N,) numbers of the rows' pictures, which stay together in cross-validation and tests; None where each row
    has a picture of its own (`resampling.clusters_of`).
    """

    logits: np.ndarray
    answers: np.ndarray
    task_types: Sequence[str] | None = None
    clusters: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def types(self) -> np.ndarray:
        """(N,) task types as an array of texts."""
        return np.array([""] * len(self) if self.task_types is None else self.task_types, dtype=str)

    @property
    def pictures(self) -> int:
        """How many pictures the rows show."""
        return cluster_count(len(self), self.clusters)

    def select(self, rows: np.ndarray) -> "LabelledRows":
        """The rows at these indices, or where a (N,) mask is true."""
        clusters = None if self.clusters is None else self.clusters[rows]
        return LabelledRows(self.logits[rows], self.answers[rows], self.types[rows].tolist(), clusters)

    def losses(self, log_p: np.ndarray) -> np.ndarray:
        """(N,) negative log-likelihoods in nats of (N, K) log-probabilities."""
        return row_losses(log_p, self.answers)


def fit_temperature(logits: np.ndarray, answers: np.ndarray, clusters: np.ndarray | None = None) -> Calibration:
    """The temperature with the lowest NLL on (N, K) logits and (N,) answers. clusters: numbers of pictures, or None.

    T = 1, with a note that says why, in three cases. There are fewer than 20 rows. Every row is right, so that any
    sharper temperature is likelier and the rows do not say how sure to be. A sharper one (T < 1) is not significantly
    likelier: few rows that happen to be right must not make a model surer. T is at its upper bound, with a note, where
    the logits say nothing about the answers.
    """
    return _fit_temperature(LabelledRows(logits, answers, clusters=clusters))[0]


def _fit_temperature(rows: LabelledRows) -> tuple[Calibration, bool]:
    """`fit_temperature`, and whether the rows determine a temperature: they are enough, and it is not at a bound."""
    logits, answers, count = rows.logits, rows.answers, len(rows)
    if count < FEWEST:
        note = f"{count} labelled rows are too few to fit a temperature ({FEWEST} at least): T = 1"
        return Calibration(rows=count, note=note), False
    best, at_bound = _best_temperature(logits, answers)
    before, after = nll(logits, answers), nll(logits, answers, best)
    ratio = 2 * count * (before - after)
    note = ""
    if at_bound and best > 1:
        note = (
            f"the logits say nothing about these labels, or the opposite: T stays at its bound {BOUNDS[1]:g}; "
            "are the answers of these rows right?"
        )
    elif at_bound:
        note = (
            f"all {count:,} rows are right by far: any sharper would be likelier, so they do not say how sure to be: "
            "T = 1"
        )
    elif best < 1:
        significant, figures = _significant(ratio, rows, 1.0, [], [logits])
        if not significant:
            note = f"{best:.2f} would be sharper, not significantly ({figures}): T = 1"
    if (note and best < 1) or ratio < 0:
        best, after = 1.0, before
    error = standard_error(logits, best)
    fitted = Calibration(best, rows=count, nll_before=before, nll_after=after, standard_error=error, note=note)
    return fitted, not at_bound


def _significant(
    ratio: float,
    rows: LabelledRows,
    temperature: float,
    nuisance: list[np.ndarray],
    features: list[np.ndarray],
) -> tuple[bool, str]:
    """Whether further parameters, one a feature, are significantly likelier, and the figures that say so.

    ratio: 2·n·ΔNLL, of the likelihood-ratio test. temperature, nuisance, features: see `efficient_scores`.
    """
    if rows.clusters is None:
        bound = float(chdtri(len(features), LEVEL))
        return ratio > bound, f"2·n·ΔNLL {ratio:.1f} against {bound:.1f}"
    p = sign_flip_p(efficient_scores(rows.logits, rows.answers, temperature, nuisance, features), rows.clusters)
    return p < LEVEL, f"p = {p:.2g} over {rows.pictures:,} pictures"


def efficient_scores(
    logits: np.ndarray,
    answers: np.ndarray,
    temperature: float,
    nuisance: list[np.ndarray],
    features: list[np.ndarray],
) -> np.ndarray:
    """(N, F) rows' contributions to the score of F further parameters at 0, less what fitted parameters explain of it.

    The model is a conditional logit: a parameter multiplies its feature, (N, K) by row and option, and adds to the
    (N, K) logits over the temperature. nuisance: features of the parameters that were fitted already. answers: (N,).
    """
    p = np.nan_to_num(np.exp(log_probabilities(logits, temperature)))
    known = np.stack([np.nan_to_num(feature.astype(np.float64)) for feature in [*nuisance, *features]])
    expected = (known * p).sum(2)  # (F, N)
    scores: np.ndarray = known[:, np.arange(len(answers)), answers] - expected
    information = np.einsum("ank,bnk,nk->ab", known, known, p, optimize=True) - expected @ expected.T
    fitted = len(nuisance)
    if fitted:
        explained = information[fitted:, :fitted] @ np.linalg.pinv(information[:fitted, :fitted])
        scores = scores[fitted:] - explained @ scores[:fitted]
    return scores.T


def _best_temperature(logits: np.ndarray, answers: np.ndarray) -> tuple[float, bool]:
    """The likeliest temperature, and whether it is at a bound.

    It is where the answers' logits sum to what the probabilities expect: the loss is convex in 1/T.
    """
    from scipy.optimize import brentq  # imported late: applying a calibration need not wait for it

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
    """Standard error of log T for (N, K) logits, from the Fisher information: 1 / √(Σ variance of z/T under p)."""
    p = np.nan_to_num(np.exp(log_probabilities(logits, temperature)))
    scaled = np.nan_to_num(logits.astype(np.float64) / temperature)
    variance = (p * scaled**2).sum(1) - (p * scaled).sum(1) ** 2
    return float(1 / np.sqrt(max(variance.sum(), 1e-12)))


def fit_letters(logits: np.ndarray, answers: np.ndarray) -> Calibration:
    """A temperature, and a bias in nats for each letter but the first, with the lowest NLL.

    logits: (N, K). answers: (N,) indices of the right options.
    """
    from scipy.optimize import minimize

    count, letters = logits.shape
    z = np.nan_to_num(logits.astype(np.float64))
    rows = np.arange(count)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        sharpness, bias = np.exp(-parameters[0]), np.r_[0.0, parameters[1:]]
        log_p = log_probabilities(np.where(np.isfinite(logits), z * sharpness + bias, np.nan))
        slope = np.nan_to_num(np.exp(log_p))
        slope[rows, answers] -= 1  # d loss / d (z/T + b)
        return -log_p[rows, answers].sum(), np.r_[-(slope * z).sum() * sharpness, slope.sum(0)[1:]]

    start = np.r_[np.log(_best_temperature(logits, answers)[0]), np.zeros(letters - 1)]
    bounds = [tuple(np.log(BOUNDS)), *[(-MOST_BIAS, MOST_BIAS)] * (letters - 1)]
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-7})
    return Calibration(float(np.exp(best.x[0])), [0.0, *best.x[1:].tolist()], rows=count)


def groups_of(types: np.ndarray) -> list[str]:
    """The task types among (N,) that have enough rows for a temperature of their own; "" is none."""
    return [
        str(name) for name, count in zip(*np.unique(types, return_counts=True)) if name and count >= FEWEST_OF_GROUP
    ]


def fit_groups(rows: LabelledRows, shrunk: bool = True) -> Calibration:
    """A common temperature, and one for each task type of at least 100 rows, shrunk toward the common one.

    They are shrunk by as much as they differ less than their standard errors explain (DerSimonian and Laird,
    Meta-analysis in clinical trials, 1986). shrunk: False leaves them as fitted.
    """
    common = fit_temperature(rows.logits, rows.answers, rows.clusters)
    names = groups_of(rows.types)
    if not names:
        return common
    groups = [rows.select(rows.types == name) for name in names]
    temperatures = np.array([_best_temperature(group.logits, group.answers)[0] for group in groups])
    offsets = np.log(temperatures / common.temperature)
    errors = np.array([standard_error(group.logits, t) for group, t in zip(groups, temperatures)])
    weight = errors**-2.0
    spread = (weight * (offsets - (weight * offsets).sum() / weight.sum()) ** 2).sum() - (len(names) - 1)
    between = max(0.0, spread / max(weight.sum() - (weight**2).sum() / weight.sum(), 1e-12))
    shrinkage = between / (between + 1 / weight) if shrunk else 1.0
    return replace(common, groups=dict(zip(names, (common.temperature * np.exp(shrinkage * offsets)).tolist())))


def _held_out(fit: Callable[[LabelledRows], Calibration], rows: LabelledRows) -> np.ndarray:
    """(N, K) log-probabilities of each row by a fit without it and its picture.

    Cross-validation in 5 folds; of fewer than 100 pictures each is a fold, since the few rows that are wrong decide
    there, and so would the luck of the folds.
    """
    clusters = np.arange(len(rows)) if rows.clusters is None else rows.clusters
    folds = clusters
    if len(np.unique(clusters)) >= FEWEST_OF_GROUP:
        folds = np.random.default_rng(0).permutation(clusters.max() + 1)[clusters] % FOLDS
    log_p = np.empty(rows.logits.shape)
    for fold in np.unique(folds):
        left_out = rows.select(folds == fold)
        log_p[folds == fold] = fit(rows.select(folds != fold)).apply(left_out.logits, left_out.task_types)
    return log_p


# ------------------------------------------------------------------ what is decided: the rule
def calibrate(
    rows: LabelledRows,
    one_order: bool = True,
    fingerprint: dict[str, Any] | None = None,
    temperature_only: bool = False,
) -> Calibration:
    """The calibration that these labelled rows support, by the rule at the head of this module.

    one_order: whether a letter stands for one option; False where logits are averaged over option orders. fingerprint:
    what the logits depend on, for the file. temperature_only: try neither a letter bias nor temperatures by task type.
    """
    common, determined = _fit_temperature(rows)
    held_out, reason = _try_temperature(common, determined, rows)
    chosen, unseen, reasons = common, held_out, [reason]
    candidates = _candidates(rows, one_order) if determined and not temperature_only else []
    for candidate in candidates:
        trial = _try_candidate(candidate, rows, common, held_out)
        reasons.append(f"{candidate.name}: {trial.reason}")
        if trial.earned and rows.losses(trial.held_out).mean() < rows.losses(unseen).mean():
            chosen, unseen = candidate.fit(rows), trial.held_out
    chosen = replace(chosen, choice=reasons, fingerprint=fingerprint or {}, rows=len(rows), pictures=rows.pictures)
    chosen = _with_losses(chosen, rows)
    if determined:
        chosen = _with_gain(chosen, rows, unseen)
    return _with_conformity(chosen, rows, np.exp(unseen))


def _try_temperature(common: Calibration, determined: bool, rows: LabelledRows) -> tuple[np.ndarray, str]:
    """(N, K) log-probabilities of rows by a temperature fitted without them, and why the temperature is what it is.

    determined: whether the rows determine a temperature.
    """
    name = f"temperature {common.temperature:.3f}"
    if not determined or common.temperature == 1:
        return common.apply(rows.logits), f"{name}: {common.note}" if common.note else name
    held_out = _held_out(lambda others: fit_temperature(others.logits, others.answers, others.clusters), rows)
    saved = rows.losses(log_probabilities(rows.logits)) - rows.losses(held_out)
    reason = f"{name}: rows held out of the fit {_gain_text(saved, rows)}"
    if common.temperature > 1 and saved.mean() < 0:
        reason += "; kept all the same: a flatter temperature saves more where it is needed than it costs elsewhere"
    return held_out, reason


@dataclass(frozen=True)
class _Candidate:
    """A model with more parameters than a temperature.

    why_not: why these rows cannot decide about it; "" where they can. fit: as it would be used. likeliest: without any
    shrinkage. features: of its further parameters, see `efficient_scores`.
    """

    name: str
    why_not: str
    fit: Callable[[LabelledRows], Calibration]
    likeliest: Callable[[LabelledRows], Calibration]
    features: Callable[[LabelledRows], list[np.ndarray]]


@dataclass(frozen=True)
class _Trial:
    """Whether a candidate is better than the temperature alone, and why.

    held_out: (N, K) log-probabilities of rows by the candidate fitted without them; (0, K) where it was not tried.
    """

    earned: bool
    reason: str
    held_out: np.ndarray


def _candidates(rows: LabelledRows, one_order: bool) -> list[_Candidate]:
    """What may be taken instead of a temperature alone. one_order: see `calibrate`."""

    def fit_letter_bias(labelled: LabelledRows) -> Calibration:
        return fit_letters(labelled.logits, labelled.answers)

    too_few = "" if _separable_groups(rows) else f"too few task types with {FEWEST_OF_GROUP} rows"
    return [
        _Candidate("letter bias", _why_no_letters(rows, one_order), fit_letter_bias, fit_letter_bias, _letter_features),
        _Candidate("temperature by task type", too_few, fit_groups, partial(fit_groups, shrunk=False), _group_features),
    ]


def _try_candidate(candidate: _Candidate, rows: LabelledRows, common: Calibration, held_out: np.ndarray) -> _Trial:
    """The candidate against the common temperature. held_out: (N, K) as of a trial, by the common temperature."""
    if candidate.why_not:
        return _Trial(False, f"not looked at, {candidate.why_not}", held_out[:0])
    before = rows.losses(common.apply(rows.logits)).mean()
    after = rows.losses(candidate.likeliest(rows).apply(rows.logits, rows.task_types)).mean()
    nuisance, features = [rows.logits], candidate.features(rows)
    if common.temperature == 1:  # then the temperature is not fitted either: it is one of the further parameters
        nuisance, features = [], [rows.logits, *features]
    ratio = 2 * len(rows) * (before - after)
    significant, figures = _significant(ratio, rows, common.temperature, nuisance, features)
    candidate_held_out = _held_out(candidate.fit, rows)
    saved = rows.losses(held_out) - rows.losses(candidate_held_out)
    earned = bool(significant and saved.mean() > 0)
    reason = (
        f"{'earned' if earned else 'not earned'}, {figures}; rows held out of the fit {_gain_text(saved, rows)} over "
        "the temperature"
    )
    return _Trial(earned, reason, candidate_held_out)


def _why_no_letters(rows: LabelledRows, one_order: bool) -> str:
    """Why these rows cannot decide about a letter bias; "" where they can."""
    if not one_order:
        return "several option orders average it out"
    count = np.bincount(rows.answers, minlength=rows.logits.shape[1])
    if (count == 0).any():
        return f"no answer of these rows is {', '.join(LETTERS[letter] for letter in np.flatnonzero(count == 0))}"
    return "" if len(rows) >= FEWEST_OF_GROUP else f"{len(rows)} rows are under {FEWEST_OF_GROUP}"


def _letter_features(rows: LabelledRows) -> list[np.ndarray]:
    """(N, K) for each letter but the first: 1 at that letter."""
    letters = rows.logits.shape[1]
    return [np.where(np.isnan(rows.logits), 0, np.arange(letters) == letter) for letter in range(1, letters)]


def _group_features(rows: LabelledRows) -> list[np.ndarray]:
    """(N, K) for each separable group: the logits of its rows, else 0."""
    return [np.where((rows.types == name)[:, None], rows.logits, 0) for name in _separable_groups(rows)]


def _separable_groups(rows: LabelledRows) -> list[str]:
    """The groups that add a parameter to the common temperature: if every row is in a group, all but the last."""
    names = groups_of(rows.types)
    return names[:-1] if np.isin(rows.types, names).all() else names


def _gain_text(saved: np.ndarray, rows: LabelledRows) -> str:
    """What rows gain or lose on average, with its standard error. saved: (N,) NLL that each row saves."""
    gain = saved.mean()
    return f"{'gain' if gain > 0 else 'lose'} {abs(gain):.4f} ± {mean_error(saved, rows.clusters):.4f} NLL"


def _with_losses(chosen: Calibration, rows: LabelledRows) -> Calibration:
    """With its NLL before and after on the rows that it was fitted on."""
    if not len(rows):
        return replace(chosen, nll_before=float("nan"), nll_after=float("nan"))
    before, after = log_probabilities(rows.logits), chosen.apply(rows.logits, rows.task_types)
    return replace(chosen, nll_before=float(rows.losses(before).mean()), nll_after=float(rows.losses(after).mean()))


def _with_gain(chosen: Calibration, rows: LabelledRows, unseen: np.ndarray) -> Calibration:
    """With what it gains on rows held out of the fit. unseen: (N, K) log-probabilities by a fit without the row."""
    saved = rows.losses(log_probabilities(rows.logits)) - rows.losses(unseen)
    error = standard_error(rows.logits, chosen.temperature)
    return replace(chosen, gain=float(saved.mean()), gain_error=mean_error(saved, rows.clusters), standard_error=error)


def _with_conformity(chosen: Calibration, rows: LabelledRows, p: np.ndarray) -> Calibration:
    """With what sets of options need of the labelled rows. p: (N, K) probabilities by a fit without the row."""
    index = np.arange(len(rows))
    answers = {
        method: np.round(nonconformity(p, method)[index, rows.answers], 6).tolist() if len(rows) else []
        for method in ("lac", "aps")
    }
    shares = []
    if rows.clusters is not None:
        sizes = np.bincount(rows.clusters)
        if len(np.unique(sizes[sizes > 0])) > 1:
            shares = (1 / sizes[rows.clusters] / chosen.pictures).tolist()
    return replace(chosen, nonconformity=answers["lac"], cumulative=answers["aps"], shares=shares)
