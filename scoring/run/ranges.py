"""A table that no process holds: each range of its rows is a run of its own, and the results are put together.

`logits` has a part for each range that is done, with the rows in the table's order. While a range is scored, its
batches are in `ranges/N`, a folder like that of any run; then its other columns stay there until all is written.
Whoever scores the ranges, in one process or many, leaves the same bytes.
"""

import shutil
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Event

import pyarrow as pa

from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.costs import RowCost
from scoring.files.lock import lock_folder
from scoring.files.reading import read_json
from scoring.files.writing import write_json, write_table
from scoring.messages import Progress, ProgressBar
from scoring.run.joining import ABOUT, QUESTIONS, RangedJob, write_joined
from scoring.run.options import Job, Loader, Loop, RunContext, RunOptions, RunResult, Workers
from scoring.run.run import run
from scoring.run.run_folder import RANGES, ROWS_HELD, RunState, read_plan, remove_unfinished
from scoring.run.scheduler import Scheduler, identity_of
from scoring.scores.finalize import ScoredRun, WrittenRun
from scoring.scores.folder import RunError, typed_columns
from scoring.scores.logits import part_path, write_part
from scoring.tables.large import LargeTable
from scoring.tables.table import Table
from scoring.tables.usable import mark_for_bases


def run_ranges(
    table: LargeTable, plan: Plan, out: Path, options: RunOptions | None = None, context: RunContext | None = None
) -> RunResult:
    """Score a table range by range into `out`; go on where an earlier run with the same inputs stopped.

    The logits of the result are those of a sample of rows. Raises as `run`.
    """
    job = RangedJob(table, plan, out, options or RunOptions(), context or RunContext())
    first = job.context.processes.first
    with lock_folder(out) if first else nullcontext():
        results = _score(job, _agree(job))
        if first:
            return write_joined(job, results)
        return results[-1] if results else RunResult(None, None, [], 0, {"scoring": 0.0})


def _agree(job: RangedJob) -> list[int]:
    """The numbers of the ranges that are not done; all processes of a call score the same."""
    table, out, options, processes = job.table, job.out, job.options, job.context.processes
    key = f"{out.name}/ranges"
    if not processes.first:
        todo: list[int] = processes.receive(key)
        return todo
    identity = identity_of(table.common, table.count, job.plan, options, {})
    wanted = identity | {ROWS_HELD: table.held} | options.decided
    before = read_plan(out, wanted, options.overwrite and processes.first_time("overwrite"))
    (out / "logits").mkdir(parents=True, exist_ok=True)
    remove_unfinished(out / "logits")
    if before is None:
        write_json(out / "plan.json", wanted)
    todo = [number for number in range(len(table.ends)) if not part_path(out / "logits", number).exists()]
    if done := len(table.ends) - len(todo):
        job.context.say(f"going on: {done:,} of {len(table.ends):,} ranges have their scores already")
    processes.publish(key, todo)
    return todo


def _score(job: RangedJob, todo: Sequence[int]) -> list[RunResult]:
    """Each range's run. The loaded model stays for the next."""
    with closing(_tables(job, todo)) as tables:
        return _score_each(job, todo, tables)


def _score_each(job: RangedJob, todo: Sequence[int], tables: Iterator[tuple[Table, Workers | None]]) -> list[RunResult]:
    """The same. tables: what `_tables` gives."""
    results: list[RunResult] = []
    scorer: BatchScorer | None = None
    table, context, options = job.table, job.context, replace(job.options, overwrite=False, sample=None)
    for number in todo:
        rows, workers = next(tables)
        name = f"range {number + 1} of {len(table.ends)}"
        if context.stop.is_set():
            raise KeyboardInterrupt(f"before {name}")
        start, end = (table.ends[number - 1] if number else 0) + 1, table.ends[number]
        context.say(f"{name}: rows {start:,} to {end:,}")
        folder = job.out / RANGES / str(number)
        if context.processes.first:
            _begin(job.out, folder, len(rows.questions))
        own_context = replace(context, progress=_progress(job, number), workers=workers)
        try:
            result = run(rows, scorer or job.plan, folder, options, own_context, partial(_leave, job.out, number))
        except KeyboardInterrupt as stopped:
            raise KeyboardInterrupt(f"{name}: {stopped}") from None
        scorer, result.scorer, result.logits = result.scorer, None, None
        results.append(result)
        del rows, workers, own_context  # before the next range is read
    return results


