"""Pool members from SCORES folders and files of numbers into one SCORES folder; or import a single file into one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import scoring
from scoring.errors import first_of
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import exposure_warnings, warnings_of
from scoring.scores.exposure import CALIBRATION
from scoring.scores.finalize import write_scores
from scoring.scores.fitting import (
    FITTED,
    FitRequest,
    FittedPool,
    describe_own_choices,
    fit_pool,
    shared_rows_text,
)
from scoring.scores.folder import Columns, RunError, Scores, Source, open_scores, path_of
from scoring.scores.logits import SCORED, OptionLogits
from scoring.scores.members import (
    Member,
    MemberPool,
    aligned,
    column_of,
    exposure_of,
    in_order_of,
    match_calibrations,
    member_names,
    read_members,
    refuse_doubles,
    weights_by_path,
)
from scoring.scores.probabilities import member_log_probabilities, pool_members
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError, PoolSettings, parse_weights
from scoring.stats.sets import OptionSets, SetRequest, SetsError, conformal_sets
from scoring.tables.answers import AnswerTable
from scoring.tables.sample import SampleSubmission

NAMED = ("equal", *FITTED)
POOLED = Path("pool")  # the name of results that were never written, in messages
TEXT_COLUMNS = ("answer", "task_type", "picture", "picture_digest", "digest", "question")  # of questions.parquet


@dataclass(frozen=True)
class PoolOptions:
    """How members become one.

    kind: `log`, `linear` or `vote`. weights: `equal`, `nll`, `fit` or `greedy` (these three are for the log pool, and
    need `fit`), or a number for each member, separated by commas. form: what files hold (`number_files.FORMATS`, or
    `auto`).

    fit: labelled rows that no member was trained on: a SCORES folder or a file of the same members, for a temperature
    of the pool (and weights); or a training's out-of-fold rows, for one temperature for all its folds. calibrations: of
    members, from files of `calibrate`. answers: by id, for rows without one. sets: option sets to add; they need `fit`.
    names: of the members, in their order; None for their own, made distinct. sample: whose header, ids and order
    submission.csv has.
    """

    kind: str = "log"
    weights: str = "equal"
    form: str = "auto"
    fit: Source | None = None
    calibrations: Sequence[Calibration] = ()
    answers: AnswerTable | None = None
    sets: SetRequest | None = None
    names: Sequence[str] | None = None
    sample: SampleSubmission | None = None

    def __post_init__(self) -> None:
        if self.kind != "log" and self.weights in FITTED:
            raise EnsembleError(
                f"--pool {self.kind} with --weights {self.weights}: {', '.join(FITTED)} fit weights of the log pool; "
                f"others suit a {self.kind} pool; use --pool log, or --weights equal or a number for each member"
            )


@dataclass(frozen=True)
class Pooled:
    """What pooling made: the results, their metrics (None without answers), and notes for the user, warnings last."""

    scores: Scores
    metrics: dict[str, Any] | None
    notes: list[str]


def pool_files(
    paths: Sequence[Path],
    out: Path,
    options: PoolOptions | None = None,
    run_json: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Pooled:
    """Pool the members of SCORES folders and files, matched by id, into the folder `out`.

    run_json, warnings: further values and warnings for run.json. Raises EnsembleError, RunError, SetsError, and
    InputError where no row has an id of the sample.
    """
    options = options or PoolOptions()
    return _write(pool_scores(paths, options, run_json, warnings), out, options)


def pool_scores(
    sources: Sequence[Source],
    options: PoolOptions | None = None,
    run_json: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Pooled:
    """What `pool_files` writes, in memory and without its metrics; no file is written. Raises the same errors."""
    options = options or PoolOptions()
    members = [
        member
        for source in sources
        for member in read_members(source, options.form, options.answers, must_match=not options.fit)
    ]
    if len(members) < 2:
        raise EnsembleError(f"{len(members)} member; expected two or more to pool")
    fitted = _pool(members, [path_of(source) for source in sources], options)
    if options.sample:
        options.sample.rows_in(fitted.pool.ids)
    return _assembled(fitted, options, run_json or {}, warnings)


def import_file(path: Path, out: Path, options: PoolOptions | None = None) -> Pooled:
    """Make a SCORES folder `out`, which every later command reads, from a file of numbers.

    Replaces what an earlier import of the same file left. Raises EnsembleError, RunError.
    """
    options = options or PoolOptions()
    members = read_members(path, options.form, options.answers)
    if out.exists() and any(out.iterdir()) and open_scores(out).run.sources != [str(path)]:
        raise RunError(f"{out} holds other results; choose another --out")
    return _write(_assembled(_pool(members, [path], options), options, {}, ()), out, options)


def import_scores(source: Source, options: PoolOptions | None = None) -> Pooled:
    """What `import_file` writes, in memory and without its metrics; no file is written. Raises EnsembleError."""
    options = options or PoolOptions()
    members = read_members(source, options.form, options.answers)
    return _assembled(_pool(members, [path_of(source)], options), options, {}, ())


# ------------------------------------------------------------------ the pool
def _pool(members: list[Member], paths: Sequence[Path], options: PoolOptions) -> FittedPool:
    """The members side by side, weighted, calibrated, and fitted on the labelled rows that the options name."""
    names = options.names or member_names(members, paths)
    weights = _given_weights(options.weights, names)
    logits = aligned(members)
    refuse_doubles(members, logits)
    members = [replace(member, name=name) for member, name in zip(members, names)]
    members = match_calibrations(members, options.calibrations)
    calibrations = [  # a letter bias belongs to one order, and the pool's own table has order 1
        member.calibration if member.orders == "1" else member.calibration.without_letters() for member in members
    ]
    pool = MemberPool(members, logits, calibrations, PoolSettings(options.kind, weights))
    if any(calibration.letters or calibration.groups for calibration in calibrations):
        refuse_doubles(members, pool.calibrated(logits, _columns(pool)["task_type"]))
    notes = list(dict.fromkeys(note for member in members for note in member.notes))
    notes += weights_by_path(members, np.array(weights))
    if options.fit:
        request = FitRequest(options.fit, options.weights, options.form, options.answers, options.sets is not None)
        fitted = fit_pool(pool, request)
        return replace(fitted, notes=[*notes, *fitted.notes])
    if options.weights in FITTED:
        raise EnsembleError(
            f"--weights {options.weights} needs labelled rows that no member was trained on: name them with --fit"
        )
    if options.sets:
        raise SetsError("--sets of a pool need labelled rows that no member was trained on: name them with --fit")
    return FittedPool(pool, notes)


def _given_weights(text: str, names: Sequence[str]) -> list[float]:
    """(M,) weights that sum to 1: the given numbers, or equal ones. Raises EnsembleError."""
    if text in NAMED:
        return [1 / len(names)] * len(names)
    given = parse_weights(text, len(names))
    if not given or min(given) < 0 or not sum(given):
        raise EnsembleError(
            f"weights {text!r}: expected {', '.join(NAMED)}, or {len(names)} numbers from 0 on, separated by commas, "
            f"in the order of the members: {', '.join(names)}"
        )
    total = sum(given)
    return [weight / total for weight in given]


# ------------------------------------------------------------------ the results
def _assembled(fitted: FittedPool, options: PoolOptions, run_json: dict[str, Any], warnings: Sequence[str]) -> Pooled:
    """The pool, or a single member, as results in memory."""
    pool, single = fitted.pool, len(fitted.pool.members) == 1
    table, columns = _option_logits(pool), _columns(pool)
    exposed = np.array(columns["exposed"], np.uint8).reshape(len(pool.ids), len(pool.members))
    if fitted.shared is not None:
        columns["exposed"] = np.where(fitted.shared[:, None], exposed | CALIBRATION, exposed).tolist()
    members = member_log_probabilities(table, pool.calibrations, columns["task_type"])
    log_p = pool_members(members, None if single else pool.settings)
    sets = _sets(fitted, columns, options.sets) or (
        conformal_sets(log_p, pool.calibrations, options.sets, members) if options.sets else None
    )
    warnings = [
        *warnings,
        *warnings_of(table, [], pool.calibrations, columns["answer"], log_p),
        *exposure_warnings(pool.names, exposed),
    ]
    if options.fit and fitted.shared is not None and fitted.shared.any():
        text = shared_rows_text(pool, fitted.shared, path_of(options.fit))
        warnings.append(f"{text}: what is measured on them flatters it")
    warnings = list(dict.fromkeys(warnings))  # members and pool may have the same
    values = _run_json(fitted, table, run_json) | {"warnings": warnings}
    if sets and options.sets:
        values["sets"] = sets.about(options.sets)
    scores, notes = Scores(POOLED, values, table, pool.calibrations, columns, sets), list(fitted.notes)
    if not single and not options.fit and len(scores.answered) and not run_json:
        notes += describe_own_choices(scores)
    return Pooled(scores, None, notes + [f"warning: {text}" for text in warnings])


def _write(pooled: Pooled, out: Path, options: PoolOptions) -> Pooled:
    """Write the results as a SCORES folder."""
    metrics = write_scores(replace(pooled.scores, folder=out), options.sample)
    return replace(pooled, scores=open_scores(out), metrics=metrics)


def _option_logits(pool: MemberPool) -> OptionLogits:
    """The members as a table of one order; a row that a member has no score for has none at all."""
    table = OptionLogits.empty(pool.ids, pool.names, pool.logits.shape[2])
    table.logits[:, :, 0] = pool.logits.transpose(1, 0, 2)
    for index, member in enumerate(pool.members):
        if member.label_mass is not None:
            table.label_mass[:, index, 0] = member.label_mass[in_order_of(pool.ids, member)]
    table.status = _statuses(pool)
    table.logits[~table.scored] = np.nan
    return table


def _statuses(pool: MemberPool) -> list[str]:
    """(N,) SCORED, or the first member that has no score for the row, and why."""
    statuses = [SCORED] * len(pool.ids)
    for member, unscored in reversed(list(zip(pool.members, ~np.isfinite(pool.logits).any(2)))):
        if not unscored.any():
            continue
        reasons = {id: status for id, status in zip(member.ids, member.status) if status != SCORED}
        for row in np.flatnonzero(unscored):
            statuses[row] = f"no score from {member.name}: {reasons.get(pool.ids[row], 'no number')}"
    return statuses


def _columns(pool: MemberPool) -> Columns:
    """Columns of questions.parquet in the first member's rows, each value from the first member that knows it.

    Members of folders come first, since files know less. Raises EnsembleError where members have different answers.
    """
    ids = pool.ids
    columns: Columns = {name: [""] * len(ids) for name in TEXT_COLUMNS} | {"choices": [[]] * len(ids)}
    by_knowledge = sorted(pool.members, key=lambda member: not member.fingerprint)
    known = [member.questions for member in by_knowledge if member.questions]
    if any("more_pictures" in questions for questions in known):
        columns["more_pictures"] = [[]] * len(ids)
    for name in columns:
        for questions in known:
            if all(columns[name]):
                break
            others = column_of(ids, questions, name, columns[name])
            columns[name] = [value or other for value, other in zip(columns[name], others)]
    faults = []
    for member in pool.members:
        answers = column_of(ids, member.questions, "answer", [""] * len(ids))
        if answers == columns["answer"]:
            continue
        for id, answer, other in zip(ids, columns["answer"], answers):
            if other and other != answer:
                faults.append(f"{id!r} ({answer} and {other} of {member.name})")
    if faults:
        raise EnsembleError(f"answers of members differ: {first_of(faults)}; expected one right answer for each id")
    options = np.isfinite(pool.logits[0]).sum(1).tolist()
    return {"id": ids, "options": options, **columns, "exposed": exposure_of(pool.members).tolist()}


def _sets(fitted: FittedPool, columns: Columns, request: SetRequest | None) -> OptionSets | None:
    """Option sets from the pool's own labelled rows; None where it has none."""
    if not request or not fitted.labelled:
        return None
    pool = fitted.pool
    log_p = pool.settings.pool(pool.calibrated(pool.logits, columns["task_type"]))
    return conformal_sets(log_p, [fitted.labelled], request)


