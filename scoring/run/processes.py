"""The processes of one call, as torchrun or accelerate starts them, and their messages.

They communicate through the group's key-value store alone, so that none blocks in a collective with one that is gone.
Every wait ends: with what was waited for, with the message of a process that failed, or after a time limit. Where one
dies, torchrun ends the others of its host before that; the same command then goes on with what is filed.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store  # dist's, with their types
from torch.distributed.rendezvous import rendezvous

from scoring.errors import ScoringError
from scoring.messages import ProgressBar

JOIN = 600.0  # seconds to wait at the start until all processes are there
LIMIT = 3_600.0  # seconds to wait for processes that make no progress
PARTING = 5.0  # seconds that a process which fails waits until the others have read its message
POLL = 0.002  # seconds between two looks into the store
PIECE = 2**20  # characters of one value: the store takes no more than 8 MiB


class ProcessError(ScoringError):
    """Another process of the call failed, or is waited for in vain. code: the exit code of the call."""

    def __init__(self, message: str, code: int = 1):
        super().__init__(message)
        self.code = code


@contextmanager
def _connected() -> Iterator[None]:
    """Inside, an error of the store becomes a ProcessError."""
    try:
        yield
    except dist.DistError as error:
        reason = str(error).strip().split("\n")[0]
        raise ProcessError(f"the first process, or the network to it, is gone ({reason}); start all again") from None


@dataclass
class Processes:
    """This process among `count`. The one of rank 0 plans, prints and writes.

    lasting_store: outlives this start of the call, where torchrun starts it again. parent: those whose errors end this
    process too, though it shares no work with them. stop: once it is set, a wait for something that may take long ends
    with KeyboardInterrupt.
    """

    rank: int = 0
    count: int = 1
    store: Store = field(default_factory=HashStore)
    lasting_store: Store = field(default_factory=HashStore)
    parent: "Processes | None" = None
    stop: threading.Event | None = None

    @property
    def first(self) -> bool:
        """Whether this process plans, prints and writes."""
        return self.rank == 0

    @property
    def others(self) -> list[int]:
        """The ranks of the other processes."""
        return [rank for rank in range(self.count) if rank != self.rank]

    @property
    def name(self) -> str:
        """What messages call this process."""
        return f"process {self.rank} on {socket.gethostname()}"

    @property
    def mark(self) -> str:
        """Tells this process's unfinished files from the others'; "" for the first process."""
        return "" if self.first else f".{socket.gethostname()}-{os.getpid()}"

    def alone(self) -> "Processes":
        """For work that this process does by itself, while it still ends with the others' errors."""
        return Processes(parent=self)

    # ------------------------------------------------------------ messages
    def publish(self, key: str, value: Any) -> None:
        """Let the other processes receive `value`, which JSON can hold."""
        data = json.dumps(value)
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        with _connected():
            for number, piece in enumerate(pieces):
                self.store.set(f"{key}/{number}", piece)
            self.store.set(key, str(len(pieces)))

    def is_published(self, key: str) -> bool:
        """Whether a process has published a value under this key."""
        with _connected():
            return bool(self.store.check([key]))

    def receive(self, key: str, rank: int = 0, progress: Callable[[], int] = int, limit: float | None = None) -> Any:
        """What process `rank` publishes; waits for it as `wait` does. Raises ProcessError."""
        self.wait(lambda: self.is_published(key), [rank], True, progress, limit)
        with _connected():
            pieces = range(int(self.store.get(key)))
            return json.loads(b"".join(self.store.get(f"{key}/{number}") for number in pieces))

    def gather(self, key: str, value: Any) -> list[Any]:
        """What each process publishes there, by rank; this process publishes `value`."""
        self.publish(f"{key}/{self.rank}", value)
        return [self.receive(f"{key}/{rank}", rank) for rank in range(self.count)]

    def first_time(self, action: str) -> bool:
        """Whether nobody has asked for this action before, also not before the call was started again."""
        with _connected():
            return bool(self.lasting_store.add(f"first/{action}", 1) == 1)

    def add(self, key: str, amount: int = 1) -> int:
        """Add to a number that all share, which starts at 0; the sum."""
        with _connected():
            return int(self.store.add(key, amount))

    def barrier(self, key: str) -> None:
        """Wait until all processes are here. Raises ProcessError where one will not come."""
        if self.count > 1:
            self.add(f"barrier/{key}")
            self.wait(lambda: self.add(f"barrier/{key}", 0) == self.count, self.others)

    def wait(
        self,
        done: Callable[[], bool],
        ranks: list[int],
        stoppable: bool = False,
        progress: Callable[[], int] = int,
        limit: float | None = None,
    ) -> None:
        """Wait until `done()`, as `ranks` will make it.

        Raises ProcessError where a process failed, or where `progress()` stays the same for `limit` seconds (default:
        LIMIT).
        """
        reached, since, limit = progress(), time.monotonic(), limit or LIMIT
        while not done():
            self.raise_fault()
            if stoppable and self.stop and self.stop.is_set():
                raise KeyboardInterrupt
            if (now := progress()) != reached:
                reached, since = now, time.monotonic()
            if time.monotonic() - since > limit:
                names = " and ".join(map(str, ranks))
                raise ProcessError(f"waited {limit:,.0f} s in vain for process {names}; start all again")
            time.sleep(POLL)

    # ------------------------------------------------------------ errors
    def fail(self, text: str, code: int) -> None:
        """Let the others end with this message and exit code; only the first failure of a call counts."""
        with suppress(ProcessError):  # where nobody is left to read it
            if self.add("faults") > 1:
                self.leave()
                return
            self.publish("fault", [f"{self.name}: {text}", code])
            until = time.monotonic() + PARTING
            while self.add("faults read", 0) < self.count - 1 and time.monotonic() < until:
                time.sleep(POLL)

    def leave(self) -> None:
        """This process ends because of another's error: the store may go."""
        with suppress(ProcessError):
            self.add("faults read")

    def raise_fault(self) -> None:
        """Raises ProcessError where another process has failed."""
        if self.count > 1 and self.is_published("fault"):
            message, code = self.receive("fault")
            raise ProcessError(message, code)

    def count_step(self) -> None:
        """A step of work that is done alone: the others see that it goes on. Raises ProcessError where one failed."""
        if self.parent:
            self.parent.add("steps")
            self.parent.raise_fault()

    def is_first_to_say(self) -> bool:
        """Whether no other process of this host has said why the call ends."""
        with suppress(ProcessError):
            return self.add(f"said/{socket.gethostname()}") == 1
        return True


