"""Members whose settings differ, in one call: each setting is a run of its own, and the runs are pooled by id.

Checkpoints over one base with one prompt share a forward pass; others cannot. `--pixels 448,560` and
`--orders 1,cyclic` make a member of every checkpoint for each of them.
"""

import gc
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoring.checkpoints.checkpoint import folds_of
from scoring.checkpoints.compatibility import MismatchError, quantization_of, read_members
from scoring.checkpoints.plan import Plan
from scoring.checkpoints.weights import base_fingerprint
from scoring.engine.batch_scorer import BatchScorer
from scoring.files.lock import LOCK, lock_folder
from scoring.inputs.orders import check_orders, repeating_rows
from scoring.run.options import ModelOptions, RunContext, RunOptions, RunResult, total_seconds
from scoring.run.ranges import run_ranges
from scoring.run.run import run
from scoring.run.run_folder import remove_run
from scoring.scores.folder import RunError, columns_of
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.sets import SetRequest, SetsError
from scoring.stats.sets import check_sets as check_calibrations
from scoring.tables.large import LargeTable
from scoring.tables.sample import SampleSubmission
from scoring.tables.table import Table

RUNS = "runs"  # the folder of the groups' runs


@dataclass
class Group:
    """One run of a call: members that share base, prompt, pixels, quantisation and orders.

    labels: (M,) the members' names in the pool of all groups.
    """

    plan: Plan
    orders: str
    labels: list[str]


def plan_groups(
    names: Sequence[str],
    model: ModelOptions | None = None,
    pixels: Sequence[int] | None = None,
    orders: Sequence[str] = ("1",),
    calibration: str = "auto",
) -> list[Group]:
    """The fewest runs that score every checkpoint with its own settings, at every pixel budget and order asked for.

    pixels: budgets that replace the one of `model`. Raises CheckpointError or MismatchError, as `plan_members` does.
    """
    model = model or ModelOptions()
    budgets: list[int | None] = [*dict.fromkeys(pixels or [])] or [model.pixels]
    distinct_orders = list(dict.fromkeys(orders))
    settings = list(product(_alike(names, model, budgets), budgets, distinct_orders))
    if len(settings) > 1 and calibration not in ("auto", "none"):
        raise MismatchError(
            f"{calibration}: a calibration is for one setting, but this call has {len(settings)}; leave it where "
            "`calibrate` writes it, in the checkpoint's folder"
        )
    noted = ("pixels",) if len(budgets) > 1 else ()  # several budgets: others than in training are wanted
    groups = []
    for members, budget, order in settings:
        if members == folds_of(names[0]):  # the folder of folds has a calibration of their pool
            members = [names[0]]
        plan = replace(model, pixels=budget).plan(members, order, calibration, noted)
        suffix = f"-{_side(budget)}" if budget and len(budgets) > 1 else ""
        suffix += f"-{order}" if len(distinct_orders) > 1 else ""
        groups.append(Group(plan, order, [name + suffix for name in plan.members]))
    labels = [label for group in groups for label in group.labels]
    if len(set(labels)) < len(labels):
        for number, group in enumerate(groups, 1):
            group.labels = [f"{number}-{label}" for label in group.labels]
    return groups


def _alike(names: Sequence[str], model: ModelOptions, budgets: Sequence[int | None]) -> list[list[str]]:
    """The checkpoints, those together that share base, prompt, quantisation and pixels."""
    alike: dict[tuple[object, ...], list[str]] = {}
    folds = [fold for name in names for fold in folds_of(name)]
    for fold, checkpoint, folder in zip(folds, *read_members(names, model.base)):
        manifest = checkpoint.manifest
        setting = (
            base_fingerprint(folder),
            (model.template or manifest.prompt).fingerprint,
            quantization_of(checkpoint, folder, model.quantization),
            None if budgets[0] else manifest.policy(folder).budget,
        )
        alike.setdefault(setting, []).append(fold)
    return list(alike.values())


def run_groups(
    table: Table | LargeTable, groups: list[Group], out: Path, options: RunOptions, context: RunContext | None = None
) -> RunResult:
    """Score a table with every group into `out`; several groups each into `out`/runs/N first, and then pooled.

    The same call goes on where a killed one stopped. Raises and stops as `run`.
    """
    context = context or RunContext()
    if len(groups) > 1 and options.shard:
        raise RunError(
            f"--shard with {len(groups)} settings: a call for each of them (one base, prompt, --pixels and --orders), "
            "then `merge` each and `ensemble` them"
        )
    if isinstance(table, LargeTable):
        return _run_large(table, groups, out, options, context)
    for group in groups:
        check_orders(table.questions, group.orders)
    if options.sample:
        options.sample.rows_in([question.id for question in table.questions])
    if len(groups) == 1:
        return run(table, groups[0].plan, out, replace(options, orders=groups[0].orders), context)
    if not context.processes.first:
        return _run_each(table, groups, out, options, context)[-1]
    with lock_folder(out):
        _prepare_folder(out, options.overwrite and context.processes.first_time("overwrite"))
        results = _run_each(table, groups, out, options, context)
        return _pool(table, groups, results, out, options.sample)


