"""The training rows of folds, each scored by the fold that did not see it, in the orders that the pool is used in.

Each fold is a run of its own over its rows, in OUT/runs/NAME, so that a killed call goes on where it was.
"""

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.checkpoints.checkpoint import folds_of
from scoring.checkpoints.plan import Plan
from scoring.files.lock import lock_folder
from scoring.inputs.orders import check_orders
from scoring.run.groups import RUNS, release_memory
from scoring.run.options import ModelOptions, RunContext, RunOptions, RunResult, total_seconds
from scoring.run.run import run
from scoring.scores.evaluation import warnings_of
from scoring.scores.exposure import TRAINING, VALIDATION
from scoring.scores.folder import RunError, columns_of
from scoring.scores.held_out import MEMBER, write_held_out
from scoring.scores.logits import OptionLogits
from scoring.tables.table import Table

Rows = NDArray[np.int64]


def fold_of_rows(folder: str, plan: Plan, table: Table, columns: dict[str, list[Any]]) -> Rows:
    """(N,) the number of the fold that holds out each row. Raises RunError where no fold holds out a row."""
    exposed = plan.exposed(columns, table.digest)
    held_out = (exposed & VALIDATION > 0) & (exposed & TRAINING == 0)
    if missing := np.flatnonzero(~held_out.any(1)).tolist():
        named = ", ".join(repr(columns["id"][row]) for row in missing[:10])
        raise RunError(
            f"--out-of-fold: {len(missing):,} of {len(exposed):,} rows are held out by no fold of {folder}: {named}"
            f"{' …' if len(missing) > 10 else ''}; expected the table that the folds were trained on"
        )
    fold: Rows = held_out.argmax(1)
    return fold


@dataclass(frozen=True)
class Folds:
    """A folder that `train --folds` wrote, and the settings that replace its checkpoints' own."""

    folder: str
    model: ModelOptions

    def plan(self, name: str, orders: str) -> Plan:
        """The plan of the whole folder or of one of its folds, without a calibration."""
        return self.model.plan([name], orders, "none")


def score_out_of_fold(
    table: Table, folds: Folds, out: Path, options: RunOptions, context: RunContext | None = None
) -> RunResult:
    """Score the training table of a folder of folds into `out`, as one member; `calibrate … --ckpt FOLDER` reads it.

    Raises RunError where this is no folder of folds, or a row is not of their training; and as `run`.
    """
    names, context = folds_of(folds.folder), context or RunContext()
    if len(names) < 2:
        raise RunError(f"--out-of-fold: {folds.folder} has no folds; expected a folder that `train --folds` wrote")
    if options.shard:
        raise RunError("--out-of-fold with --shard: each fold is a run of its own; leave out --shard")
    if options.sample:
        raise RunError(
            "--out-of-fold with --sample: these are rows of the training, not of a submission; leave out --sample"
        )
    check_orders(table.questions, options.orders)
    plan = folds.plan(folds.folder, options.orders)
    table = replace(table, questions=[question for question in table.questions if not question.fault])
    columns = columns_of(table.questions)
    fold = fold_of_rows(folds.folder, plan, table, columns)
    logits = OptionLogits.empty(columns["id"], [MEMBER], len(table.letters), options.orders)
    results = []
    with lock_folder(out) if context.processes.first else nullcontext():
        for number, name in enumerate(names):
            rows = np.flatnonzero(fold == number)
            if not len(rows):
                continue
            context.say(f"fold {number}: {len(rows):,} rows that it was not trained on")
            held_out = replace(table, questions=[table.questions[row] for row in rows])
            result = run(held_out, folds.plan(name, options.orders), out / RUNS / Path(name).name, options, context)
            result.scorer = None  # the only reference to the model: it must go before the next one comes
            release_memory()
            results.append(result)
            if result.logits:
                _put(logits, rows, result.logits)
        if not context.processes.first:
            return results[-1]
        settings = {key: plan.identity[key] for key in ("base", "template", "pixels", "quantization")}
        entry = {"folder": folds.folder, "adapters": list(plan.identity["adapters"].values()), **settings}
        seconds = total_seconds(results)
        warnings = warnings_of(logits, plan.preparer.label_ids(len(table.letters)), plan.calibrations)
        run_json = {"command": sys.argv, "data": table.about(), "seconds": seconds, "warnings": warnings}
        metrics = write_held_out(out, columns | {"fold": fold.tolist()}, logits, entry, run_json)
    return RunResult(logits, metrics, warnings, sum(result.scored_now for result in results), seconds)


def _put(logits: OptionLogits, rows: Rows, fold_logits: OptionLogits) -> None:
    """Put a fold's scores into those of all folds.

    rows: (R,) the fold's rows among all. A fold whose rows have fewer options has fewer letters and orders.
    """
    orders, letters = fold_logits.logits.shape[2:]
    logits.logits[rows, :, :orders, :letters] = fold_logits.logits
    logits.label_mass[rows, :, :orders] = fold_logits.label_mass
    logits.top_token[rows, :, :orders] = fold_logits.top_token
    for row, status in zip(rows.tolist(), fold_logits.status):
        logits.status[row] = status