@dataclass(frozen=True)
class _Ahead:
    """Workers who have worked out what a range's rows cost before its run begins; the rest is as ever."""

    workers: Workers
    known: list[list[RowCost]]

    def loader(self, job: Job) -> Loader:
        return self.workers.loader(job)

    def loop(self, job: Job, scheduler: Scheduler, state: RunState) -> Loop:
        return self.workers.loop(job, scheduler, state)

    def costs(self, scheduler: Scheduler, stop: Event) -> list[list[RowCost]]:
        return self.known


def _tables(job: RangedJob, todo: Sequence[int]) -> Generator[tuple[Table, Workers | None], None, None]:
    """The rows of each range, and who answers them.

    Where that is not this process, a thread reads the next range meanwhile, and lets the workers count its tokens.
    """
    workers, stop, over = job.context.workers, job.context.stop, Event()

    def read(number: int) -> Table:
        table = job.table.read(number, lambda: stop.is_set() or over.is_set())
        return mark_for_bases(table, [job.plan.base])

    def read_ahead(number: int, workers: Workers) -> tuple[Table, Workers]:
        table = read(number)
        with suppress(KeyboardInterrupt):  # the caller stops by itself
            return table, _Ahead(workers, workers.costs(Scheduler(table, job.plan, job.options), over))
        return table, workers

    if not workers or not todo:
        yield from ((read(number), workers) for number in todo)
        return
    with ThreadPoolExecutor(1) as pool:
        current: tuple[Table, Workers] = read(todo[0]), workers  # its tokens are counted while the model is loaded
        try:
            for following in todo[1:]:
                ahead = pool.submit(read_ahead, following, workers)
                yield current
                del current  # whose rows nobody needs any more
                current = ahead.result()
                del ahead
            yield current
        finally:
            over.set()  # where a run has failed, nobody needs the next range


def _begin(out: Path, folder: Path, rows: int) -> None:
    """Give a range the decisions that the first one took, and what they were taken for.

    Raises RunError for a link, through which nothing is written or removed.
    """
    for path in (folder.parent, folder):
        if path.is_symlink():
            raise RunError(f"{path}: a link; expected a folder of this run; remove it, or choose another --out")
    plan = read_json(out / "plan.json") or {}
    if "split" in plan and not (folder / "plan.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", {key: plan[key] for key in plan if key != ROWS_HELD} | {"rows": rows})


def _leave(out: Path, number: int, scored: ScoredRun) -> WrittenRun:
    """Write a range's part, last of all, and what the end of the run needs besides it; its batches go."""
    folder = scored.out
    plan, own = read_json(out / "plan.json") or {}, read_json(folder / "plan.json") or {}
    write_json(out / "plan.json", own | {"rows": plan["rows"], ROWS_HELD: plan[ROWS_HELD]})
    write_table(folder / QUESTIONS, pa.table(typed_columns(scored.columns)))
    write_json(folder / ABOUT, scored.run_json)
    write_part(out / "logits", number, scored.logits)
    shutil.rmtree(folder / "logits")
    return WrittenRun(None, [], scored.run_json["seconds"])


def _progress(job: RangedJob, number: int) -> Progress | None:
    """Bars of a range that count the rows of all; None where none are shown."""
    opened, before = job.context.progress, number * job.table.held
    if opened is None:
        return None

    def progress(total: int, done: int = 0, /) -> ProgressBar:
        return opened(job.table.count, before + done)

    return progress
