"""The results of a table that was scored range by range, written with one range in memory at a time.

Probabilities, submission and counts are those of all rows. Metrics, and the warnings that come from the logits, are
those of a sample where there are more rows than it holds.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as pq

from scoring.checkpoints.plan import Plan
from scoring.files.reading import read_json
from scoring.files.writing import write_json
from scoring.run.options import RunContext, RunOptions, RunResult, total_seconds
from scoring.run.run import describe_run
from scoring.run.run_folder import RANGES
from scoring.run.scheduler import AdaptiveSaving, FixedRows
from scoring.scores.evaluation import (
    MOST_NAMED,
    exposure_warnings,
    measure_scores,
    order_report,
    unscored_warnings,
    warnings_of,
)
from scoring.scores.folder import Columns, Scores
from scoring.scores.logits import Layout, OptionLogits, part_path, read_part
from scoring.scores.result_writer import ResultWriter
from scoring.stats.calibration import Calibration
from scoring.stats.sets import OptionSets
from scoring.tables.large import LargeTable

T = TypeVar("T", FixedRows, AdaptiveSaving)
SAMPLED = 1 << 20  # rows of the sample, about: an accuracy's interval is then ± .001
MEASURED = ("answer", "task_type", "options", "picture", "picture_digest", "exposed")  # what metrics need
OF_SAMPLE = "warnings and metrics are computed on a sample"
QUESTIONS, ABOUT = "questions.parquet", "range.json"  # of a range that is scored


@dataclass(frozen=True)
class RangedJob:
    """One run of a table that is scored range by range into `out`: see `Job`."""

    table: LargeTable
    plan: Plan
    out: Path
    options: RunOptions
    context: RunContext


class _Range(NamedTuple):
    """The results of a range. drawn: (N,) random numbers from 0 to 1."""

    columns: Columns
    logits: OptionLogits
    sets: OptionSets | None
    drawn: np.ndarray


@dataclass
class _Sample:
    """Some rows of all ranges. share: of the rows that are candidates."""

    share: float
    columns: Columns = field(default_factory=dict)
    parts: list[OptionLogits] = field(default_factory=list)
    held: list[np.ndarray] = field(default_factory=list)

    def add(self, of_range: _Range, candidates: np.ndarray) -> None:
        """candidates: (N,) bool."""
        rows = np.flatnonzero(candidates & (of_range.drawn < self.share))
        for name in MEASURED:
            values = of_range.columns[name]
            self.columns.setdefault(name, []).extend(values[row] for row in rows.tolist())
        self.parts.append(of_range.logits.take(rows))
        if of_range.sets:
            self.held.append(of_range.sets.held[rows])

    def scores(self, out: Path, run_json: dict[str, Any], calibrations: list[Calibration]) -> Scores:
        """The rows as if they were all."""
        sets = OptionSets(np.concatenate(self.held), None, "") if self.held else None
        return Scores(out, run_json, OptionLogits.joined(self.parts), calibrations, self.columns, sets)


@dataclass
class _Totals:
    """What is counted of all rows. unscored: the first few, each with the reason. exposed: (N, M) flags, by range."""

    rows: int = 0
    scored: int = 0
    labelled: int = 0
    unscored: list[tuple[str, str]] = field(default_factory=list)
    exposed: list[np.ndarray] = field(default_factory=list)

    def add(self, of_range: _Range, labelled: np.ndarray) -> None:
        """labelled: (N,) bool, scored rows with an answer."""
        logits, scored = of_range.logits, of_range.logits.scored
        self.rows += len(scored)
        self.scored += int(scored.sum())
        self.labelled += int(labelled.sum())
        self.exposed.append(np.array(of_range.columns["exposed"], np.uint8))
        for row in np.flatnonzero(~scored)[: MOST_NAMED - len(self.unscored)].tolist():
            self.unscored.append((logits.ids[row], logits.status[row]))


def write_joined(job: RangedJob, results: Sequence[RunResult]) -> RunResult:
    """Write all files of the SCORES folder but its parts. results: of the ranges that this call has scored."""
    table, plan, out, options = job.table, job.plan, job.out, job.options
    answered = table.counts.answered
    totals, sample, labelled = _Totals(), _Sample(SAMPLED / table.count), _Sample(SAMPLED / max(answered, 1))
    with ResultWriter(out, plan.calibrations, answered > 0, options.sets, options.sample) as writer:
        for number in range(len(table.ends)):
            if job.context.stop.is_set():
                raise KeyboardInterrupt("all rows are scored, and the results are not written yet")
            columns, logits = _read_range(job, number)
            writer.add(columns, logits)
            drawn = np.random.default_rng([0, number]).random(len(columns["id"]))
            of_range = _Range(columns, logits, writer.sets, drawn)
            with_answer = logits.scored & np.array([bool(answer) for answer in columns["answer"]])
            totals.add(of_range, with_answer)
            sample.add(of_range, logits.scored)
            if answered:
                labelled.add(of_range, with_answer)
            del columns, logits, of_range  # before the next range is read
    run_json = _run_json(job, results, totals)
    if options.sample:
        run_json["sample"] = options.sample.about()
    if writer.sets and options.sets:
        run_json["sets"] = writer.sets.about(options.sets)
    of_sample = sample.scores(out, run_json, plan.calibrations)
    if orders := order_report(of_sample.logits):
        run_json["orders"] = orders
    run_json["warnings"] = _warnings(job, of_sample, totals)
    if totals.scored > (drawn_rows := len(of_sample.logits.ids)):
        note = f"{drawn_rows:,} of {totals.scored:,} scored rows, drawn at random"
        run_json["notes"].append(f"{OF_SAMPLE}: {note}")
        job.context.say(run_json["notes"][-1])
    write_json(out / "run.json", run_json)
    metrics = _write_metrics(labelled.scores(out, run_json, plan.calibrations), totals) if totals.labelled else None
    shutil.rmtree(out / RANGES, ignore_errors=True)
    return RunResult(
        logits=of_sample.logits,
        metrics=metrics,
        warnings=run_json["warnings"],
        scored_now=run_json["counts"]["scored_now"],
        seconds=total_seconds(results) if results else {"scoring": 0.0},
        peak_bytes=run_json["peak_gpu_bytes"],
        orders_note=str(AdaptiveSaving(**run_json["adaptive"])) if "adaptive" in run_json else "",
        scored=totals.scored,
    )


def _read_range(job: RangedJob, number: int) -> tuple[Columns, OptionLogits]:
    """A range's columns of questions.parquet, with what members have met of its rows before; and its logits."""
    columns = _columns(job.out, number)
    # Again, since a checkpoint's calibration may have changed since the range was scored.
    columns["exposed"] = job.plan.exposed(columns, job.table.common.digest).tolist()
    if job.table.counts.several_pictures:
        columns.setdefault("more_pictures", [[]] * len(columns["id"]))
    layout = Layout(columns["id"], job.plan.members, len(job.table.letters), job.options.orders)
    return columns, read_part(part_path(job.out / "logits", number), layout)


