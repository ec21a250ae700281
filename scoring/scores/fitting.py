"""Fit a pool on labelled rows: its temperature and the members' weights; and what other weights would give."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scoring.errors import first_of, quoted
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import calibrate_out_of_fold
from scoring.scores.exposure import TRAINING, VALIDATION
from scoring.scores.folder import Columns, Scores, Source, opened, path_of
from scoring.scores.members import (
    Member,
    MemberPool,
    aligned,
    column_of,
    exposure_of,
    holds_scores,
    read_members,
)
from scoring.stats.calibration import Calibration, LabelledRows, calibrate, log_probabilities
from scoring.stats.pool_weights import (
    Fit,
    WeightChoice,
    choices,
    fit_weights,
    held_out_pool,
    likeliest_weights,
)
from scoring.stats.pools import EnsembleError, PoolSettings, gained, nll_weights, same_logarithms
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import nonconformity
from scoring.stats.sets import SetsError
from scoring.tables.answers import AnswerTable

FITTED = ("nll", "fit", "greedy")  # weights that need labelled rows
FEWEST_ROWS = 40  # labelled rows from which on a pool says what other weights would give


@dataclass(frozen=True)
class FitRequest:
    """Labelled rows to fit a pool on, and what is to be fitted.

    source: a SCORES folder or a file of numbers; form, answers: how it is read, see `members.read_members`. weights:
    one of FITTED, or others, which stay as they are. sets: whether option sets are asked for.
    """

    source: Source
    weights: str
    form: str = "auto"
    answers: AnswerTable | None = None
    sets: bool = False

    @property
    def path(self) -> Path:
        """What messages call the labelled rows."""
        return path_of(self.source)


@dataclass(frozen=True, eq=False)
class FittedPool:
    """A pool with what labelled rows gave it, if there were any.

    notes: what to say about it. labelled: the pool's own calibration, with the labelled rows that option sets need.
    shared: (N,) bool, which rows of the pool are also among the labelled rows.
    """

    pool: MemberPool
    notes: list[str] = field(default_factory=list)
    labelled: Calibration | None = None
    shared: np.ndarray | None = None


def fit_pool(pool: MemberPool, request: FitRequest) -> FittedPool:
    """Fit the pool's temperature, and weights where asked for, on labelled rows that no member was trained on.

    Out-of-fold rows of a training give one temperature for all its folds. Raises EnsembleError where no row can be
    used, SetsError where sets are asked for rows that the pool is fitted on.
    """
    if holds_scores(request.source):
        scores = opened(request.source)
        if scores.run.checkpoints[0].adapters:
            return _fit_folds(pool, scores, request)
    return _fit_labelled(pool, request)


def shared_rows_text(pool: MemberPool, shared: np.ndarray, path: Path) -> str:
    """Says which rows of the pool it is fitted on. shared: see `FittedPool`."""
    rows = np.flatnonzero(shared)
    listed = first_of(quoted(pool.ids[row]) for row in rows)
    return (
        f"{len(rows):,} of {len(pool.ids):,} rows are also labelled rows of --fit {path}, on which the pool is fitted "
        f"({listed})"
    )


def _check_sets(pool: MemberPool, shared: np.ndarray, request: FitRequest) -> None:
    """Raises SetsError where option sets are asked for rows that the pool is fitted on: they would promise nothing."""
    if request.sets and shared.any():
        raise SetsError(
            f"--sets: {shared_rows_text(pool, shared, request.path)}, so that sets of these promise nothing; leave "
            "them out of the rows to be pooled, or name other labelled rows with --fit"
        )


# ------------------------------------------------------------------ rows that no member was trained on
def _fit_labelled(pool: MemberPool, request: FitRequest) -> FittedPool:
    members = read_members(request.source, request.form, request.answers, must_match=False)
    members = _matched(pool.members, members, request.path)
    logits = aligned(members)
    rows, notes = _usable_rows(members, logits, request.path)
    shared = _shared_rows(pool, members, logits, rows)
    _check_sets(pool, shared, request)
    questions, count = members[0].questions, len(members[0].ids)
    empty = [""] * count
    answers, pictures, types = (questions.get(name) or empty for name in ("answer", "picture_digest", "task_type"))
    y = np.array([LETTERS.index(answers[row]) for row in rows])
    clusters = clusters_of([pictures[row] or f"row {row}" for row in rows])
    log_p = pool.calibrated(logits[:, rows], [types[row] for row in rows])
    fitted = _fit(pool, log_p, y, clusters, request.weights)
    return replace(fitted, notes=[*notes, *fitted.notes], shared=shared)


def _usable_rows(members: Sequence[Member], logits: np.ndarray, path: Path) -> tuple[np.ndarray, list[str]]:
    """(R,) rows with answer and score on which no member was trained, and notes about the others.

    logits: (M, N, K). Raises EnsembleError where there is no such row.
    """
    answers = members[0].questions.get("answer") or [""] * len(members[0].ids)
    exposed = exposure_of(members)
    usable = np.isfinite(logits).any(2).all(0) & np.array([bool(answer) for answer in answers])
    if not usable.any():
        raise EnsembleError(f"{path}: no scored row has an answer, so that nothing can be fitted on it")
    in_training = exposed & TRAINING > 0
    trained = usable & (in_training.any(1) | _trained_on_table(members))
    notes = []
    if trained.any():
        notes.append(f"{int(trained.sum()):,} rows of {path} that a member was trained on are left out")
    usable &= ~trained
    if not usable.any():
        names = [member.name for member, rows in zip(members, in_training.T) if rows.any()]
        raise EnsembleError(
            f"{path}: {', '.join(names) or 'a member'} was trained on these rows; a pool fitted on them would be far "
            "too confident. Use other labelled rows, or the out-of-fold scores of a training with --folds"
        )
    if selected := int((usable & (exposed & VALIDATION > 0).any(1)).sum()):
        notes.append(f"on {selected:,} of the labelled rows the epoch of a member was chosen: it looks better there")
    return np.flatnonzero(usable), notes


def _trained_on_table(members: Sequence[Member]) -> bool:
    """Whether a checkpoint that has no record of its training rows was trained on this very table."""
    return any(member.trained_on_its_table for member in members if not member.flags.any())


@dataclass(frozen=True, eq=False)
class _Weighting:
    """Weights of a pool's members. temperature: the pool's; None where it is still to be fitted.

    fit: how the weights were fitted, to repeat it on other rows; None where they do not depend on the labelled rows.
    """

    weights: list[float]
    notes: list[str]
    temperature: float | None = None
    fit: Fit | None = None


def _weighting(
    pool: MemberPool, log_p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None, choice: str
) -> _Weighting:
    """The weights that --weights chooses; those of the pool where it names none of FITTED. log_p: (M, N, K)."""
    if choice == "nll":
        chosen = nll_weights(log_p, y, clusters)
        notes = [f"{chosen.why}: {_listed(pool.names, chosen.weights)}"]
        return _Weighting(chosen.weights.tolist(), notes, fit=likeliest_weights if chosen.fitted else None)
    if choice not in FITTED:
        return _Weighting(pool.settings.weights or [], [])
    fitted = fit_weights(log_p, y, choice, clusters)
    notes = [f"{fitted.why}: {_listed(pool.names, fitted.weights)}"]
    if unused := [name for name, weight in zip(pool.names, fitted.weights) if weight == 0]:
        notes.append(f"weight 0, so that the pool does without: {', '.join(unused)}")
    return _Weighting(fitted.weights.tolist(), notes, fitted.temperature, fitted.fit)


def _fit(pool: MemberPool, log_p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None, choice: str) -> FittedPool:
    """Weights and temperature of the pool from labelled rows.

    log_p: (M, R, K) the members' calibrated log-probabilities. y: (R,) indices of right options. clusters: (R,) numbers
    of pictures, or None. choice: of weights, see `FitRequest`.
    """
    weighting = _weighting(pool, log_p, y, clusters, choice)
    notes = list(weighting.notes)
    settings = PoolSettings(pool.settings.kind, weighting.weights)
    pooled = LabelledRows(settings.pool(log_p), y, None, clusters)
    labelled = calibrate(pooled, one_order=False, temperature_only=True)
    temperature = weighting.temperature
    if temperature is None:
        temperature = labelled.temperature
        notes.append(f"temperature of the pool {temperature:.3f}, on {len(y):,} rows: {labelled.choice[0]}")
    labelled = replace(labelled, temperature=temperature)
    if weighting.fit is not None:
        unseen, rows = np.exp(held_out_pool(weighting.fit, log_p, y, clusters)), np.arange(len(y))
        labelled = replace(
            labelled,
            nonconformity=nonconformity(unseen)[rows, y].tolist(),
            cumulative=nonconformity(unseen, "aps")[rows, y].tolist(),
        )
    if settings.kind == "log" and choice == "equal":
        notes += describe_choices(choices(log_p, y, clusters))
    return FittedPool(replace(pool, settings=replace(settings, temperature=temperature)), notes, labelled)


# ------------------------------------------------------------------ out-of-fold rows
def _fit_folds(pool: MemberPool, scores: Scores, request: FitRequest) -> FittedPool:
    """One temperature for all folds, from rows that were each scored by the fold that was not trained on it."""
    _check_folds(pool, scores, request)
    adapters = scores.run.checkpoints[0].adapters or []
    keys = _keys(scores.questions)
    labelled_keys = {keys[row] for row in scores.answered} - {""}
    shared = np.array([key in labelled_keys for key in _member_keys(pool.members)])
    _check_sets(pool, shared, request)
    calibration = calibrate_out_of_fold(scores, {})
    member_of = {adapters.index(member.fingerprint): index for index, member in enumerate(pool.members)}
    calibration = replace(calibration, folds=[member_of.get(fold, -1) for fold in calibration.folds])
    note = (
        f"one temperature for all folds, {calibration.temperature:.3f}, on {calibration.rows:,} rows each scored by "
        "the fold that had not seen it; the pool has none of its own: no row was left unseen by all folds"
    )
    calibrated = replace(pool, calibrations=[calibration] * len(pool.members))
    return FittedPool(calibrated, [note], shared=shared)


def _check_folds(pool: MemberPool, scores: Scores, request: FitRequest) -> None:
    """EnsembleError where these are not the members' labelled out-of-fold rows, or do not suit the request."""
    entry = scores.run.checkpoints[0]
    if foreign := [member.name for member in pool.members if member.fingerprint not in (entry.adapters or [])]:
        raise EnsembleError(f"{scores.folder}: not the out-of-fold rows of {', '.join(foreign)}")
    orders = entry.orders or scores.run.identity.orders
    if others := [member for member in pool.members if member.orders != orders]:
        raise EnsembleError(
            f"{scores.folder}: scored in orders {orders}, but {others[0].name} in orders {others[0].orders}; make "
            "out-of-fold rows in these: score the training table with --out-of-fold --orders …"
        )
    if request.weights in FITTED:
        raise EnsembleError(
            f"--weights {request.weights} needs rows that no member was trained on; folds have none, since all folds "
            "but one were trained on each row"
        )
    if not len(scores.answered):
        raise EnsembleError(f"{scores.folder}: no scored row has an answer, so that nothing can be fitted on it")


