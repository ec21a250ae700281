"""Actors in the place of the engine of a run: they load the model and answer, and this process plans and files."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from scoring.checkpoints.plan import Plan
from scoring.cluster.actor import Answered, Loaded, ModelActor
from scoring.cluster.connection import Room, environment
from scoring.cluster.costs import CostTasks
from scoring.cluster.pool import IN_HAND, ActorPool
from scoring.engine.costs import RowCost
from scoring.messages import Say
from scoring.run.options import Job, RunOptions
from scoring.run.processes import Queue
from scoring.run.run_folder import RunState, check_same, write_state
from scoring.run.scheduler import Batch, Scheduler
from scoring.scores.logits import part_path, write_part

if TYPE_CHECKING:
    from scoring.engine.batch_scorer import BatchScorer


class RayWorkers:
    """The actors of a call, which its runs share one after the other.

    actors: how many; None for one on each card, or one on each node where there are no cards.
    """

    def __init__(self, actors: int | None, say: Say, stop: Event):
        self.wanted, self.say, self.stop = actors, say, stop
        self.pool: ActorPool | None = None
        self.arguments: tuple[Any, ...] = ()  # of the actors, also of those that are started later
        self.steps_reported = False  # what loading took, for these arguments
        self._current: ActorLoader | None = None

    def start(self) -> None:
        """Start the actors, which import libraries while this process plans. Raises ClusterError where no room is."""
        if not self.pool:
            count, resources = self._resources()
            self.pool = ActorPool(lambda: self._create(resources), count, self.say, self.stop)

    def loader(self, job: Job) -> "ActorLoader":
        """Loads the job's model in the actors."""
        self._current = ActorLoader(self, job)
        return self._current

    def costs(self, scheduler: Scheduler, stop: Event) -> list[list[RowCost]]:
        """`Scheduler.costs`, by tasks of the cluster where that is sooner; see `CostTasks`."""
        return CostTasks(scheduler, stop, self.stop, self.say, self.pool.head if self.pool else None).costs()

    def loop(self, job: Job, scheduler: Scheduler, state: RunState) -> "ActorLoop":
        """Lets the actors answer the batches of the job whose loader was made last."""
        loader, self._current = self._current, None  # which holds the rows of its job
        assert loader is not None
        return ActorLoop(self, job, scheduler, state, loader)

    def close(self) -> None:
        """End the actors."""
        if self.pool:
            self.pool.close()

    def ready(self, plan: Plan, options: RunOptions, letters: int, compiled: bool = False) -> ActorPool:
        """The actors, for this plan from now on. Raises ClusterError, and RunError where their files are others."""
        self.start()
        assert self.pool is not None
        arguments = (_with_whole_paths(plan), options, letters, compiled)
        if self.arguments != arguments:
            self.arguments, self.steps_reported = arguments, False
            self.pool.call("adopt", *arguments)
            self.pool.renew()
        return self.pool

    def _create(self, resources: dict[str, float]) -> Any:
        import ray

        actor = ray.remote(ModelActor).options(
            **resources,
            max_concurrency=IN_HAND,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment()},
        )
        return actor.remote(*self.arguments)

    def _resources(self) -> tuple[int, dict[str, float]]:
        """How many actors, and what each takes. Raises ClusterError where there is no room for so many."""
        return Room.of_cluster().places(self.wanted)


@dataclass
class ActorLoader:
    """A run's model in the actors: see `scoring.run.loader.ModelLoader` for what the attributes are."""

    workers: RayWorkers
    job: Job
    steps: dict[str, float] = field(default_factory=dict)
    compiling_seconds: float = 0.0
    verifying_seconds: float = 0.0
    loading_seconds: float = 0.0
    scorer: "BatchScorer | None" = None  # none is in this process
    compiled: bool = False

    def __post_init__(self) -> None:
        self.label_ids = self.job.plan.preparer.label_ids(self.job.letters)
        self._loaded: list[Loaded] = []
        machines = self._pool().call("machine")
        self.machine: dict[str, Any] = machines[0]
        for other in machines[1:]:
            check_same(other, self.machine)

    def _pool(self) -> ActorPool:
        return self.workers.ready(self.job.plan, self.job.options, self.job.letters)

    def load(self) -> list[Loaded]:
        """Load the model in all actors."""
        if not self._loaded:
            start = time.monotonic()
            self._loaded = self._pool().load()
            self.loading_seconds += time.monotonic() - start
            steps = self._loaded[0].steps
            self.steps = dict.fromkeys(steps, 0.0) if self.workers.steps_reported else steps
            self.workers.steps_reported = True
            for note in dict.fromkeys(note for loaded in self._loaded for note in loaded.notes):
                self.workers.say(note)
                self.job.plan.notes.append(note)
        return self._loaded

    def batch_tokens(self) -> int:
        """Tokens of a batch that fits into the smallest memory of all actors."""
        return min(loaded.batch_tokens for loaded in self.load())

    @property
    def weights(self) -> str | None:
        """How the linear layers are held; None before they are loaded."""
        return self._loaded[0].weights if self._loaded else None


