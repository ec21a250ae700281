"""The processes of one call, as torchrun or accelerate starts them: their messages, and which of them are lost.

They communicate through the group's key-value store alone, so that none blocks in a collective with one that is gone.
Every wait ends: with what was waited for, with the message of a process that failed, or with the name of one that does
not respond.
"""

import atexit
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store  # dist's, with their types

from scoring.errors import ScoringError
from scoring.messages import ProgressBar

BEAT = 1.0  # seconds between two heartbeats of a process
SILENT = 60.0  # seconds without a heartbeat after which a process counts as lost
JOIN = 600.0  # seconds to wait at the start until all processes are there
STUCK = 3_600.0  # seconds to wait for processes that respond, but make no progress
PARTING = 5.0  # seconds that a process which fails waits until the others have read its message
POLL = 0.002  # seconds between two looks into the store
PIECE = 2**20  # characters of one value: the store takes no more than 8 MiB


class ProcessError(ScoringError):
    """Another process of the call failed or is lost. original, code: its own message and exit code, where known."""

    def __init__(self, message: str, original: str = "", code: int = 1):
        super().__init__(message)
        self.original, self.code = original, code


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
    process too, though it shares no work with them. lost: ranks that did not respond, and that no one waits for. stop:
    once it is set, a wait for something that may take long ends with KeyboardInterrupt.
    """

    rank: int = 0
    count: int = 1
    store: Store = field(default_factory=HashStore)
    lasting_store: Store = field(default_factory=HashStore)
    parent: "Processes | None" = None
    stop: threading.Event | None = None
    lost: set[int] = field(default_factory=set)
    heartbeats: dict[int, tuple[int, float]] = field(default_factory=dict)  # rank -> the last count, and when it rose
    checked_at: float = 0.0

    @property
    def first(self) -> bool:
        """Whether this process plans, prints and writes."""
        return self.rank == 0

    @property
    def others(self) -> list[int]:
        """The ranks of the other processes that are not lost."""
        return [rank for rank in range(self.count) if rank != self.rank and rank not in self.lost]

    @property
    def name(self) -> str:
        """What messages call this process."""
        return f"process {self.rank} on {socket.gethostname()}"

    @property
    def mark(self) -> str:
        """Tells this process's unfinished files from the others'; "" for the first process."""
        return "" if self.first else f".{socket.gethostname()}-{os.getpid()}"

    def start_heartbeat(self) -> None:
        """Count up in the store from now on, until Python ends: a thread in the store's code then would abort it."""
        ended = threading.Event()

        def beat() -> None:
            with suppress(dist.DistError):  # the store is gone; whoever waits for something will say so
                self.store.add(f"alive/{self.rank}", 1)
                while not ended.wait(BEAT):
                    self.store.add(f"alive/{self.rank}", 1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()

        def end() -> None:
            ended.set()
            thread.join(5)

        atexit.register(end)

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

    def receive(self, key: str, rank: int = 0) -> Any:
        """What process `rank` publishes; waits for it. Raises ProcessError."""
        self.wait(lambda: self.is_published(key), [rank], stoppable=True)
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

    def wait(self, done: Callable[[], bool], ranks: Iterable[int], stoppable: bool = False) -> None:
        """Wait until `done()`. Raises ProcessError where a process failed, or one of `ranks` is lost or stuck."""
        until = time.monotonic() + STUCK
        while not done():
            if stoppable and self.stop and self.stop.is_set():
                raise KeyboardInterrupt
            if silent := self.find_silent(ranks):
                raise ProcessError(
                    f"process {silent[0]} of {self.count} has not responded for {SILENT:.0f} s; start all again"
                )
            if time.monotonic() > until:
                raise ProcessError(f"one of processes {[*ranks]} has been stuck for {STUCK:.0f} s; start all again")
            time.sleep(POLL)

    def barrier(self, key: str) -> None:
        """Wait until all processes are here. Raises ProcessError where one will not come."""
        if self.count > 1:
            self.add(f"barrier/{key}")
            self.wait(lambda: self.add(f"barrier/{key}", 0) == self.count, self.others)

    def find_silent(self, ranks: Iterable[int]) -> list[int]:
        """Those of `ranks` that are lost. Raises ProcessError where a process has failed."""
        now = time.monotonic()
        if now - self.checked_at > BEAT / 4:
            self.checked_at = now
            self.raise_fault()
            for rank in self.others:
                count = self.add(f"alive/{rank}", 0)
                if rank not in self.heartbeats or self.heartbeats[rank][0] != count:
                    self.heartbeats[rank] = count, now
        return [rank for rank in ranks if rank in self.heartbeats and now - self.heartbeats[rank][1] > SILENT]

    # ------------------------------------------------------------ errors
    def fail(self, text: str, code: int) -> None:
        """Let the others end with this message and exit code; only the first failure of a call counts."""
        with suppress(ProcessError):  # where nobody is left to read it
            if self.add("faults") > 1:
                self.leave()
                return
            self.publish("fault", [f"{self.name}: {text}", text, code, self.rank])
            until = time.monotonic() + PARTING
            while self.add("faults read", 0) < self.count - 1 and time.monotonic() < until:
                time.sleep(POLL)

    def leave(self) -> None:
        """This process ends because of another's error, and has printed its message: the store may go."""
        with suppress(ProcessError):
            self.add("faults read")

    def raise_fault(self) -> None:
        """Raises ProcessError where another process has failed."""
        if self.parent:
            self.parent.raise_fault()
        elif self.count > 1 and self.is_published("fault"):
            message, original, code, rank = self.receive("fault")
            if rank != self.rank:
                raise ProcessError(message, original, code)

    def first_to_say(self, text: str) -> bool:
        """Whether no other process of this host has said that."""
        with suppress(ProcessError):
            return self.add(f"said/{socket.gethostname()}/{sha256(text.encode()).hexdigest()}") == 1
        return True


def join(stop: threading.Event | None = None) -> Processes:
    """This process's place in its call, by what torchrun and accelerate put into the environment; alone without that.

    Each process takes a card of its own. stop: see `Processes`. Raises ProcessError where the others do not come.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes(stop=stop)
    from torch.distributed.rendezvous import rendezvous

    try:
        lasting_store, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=JOIN)))
        store = _store_of_this_start(lasting_store, rank, count)
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"the {os.environ['WORLD_SIZE']} processes of WORLD_SIZE do not come together ({error}); expected RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them: start with it, or unset WORLD_SIZE"
        ) from None
    take_card(int(os.environ.get("LOCAL_RANK", rank)))
    if torch.cuda.is_available():
        on_host = int(os.environ.get("LOCAL_WORLD_SIZE", count))  # torchrun gives each one thread of the host
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // on_host))
    processes = Processes(rank, count, store, lasting_store, stop=stop)
    processes.start_heartbeat()
    return processes


def _store_of_this_start(lasting_store: Store, rank: int, count: int) -> Store:
    """The part of the store that belongs to this start: where torchrun starts all again, it keeps the store as it was.

    Each process registers under a name that it makes up, and the first answers with the part's name. It answers too
    what an earlier start has left there, and nobody reads that. Raises RuntimeError where a process does not come.
    """
    name = uuid4().hex
    if rank:
        lasting_store.set(f"hello/{rank}", name)
        part = PrefixStore(lasting_store.get(f"welcome/{name}").decode(), lasting_store)  # it waits for that
        part.add("joined", 1)
        return part
    part, until = PrefixStore(name, lasting_store), time.monotonic() + JOIN
    while (joined := part.add("joined", 0)) < count - 1:
        for other in range(1, count):
            if lasting_store.check([f"hello/{other}"]):
                lasting_store.set(f"welcome/{lasting_store.get(f'hello/{other}').decode()}", name)
        if time.monotonic() > until:
            raise RuntimeError(f"{joined + 1} came")
        time.sleep(POLL)
    return part


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

    def count_filed(self, rows: int) -> int:
        """Count `rows` more as filed; the rows filed by all processes."""
        return self.processes.add(f"{self.name}/rows", rows)

    def collect_reports(
        self, show: Callable[[int], object], patience: float = STUCK
    ) -> tuple[dict[int, dict[str, Any]], list[int]]:
        """For the first process, when nothing is left to take: the reports of others by rank, and which ranks are lost.

        No one waits for those any more. show: called with the rows that all have filed, while this waits. Raises
        ProcessError where nothing is filed for `patience` seconds.
        """
        processes, before = self.processes, set(self.processes.lost)
        reports: dict[int, dict[str, Any]] = {}
        rows, moved = -1, time.monotonic()
        while waiting := [rank for rank in processes.others if rank not in reports]:
            for rank in waiting:
                if processes.is_published(f"{self.name}/closed/{rank}"):
                    reports[rank] = processes.receive(f"{self.name}/closed/{rank}", rank)
            processes.lost.update({*processes.find_silent(waiting)} - {*reports})
            last, rows = rows, self.count_filed(0)
            show(rows)
            if rows != last:
                moved = time.monotonic()
            elif time.monotonic() - moved > patience:
                raise ProcessError(f"processes {waiting} have been stuck for {patience:.0f} s; start all again")
            if processes.stop and processes.stop.is_set():
                raise KeyboardInterrupt
            time.sleep(POLL)
        return reports, sorted(processes.lost - before)


@dataclass
class SharedBar:
    """A progress bar (or none) of the rows that all processes have filed."""

    bar: ProgressBar | None
    queue: Queue
    rows: int = 0

    def update(self, rows: int) -> None:
        """This process has filed `rows` more."""
        if self.bar and torch.cuda.is_available():
            self.bar.show(GPU=f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB")
        self.show_all(self.queue.count_filed(rows))

    def show_all(self, rows: int) -> None:
        """All processes have filed `rows`."""
        if self.bar and rows > self.rows:
            self.bar.update(rows - self.rows)
            self.rows = rows

    def close(self) -> None:
        if self.bar:
            self.bar.close()
