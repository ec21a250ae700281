"""The end of a run: its results from its parts. `run.json` is written last, except for the metrics."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring.files.writing import write_json
from scoring.scores.evaluation import evaluate_scores, order_report, warnings_of
from scoring.scores.folder import Columns, ResultOptions, Scores, write_results
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import Calibration
from scoring.stats.sets import SetRequest
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
    start, logits = time.monotonic(), run.logits
    options = ResultOptions(run.sets, sample=run.sample)
    log_p, sets = write_results(run.out, run.columns, logits, run.calibrations, options)
    warnings = [*warnings_of(logits, run.label_ids, run.calibrations, run.columns["answer"], log_p), *run.warnings]
    scored, seconds = int(logits.scored.sum()), run.run_json["seconds"]
    seconds = seconds | {"scoring": round(seconds["scoring"] + time.monotonic() - start, 3)}
    run_json = run.run_json | {
        "warnings": warnings,
        "counts": run.run_json["counts"] | {"scored": scored, "unscored": len(logits.ids) - scored},
        "seconds": seconds,
    }
    if orders := order_report(logits):
        run_json["orders"] = orders
    if sets and run.sets:
        run_json["sets"] = sets.about(run.sets)
    if run.sample:
        run_json["sample"] = run.sample.about()
    write_json(run.out / "run.json", run_json)
    metrics = evaluate_scores(Scores(run.out, run_json, logits, run.calibrations, run.columns))
    return WrittenRun(metrics, warnings, seconds)
