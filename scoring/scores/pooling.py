"""Files of several members into one SCORES folder: the pool, each member beside it, and what it was made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import scoring
from scoring.errors import quoted
from scoring.files.writing import write_json
from scoring.inputs.answers import AnswerTable
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import calibrate_out_of_fold, exposure_warnings, judge, warnings_of
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.folder import RunError, Scores, open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.member_names import distinct_names, refuse_doubles, weights_of_sources
from scoring.scores.members import Source, aligned, first_of, is_file, match_calibrations, read_sources
from scoring.stats.calibration import Calibration, LabelledRows, calibrate, log_probabilities
from scoring.stats.pool_weights import (
    choices,
    convex_fit,
    fit_weights,
    greedy_weights,
    held_out_pool,
    likeliest_weights,
)
from scoring.stats.pools import (
    EnsembleError,
    gained,
    nll_weights,
    parse_weights,
    pool,
    same_logarithms,
)
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import nonconformity
from scoring.stats.sets import OptionSets, SetRequest, SetsError, conformal_sets

FITTED = ("nll", "fit", "greedy")  # weights that need labelled rows
NAMED = ("equal", *FITTED)
FEWEST_ROWS = 40  # labelled, from which on a pool says what other weights would give


@dataclass
class PoolOptions:
    """How members become one.

    kind: `log`, `linear` or `vote`. weights: `equal`, `nll`, `fit` or `greedy` (these three are for the log pool, and
    need `fit`), or a number for each member, separated by commas. form: what files hold (`sources.FORMATS`, or `auto`).

    fit: labelled rows that no member was trained on: a SCORES folder or a file of the same members, for a temperature
    of the pool (and weights), or a training's out-of-fold rows, for one temperature of all its folds. calibrations: of
    members, from files of `calibrate`. answers: by id, for files without them. sets: to be added; needs `fit`.
    """

    kind: str = "log"
    weights: str = "equal"
    form: str = "auto"
    fit: Path | None = None
    calibrations: Sequence[Calibration] = ()
    answers: AnswerTable | None = None
    sets: SetRequest | None = None

    def __post_init__(self):
        if self.kind != "log" and self.weights in FITTED:
            raise EnsembleError(
                f"--pool {self.kind} with --weights {self.weights}: {', '.join(FITTED)} fit weights of the log pool; "
                f"others suit a {self.kind} pool; use --pool log, or --weights equal or a number for each member"
            )


@dataclass
class Pooled:
    """What pooling leaves: metrics where there are answers, and what is to be said."""

    scores: Scores
    metrics: dict | None
    told: list[str]


@dataclass(eq=False)
class _Pool:
    """Members side by side, and how they are to be pooled."""

    sources: list[Source]
    logits: np.ndarray  # (M, N, K)
    calibrations: list[Calibration]
    kind: str
    weights: np.ndarray
    temperature: float = 1.0
    notes: list[str] = field(default_factory=list)
    labelled: Calibration | None = None  # the pool's own, with the labelled rows that sets need
    fitted_on: np.ndarray | None = None  # (N,) which rows are also among those that the pool was fitted on

    @property
    def how(self) -> dict:
        return {"kind": self.kind, "temperature": self.temperature, "weights": self.weights.tolist()}


def pool_files(
    paths: Sequence[Path],
    out: Path,
    options: PoolOptions | None = None,
    names: Sequence[str] | None = None,
    about: dict | None = None,
    warnings: Sequence[str] = (),
) -> Pooled:
    """Pool the members of SCORES folders and files, matched by id, into `out`.

    names: of the members, in their order. about, warnings: what run.json tells besides. Raises EnsembleError, RunError,
    SetsError.
    """
    options = options or PoolOptions()
    sources = [
        source
        for path in paths
        for source in read_sources(path, options.form, options.answers, must_match=not options.fit)
    ]
    if len(sources) < 2:
        raise EnsembleError(f"{len(sources)} member; expected two or more to pool")
    names = names or distinct_names([source.name for source in sources], paths)
    return _pool_sources(sources, names, out, options, about, warnings)


def import_file(path: Path, out: Path, options: PoolOptions | None = None) -> Pooled:
    """Anyone's file as a SCORES folder `out`, which every later command reads. Raises EnsembleError, RunError.

    Replaces what an earlier import of the same file left.
    """
    options = options or PoolOptions()
    sources = read_sources(path, options.form, options.answers)
    if out.exists() and any(out.iterdir()):
        before = open_scores(out).about.get("sources")
        if before != [str(path)]:
            raise RunError(f"{out} holds other results; choose another --out")
    return _pool_sources(sources, distinct_names([source.name for source in sources], [path]), out, options, None, ())


def _pool_sources(
    sources: list[Source],
    names: Sequence[str],
    out: Path,
    options: PoolOptions,
    about: dict | None,
    warnings: Sequence[str],
) -> Pooled:
    chosen = _given_weights(options.weights, [*names])
    logits = aligned(sources)
    refuse_doubles(sources, logits)
    for source, name in zip(sources, names):
        source.name = name
    calibrations = [  # a letter bias belongs to one order; the pool's own table is one of order 1
        part if source.entry.get("orders", "1") == "1" else part.without_letters()
        for source, part in zip(sources, match_calibrations(sources, options.calibrations))
    ]
    together = _Pool(sources, logits, calibrations, options.kind, chosen)
    if any(part.letters or part.groups for part in calibrations):
        types = _columns(sources, np.isfinite(logits[0]).sum(1))["task_type"]
        refuse_doubles(sources, _calibrated(together, logits, types))
    together.notes += dict.fromkeys(note for source in sources for note in source.notes)
    together.notes += weights_of_sources(sources, chosen)
    if options.fit:
        _fit(together, options)
    elif options.weights in FITTED:
        raise EnsembleError(
            f"--weights {options.weights} needs labelled rows that no member was trained on: name them with --fit"
        )
    elif options.sets:
        raise SetsError("--sets of a pool need labelled rows that no member was trained on: name them with --fit")
    return _write(together, out, options, about, warnings)


def _write(together: _Pool, out: Path, options: PoolOptions, about: dict | None, warnings: Sequence[str]) -> Pooled:
    sources, calibrations, how = together.sources, together.calibrations, together.how
    first, letters, names = sources[0], together.logits.shape[2], [source.name for source in sources]
    table = OptionLogits.empty(first.ids, names, letters)
    table.logits[:, :, 0] = together.logits.transpose(1, 0, 2)
    for member, source in enumerate(sources):
        if source.label_mass is not None:
            own = {id: row for row, id in enumerate(source.ids)}
            table.label_mass[:, member, 0] = source.label_mass[[own[id] for id in first.ids]]
    table.status = _statuses(sources, together.logits)
    table.logits[~table.scored] = np.nan
    columns = _columns(sources, np.isfinite(together.logits[0]).sum(1))
    exposed = np.array(columns["exposed"], np.uint8).reshape(len(first.ids), len(sources))
    if together.fitted_on is not None:
        columns["exposed"] = np.where(together.fitted_on[:, None], exposed | CALIBRATION, exposed).tolist()
    (out / "logits").mkdir(parents=True, exist_ok=True)
    for part in (out / "logits").glob("part-*.parquet"):  # of what is replaced
        part.unlink()
    write_part(out / "logits", 0, table)
    sets: SetRequest | OptionSets | None = options.sets
    if sets and together.labelled:
        members = _calibrated(together, together.logits, columns["task_type"])
        pooled = pool(members, together.kind, together.weights, together.temperature)
        sets = conformal_sets(pooled, [together.labelled], options.sets)
    pool_of_one = len(sources) == 1
    log_p, sets = write_results(out, columns, table, calibrations, sets, None if pool_of_one else how)
    entries = [
        source.entry
        | {
            "member": source.name,
            "fingerprint": source.fingerprint,
            "temperature": calibration.temperature,
            "calibration": calibration.stripped(),
            "data": source.data,
        }
        for source, calibration in zip(sources, calibrations)
    ]
    warnings = [
        *warnings,
        *warnings_of(table, [], calibrations, columns["answer"], log_p),
        *exposure_warnings(names, exposed),
    ]
    if together.fitted_on is not None and together.fitted_on.any():
        warnings.append(f"{_met(together, options)}: what is measured on them flatters it")
    warnings = list(dict.fromkeys(warnings))  # of members and pool alike
    data = [source.data for source in sources if source.data]
    report = {
        **({"data": data[0]} if data and all(part == data[0] for part in data) else {}),
        **(about or {}),
        "checkpoints": entries,
        **({} if pool_of_one else {"pool": how | {"told": together.notes}}),
        "sources": list(dict.fromkeys(str(source.path) for source in sources)),
        "identity": {"letters": LETTERS[:letters], "orders": "1"},
        "versions": scoring.versions(),
        "notes": [*(about or {}).get("notes", []), *together.notes],
        "warnings": warnings,
        "counts": {"rows": len(first.ids), "scored": int(table.scored.sum()), "members": len(sources)},
    }
    if sets:
        report["sets"] = sets.about(options.sets)
    write_json(out / "run.json", report)
    scores = open_scores(out)
    if not pool_of_one and not options.fit and len(scores.answered) and not about:
        together.notes += _proposal(scores)
    return Pooled(scores, judge(scores), together.notes + [f"warning: {text}" for text in warnings])


def claim(out: Path, overwrite: bool) -> None:
    """Raises RunError where `out` holds something that is not to be replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise RunError(f"{out} exists; choose another --out, or replace it with --overwrite")