def _run_large(
    table: LargeTable, groups: list[Group], out: Path, options: RunOptions, context: RunContext
) -> RunResult:
    """The same for a table that is not held, with a single group. Raises OrdersError as `check_orders`."""
    (group,) = groups
    if table.counts.repeating and group.orders != "1":
        raise repeating_rows(table.counts.repeating, table.counts.first_repeating, f"--orders {group.orders}")
    return run_ranges(table, group.plan, out, replace(options, orders=group.orders), context)


def needs_all_rows(groups: list[Group], options: RunOptions) -> str:
    """What of this call needs all rows at once; "" where a range at a time will do."""
    if len(groups) > 1:
        return "several settings in one call"
    if options.shard:
        return "--shard"
    return "--orders pride" if groups[0].orders == "pride" else ""


def check_sets(
    groups: list[Group], request: SetRequest | None, table: Table | LargeTable, allow_mismatch: bool = False
) -> None:
    """Raises SetsError where --sets asks for what the checkpoints' calibrations cannot promise for these rows."""
    if not request:
        return
    calibrations = [calibration for group in groups for calibration in group.plan.calibrations]
    check_calibrations(calibrations, request, groups[0].orders)
    tables = table.tables() if isinstance(table, LargeTable) else [table]
    exposed = np.concatenate(list(map(partial(_exposed, groups), tables)))
    if count := int(exposed.any(1).sum()):
        note = (
            f"--sets: on {count:,} of {len(exposed):,} rows the checkpoint was trained, validated or calibrated, so "
            "that sets of these promise nothing"
        )
        if not allow_mismatch:
            raise SetsError(f"{note}; score other rows, or add --allow-mismatch")
        groups[0].plan.notes.append(note)


def _exposed(groups: list[Group], table: Table) -> np.ndarray:
    """(N, M) flags of the rows for the members of all groups."""
    columns = columns_of(table.questions)
    return np.concatenate([group.plan.exposed(columns, table.digest) for group in groups], 1)


def release_memory() -> None:
    """Free the memory of a model that nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run_each(
    table: Table, groups: list[Group], out: Path, options: RunOptions, context: RunContext
) -> list[RunResult]:
    """Each group's run, in a folder of its own. The loaded model stays for the next group where that needs the same."""
    results: list[RunResult] = []
    scorer: BatchScorer | None = None  # the last run's, for the next where that needs the same model
    for number, group in enumerate(groups, 1):
        context.say(f"run {number} of {len(groups)}: {', '.join(group.labels)}")
        group_options = replace(options, orders=group.orders, overwrite=False, sample=None)
        model: Plan | BatchScorer = group.plan
        if scorer is not None and scorer.fits(group.plan):
            model = scorer.with_plan(group.plan)
        elif scorer is not None:
            scorer = None
            release_memory()
        result = run(table, model, out / RUNS / str(number), group_options, context)
        scorer, result.scorer = result.scorer, None  # the only reference: it must go before another model comes
        del model
        results.append(result)
    return results


def _pool(
    table: Table, groups: list[Group], results: list[RunResult], out: Path, sample: SampleSubmission | None
) -> RunResult:
    """The runs' files as one SCORES folder, whose run.json describes all of them."""
    seconds = total_seconds(results)
    peak_bytes = max(result.peak_bytes for result in results)
    run_json: dict[str, Any] = {
        "command": sys.argv,
        "data": table.about(),
        "notes": [note for group in groups for note in group.plan.notes],
        "seconds": seconds,
        "peak_gpu_bytes": peak_bytes,
    }
    warnings = [warning for result in results for warning in result.warnings]
    labels = [label for group in groups for label in group.labels]
    paths = [out / RUNS / str(number) for number in range(1, len(groups) + 1)]
    pooled = pool_files(paths, out, PoolOptions(names=labels, sample=sample), run_json, warnings)
    return RunResult(
        pooled.scores.logits,
        pooled.metrics,
        pooled.scores.run.warnings,
        sum(result.scored_now for result in results),
        seconds,
        peak_bytes,
        "\n".join(result.orders_note for result in results if result.orders_note),
    )


def _prepare_folder(out: Path, overwrite: bool) -> None:
    """Make room for several runs in `out`. Raises RunError where it holds a single run or other files.

    overwrite: remove these.
    """
    if overwrite:
        shutil.rmtree(out / RUNS, ignore_errors=True)
        remove_run(out)
    elif any(path.name != LOCK for path in out.iterdir()) and not (out / RUNS).exists():
        raise RunError(f"{out} holds other results; choose another --out, or start anew with --overwrite")


def _side(pixels: int) -> str:
    """A pixel budget in a member's name: 448 for 448 x 448, else such as 200000px."""
    side = math.isqrt(pixels)
    return str(side) if side * side == pixels else f"{pixels}px"
