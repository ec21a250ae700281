"""What the processes of a run tell each other before they score.

The first process decides the batches for all. The others tell it what their share of the rows costs and how many
tokens fit into their memory; then they follow. A run of one process is its own first process.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
from typing import Any

from scoring.engine.costs import RowCost
from scoring.engine.packed import compiling_pays
from scoring.files.lock import check_folder_is_shared
from scoring.run.options import Job, Loader
from scoring.run.processes import Queue
from scoring.run.run_folder import RunState, check_same, prepare_folder, read_state
from scoring.run.scheduler import Scheduler, costs_to_json, describe_pride
from scoring.scores.logits import OptionLogits, part_path


class Coordinator:
    """Agrees on a schedule with the other processes of the call. Raises RunError, LockError and ProcessError."""

    def __init__(self, job: Job, scheduler: Scheduler, loader: Loader):
        self.job, self.scheduler, self.loader = job, scheduler, loader
        self.processes, self.say = job.context.processes, job.context.say
        self.name = job.out.name

    def plan_rows(self) -> tuple[RunState, Queue]:
        """What this run decided, and the batches of all rows in the orders that are scored first."""
        key, identity = f"{self.name}/0", self.scheduler.identity(self.loader.machine)
        if self.processes.first:
            state = self._decide(identity)
            self._publish(key, state)
            self._report()
            return state, self._queue(key)
        self._offer()
        message = self.processes.receive(key)
        check_same(identity, message["state"])
        check_folder_is_shared(self.job.out)
        self.scheduler.follow(message)
        return RunState.from_json(message["state"], "the first process"), self._queue(key)

    def plan_unsure(self, state: RunState, read: Callable[[int], OptionLogits]) -> tuple[str, Queue]:
        """What to say about orders that differ between rows, or "", and the batches that adaptive orders add.

        read: gives the logits of the first parts; its argument is their number.
        """
        key, scheduler, orders = f"{self.name}/1", self.scheduler, self.job.options.orders
        if not self.processes.first:
            scheduler.follow(self.processes.receive(key))
            return "", self._queue(key)
        note, scheduler.todo = "", []
        if orders == "pride":
            note = describe_pride(scheduler.scorable)
        elif orders == "adaptive":
            logits = read(len(scheduler.batches))
            note = scheduler.schedule_unsure(logits, state.batch_tokens, self._has_part)
        self._publish(key, state)
        return note, self._queue(key)

    def _queue(self, key: str) -> Queue:
        """The scheduled batches, for all processes to take from."""
        return Queue(self.processes, key, self.scheduler.todo)

    def _publish(self, key: str, state: RunState) -> None:
        """Let the other processes receive what was decided, and the schedule."""
        if self.processes.count > 1:
            self.processes.publish(key, {"state": state.to_json(), **self.scheduler.to_json()})

    def _has_part(self, number: int) -> bool:
        return part_path(self.job.parts, number).exists()

    # ------------------------------------------------------------ the first process
    def _decide(self, identity: dict[str, Any]) -> RunState:
        """Prepare the folder, decide what is left to this machine, and cut the rows into batches."""
        options, processes = self.job.options, self.processes
        wanted = identity | options.decided
        before = read_state(self.job.out, wanted, options.overwrite and processes.first_time("overwrite"))
        measure = before is None and options.batch_tokens is None
        processes.publish(f"{self.name}/measure", measure)
        own = self._own_costs(measure)
        self.scheduler.add_costs([own, *map(self._costs_of, processes.others)])
        state = before or RunState(identity, self._batch_tokens(), self._compiled())
        prepare_folder(self.job.out, state, is_new=before is None)
        self.scheduler.schedule(state.batch_tokens, self._has_part)
        return state

    def _own_costs(self, load: bool) -> list[list[RowCost]]:
        """What this process's share of the rows costs. load: a thread works that out while the model is loaded."""
        stop, workers = Event(), self.job.context.workers
        work_out: Callable[[], list[list[RowCost]]]
        if workers:
            work_out = partial(workers.costs, self.scheduler, stop)
        else:
            work_out = partial(self.scheduler.costs, self.processes.rank, self.processes.count, stop)
        if not load:
            return work_out()
        with ThreadPoolExecutor(1) as pool:
            try:
                costs = pool.submit(work_out)
                self.loader.load()
                return costs.result()
            finally:
                stop.set()  # where loading failed or was interrupted, nobody needs them

    def _costs_of(self, rank: int) -> list[list[RowCost]]:
        """What another process's share of the rows costs."""
        return self.scheduler.costs_from_json(self._offered("costs", rank), rank, self.processes.count)

    def _offered(self, what: str, rank: int) -> Any:
        """What another process has published with `_offer`; waits for it. what: `costs` or `tokens`."""
        return self.processes.receive(f"{self.name}/{what}/{rank}", rank)

    def _batch_tokens(self) -> int:
        """Tokens of a batch: as asked for, else what fits into the smallest memory of all processes."""
        if self.job.options.batch_tokens is not None:
            return self.job.options.batch_tokens
        fitting: list[int] = [self.loader.batch_tokens()]
        fitting += [self._offered("tokens", rank) for rank in self.processes.others]
        return min(fitting)

    def _compiled(self) -> bool:
        """Whether the layers are compiled: as asked for, else where that saves time."""
        options = self.job.options
        if options.compile != "auto":
            return options.compile == "on"
        if self.loader.compiled:  # by the run before
            return True
        if options.device_map == "auto" or self.job.context.workers:
            return False
        tokens = self.scheduler.tokens * len(self.job.plan.members) // self.processes.count
        pays, reason = compiling_pays(self.job.plan.base, tokens)
        if reason:
            self.say(reason)
        return pays

    def _report(self) -> None:
        """Say what a person should know about the schedule."""
        scheduler, rows = self.scheduler, len(self.scheduler.scorable)
        if note := scheduler.describe_fixed():
            self.say(note)
            self.job.plan.notes.append(note)
        if scheduler.rows_done:
            self.say(f"going on: {scheduler.rows_done:,} of {rows:,} rows have their scores already")

    # ------------------------------------------------------------ the other processes
    def _offer(self) -> None:
        """Tell the first process what this share of the rows costs, and how many tokens of a batch fit here."""
        rank, measure = self.processes.rank, self.processes.receive(f"{self.name}/measure")
        self.processes.publish(f"{self.name}/costs/{rank}", costs_to_json(self._own_costs(measure)))
        if measure:
            self.processes.publish(f"{self.name}/tokens/{rank}", self.loader.batch_tokens())