def _given_weights(text: str, names: list[str]) -> np.ndarray:
    if text in NAMED:
        return np.full(len(names), 1 / len(names))
    given = parse_weights(text, len(names))
    if not given or min(given) < 0 or not sum(given):
        raise EnsembleError(
            f"weights {text!r}: expected {', '.join(NAMED)}, or {len(names)} numbers from 0 on, separated by commas, "
            f"in the order of the members: {', '.join(names)}"
        )
    return np.array(given) / sum(given)


def _calibrated(together: _Pool, logits: np.ndarray, task_types: list[str]) -> np.ndarray:
    """(M, N, K) calibrated log-probabilities of the members' logits on any rows."""
    return np.stack([part.apply(values, task_types) for part, values in zip(together.calibrations, logits)])


# ------------------------------------------------------------------ from labelled rows
def _fit(together: _Pool, options: PoolOptions) -> None:
    """Temperatures (and weights) from labelled rows, into the pool."""
    if not is_file(options.fit):
        labelled = open_scores(options.fit)
        if labelled.about["checkpoints"][0].get("adapters"):
            _fit_folds(together, labelled, options)
            return
    theirs = _matched(together.sources, read_sources(options.fit, options.form, options.answers, False), options.fit)
    logits = aligned(theirs)
    answers = theirs[0].questions.get("answer") or [""] * len(theirs[0].ids)
    exposed = np.stack([_in_order_of(theirs[0], part) for part in theirs], 1)
    scored = np.isfinite(logits).any(2).all(0)
    usable = scored & np.array([bool(answer) for answer in answers])
    if not usable.any():
        raise EnsembleError(f"{options.fit}: no scored row has an answer, so that nothing can be fitted on it")
    trained = usable & (exposed & TRAINING > 0).any(1) | usable & _same_table(theirs)
    if trained.any():
        names = [source.name for source, flags in zip(theirs, (exposed & TRAINING > 0).T) if flags.any()]
        together.notes.append(f"{int(trained.sum()):,} rows of {options.fit} that a member was trained on are left out")
        if not (usable & ~trained).any():
            raise EnsembleError(
                f"{options.fit}: {', '.join(names) or 'a member'} was trained on these rows; a pool fitted on them "
                "would be far too sure of itself. Use other labelled rows, or the out-of-fold scores of a training "
                "with --folds"
            )
    if chosen_on := int((exposed & VALIDATION > 0).any(1)[usable & ~trained].sum()):
        together.notes.append(
            f"on {chosen_on:,} of the labelled rows the epoch of a member was chosen: it looks better there"
        )
    rows = np.flatnonzero(usable & ~trained)
    _fitted_on(together, _in_labelled(together, theirs, logits, rows), options)
    questions = theirs[0].questions
    y = np.array([LETTERS.index(answers[row]) for row in rows])
    pictures = questions.get("picture_digest") or [""] * len(answers)
    clusters = clusters_of([pictures[row] or f"row {row}" for row in rows])
    types = questions.get("task_type") or [""] * len(answers)
    log_p = _calibrated(together, logits[:, rows], [types[row] for row in rows])
    _fit_pool(together, log_p, y, clusters, options.weights)