# ------------------------------------------------------------------ members and rows found again
def _matched(members: Sequence[Member], labelled: Sequence[Member], path: Path) -> list[Member]:
    """For each member of the pool its labelled rows. EnsembleError where they are missing, or of other settings."""
    result, faults, unmatched = [], [], list(labelled)
    for member in members:
        same = [other for other in unmatched if other.fingerprint == member.fingerprint]
        if member.fingerprint:
            alike = [other for other in same if other.settings == member.settings]
        else:
            alike = [other for other in same if other.name == member.name]
        if alike:
            match = next((other for other in alike if other.name == member.name), alike[0])
            unmatched.remove(match)
            result.append(match)
        elif member.fingerprint and same:
            settings = same[0].settings
            differ = [
                f"{key} {settings[key]} there, {value} here"
                for key, value in member.settings.items()
                if settings[key] != value
            ]
            faults.append(f"{member.name} was scored with other settings: {', '.join(differ)}")
        else:
            faults.append(f"{_described(member)} is missing")
    if faults:
        raise EnsembleError(
            f"{path}: expected the members that are pooled; {'; '.join(faults)}. It has "
            f"{', '.join(map(_described, labelled))}. --fit takes one folder or file that holds all members: of "
            "several, make one by `ensemble` of the labelled rows of each"
        )
    return result


