"""A resumable run: schedule the batches, score those that have no part yet, write the results.

All rows together decide which of them form which batch before the first is scored. `plan.json` keeps that decision with
everything the logits depend on. A part is a batch. A run that was killed cuts the same batches again, skips those that
have their part, and ends with the same bytes.

Of several processes the first schedules and writes the results; all take batches from one queue, and write parts.
"""

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import scoring
from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer
from scoring.files.lock import lock_folder
from scoring.inputs.orders import check_orders
from scoring.run.batch_loop import BatchLoop
from scoring.run.coordinator import Coordinator
from scoring.run.loader import ModelLoader
from scoring.run.options import Job, Loader, Loop, RunContext, RunOptions, RunResult
from scoring.run.run_folder import RunState
from scoring.run.scheduler import Scheduler
from scoring.run.shards import leave_shard
from scoring.scores.evaluation import exposure_warnings
from scoring.scores.finalize import ScoredRun, WrittenRun, write_run
from scoring.scores.folder import RunError, columns_of
from scoring.scores.logits import Layout, OptionLogits, read_parts
from scoring.tables.table import Table


def run(  # noqa: PLR0913 - each run is a call of it, and its parameters are what a run needs
    table: Table,
    model: Plan | BatchScorer,
    out: Path,
    options: RunOptions | None = None,
    context: RunContext | None = None,
    write: Callable[[ScoredRun], WrittenRun] = write_run,
) -> RunResult:
    """Score a table into `out`; go on where an earlier run with the same inputs stopped.

    model: a plan, or the scorer of a plan, where it is loaded already. write: makes files of what is scored.

    Raises RunError where `out` holds the results of other inputs, OrdersError where questions cannot be shown in other
    orders, InputError where the table lacks an id of the sample, LockError where `out` cannot be written, ProcessError
    where another process failed, KeyboardInterrupt once it is asked to stop and has filed the batch at hand.
    """
    plan, scorer = (model.plan, model) if isinstance(model, BatchScorer) else (model, None)
    job = Job(table, plan, out, options or RunOptions(), context or RunContext())
    processes = job.context.processes
    if job.options.device_map == "auto" and processes.count > 1:
        raise RunError("--device-map auto spreads one process over all cards; start it without torchrun")
    check_orders(table.questions, job.options.orders)
    if job.options.sample:
        job.options.sample.rows_in([question.id for question in table.questions])
    with lasting_objects(), lock_folder(out) if processes.first else nullcontext():
        return _run(job, scorer, write)