@dataclass
class ActorLoop:
    """Batches answered by the actors; this process files them. `scoring.run.batch_loop` says what attributes are."""

    workers: RayWorkers
    job: Job
    scheduler: Scheduler
    state: RunState
    loader: ActorLoader
    seconds: float = 0.0
    first_seconds: float = 0.0
    waiting_seconds: float = 0.0
    peak_bytes: int = 0
    by_actor: dict[str, dict[str, Any]] = field(default_factory=dict)

    def run(self, queue: Queue) -> None:
        """Every batch of the queue. Raises ClusterError, and KeyboardInterrupt once the run is to stop."""
        if not queue.todo:
            return
        self.loader.load()  # a run that goes on has not needed it before
        job = self.job
        pool = self.workers.ready(job.plan, job.options, job.letters, self.state.compile)
        batches = [_with_whole_pictures(self.scheduler.batches[number]) for number in queue.todo]
        self.loader.verifying_seconds += max(pool.call("prepare", batches[0]))
        start = time.monotonic()
        done = self.scheduler.rows_done
        bar = job.context.progress(self.scheduler.rows_in(queue.todo) + done, done) if job.context.progress else None
        try:
            for answered in pool.answers(batches, job.options.orders, self.state.split):
                self.first_seconds = self.first_seconds or time.monotonic() - start
                self._file(answered)
                if bar:
                    bar.update(len(answered.part.ids))
        except KeyboardInterrupt:
            filed = sum(part_path(job.parts, number).exists() for number in queue.todo)
            raise KeyboardInterrupt(f"{filed:,} of {len(queue.todo):,} batches are filed") from None
        finally:
            if bar:
                bar.close()
            self.seconds += time.monotonic() - start

    def reported(self) -> list[dict[str, Any]]:
        """What each actor did, for run.json."""
        return [{"process": name, **report} for name, report in self.by_actor.items()]

    def _file(self, answered: Answered) -> None:
        write_part(self.job.parts, answered.number, answered.part)
        report = self.by_actor.setdefault(answered.process, {"rows": 0, "seconds": 0.0, "verified": None})
        report["rows"] += len(answered.part.ids)
        report["seconds"] = round(report["seconds"] + answered.seconds, 3)
        report["verified"] = answered.verified
        self.peak_bytes = max(self.peak_bytes, answered.peak_bytes)
        if answered.split > self.state.split:
            if self.state.split == 1:
                self.workers.say(
                    f"out of memory with {self.state.batch_tokens:,} tokens a batch: going on in pieces that fit; a "
                    "smaller --batch-tokens fits at once"
                )
            self.state.split = answered.split
            write_state(self.job.out, self.state)


def _with_whole_paths(plan: Plan) -> Plan:
    """The plan as another process finds its files, whatever folder it is in. Without its preparer, which is large."""
    checkpoints = [replace(each, folder=Path(each.folder).resolve()) for each in plan.checkpoints]
    return replace(plan, base=plan.base.resolve(), checkpoints=checkpoints)


def _with_whole_pictures(batch: Batch) -> Batch:
    """The same for the pictures of a batch; itself, where their paths are whole already."""
    pictures = (picture for row in batch.questions for picture in row.pictures)
    if not any(isinstance(picture, Path) and not picture.is_absolute() for picture in pictures):
        return batch
    questions = [
        replace(row, pictures=tuple(each.resolve() if isinstance(each, Path) else each for each in row.pictures))
        for row in batch.questions
    ]
    return replace(batch, questions=questions)
