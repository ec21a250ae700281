"""The results of a table that was scored range by range, written with one range in memory at a time.

Probabilities, submission and counts are those of all rows. Metrics, and the warnings that come from the logits, are
those of a sample where there are more rows than it holds.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from scoring.checkpoints.plan import Plan
from scoring.files.reading import read_json
from scoring.files.writing import write_json
from scoring.messages import Say
from scoring.run.options import RunOptions, RunResult, total_seconds
from scoring.run.run import describe_run
from scoring.run.run_folder import RANGES
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

SAMPLED = 1 << 20  # rows of the sample, about: an accuracy's interval is then ± .001
QUESTIONS, ABOUT = "questions.parquet", "range.json"  # of a range that is scored


@dataclass
class _Sample:
    """Some rows of all ranges. share: of the rows that are candidates."""

    share: float
    columns: Columns = field(default_factory=dict)
    parts: list[OptionLogits] = field(default_factory=list)
    log_p: list[np.ndarray] = field(default_factory=list)
    held: list[np.ndarray] = field(default_factory=list)

    def add(
        self,
        candidates: np.ndarray,
        drawn: np.ndarray,
        columns: Columns,
        logits: OptionLogits,
        log_p: np.ndarray,
        sets: OptionSets | None,
    ) -> None:
        """candidates: (N,) bool. drawn: (N,) random numbers from 0 to 1."""
        rows = np.flatnonzero(candidates & (drawn < self.share))
        for name, values in columns.items():
            self.columns.setdefault(name, []).extend(values[row] for row in rows.tolist())
        self.parts.append(logits.take(rows))
        self.log_p.append(log_p[rows])
        if sets:
            self.held.append(sets.held[rows])

    def scores(self, out: Path, run_json: dict[str, Any], calibrations: list[Calibration]) -> Scores:
        """The rows as if they were all."""
        sets = OptionSets(np.concatenate(self.held), None, "") if self.held else None
        return Scores(out, run_json, OptionLogits.joined(self.parts), calibrations, self.columns, sets)


@dataclass
class _Totals:
    """What is counted of all rows. unscored: the first few, each with the reason. exposed: (N, M) flags of a range."""

    rows: int = 0
    scored: int = 0
    labelled: int = 0
    unscored: list[tuple[str, str]] = field(default_factory=list)
    exposed: list[np.ndarray] = field(default_factory=list)

    def add(self, logits: OptionLogits, labelled: np.ndarray, exposed: np.ndarray) -> None:
        scored = logits.scored
        self.rows += len(scored)
        self.scored += int(scored.sum())
        self.labelled += int(labelled.sum())
        self.exposed.append(exposed)
        for row in np.flatnonzero(~scored)[: MOST_NAMED - len(self.unscored)].tolist():
            self.unscored.append((logits.ids[row], logits.status[row]))


def write_joined(
    table: LargeTable, plan: Plan, out: Path, options: RunOptions, results: Sequence[RunResult], say: Say
) -> RunResult:
    """Write all files of the SCORES folder but its parts. results: of the ranges that this call has scored."""
    layout = Layout([], plan.members, len(table.letters), options.orders)
    answered = table.counts.answered
    totals = _Totals()
    sample, labelled = _Sample(SAMPLED / table.count), _Sample(SAMPLED / max(answered, 1))
    with ResultWriter(out, plan.calibrations, answered > 0, options.sets, options.sample) as writer:
        for number in range(len(table.ends)):
            columns = _columns(out, number)
            exposed = plan.exposed(columns, table.whole.digest)
            columns["exposed"] = exposed.tolist()
            if table.counts.several_pictures:
                columns.setdefault("more_pictures", [[]] * len(columns["id"]))
            logits = read_part(part_path(out / "logits", number), replace(layout, ids=columns["id"]))
            log_p = writer.add(columns, logits)
            scored, drawn = logits.scored, np.random.default_rng([0, number]).random(len(columns["id"]))
            with_answer = scored & np.array([bool(answer) for answer in columns["answer"]])
            totals.add(logits, with_answer, exposed)
            sample.add(scored, drawn, columns, logits, log_p, None)
            if answered:
                labelled.add(with_answer, drawn, columns, logits, log_p, writer.sets)
    run_json = _run_json(table, plan, out, results)
    run_json["counts"] |= {"rows": totals.rows, "scored": totals.scored, "unscored": totals.rows - totals.scored}
    if options.sample:
        run_json["sample"] = options.sample.about()
    if writer.sets and options.sets:
        run_json["sets"] = writer.sets.about(options.sets)
    of_sample = sample.scores(out, run_json, plan.calibrations)
    if orders := order_report(of_sample.logits):
        run_json["orders"] = orders
    run_json["warnings"] = _warnings(of_sample, np.concatenate(sample.log_p), plan, table, totals)
    if totals.scored > len(of_sample.logits.ids):
        note = f"{len(of_sample.logits.ids):,} of {totals.scored:,} scored rows, drawn at random"
        run_json["notes"].append(f"warnings and metrics are computed on a sample: {note}")
        say(run_json["notes"][-1])
    write_json(out / "run.json", run_json)
    metrics = None
    if answered and (metrics := measure_scores(labelled.scores(out, run_json, plan.calibrations))):
        if (used := sum(len(part.ids) for part in labelled.parts)) < totals.labelled:
            metrics["sample"] = {"rows": used, "of": totals.labelled}
        write_json(out / "metrics.json", metrics)
    shutil.rmtree(out / RANGES, ignore_errors=True)
    return RunResult(
        logits=of_sample.logits,
        metrics=metrics,
        warnings=run_json["warnings"],
        scored_now=sum(result.scored_now for result in results),
        seconds=total_seconds(results) if results else {"scoring": 0.0},
        peak_bytes=run_json["peak_gpu_bytes"],
        orders_note="\n".join(result.orders_note for result in results if result.orders_note),
        scored=totals.scored,
    )


def _columns(out: Path, number: int) -> Columns:
    """A range's columns of questions.parquet: from its own file, or the results of an earlier end of the run."""
    path = out / RANGES / str(number) / QUESTIONS
    if path.exists():
        return dict(pq.read_table(path).to_pydict())
    with pq.ParquetFile(out / QUESTIONS) as file:
        return dict(file.read_row_group(number).to_pydict())


