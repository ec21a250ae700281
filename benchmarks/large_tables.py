"""How much memory and time does a table take that no process holds? Everything but the model is real.

    python -m benchmarks.large_tables                                     1,100,000 rows, two and a half minutes
    python -m benchmarks.large_tables --way ray --actors 8                how many rows a second one driver gives out
    python -m benchmarks.large_tables --rows 100000000 --ranges 3         an hour

The table is a Parquet file of questions in words, as long as real ones. It is read as `score` reads it; its ranges are
planned, answered by actors that hold no model (with random logits), filed and put together. Each number of rows has a
process of its own; peaks of memory are the kernel's, of each stage by itself. `--ranges` scores only the first ones.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import DEMO, ROOT
from benchmarks.reading import OPTIONS, QUESTION
from scoring.files.writing import write_json

ROW_GROUP = 1 << 17  # rows
BATCH_TOKENS = 16_384


def make_table(path: Path, rows: int) -> None:
    """So many rows in words, with an answer for one in a hundred."""
    names = ["id", "question", "a", "b", "c", "d", "answer", "task_type"]
    with pq.ParquetWriter(path, pa.schema([(name, pa.string()) for name in names])) as writer:
        for start in range(0, rows, ROW_GROUP):
            group = range(start, min(start + ROW_GROUP, rows))
            cells = [
                [f"{row:010}", QUESTION.format(row), *(option.format(row % 97) for option in OPTIONS)]
                + ["abcd"[row % 4] if row % 100 == 0 else "", f"type{row % 5}"]
                for row in group
            ]
            writer.write_table(pa.table(dict(zip(names, map(list, zip(*cells))))), row_group_size=ROW_GROUP)


# ------------------------------------------------------------------ actors and workers without a model
def answer_of(batch: Any, members: list[str], orders: str) -> Any:
    """Random logits for a batch."""
    from scoring.scores.logits import SCORED, OptionLogits

    part = OptionLogits.empty([question.id for question in batch.questions], members, 4, orders)
    random = np.random.default_rng(batch.number)
    part.logits[...] = random.normal(size=part.logits.shape)
    part.label_mass[...], part.top_token[...] = 1.0, 0
    part.status = [SCORED] * len(part.ids)
    return part


def actor_class() -> type:
    """An actor that reads and encodes its batches as any other, and has no model."""
    from scoring.cluster.actor import Answered, Loaded, ModelActor
    from scoring.engine.batches import prepare_batch

    class ActorWithoutModel(ModelActor):
        def load(self) -> Loaded:
            return Loaded(batch_tokens=BATCH_TOKENS, weights=None, notes=[], steps={})

        def prepare(self, batch: Any) -> float:
            return 0.0

        def answer(self, batch: Any, orders: str, split: int = 1) -> Answered:
            plan = self._loader().plan
            prepare_batch(plan.preparer, batch.questions, batch.orders, self.readers)
            return Answered(batch.number, answer_of(batch, plan.members, orders), split, 0.0, None, 0, self.name)

        def peak(self) -> int:
            return peak_of_this_process()

    return ActorWithoutModel


@dataclass
class LocalWorkers:
    """The same in this process, without Ray."""

    def loader(self, job: Any) -> Any:
        from scoring.engine.batch_scorer import machine

        return LocalLoader(job.plan.preparer.label_ids(job.letters), machine())

    def loop(self, job: Any, scheduler: Any, state: Any) -> Any:
        return LocalLoop(job, scheduler)

    def costs(self, scheduler: Any, stop: Any) -> Any:
        return scheduler.costs(stop=stop)


@dataclass
class LocalLoader:
    label_ids: list[int]
    machine: dict[str, Any]
    steps: dict[str, float] = field(default_factory=dict)
    compiling_seconds: float = 0.0
    verifying_seconds: float = 0.0
    loading_seconds: float = 0.0
    scorer: None = None
    weights: None = None
    compiled: bool = False

    def load(self) -> None:
        pass

    def batch_tokens(self) -> int:
        return BATCH_TOKENS


@dataclass
class LocalLoop:
    job: Any
    scheduler: Any
    seconds: float = 0.0
    first_seconds: float = 0.0
    waiting_seconds: float = 0.0
    peak_bytes: int = 0

    def run(self, queue: Any) -> None:
        from scoring.scores.logits import write_part

        start = time.monotonic()
        for number in queue.todo:
            part = answer_of(self.scheduler.batches[number], self.job.plan.members, self.job.options.orders)
            write_part(self.job.parts, number, part)
        self.seconds += time.monotonic() - start

    def reported(self) -> list[dict[str, Any]]:
        return []


# ------------------------------------------------------------------ one measurement
def peak_of_this_process() -> int:
    """Bytes that this process has held at most since `forget_peak`."""
    status = Path("/proc/self/status").read_text("ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def forget_peak() -> None:
    """Let the kernel count anew."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