def join(stop: threading.Event | None = None) -> Processes:
    """This process's place in its call, by what torchrun and accelerate put into the environment; alone without that.

    Each process takes a card of its own. stop: see `Processes`. Raises ProcessError where the others do not come.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes(stop=stop)

    try:
        lasting_store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=JOIN)))
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"the {os.environ['WORLD_SIZE']} processes of WORLD_SIZE do not come together ({error}); expected RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them: start with it, or unset WORLD_SIZE"
        ) from None
    take_card(int(os.environ.get("LOCAL_RANK", rank)))
    if torch.cuda.is_available():
        on_host = int(os.environ.get("LOCAL_WORLD_SIZE", count))  # torchrun gives each one thread of the host
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // on_host))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun keeps its store where it starts all again
    processes = Processes(rank, count, PrefixStore(f"start/{start}", lasting_store), lasting_store, stop=stop)
    if processes.add(f"joined/{rank}") > 1:  # one of several hosts counts only the starts that it began itself
        raise ProcessError("this start reads what an earlier one left; start all again, without automatic restarts")
    return processes


def take_card(number: int) -> None:
    """Let this process see one card of its host alone, as card 0: compiled layers on the disk are for that."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # "": they are hidden on purpose
    names = [str(card) for card in range(_count_cards())] if visible is None else visible.split(",")
    if len(names) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def _count_cards() -> int:
    """The host's cards, counted without CUDA, which would keep to the ones it sees."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


@dataclass
class Queue:
    """Batches that all processes take from, one at a time: a slow card takes fewer, and none waits for a long batch."""

    processes: Processes
    name: str
    todo: list[int]

    def take(self) -> Iterator[int]:
        """A batch for this process, again and again, until none is left. Raises ProcessError where a process failed."""
        while (index := self.processes.add(f"{self.name}/taken") - 1) < len(self.todo):
            self.processes.raise_fault()
            yield self.todo[index]

    def close(self, report: dict[str, Any]) -> None:
        """This process has filed what it took, and takes no more."""
        self.processes.publish(f"{self.name}/closed/{self.processes.rank}", report)

    def collect_reports(self, progress: Callable[[], int], limit: float | None = None) -> dict[int, dict[str, Any]]:
        """For the first process, when nothing is left to take: the reports of the others, by rank.

        progress, limit: see `Processes.wait`. Raises ProcessError.
        """
        receive = self.processes.receive
        return {rank: receive(f"{self.name}/closed/{rank}", rank, progress, limit) for rank in self.processes.others}


@dataclass
class SharedBar:
    """A progress bar (or none) of the rows that all processes have filed."""

    bar: ProgressBar | None
    queue: Queue
    rows: int = 0

    def update(self, rows: int = 0) -> int:
        """This process has filed `rows` more; the rows that all have filed."""
        filed = self.queue.processes.add(f"{self.queue.name}/rows", rows)
        if self.bar and filed > self.rows:
            if torch.cuda.is_available():
                self.bar.show(GPU=f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB")
            self.bar.update(filed - self.rows)
            self.rows = filed
        return filed

    def close(self) -> None:
        if self.bar:
            self.bar.close()
