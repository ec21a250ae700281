"""What rows cost in tokens, worked out by the cluster: .12 ms a row in one process, too slow for many actors.

Ray's tasks work out chunks of rows on cores that no actor has, and Ray repeats those that are lost. The process that
was called takes the results in order. It does the work itself where that is sooner: where there are few rows, and
where no core is free, as on a cluster without cards, whose actors have them all.

A task loads no torch, and none of the modules that do.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from scoring.cluster.calls import LostError, result_of
from scoring.cluster.connection import ClusterError, environment
from scoring.cluster.head import Head
from scoring.cluster.pool import ATTEMPTS, POLL
from scoring.engine.costs import RowCost, cost_from_json, cost_to_json, row_costs
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from scoring.messages import Say

if TYPE_CHECKING:
    from scoring.checkpoints.plan import Plan
    from scoring.run.scheduler import Scheduler

FEWEST_ROWS = 20_000  # of a table that tasks work on: for fewer their processes start too late
CHUNK = 2_000  # rows of a task, a fourth of a second
PATIENCE_SECONDS = 60.0  # to wait for a task, which may find no core any more
PROMPT_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json")

RowTexts = tuple[str, tuple[str, ...], str, tuple[tuple[int, int], ...]]  # of a question what its cost depends on


@dataclass(frozen=True)
class PromptSettings:
    """What prompts depend on besides their rows. files: the digest of those of the base, as they were planned with."""

    base: Path
    template: PromptTemplate
    policy: PixelPolicy
    files: str

    @classmethod
    def of_plan(cls, plan: "Plan") -> "PromptSettings":
        base = plan.base.resolve()
        return cls(base, plan.template, plan.policy, _digest(base))


# ------------------------------------------------------------ in a process of the cluster
def work_out(settings: PromptSettings, orders: str, rows: list[RowTexts]) -> list[str | list[int]]:
    """The costs of rows in these option orders, as messages. Raises ClusterError where this node's files are others."""
    questions = [
        Question("", 0, (), question, options, task_hint=hint, sizes=sizes) for question, options, hint, sizes in rows
    ]
    return list(map(cost_to_json, row_costs(_preparer(settings), questions, orders)))


@lru_cache(maxsize=1)
def _preparer(settings: PromptSettings) -> Preparer:
    """Read once in a process, which works out many chunks."""
    node = os.uname().nodename
    if not settings.base.is_dir():
        raise ClusterError(f"{settings.base}: not on {node}; expected the same path on every node of the cluster")
    if _digest(settings.base) != settings.files:
        raise ClusterError(
            f"{settings.base}: another tokenizer or configuration on {node} than where the run was started; expected "
            "the same on every node"
        )
    return Preparer.of_base(settings.base, settings.template, settings.policy)


def _digest(base: Path) -> str:
    """Of the files that prompts are made with."""
    digest = sha256()
    for path in (base / name for name in PROMPT_FILES):
        digest.update(path.read_bytes() if path.exists() else b"")
        digest.update(path.name.encode())
    return digest.hexdigest()


# ------------------------------------------------------------ in the process that was called
@dataclass(frozen=True)
class Chunk:
    """Rows whose costs a task works out. number: of the scheduler's pass that they are in."""

    number: int
    orders: str
    rows: list[Question]

    @property
    def texts(self) -> list[RowTexts]:
        return [(row.question, row.options, row.task_hint, row.sizes) for row in self.rows]


