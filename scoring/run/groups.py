"""Members whose settings differ, in one call: each setting is a run of its own, and the runs are pooled by id.

Checkpoints over one base with one prompt share a forward pass; others cannot. `--pixels 448,560` and
`--orders 1,cyclic` make a member of every checkpoint for each of them.
"""

import gc
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from threading import Event

import numpy as np
import torch

from scoring.checkpoints.checkpoint import folds_of
from scoring.checkpoints.plan import MismatchError, Plan, plan_members, quantization_of, read_members
from scoring.checkpoints.weights import base_fingerprint
from scoring.files.lock import LOCK, lock_folder
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Table
from scoring.run.processes import Processes
from scoring.run.run import Finished, RunOptions, run
from scoring.scores.folder import RunError, columns_of
from scoring.scores.pooling import pool_files
from scoring.stats.sets import SetRequest, SetsError
from scoring.stats.sets import check_sets as check_calibrations

RUNS = "runs"  # the folder of the groups' runs


@dataclass
class Group:
    """One run of a call: members that share base, prompt, pixels, quantisation and orders."""

    plan: Plan
    orders: str
    labels: list[str]  # the members' names in the pool


def plan_groups(
    names: Sequence[str],
    base: str | None = None,
    template: PromptTemplate | None = None,
    pixels: Sequence[int] | None = None,
    quantization: str | None = None,
    allow_mismatch: bool = False,
    orders: Sequence[str] = ("1",),
    calibration: str = "auto",
) -> list[Group]:
    """The fewest runs that score every checkpoint with its own settings, at every pixel budget and order asked for.

    Raises CheckpointError or MismatchError, as `plan_members` does.
    """
    apart: dict[tuple, list[str]] = {}
    folds = [fold for name in names for fold in folds_of(name)]
    for fold, checkpoint, folder in zip(folds, *read_members(names, base)):
        manifest = checkpoint.manifest
        setting = (
            base_fingerprint(folder),
            (template or manifest.prompt).fingerprint,
            quantization_of(checkpoint, folder, quantization),
            None if pixels else manifest.policy(folder).max_pixels,
        )
        apart.setdefault(setting, []).append(fold)
    budgets = list(dict.fromkeys(pixels or [None]))
    shown = list(dict.fromkeys(orders))
    asked = list(product(apart.values(), budgets, shown))
    if len(asked) > 1 and calibration not in ("auto", "none"):
        raise MismatchError(
            f"{calibration}: a calibration is for one setting, but this call has {len(asked)}; leave it where "
            "`calibrate` writes it, in the checkpoint's folder"
        )
    noted = ("pixels",) if len(budgets) > 1 else ()  # who names several wants other ones than in training
    groups = []
    for members, budget, order in asked:
        if members == folds_of(names[0]):  # the folder of folds has a calibration of their pool
            members = [names[0]]
        plan = plan_members(members, base, template, budget, quantization, allow_mismatch, order, calibration, noted)
        suffix = (f"-{_side(budget)}" if len(budgets) > 1 else "") + (f"-{order}" if len(shown) > 1 else "")
        groups.append(Group(plan, order, [name + suffix for name in plan.members]))
    labels = [label for group in groups for label in group.labels]
    if len(set(labels)) < len(labels):
        for number, group in enumerate(groups, 1):
            group.labels = [f"{number}-{label}" for label in group.labels]
    return groups


def run_groups(
    table: Table,
    groups: list[Group],
    out: Path,
    options: RunOptions,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
    stop: Event | None = None,
    processes: Processes | None = None,
) -> Finished:
    """Score a table with every group into `out`; several groups each into `out`/runs/N first, and then pooled.

    The same call goes on where a killed one stopped. Raises and stops as `run`.
    """
    if len(groups) > 1 and options.shard:
        raise RunError(
            f"--shard with {len(groups)} settings: a call for each of them (one base, prompt, --pixels and --orders), "
            "then `merge` each and `ensemble` them"
        )
    if len(groups) == 1:
        chosen = replace(options, orders=groups[0].orders)
        return run(table, groups[0].plan, out, chosen, progress, say, stop=stop, processes=processes)
    if processes and not processes.first:
        return _runs(table, groups, out, options, progress, say, stop, processes)[-1]
    with lock_folder(out):
        _claim(out, options.overwrite and (processes or Processes()).once("overwrite"))
        return _pooled(table, groups, _runs(table, groups, out, options, progress, say, stop, processes), out)