def _fit_pool(together: _Pool, log_p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None, weights: str) -> None:
    """Weights and temperature of the pool from (M, N, K) labelled rows."""
    fitted, fit = None, None
    names = [source.name for source in together.sources]
    if weights == "nll":
        values, why = nll_weights(log_p, y, clusters)
        together.weights = values
        together.notes.append(f"{why}: {_listed(names, values)}")
        fit = None if why.startswith("equal") else likeliest_weights
    elif weights in FITTED:
        fitted = fit_weights(log_p, y, weights, clusters)
        together.notes.append(f"{fitted.why}: {_listed(names, fitted.weights)}")
        if nothing := [name for name, weight in zip(names, fitted.weights) if weight == 0]:
            together.notes.append(f"weight 0, so that the pool does without: {', '.join(nothing)}")
        together.weights, together.temperature = fitted.weights, fitted.temperature
        if not fitted.why.startswith("equal"):
            fit = greedy_weights if fitted.penalty is None else convex_fit(fitted.penalty)
    pooled = pool(log_p, together.kind, together.weights)
    own = calibrate(LabelledRows(pooled, y, None, clusters), one_order=False, more=False)
    if fitted is None:
        together.temperature = own.temperature
        together.notes.append(f"temperature of the pool {own.temperature:.3f}, on {len(y):,} rows: {own.choice[0]}")
    own.temperature = together.temperature
    if fit is not None:
        unseen, rows = np.exp(held_out_pool(fit, log_p, y, clusters)), np.arange(len(y))
        own.nonconformity = nonconformity(unseen)[rows, y].tolist()
        own.cumulative = nonconformity(unseen, "aps")[rows, y].tolist()
    if together.kind == "log" and weights == "equal":
        together.notes += describe_choices(choices(log_p, y, clusters))
    together.labelled = own