def _run_json(table: LargeTable, plan: Plan, out: Path, results: Sequence[RunResult]) -> dict[str, Any]:
    """run.json, except for what follows from the logits: what the ranges say of themselves, taken together."""
    identity = {key: value for key, value in (read_json(out / "plan.json") or {}).items() if key != "split"}
    folders = [out / RANGES / str(number) for number in range(len(table.ends))]
    read = [read_json(folder / ABOUT) for folder in folders]
    abouts = [about for about in read if about is not None]
    if len(abouts) < len(folders) and (before := read_json(out / "run.json")):
        abouts = [before]
    notes = list(dict.fromkeys(note for about in abouts for note in about["notes"]))
    run_json = describe_run(table.whole, plan, identity, notes)
    processes: dict[Any, dict[str, Any]] = {}
    for report in (report for about in abouts for report in about["processes"]):
        known = processes.setdefault(report["process"], report | {"rows": 0, "seconds": 0.0})
        known["rows"] += report["rows"]
        known["seconds"] = round(known["seconds"] + report["seconds"], 3)
    phases = dict.fromkeys(phase for about in abouts for phase in about["seconds"])
    return run_json | {
        "weights": next((about["weights"] for about in reversed(abouts) if about["weights"]), None),
        "split": max(about["split"] for about in abouts),
        "processes": list(processes.values()),
        "counts": {
            "scored_now": sum(result.scored_now for result in results),
            "batches": sum(about["counts"]["batches"] for about in abouts),
            "tokens": sum(about["counts"]["tokens"] for about in abouts),
        },
        "seconds": {phase: round(sum(about["seconds"].get(phase, 0.0) for about in abouts), 3) for phase in phases},
        "peak_gpu_bytes": max(about["peak_gpu_bytes"] for about in abouts),
    }


def _warnings(sample: Scores, log_p: np.ndarray, plan: Plan, table: LargeTable, totals: _Totals) -> list[str]:
    """What a reader of the numbers must know. log_p: (R, K) of the sample's rows."""
    warnings = []
    if totals.scored:
        label_ids = plan.preparer.label_ids(len(table.letters))
        warnings = warnings_of(sample.logits, label_ids, plan.calibrations, sample.questions["answer"], log_p)
    warnings += unscored_warnings(totals.rows - totals.scored, totals.unscored)
    return [*warnings, *exposure_warnings(plan.members, np.concatenate(totals.exposed))]