@contextmanager
def lasting_objects() -> Iterator[None]:
    """Inside, Python looks for no garbage among the objects that there are: the model's and the libraries' live on.

    To look through them cost .6 s of a run of 10 s. A program that has frozen its own objects keeps them so.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _run(job: Job, scorer: BatchScorer | None, write: Callable[[ScoredRun], WrittenRun]) -> RunResult:
    """Plan, score, plan and score what adaptive orders add; the first process then writes the results."""
    loader, loop_of = _answering(job, scorer)
    scheduler = Scheduler(job.table, job.plan, job.options)
    coordinator = Coordinator(job, scheduler, loader)
    planning = _Planning(loader)
    with planning:
        state, queue = coordinator.plan_rows()
    loop = loop_of(scheduler, state)
    loop.run(queue)
    with planning:
        orders_note, queue = coordinator.plan_unsure(state, lambda parts: _read_logits(job, scheduler, parts))
    loop.run(queue)
    seconds = {"planning": planning.seconds, "loading": 0.0, "compiling": loader.compiling_seconds}
    if not job.context.processes.first:
        return RunResult(None, None, [], 0, {**seconds, "scoring": loop.seconds}, scorer=loader.scorer)
    start = time.monotonic()
    logits = _read_logits(job, scheduler)
    seconds |= {
        "loading": loader.loading_seconds,
        **{f"loading_{step}": took for step, took in loader.steps.items()},
        "scoring": loop.seconds + time.monotonic() - start,
        "verifying": loader.verifying_seconds,
        "first_batch": loop.first_seconds,
        "waiting_for_pictures": loop.waiting_seconds,
    }
    run_json = _run_json(job, scheduler, state, [orders_note] if orders_note else []) | {
        "weights": loader.weights,
        "processes": loop.reported(),
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
        "peak_gpu_bytes": loop.peak_bytes,
    }
    scored = _scored_run(job, loader.label_ids, run_json, logits)
    if job.options.shard:
        leave_shard(scored, job.options.shard, scheduler.assigned, scheduler.unscorable)
        written = WrittenRun(None, list(scored.warnings), scored.run_json["seconds"])
    else:
        written = write(scored)
    seconds["scoring"] = written.seconds["scoring"]
    return RunResult(
        logits=logits,
        metrics=written.metrics,
        warnings=written.warnings,
        scored_now=scheduler.rows_todo,
        seconds=seconds,
        peak_bytes=loop.peak_bytes,
        orders_note=orders_note,
        scorer=loader.scorer,
    )


def _answering(job: Job, scorer: BatchScorer | None) -> tuple[Loader, Callable[[Scheduler, RunState], Loop]]:
    """What loads the model, and what makes the loop over the batches: in this process, or in its workers."""
    if workers := job.context.workers:
        return workers.loader(job), partial(workers.loop, job)
    loader = ModelLoader(job.plan, job.options, job.letters, job.context.say, scorer)
    return loader, lambda scheduler, state: BatchLoop(job, scheduler, loader, state)


class _Planning:
    """Adds up the seconds inside of `with`, without those in which a model is loaded."""

    def __init__(self, loader: Loader):
        self.loader, self.seconds = loader, 0.0

    def __enter__(self) -> None:
        self.seconds -= time.monotonic() - self.loader.loading_seconds

    def __exit__(self, *error: object) -> None:
        self.seconds += time.monotonic() - self.loader.loading_seconds


def _read_logits(job: Job, scheduler: Scheduler, parts: int | None = None) -> OptionLogits:
    """Everything that is scored, or what the first `parts` hold of it."""
    questions, orders = job.table.questions, job.options.orders
    ids = [question.id for question in questions]
    logits = read_parts(job.parts, Layout(ids, job.plan.members, job.letters, orders), parts)
    for row, question in enumerate(questions):
        logits.status[row] = scheduler.unscorable.get(question.id, logits.status[row])
    return logits


def _run_json(job: Job, scheduler: Scheduler, state: RunState, notes: list[str]) -> dict[str, Any]:
    """run.json, except for what follows from the logits and for who scored them in what time."""
    counted = {"fixed": scheduler.fixed, "adaptive": scheduler.saving}
    return describe_run(job.table, job.plan, state.settings, [*job.plan.notes, *notes]) | {
        **{name: asdict(values) for name, values in counted.items() if values},
        "split": state.split,
        "counts": {
            "rows": len(job.table.questions),
            "scored": 0,
            "scored_now": scheduler.rows_todo,
            "unscored": 0,
            "batches": len(scheduler.batches),
            "tokens": scheduler.tokens,
        },
    }


def describe_run(table: Table, plan: Plan, settings: dict[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    """What run.json says of the rows and of the model, whoever scores them. settings: what the logits depend on."""
    return {
        "command": sys.argv,
        "data": table.about(),
        **plan.about(),
        "identity": settings,
        "weights": None,
        "split": 1,
        "processes": [],
        "versions": scoring.versions(),
        "notes": list(notes),
        "warnings": [],  # added when the run is finished
        "counts": {},
        "seconds": {},
    }


def _scored_run(job: Job, label_ids: list[int], run_json: dict[str, Any], logits: OptionLogits) -> ScoredRun:
    """The scored run with what its members had met of the rows before."""
    columns = columns_of(job.table.questions)
    exposed = job.plan.exposed(columns, job.table.digest)
    columns["exposed"] = exposed.tolist()
    warnings = exposure_warnings(job.plan.members, exposed)
    options, calibrations = job.options, job.plan.calibrations
    return ScoredRun(
        job.out, run_json, columns, logits, calibrations, label_ids, options.sets, warnings, options.sample
    )
