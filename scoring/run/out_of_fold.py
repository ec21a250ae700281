"""The training rows of folds, each scored by the fold that had not seen it, in the orders that the pool is used in.

Each fold is a run of its own over its rows, in OUT/runs/NAME, so that a killed call goes on where it was.
"""

import gc
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import torch

from scoring.checkpoints.checkpoint import folds_of
from scoring.checkpoints.plan import Plan, plan_members
from scoring.files.lock import lock_folder
from scoring.inputs.questions import Table
from scoring.run.processes import Processes
from scoring.run.run import Finished, RunOptions, run
from scoring.scores.evaluation import warnings_of
from scoring.scores.exposure import TRAINING, VALIDATION
from scoring.scores.folder import RunError, columns_of
from scoring.scores.held_out import MEMBER, write_held_out
from scoring.scores.logits import OptionLogits


def fold_of_rows(folder: str, plan: Plan, table: Table, columns: dict[str, list]) -> np.ndarray:
    """(N,) the number of the fold that holds out each row. Raises RunError where a row is held out by none."""
    exposed = plan.exposed(columns, table.digest)
    held_out = (exposed & VALIDATION > 0) & (exposed & TRAINING == 0)
    if missing := np.flatnonzero(~held_out.any(1)).tolist():
        named = ", ".join(repr(columns["id"][row]) for row in missing[:10])
        raise RunError(
            f"--out-of-fold: {len(missing):,} of {len(exposed):,} rows are held out by no fold of {folder}: {named}"
            f"{' …' if len(missing) > 10 else ''}; expected the table that the folds were trained on"
        )
    return held_out.argmax(1)


def score_out_of_fold(
    table: Table,
    folder: str,
    out: Path,
    options: RunOptions,
    model: dict,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
    stop: Event | None = None,
    processes: Processes | None = None,
) -> Finished:
    """Score the training table of a folder of folds into `out`, as one member; `calibrate … --ckpt FOLDER` reads it.

    model: `base`, `template`, `pixels`, `quantization` and `allow_mismatch`, as for `plan_members`. Raises RunError
    where this is no folder of folds, or a row is not of their training; and as `run`.
    """
    folds = folds_of(folder)
    if len(folds) < 2:
        raise RunError(f"--out-of-fold: {folder} has no folds; expected a folder that `train --folds` wrote")
    if options.shard:
        raise RunError("--out-of-fold with --shard: each fold is a run of its own; leave out --shard")
    whole = plan_members([folder], orders=options.orders, calibration="none", **model)
    table = replace(table, questions=[question for question in table.questions if not question.fault])
    columns = columns_of(table.questions)
    fold = fold_of_rows(folder, whole, table, columns)
    logits = OptionLogits.empty(columns["id"], [MEMBER], len(table.letters), options.orders)
    with lock_folder(out):
        finished = []
        for number, name in enumerate(folds):
            rows = np.flatnonzero(fold == number)
            if not len(rows):
                continue
            say(f"fold {number}: {len(rows):,} rows that it was not trained on")
            part = replace(table, questions=[table.questions[row] for row in rows])
            plan = plan_members([name], orders=options.orders, calibration="none", **model)
            runs = out / "runs" / Path(name).name
            done = run(part, plan, runs, options, progress, say, stop=stop, processes=processes)
            finished.append(done)
            done.scorer = None  # the only name of the model: it must go before the next one comes
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if done.logits:
                _put(logits, rows, done.logits)
        if processes and not processes.first:
            return finished[-1]
        settings = {key: whole.identity[key] for key in ("base", "template", "pixels", "quantization")}
        entry = {"folder": folder, "adapters": list(whole.identity["adapters"].values()), **settings}
        seconds = {key: sum(part.seconds[key] for part in finished) for key in finished[0].seconds}
        warnings = warnings_of(logits, whole.preparer.chat.label_ids(table.letters), whole.calibrations)
        about = {"command": sys.argv, "data": table.about(), "seconds": seconds, "warnings": warnings}
        metrics = write_held_out(out, columns | {"fold": fold.tolist()}, logits, entry, about)
    return Finished(logits, metrics, warnings, sum(part.scored_now for part in finished), seconds)


def _put(logits: OptionLogits, rows: np.ndarray, part: OptionLogits) -> None:
    """A fold's scores into those of all; a part whose rows have fewer options has fewer letters and orders."""
    orders, letters = part.logits.shape[2:]
    logits.logits[rows, :, :orders, :letters] = part.logits
    logits.label_mass[rows, :, :orders], logits.top_token[rows, :, :orders] = part.label_mass, part.top_token
    for row, status in zip(rows.tolist(), part.status):
        logits.status[row] = status