@dataclass
class Stages:
    """Seconds and peak of each stage."""

    values: dict[str, dict[str, float]] = field(default_factory=dict)

    def measure(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns."""
        forget_peak()
        start = time.monotonic()
        result = work()
        self.values[name] = {
            "seconds": round(time.monotonic() - start, 2),
            "peak_mib": round(peak_of_this_process() / 2**20),
        }
        click.echo(f"{name}: {self.values[name]}", err=True)
        return result


def with_times(run: Callable[[Any, Any], None], times: list[tuple[float, float]]) -> Callable[[Any, Any], None]:
    """`run` of a loop, which notes when it began and ended, where it had anything to do."""

    def timed(loop: Any, queue: Any) -> None:
        start = time.monotonic()
        run(loop, queue)
        if queue.todo:
            times.append((start, time.monotonic()))

    return timed


def measure(table_path: Path, out: Path, way: str, ranges: int | None, count: int) -> dict[str, Any]:
    """Read, plan, file and put together; in this process. count: of actors."""
    from scoring.cluster.workers import RayWorkers
    from scoring.run import ranges as ranged
    from scoring.run.options import ModelOptions, RunContext, RunOptions
    from scoring.tables.large import LargeTable
    from scoring.tables.reading import read_in_ranges

    stages = Stages()
    table = stages.measure("reading", lambda: read_in_ranges(table_path))
    if not isinstance(table, LargeTable):
        raise click.UsageError("fewer rows than are held at a time")
    all_ranges = len(table.ends)
    last = stages.measure("reading the last range", lambda: table.read(all_ranges - 1))
    rows_of_last = len(last.questions)
    del last
    if ranges:
        table = replace(table, reader=replace(table.reader, ends=table.ends[:ranges]))
    plan = ModelOptions(allow_mismatch=True).plan([str(DEMO / "checkpoints" / "fold0")])
    context = RunContext(say=lambda text: click.echo(text, err=True))
    joining = ranged.write_joined
    actors: list[dict[str, Any]] = []

    def timed(job: Any, results: Any) -> Any:
        stages.values["scoring"] = {
            "seconds": round(time.monotonic() - began, 2),
            "peak_mib": round(peak_of_this_process() / 2**20),
        }
        return stages.measure("putting together", lambda: joining(job, results))

    ranged.write_joined = timed
    loops: list[tuple[float, float]] = []  # when each range's batches were first given out, and when all were answered
    if way == "ray":
        import ray

        from scoring.cluster import workers as ray_workers
        from scoring.cluster.connection import connected

        ray_workers.ModelActor = actor_class()
        ray_workers.ActorLoop.run = with_times(ray_workers.ActorLoop.run, loops)
        with connected(None, context.say):
            workers = RayWorkers(count, context.say, context.stop)
            workers._resources = lambda: (count, {"num_cpus": 0})  # so that tasks find cores
            workers.start()
            forget_peak()
            began = time.monotonic()
            in_actors = replace(context, workers=workers)
            result = ranged.run_ranges(table, plan, out, RunOptions(verify=False), in_actors)
            peaks = ray.get([member.handle.peak.remote() for member in workers.pool.members])
            actors = [{"peak_mib": round(peak / 2**20)} for peak in peaks]
            workers.close()
    else:
        local = replace(context, workers=LocalWorkers())
        LocalLoop.run = with_times(LocalLoop.run, loops)
        forget_peak()
        began = time.monotonic()
        result = ranged.run_ranges(table, plan, out, RunOptions(verify=False), local)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {
        "rows": table.count,
        "ranges": all_ranges,
        "ranges_scored": len(table.ends),
        "rows_scored": result.scored_rows,
        "rows_of_last_range": rows_of_last,
        "table_mib": round(table_path.stat().st_size / 2**20),
        "results_mib": round(size / 2**20),
        "planning_seconds": round(result.seconds["planning"], 2),
        "answering_seconds": round(result.seconds["scoring"], 2),
        "between_ranges_seconds": [
            round(after[0] - before[1], 2) for before, after in zip(loops, loops[1:])
        ],  # in which no actor works
        "stages": stages.values,
        "actors": actors,
    }


@click.command()
@click.option("--rows", default="1100000", show_default=True, help="Numbers of rows, comma-separated.")
@click.option("--way", type=click.Choice(["alone", "ray"]), default="alone", show_default=True)
@click.option("--actors", type=click.IntRange(1), default=1, show_default=True, help="Actors of --way ray.")
@click.option("--ranges", type=click.IntRange(1), help="Score only so many ranges.  [default: all]")
@click.option("--work", type=click.Path(path_type=Path), help="Folder for tables, which stay there.")
@click.option("--out", type=click.Path(path_type=Path), help="File for the figures.")
@click.option("--one", type=click.Path(path_type=Path), hidden=True)
def main(rows, way, actors, ranges, work, out, one) -> None:
    """Measure each number of rows, and print a table."""
    if one:
        with TemporaryDirectory(dir=one.parent) as name:
            print(json.dumps(measure(one, Path(name) / "scores", way, ranges, actors)))
        return
    results = []
    with TemporaryDirectory(dir=work) as name:
        for count in map(int, rows.split(",")):
            path = (work or Path(name)) / f"{count}.parquet"
            if not path.exists():
                make_table(path, count)
            line = [
                sys.executable,
                "-m",
                "benchmarks.large_tables",
                "--one",
                str(path),
                "--way",
                way,
                "--actors",
                str(actors),
            ]
            line += ["--ranges", str(ranges)] if ranges else []
            done = subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    machine = {"cores": psutil.cpu_count(), "memory_gib": round(psutil.virtual_memory().total / 2**30)}
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {"way": way, "actors": actors, **machine, "sizes": results})
    header = f"{'rows':>12}{'ranges':>8}{'reading s':>11}{'planning s':>12}{'answering s':>13}"
    click.echo(f"{header}{'driver MiB':>12}{'actor MiB':>11}")
    for result in results:
        peak = max(stage["peak_mib"] for stage in result["stages"].values())
        actor = max((each["peak_mib"] for each in result["actors"]), default=0)
        line = f"{result['rows']:>12,}{result['ranges_scored']:>8}{result['stages']['reading']['seconds']:>11.1f}"
        line += f"{result['planning_seconds']:>12.1f}{result['answering_seconds']:>13.1f}"
        click.echo(f"{line}{peak:>12,}{actor:>11,}")


if __name__ == "__main__":
    main()