def check_sets(groups: list[Group], request: SetRequest | None, table: Table, allow_mismatch: bool = False) -> None:
    """Raises SetsError where --sets asks for what the checkpoints' calibrations cannot promise for these rows."""
    if not request:
        return
    check_calibrations([part for group in groups for part in group.plan.calibrations], request, groups[0].orders)
    columns = columns_of(table.questions)
    exposed = np.concatenate([group.plan.exposed(columns, table.digest) for group in groups], 1)
    if count := int(exposed.any(1).sum()):
        told = (
            f"--sets: on {count:,} of {len(exposed):,} rows the checkpoint was trained, validated or calibrated, so "
            "that sets of these promise nothing"
        )
        if not allow_mismatch:
            raise SetsError(f"{told}; score other rows, or add --allow-mismatch")
        groups[0].plan.notes.append(told)


def _runs(table, groups, out, options, progress, say, stop, processes) -> list[Finished]:
    """Each group's run, in a folder of its own."""
    done: list[Finished] = []
    scorer = None  # the last run's model, for the next where that needs the same
    for number, group in enumerate(groups, 1):
        say(f"run {number} of {len(groups)}: {', '.join(group.labels)}")
        chosen = replace(options, orders=group.orders, overwrite=False)
        if scorer is not None and scorer.fits(group.plan):
            scorer = scorer.with_plan(group.plan)
        elif scorer is not None:
            scorer = None
            _give_back()
        folder = out / RUNS / str(number)
        finished = run(table, group.plan, folder, chosen, progress, say, scorer, stop, processes)
        scorer, finished.scorer = finished.scorer, None  # the only name of the model: it must go when another comes
        done.append(finished)
    return done


def _pooled(table: Table, groups: list[Group], done: list[Finished], out: Path) -> Finished:
    """The runs' files as one SCORES folder, which tells of all of them."""
    about = {
        "command": sys.argv,
        "data": table.about(),
        "notes": [note for group in groups for note in group.plan.notes],
        "seconds": {key: sum(part.seconds[key] for part in done) for key in done[0].seconds},
        "peak_gpu_bytes": max(part.peak_bytes for part in done),
    }
    said = [warning for part in done for warning in part.warnings]
    labels = [label for group in groups for label in group.labels]
    paths = [out / RUNS / str(number) for number in range(1, len(groups) + 1)]
    pooled = pool_files(paths, out, names=labels, about=about, warnings=said)
    return Finished(
        pooled.scores.logits,
        pooled.metrics,
        pooled.scores.about["warnings"],
        sum(part.scored_now for part in done),
        about["seconds"],
        about["peak_gpu_bytes"],
        "\n".join(part.about_orders for part in done if part.about_orders),
    )


def _give_back() -> None:
    """The memory of a model that nothing names any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _claim(out: Path, overwrite: bool) -> None:
    """Raises RunError where `out` holds a single run or other files; with `overwrite` what was there goes."""
    if overwrite:
        for path in (out / RUNS, out / "logits"):
            shutil.rmtree(path, ignore_errors=True)
        (out / "plan.json").unlink(missing_ok=True)
    elif any(path.name != LOCK for path in out.iterdir()) and not (out / RUNS).exists():
        raise RunError(f"{out} holds other results; choose another --out, or start anew with --overwrite")


def _side(pixels: int) -> str:
    side = math.isqrt(pixels)
    return str(side) if side * side == pixels else f"{pixels}px"