def _run_json(fitted: FittedPool, table: OptionLogits, values: dict[str, Any]) -> dict[str, Any]:
    """run.json without its sets; `warnings` is still to be filled. values: further ones."""
    pool = fitted.pool
    settings = {"kind": pool.settings.kind, "temperature": pool.settings.temperature, "weights": pool.settings.weights}
    tables = [member.data for member in pool.members if member.data]
    same_table = bool(tables) and all(data == tables[0] for data in tables)
    return {
        **({"data": tables[0]} if same_table else {}),
        **values,
        "checkpoints": [_entry(member, calibration) for member, calibration in zip(pool.members, pool.calibrations)],
        **({} if len(pool.members) == 1 else {"pool": settings | {"told": fitted.notes}}),
        "sources": list(dict.fromkeys(str(member.path) for member in pool.members)),
        "identity": {"letters": LETTERS[: pool.logits.shape[2]], "orders": "1"},
        "versions": scoring.versions(),
        "notes": [*values.get("notes", []), *fitted.notes],
        "warnings": [],
        "counts": {"rows": len(pool.ids), "scored": int(table.scored.sum()), "members": len(pool.members)},
    }


def _entry(member: Member, calibration: Calibration) -> dict[str, Any]:
    """The member in run.json."""
    return member.entry | {
        "member": member.name,
        "fingerprint": member.fingerprint,
        "temperature": calibration.temperature,
        "calibration": calibration.stripped(),
        "data": member.data,
    }