class CostTasks:
    """Works out what the rows of a run cost.

    stop: once it is set, nobody waits for the costs any more. ended: once it is set, the run is to stop.
    """

    def __init__(self, scheduler: "Scheduler", stop: Event, ended: Event, say: Say, head: Head | None = None):
        self.scheduler, self.stop, self.ended, self.say, self.head = scheduler, stop, ended, say, head

    def costs(self) -> list[list[RowCost]]:
        """`Scheduler.costs`: by tasks where that is sooner.

        Raises ClusterError where tasks are lost again and again, or nodes have other files; KeyboardInterrupt once the
        run is to stop.
        """
        rows = sum(len(rows) for _, rows in self.scheduler.passes)
        cores = free_cores() if rows >= FEWEST_ROWS else 0
        if not cores:
            return self.scheduler.costs(stop=self.stop)
        shares: list[list[RowCost]] = [[] for _ in self.scheduler.passes]
        for chunk, task in self._by_tasks(cores):
            if self._stopped():
                break
            shares[chunk.number] += _answer(task, chunk) if task else self._here(chunk)
        return shares

    def _by_tasks(self, cores: int) -> Iterator[tuple[Chunk, Any]]:
        """Every chunk in order with its task, which has ended, or None where none found a core.

        There are no more tasks at a time than cores, since for those that wait an autoscaler would start machines.
        """
        import ray

        ask, chunks = self._task(), self._chunks()
        asked: deque[tuple[Chunk, Any]] = deque()
        running: list[Any] = []
        moved = time.monotonic()
        try:
            while time.monotonic() - moved < PATIENCE_SECONDS:
                for chunk in islice(chunks, cores - len(running)):
                    running.append(ask(chunk))
                    asked.append((chunk, running[-1]))
                if self._stopped() or not asked:
                    return
                ended, running = ray.wait(running, timeout=POLL)
                if ended:
                    moved = time.monotonic()
                while asked and asked[0][1] not in running:
                    yield asked.popleft()
        finally:
            _leave(running, [task for _, task in asked])
        self.say(f"for {PATIENCE_SECONDS:.0f} s no core of the cluster counted tokens; now this process does")
        yield from ((chunk, None if task in running else task) for chunk, task in asked)
        yield from ((chunk, None) for chunk in chunks)

    def _task(self) -> Callable[[Chunk], Any]:
        """What starts the task of a chunk."""
        import ray

        task = ray.remote(work_out).options(
            name="work out what rows cost",
            num_cpus=1,
            max_retries=ATTEMPTS - 1,
            runtime_env={"env_vars": environment() | {"TOKENIZERS_PARALLELISM": "false"}},  # of a node's other cores
        )
        settings = PromptSettings.of_plan(self.scheduler.plan)
        return lambda chunk: task.remote(settings, chunk.orders, chunk.texts)

    def _chunks(self) -> Iterator[Chunk]:
        for number, (orders, rows) in enumerate(self.scheduler.passes):
            for start in range(0, len(rows), CHUNK):
                yield Chunk(number, orders, rows[start : start + CHUNK])

    def _here(self, chunk: Chunk) -> list[RowCost]:
        """The costs of a chunk, worked out in this process."""
        return list(row_costs(self.scheduler.plan.preparer, chunk.rows, chunk.orders))

    def _stopped(self) -> bool:
        """Whether nobody waits for the costs any more.

        Raises KeyboardInterrupt once the run is to stop, and ClusterError where the cluster's head is gone.
        """
        if self.ended.is_set():
            raise KeyboardInterrupt
        if self.head:
            self.head.check()
        return self.stop.is_set()


def free_cores() -> int:
    """How many cores of the cluster nobody has."""
    import ray

    return int(ray.available_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


def _leave(running: list[Any], asked: list[Any]) -> None:
    """End tasks that nobody waits for. What others of them raised is looked at, since Ray would print it otherwise."""
    import ray

    for task in running:
        ray.cancel(task, force=True)  # also one that hangs
    for task in asked:
        with suppress(ray.exceptions.RayError):
            ray.get(task, timeout=0)


def _answer(task: Any, chunk: Chunk) -> list[RowCost]:
    """What a task found. Raises what it raised, and ClusterError where it was lost again and again."""
    rows = chunk.rows
    try:
        return list(map(cost_from_json, rows, result_of(task)))
    except LostError as error:
        raise ClusterError(
            f"{ATTEMPTS} processes ended while counting the tokens of rows {rows[0].id!r} to {rows[-1].id!r}, the "
            f"last: {error}; the same command goes on"
        ) from None