def _described(member: Member) -> str:
    return f"{member.name} ({member.fingerprint or 'of a file'})"


def _keys(questions: Columns) -> list[str]:
    """(N,) what recognises a row: the digest of its question; "" where nothing but its id is known.

    With the picture's name, where its content is not known.
    """
    count = len(questions.get("id", ()))
    columns = (questions.get(name) or [""] * count for name in ("digest", "question", "choices", "picture_digest"))
    names = questions.get("picture") or [""] * count
    return [
        f"{digest} {'' if picture else name}" if digest and (question or len(options) or picture) else ""
        for digest, question, options, picture, name in zip(*columns, names)
    ]


def _member_keys(members: Sequence[Member]) -> list[str]:
    """(N,) `_keys` in the first member's rows, each from the first member that knows it."""
    ids = members[0].ids
    keys = [""] * len(ids)
    for member in members:
        if member.questions and not all(keys):
            member_keys = column_of(ids, member.questions | {"key": _keys(member.questions)}, "key", keys)
            keys = [key or member_key for key, member_key in zip(keys, member_keys)]
    return keys


def _shared_rows(pool: MemberPool, labelled: Sequence[Member], logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) bool: which rows of the pool are among these labelled rows.

    By the digests of their questions, or where one side has none, by their id and the same numbers of every member.
    labelled, logits: the labelled members, with (M, N', K') logits. rows: (R,) the labelled rows in use.
    """
    keys, labelled_keys = _member_keys(pool.members), _member_keys(labelled)
    known = {labelled_keys[row] for row in rows if labelled_keys[row]}
    shared = np.array([key in known for key in keys], bool)
    row_of = {labelled[0].ids[row]: row for row in rows}
    pairs = [
        (number, row_of[id])
        for number, (id, key) in enumerate(zip(pool.ids, keys))
        if not shared[number] and id in row_of and not (key and labelled_keys[row_of[id]])
    ]
    if pairs:
        pool_rows, labelled_rows = map(list, zip(*pairs))
        letters = max(pool.logits.shape[2], logits.shape[2])
        p = log_probabilities(_widened(pool.logits[:, pool_rows], letters))
        q = log_probabilities(_widened(logits[:, labelled_rows], letters))
        present = np.isfinite(p)
        same = np.where(present, same_logarithms(p, q), True) & (present == np.isfinite(q))
        shared[pool_rows] = same.all((0, 2))
    return shared


def _widened(logits: np.ndarray, letters: int) -> np.ndarray:
    """(M, N, letters) of (M, N, K) logits, with NaN for further letters."""
    return np.pad(logits, [(0, 0), (0, 0), (0, letters - logits.shape[2])], constant_values=np.nan)


# ------------------------------------------------------------------ what other weights would give
def _listed(names: Sequence[str], weights: Sequence[float] | np.ndarray) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights))


def describe_choices(results: list[WeightChoice]) -> list[str]:
    """Notes: what each choice of weights would give, and what these rows prefer. results: of `pool_weights.choices`."""
    if not results:
        return []
    texts = [
        f"{result['weights']}: accuracy {result['accuracy']:.3f}, NLL {result['nll']:.3f}"
        + (f" ({gained(result['gain'], result['error'], 'gains', 'loses')})" if result["weights"] != "equal" else "")
        for result in results
    ]
    notes = [f"weights, on rows held out of their fit: {'; '.join(texts)}"]
    best = results[0]
    preferred = next((result for result in results if result["weights"] in FITTED), None)
    if best["weights"] == "best single" and best["gain"] > best["error"]:
        notes.append("these rows prefer the best member alone")
    elif preferred and preferred["gain"] > preferred["error"]:
        notes.append(f"these rows prefer fitted weights: --weights {preferred['weights']} --fit LABELLED")
    return notes


def describe_own_choices(scores: Scores) -> list[str]:
    """Notes: which weights a pool's own labelled rows would prefer; none where the rows are few."""
    rows = scores.answered
    rows = rows[(scores.exposed[rows] & TRAINING == 0).all(1)]
    if len(rows) < FEWEST_ROWS or (scores.pool and scores.pool.kind != "log"):
        return []
    y, clusters = scores.answers(rows), clusters_of(scores.pictures(rows))
    return describe_choices(choices(scores.members[:, rows], y, clusters, greedy=False))