def _fit_folds(together: _Pool, labelled: Scores, options: PoolOptions) -> None:
    """One temperature of all folds, from rows that each was scored by the fold that had not seen it."""
    entry = labelled.about["checkpoints"][0]
    if foreign := [source.name for source in together.sources if source.fingerprint not in entry["adapters"]]:
        raise EnsembleError(f"{labelled.folder}: not the out-of-fold rows of {', '.join(foreign)}")
    orders = entry.get("orders") or labelled.about["identity"].get("orders", "1")
    if other := [source for source in together.sources if source.entry.get("orders", "1") != orders]:
        raise EnsembleError(
            f"{labelled.folder}: scored in orders {orders}, but {other[0].name} in orders "
            f"{other[0].entry.get('orders', '1')}; make out-of-fold rows in these: score the training table with "
            "--out-of-fold --orders …"
        )
    if options.weights in FITTED:
        raise EnsembleError(
            f"--weights {options.weights} needs rows that no member was trained on; folds have none, since all folds "
            "but one were trained on each row"
        )
    if not len(labelled.answered):
        raise EnsembleError(f"{labelled.folder}: no scored row has an answer, so that nothing can be fitted on it")
    keys = _keys(labelled.questions)
    known = {keys[row] for row in labelled.answered} - {""}
    _fitted_on(together, np.array([key in known for key in _keys_of(together.sources)]), options)
    own = calibrate_out_of_fold(labelled, {})
    places = [entry["adapters"].index(source.fingerprint) for source in together.sources]
    renumbered = {fold: place for place, fold in enumerate(places)}
    own.folds = [renumbered.get(fold, -1) for fold in own.folds]
    together.calibrations = [own] * len(together.sources)
    together.notes.append(
        f"one temperature for all folds, {own.temperature:.3f}, on {own.rows:,} rows each scored by the fold that had "
        "not seen it; the pool has none of its own: no row was left unseen by all folds"
    )


