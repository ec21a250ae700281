"""Files of several members into one SCORES folder: the pool, each member beside it, and what it was made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import scoring
from scoring.inputs.prompt import LETTERS
from scoring.results.calibration import Calibration, fit_temperature
from scoring.results.ensemble import EnsembleError, fit_pool_temperature, fit_weights, parse_weights
from scoring.results.files import write_json
from scoring.results.folder import RunError, Scores, open_scores, write_results
from scoring.results.judging import judge, warnings_of
from scoring.results.logits import OptionLogits, write_part
from scoring.results.sources import Source, aligned, read_sources


@dataclass
class Pooled:
    """What pooling leaves: metrics where there are answers, and what is to be said."""

    scores: Scores
    metrics: dict | None
    told: list[str]


def pool_files(
    paths: list[Path],
    out: Path,
    kind: str = "log",
    weights: str = "equal",
    form: str = "auto",
    fit: Path | None = None,
    names: list[str] | None = None,
    about: dict | None = None,
    warnings: Sequence[str] = (),
) -> Pooled:
    """Pool the members of SCORES folders and CSV files, matched by id, into `out`.

    kind: `log`, `linear` or `vote`. weights: `equal`, `nll` (needs `fit`) or a number for each member, separated by
    commas. fit: a SCORES folder of labelled rows that no member was trained on: an ensemble of the same members, for a
    temperature of the pool (and weights), or a training's `out-of-fold`, for one temperature of all its folds. names:
    of the members, in their order. about, warnings: what run.json tells besides. Raises EnsembleError, RunError.
    """
    sources = [source for path in paths for source in read_sources(path, form)]
    if len(sources) < 2:
        raise EnsembleError(f"{len(sources)} member; expected two or more to pool")
    names = names or _distinct([source.name for source in sources], paths)
    for source, name in zip(sources, names):
        source.name = name
    logits = aligned(sources)
    told: list[str] = []
    calibrations, how = [source.calibration for source in sources], {"kind": kind, "temperature": 1.0}
    how["weights"] = _given_weights(weights, len(sources))
    if fit:
        _fit(open_scores(fit), sources, calibrations, how, weights == "nll", told)
    elif weights == "nll":
        raise EnsembleError("--weights nll needs labelled rows that no member was trained on: name them with --fit")
    first, letters = sources[0], logits.shape[2]
    table = OptionLogits.empty(first.ids, names, letters)
    table.logits[:, :, 0] = logits.transpose(1, 0, 2)
    for at, source in enumerate(sources):
        if source.label_mass is not None:
            own = {id: row for row, id in enumerate(source.ids)}
            table.label_mass[:, at, 0] = source.label_mass[[own[id] for id in first.ids]]
    table.status = _statuses(sources, logits)
    table.logits[~table.scored] = np.nan
    columns = next((source.questions for source in sources if source.questions), None)
    if columns is None or columns["id"] != first.ids:
        columns = _columns(first.ids, np.isfinite(logits[0]).sum(1), columns)
    (out / "logits").mkdir(parents=True, exist_ok=True)
    write_part(out / "logits", 0, table)
    log_p = write_results(out, columns, table, calibrations, how=how)
    entries = [
        source.entry
        | {
            "member": name,
            "fingerprint": source.fingerprint,
            "temperature": calibration.temperature,
            "calibration": calibration.to_json() | {"nonconformity": []},
        }
        for name, source, calibration in zip(names, sources, calibrations)
    ]
    warnings = [*warnings, *warnings_of(table, [], calibrations, columns["answer"], log_p)]
    warnings = list(dict.fromkeys(warnings))  # of members and pool alike
    report = {
        **(about or {}),
        "checkpoints": entries,
        "pool": how | {"told": told},
        "sources": [str(path) for path in paths],
        "identity": {"letters": LETTERS[:letters], "orders": "1"},
        "versions": scoring.versions(),
        "warnings": warnings,
        "counts": {"rows": len(first.ids), "scored": int(table.scored.sum()), "members": len(sources)},
    }
    write_json(out / "run.json", report)
    scores = open_scores(out)
    return Pooled(scores, judge(scores), told + [f"warning: {text}" for text in warnings])


def claim(out: Path, overwrite: bool) -> None:
    """Raises RunError where `out` holds something that is not to be replaced."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not overwrite:
        raise RunError(f"{out} exists; choose another --out, or replace it with --overwrite")
    for part in (out / "logits").glob("part-*.parquet"):
        part.unlink()


