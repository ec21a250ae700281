"""The end of a run: its results from its parts. `run.json` is written last, except for the metrics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scoring.files.writing import write_json
from scoring.scores.evaluation import evaluate_scores, order_report, warnings_of
from scoring.scores.folder import Columns, ResultOptions, Scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.probabilities import member_log_probabilities, pool_members
from scoring.stats.calibration import Calibration
from scoring.stats.sets import OptionSets, SetRequest, conformal_sets
from scoring.tables.sample import SampleSubmission


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run whose batches are all scored.

    run_json: the values of run.json, except for those that follow from the logits. columns: see `folder.columns_of`.
    label_ids: the letters' tokens. sets: the option sets to add. warnings: those known before the logits. sample: see
    `ResultOptions`.
    """

    out: Path
    run_json: dict[str, Any]
    columns: Columns
    logits: OptionLogits
    calibrations: list[Calibration]
    label_ids: list[int]
    sets: SetRequest | None = None
    warnings: Sequence[str] = ()
    sample: SampleSubmission | None = None


@dataclass(frozen=True, eq=False)
class WrittenRun:
    """What `write_run` left. metrics: None without answers. seconds: those of run.json, with the writing added."""

    metrics: dict[str, Any] | None
    warnings: list[str]
    seconds: dict[str, float]


def write_run(run: ScoredRun) -> WrittenRun:
    """Write all files of a SCORES folder but its parts: probabilities, submission, run.json, metrics."""
    start = time.monotonic()
    options = ResultOptions(run.sets, sample=run.sample)
    log_p, sets = write_results(run.out, run.columns, run.logits, run.calibrations, options)
    run_json = _finished(run, log_p, sets)
    seconds = run_json["seconds"]
    seconds = seconds | {"scoring": round(seconds["scoring"] + time.monotonic() - start, 3)}
    run_json["seconds"] = seconds
    write_json(run.out / "run.json", run_json)
    metrics = evaluate_scores(Scores(run.out, run_json, run.logits, run.calibrations, run.columns))
    return WrittenRun(metrics, run_json["warnings"], seconds)


def scores_of(run: ScoredRun) -> Scores:
    """What `write_run` writes, in memory; no file is written. Raises SetsError as `conformal_sets`."""
    members = member_log_probabilities(run.logits, run.calibrations, run.columns["task_type"])
    log_p = pool_members(members)
    sets = conformal_sets(log_p, run.calibrations, run.sets, members) if run.sets else None
    return Scores(run.out, _finished(run, log_p, sets), run.logits, run.calibrations, run.columns, sets)


def _finished(run: ScoredRun, log_p: np.ndarray, sets: OptionSets | None) -> dict[str, Any]:
    """run.json with what follows from the logits. log_p: (N, K) of the pool."""
    logits, scored = run.logits, int(run.logits.scored.sum())
    warnings = [*warnings_of(logits, run.label_ids, run.calibrations, run.columns["answer"], log_p), *run.warnings]
    run_json = run.run_json | {
        "warnings": warnings,
        "counts": run.run_json["counts"] | {"scored": scored, "unscored": len(logits.ids) - scored},
    }
    if orders := order_report(logits):
        run_json["orders"] = orders
    if sets and run.sets:
        run_json["sets"] = sets.about(run.sets)
    if run.sample:
        run_json["sample"] = run.sample.about()
    return run_json


def write_scores(scores: Scores, sample: SampleSubmission | None = None) -> dict[str, Any] | None:
    """Write results in memory as the SCORES folder `scores.folder`, whose parts are replaced; its metrics, if any.

    All logits are one part. sample: see `ResultOptions`.
    """
    out, logits = scores.folder, scores.logits
    (out / "logits").mkdir(parents=True, exist_ok=True)
    for path in (out / "logits").glob("part-*.parquet"):  # of the results that are replaced
        path.unlink()
    write_part(out / "logits", 0, logits)
    write_results(out, scores.questions, logits, scores.calibrations, ResultOptions(scores.sets, scores.pool, sample))
    run_json = {key: value for key, value in scores.run_json.items() if key != "sample"}
    write_json(out / "run.json", run_json | ({"sample": sample.about()} if sample else {}))
    return evaluate_scores(scores)