def _write_metrics(scores: Scores, totals: _Totals) -> dict[str, Any] | None:
    """metrics.json; it says of how many labelled rows, where that is a sample."""
    metrics = measure_scores(scores)
    if metrics is not None:
        if (rows := len(scores.logits.ids)) < totals.labelled:
            metrics["drawn"] = {"rows": rows, "of": totals.labelled}
        write_json(scores.folder / "metrics.json", metrics)
    return metrics


def _columns(out: Path, number: int) -> Columns:
    """A range's columns of questions.parquet: from its own file, or the results of an earlier end of the run."""
    path = out / RANGES / str(number) / QUESTIONS
    if path.exists():
        return dict(pq.read_table(path).to_pydict())
    with pq.ParquetFile(out / QUESTIONS) as file:
        return dict(file.read_row_group(number).to_pydict())


def _run_json(job: RangedJob, results: Sequence[RunResult], totals: _Totals) -> dict[str, Any]:
    """run.json, except for what follows from the logits: what the ranges say of themselves, taken together."""
    table, out = job.table, job.out
    identity = {key: value for key, value in (read_json(out / "plan.json") or {}).items() if key != "split"}
    folders = [out / RANGES / str(number) for number in range(len(table.ends))]
    read = [read_json(folder / ABOUT) for folder in folders]
    abouts = [about for about in read if about is not None]
    if len(abouts) < len(folders) and (before := read_json(out / "run.json")):
        abouts = [before]
    counted = {"fixed": _summed(FixedRows, "fixed", abouts), "adaptive": _summed(AdaptiveSaving, "adaptive", abouts)}
    notes = _notes(abouts) + [str(values) for values in counted.values() if values and str(values)]
    run_json = describe_run(table.common, job.plan, identity, notes)
    processes: dict[Any, dict[str, Any]] = {}
    for report in (report for about in abouts for report in about["processes"]):
        known = processes.setdefault(report["process"], report | {"rows": 0, "seconds": 0.0})
        known["rows"] += report["rows"]
        known["seconds"] = round(known["seconds"] + report["seconds"], 3)
    phases = dict.fromkeys(phase for about in abouts for phase in about["seconds"])
    return run_json | {
        **{name: asdict(values) for name, values in counted.items() if values},
        "weights": next((about["weights"] for about in reversed(abouts) if about["weights"]), None),
        "split": max(about["split"] for about in abouts),
        "processes": list(processes.values()),
        "counts": {
            "rows": totals.rows,
            "scored": totals.scored,
            "scored_now": sum(result.scored_now for result in results),
            "unscored": totals.rows - totals.scored,
            "batches": sum(about["counts"]["batches"] for about in abouts),
            "tokens": sum(about["counts"]["tokens"] for about in abouts),
        },
        "seconds": {name: round(sum(about["seconds"].get(name, 0.0) for about in abouts), 3) for name in phases}
        | {"first_batch": abouts[0]["seconds"].get("first_batch", 0.0)},
        "peak_gpu_bytes": max(about["peak_gpu_bytes"] for about in abouts),
    }


def _summed(kind: type[T], name: str, abouts: Sequence[dict[str, Any]]) -> T | None:
    """What the ranges have counted under this name, added up; None where none has."""
    values = [kind(**about[name]) for about in abouts if name in about]
    return reduce(add, values) if values else None


def _notes(abouts: Sequence[dict[str, Any]]) -> list[str]:
    """The notes of all ranges, without those on what is counted, and without that on a sample."""
    counted = {str(FixedRows(**about["fixed"])) for about in abouts if "fixed" in about}
    counted |= {str(AdaptiveSaving(**about["adaptive"])) for about in abouts if "adaptive" in about}
    notes = dict.fromkeys(note for about in abouts for note in about["notes"])
    return [note for note in notes if note not in counted and not note.startswith(OF_SAMPLE)]


def _warnings(job: RangedJob, sample: Scores, totals: _Totals) -> list[str]:
    """What a reader of the numbers must know."""
    plan, warnings = job.plan, list[str]()
    if sample.logits.ids:
        label_ids = plan.preparer.label_ids(len(job.table.letters))
        answers = sample.questions["answer"]
        warnings = warnings_of(sample.logits, label_ids, plan.calibrations, answers, sample.log_p)
    warnings += unscored_warnings(totals.rows - totals.scored, totals.unscored)
    return [*warnings, *exposure_warnings(plan.members, np.concatenate(totals.exposed))]