def _matched(ours: list[Source], labelled: list[Source], path: Path) -> list[Source]:
    """The labelled rows of each of the pool's members, in their order. EnsembleError where one is missing or other."""
    result, faults, left = [], [], list(labelled)
    for source in ours:
        if source.fingerprint:
            candidates = [other for other in left if other.fingerprint == source.fingerprint]
            alike = [other for other in candidates if other.settings == source.settings]
            if candidates and not alike:
                differ = [
                    f"{key} {candidates[0].settings[key]} there, {value} here"
                    for key, value in source.settings.items()
                    if candidates[0].settings[key] != value
                ]
                faults.append(f"{source.name} was scored with other settings: {', '.join(differ)}")
                continue
        else:
            alike = [other for other in left if not other.fingerprint and other.name == source.name]
        if alike:
            same = next((other for other in alike if other.name == source.name), alike[0])
            left.remove(same)
            result.append(same)
        else:
            faults.append(f"{source.name} ({source.fingerprint or 'of a file'}) is not there")
    if faults:
        have = ", ".join(f"{other.name} ({other.fingerprint or 'of a file'})" for other in labelled)
        raise EnsembleError(
            f"{path}: expected the members that are pooled; {'; '.join(faults)}. It has {have}. --fit takes one folder "
            "or file that holds all members: of several, make one by `ensemble` of the labelled rows of each"
        )
    return result


def _keys(questions: dict[str, list]) -> list[str]:
    """(N,) by what a row is recognised: the digest of its question; "" where nothing is known but its id.

    With the picture's name, where its content is not known.
    """
    count = len(questions.get("id", ()))
    columns = (questions.get(name) or [""] * count for name in ("digest", "question", "choices", "picture_digest"))
    names = questions.get("picture") or [""] * count
    return [
        f"{digest} {'' if picture else name}" if digest and (question or len(options) or picture) else ""
        for digest, question, options, picture, name in zip(*columns, names)
    ]


def _keys_of(sources: list[Source]) -> list[str]:
    """(N,) `_keys` in the first member's rows, each from the first member that knows it."""
    ids = sources[0].ids
    keys = [""] * len(ids)
    for source in sources:
        if source.questions and not all(keys):
            theirs = _in_rows_of(ids, source.questions | {"key": _keys(source.questions)}, "key", keys)
            keys = [ours or other for ours, other in zip(keys, theirs)]
    return keys


def _in_labelled(together: _Pool, theirs: list[Source], logits: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(N,) which rows of the pool are among these labelled rows.

    By the digests of their questions, or where one side has none, by their id and the same numbers of every member.
    logits: (M, N', K') of the labelled members.
    """
    ours, labelled = _keys_of(together.sources), _keys_of(theirs)
    known = {labelled[row] for row in rows if labelled[row]}
    met = np.array([key in known for key in ours], bool)
    row_of = {theirs[0].ids[row]: row for row in rows}
    pairs = [
        (number, row_of[id])
        for number, (id, key) in enumerate(zip(together.sources[0].ids, ours))
        if not met[number] and id in row_of and not (key and labelled[row_of[id]])
    ]
    if pairs:
        mine, its = map(list, zip(*pairs))
        width = max(together.logits.shape[2], logits.shape[2])
        p, q = (
            log_probabilities(np.pad(part, [(0, 0), (0, 0), (0, width - part.shape[2])], constant_values=np.nan))
            for part in (together.logits[:, mine], logits[:, its])
        )
        there = np.isfinite(p)
        same = np.where(there, same_logarithms(p, q), True) & (there == np.isfinite(q))
        met[mine] = same.all((0, 2))
    return met


def _fitted_on(together: _Pool, met: np.ndarray, options: PoolOptions) -> None:
    """Notes which rows of the pool it is fitted on. SetsError where sets are asked for, which would promise nothing."""
    together.fitted_on = met
    if options.sets and met.any():
        raise SetsError(
            f"--sets: {_met(together, options)}, so that sets of these promise nothing; leave them out of the rows to "
            "be pooled, or name other labelled rows with --fit"
        )


def _met(together: _Pool, options: PoolOptions) -> str:
    rows = np.flatnonzero(together.fitted_on)
    ids = first_of(quoted(together.sources[0].ids[row]) for row in rows)
    return (
        f"{len(rows):,} of {len(together.sources[0].ids):,} rows are also labelled rows of --fit {options.fit}, on "
        f"which the pool is fitted ({ids})"
    )


def _same_table(sources: list[Source]) -> np.ndarray:
    """(N,) all rows, where a checkpoint that keeps no record of its rows was trained on the very table."""
    same = any(
        source.data.get("sha256") and source.entry.get("trained_on") == source.data["sha256"]
        for source in sources
        if source.exposed is None or not source.exposed.any()
    )
    return np.full(len(sources[0].ids), same)


def _in_order_of(first: Source, source: Source) -> np.ndarray:
    """(N,) a member's flags of exposure, in the rows of the first."""
    if source.exposed is None:
        return np.zeros(len(first.ids), np.uint8)
    own = dict(zip(source.ids, source.exposed.tolist()))
    return np.array([own[id] for id in first.ids], np.uint8)


# ------------------------------------------------------------------ what is said
def _listed(names: list[str], weights: np.ndarray) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in zip(names, weights))