def _distinct(names: list[str], paths: list[Path]) -> list[str]:
    if len(set(names)) == len(names):
        return names
    if len(names) == len(paths) and len({path.stem for path in paths}) == len(paths):
        return [path.stem for path in paths]
    return [f"{number}-{name}" for number, name in enumerate(names, 1)]


def _given_weights(text: str, members: int) -> list[float]:
    if text in ("equal", "nll"):
        return [1 / members] * members
    found = parse_weights(text, members)
    if not found or min(found) < 0 or not sum(found):
        raise EnsembleError(
            f"weights {text!r}: expected equal, nll, or {members} numbers from 0 on, separated by commas"
        )
    return [part / sum(found) for part in found]


def _fit(labelled: Scores, sources: list[Source], calibrations: list, how: dict, weights: bool, told: list) -> None:
    """Temperatures (and weights) from labelled rows, into `calibrations` and `how`."""
    rows = labelled.answered
    if not len(rows):
        raise EnsembleError(f"{labelled.folder}: no scored row has an answer, so that nothing can be fitted on it")
    ours = [source.fingerprint for source in sources]
    entries = labelled.about["checkpoints"]
    if held_out := entries[0].get("adapters"):
        if foreign := [source.name for source in sources if source.fingerprint not in held_out]:
            raise EnsembleError(f"{labelled.folder}: not the out-of-fold rows of {', '.join(foreign)}")
        found = fit_temperature(labelled.logits.logits[rows, 0, 0], labelled.answers(rows))
        calibrations[:] = [Calibration(found.temperature, rows=found.rows)] * len(sources)
        told.append(
            f"one temperature for all folds, {found.temperature:.3f}, on {len(rows):,} rows each scored by the fold "
            "that had not seen it; the pool has none of its own: no row was left unseen by all folds"
        )
        if weights:
            raise EnsembleError("--weights nll needs rows that no member was trained on; folds have none")
        return
    theirs = [entry.get("fingerprint") for entry in entries]
    if theirs != ours or not all(ours):
        raise EnsembleError(
            f"{labelled.folder}: members {', '.join(map(str, theirs))}; expected those that are pooled, in order: "
            f"{', '.join(map(str, ours))}"
        )
    data = labelled.about.get("data", {}).get("sha256")
    if seen := [entry["member"] for entry in entries if data and entry.get("trained_on") == data]:
        raise EnsembleError(
            f"{labelled.folder}: {', '.join(seen)} was trained on this table; a pool fitted on it would be far too "
            "sure of itself. Use other labelled rows, or the out-of-fold scores of a training with --folds"
        )
    log_p, answers = labelled.members[:, rows], labelled.answers(rows)
    if weights:
        found, why = fit_weights(log_p, answers)
        how["weights"] = found.tolist()
        told.append(f"{why}: {', '.join(f'{weight:.2f}' for weight in found)}")
    how["temperature"], why = fit_pool_temperature(log_p, answers, how["kind"], np.array(how["weights"]))
    told.append(f"temperature of the pool {how['temperature']:.3f}: {why}")


def _statuses(sources: list[Source], logits: np.ndarray) -> list[str]:
    """For each row `ok`, or the first member that has no score, and why."""
    place = {id: row for row, id in enumerate(sources[0].ids)}
    found = ["ok"] * len(place)
    for source, without in reversed(list(zip(sources, ~np.isfinite(logits).any(2)))):
        if not without.any():
            continue
        why = {id: status for id, status in zip(source.ids, source.status) if status != "ok"}
        for id, row in place.items():
            if without[row]:
                found[row] = f"no score from {source.name}: {why.get(id, 'no number')}"
    return found


def _columns(ids: list[str], options: np.ndarray, known: dict[str, list] | None) -> dict[str, list]:
    """Columns of questions.parquet for these ids: what another member's folder knows of them, else empty."""
    place = {id: row for row, id in enumerate(known["id"])} if known else {}
    empty: dict = dict.fromkeys(("answer", "task_type", "picture", "digest", "question"), "") | {"choices": []}
    found = {
        name: [known[name][place[id]] if id in place else nothing for id in ids] for name, nothing in empty.items()
    }
    return {"id": ids, "options": options.tolist(), **found}