def describe_choices(found: list[dict]) -> list[str]:
    """What each choice of weights would give, and what these rows prefer. Nothing of no choices."""
    if not found:
        return []
    parts = [
        f"{part['weights']}: accuracy {part['accuracy']:.3f}, NLL {part['nll']:.3f}"
        + (f" ({gained(part['gain'], part['error'], 'gains', 'loses')})" if part["weights"] != "equal" else "")
        for part in found
    ]
    best = found[0]
    preferred = next((part for part in found if part["weights"] in FITTED), None)
    told = [f"weights, on rows held out of their fit: {'; '.join(parts)}"]
    if best["weights"] == "best single" and best["gain"] > best["error"]:
        told.append("these rows prefer the best member alone")
    elif preferred and preferred["gain"] > preferred["error"]:
        told.append(f"these rows prefer fitted weights: --weights {preferred['weights']} --fit LABELLED")
    return told


def _proposal(scores: Scores) -> list[str]:
    """What weights the pool's own labelled rows would prefer."""
    rows = scores.answered
    rows = rows[(scores.exposed[rows] & TRAINING == 0).all(1)]
    if len(rows) < FEWEST_ROWS or scores.how.get("kind", "log") != "log":
        return []
    y, clusters = scores.answers(rows), clusters_of(scores.pictures(rows))
    return describe_choices(choices(scores.members[:, rows], y, clusters, greedy=False))


def _statuses(sources: list[Source], logits: np.ndarray) -> list[str]:
    """For each row `ok`, or the first member that has no score, and why."""
    place = {id: row for row, id in enumerate(sources[0].ids)}
    statuses = ["ok"] * len(place)
    for source, without in reversed(list(zip(sources, ~np.isfinite(logits).any(2)))):
        if not without.any():
            continue
        why = {id: status for id, status in zip(source.ids, source.status) if status != "ok"}
        for id, row in place.items():
            if without[row]:
                statuses[row] = f"no score from {source.name}: {why.get(id, 'no number')}"
    return statuses


def _in_rows_of(ids: list[str], questions: dict[str, list], name: str, otherwise: list) -> list:
    """A column of a member's questions in the rows of these ids; `otherwise` for what it does not know."""
    column = questions.get(name)
    if not column:
        return otherwise
    if questions["id"] == ids:
        return column
    place = {id: row for row, id in enumerate(questions["id"])}
    return [column[place[id]] if id in place else other for id, other in zip(ids, otherwise)]


def _columns(sources: list[Source], options: np.ndarray) -> dict[str, list]:
    """Columns of questions.parquet in the first member's rows: each value from the first member that knows it."""
    ids = sources[0].ids
    empty: dict = dict.fromkeys(("answer", "task_type", "picture", "picture_digest", "digest", "question"), "") | {
        "choices": []
    }
    columns: dict[str, list] = {name: [nothing] * len(ids) for name, nothing in empty.items()}
    known = [source.questions for source in sorted(sources, key=lambda part: not part.fingerprint) if source.questions]
    for name, values in columns.items():  # folders first: files of others know less
        for questions in known:
            if all(values):
                break
            theirs = _in_rows_of(ids, questions, name, values)
            columns[name] = values = [ours or other for ours, other in zip(values, theirs)]
    faults = []
    for source in sources:
        theirs = _in_rows_of(ids, source.questions, "answer", [""] * len(ids))
        if theirs == columns["answer"]:
            continue
        for id, ours, other in zip(ids, columns["answer"], theirs):
            if other and other != ours:
                faults.append(f"{id!r} ({ours} and {other} of {source.name})")
    if faults:
        raise EnsembleError(f"answers of members differ: {first_of(faults)}; expected one right answer for each id")
    flags = np.stack([_in_order_of(sources[0], source) for source in sources], 1)
    return {"id": ids, "options": options.tolist(), **columns, "exposed": flags.tolist()}
