"""The processes of one call, as torchrun or accelerate starts them: what they tell one another, and who fell silent.

They talk through the group's key-value store alone, so that none waits in a collective for one that is gone. Every wait
ends: with what was waited for, with the message of a process that failed, or with the name of one that is silent.
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
from functools import cache
from hashlib import sha256
from uuid import uuid4

import torch
import torch.distributed as dist

from scoring.errors import UserError

# Seconds: between signs of life; without one, until a process is taken for dead; until all have come together; that
# those who are alive are waited for though nothing moves; that one which fails waits for the others to hear of it.
BEAT, SILENT, JOIN, STUCK, PARTING = 1.0, 60.0, 600.0, 3_600.0, 5.0
POLL = 0.002
PIECE = 2**20  # characters of one value: the store takes no more than 8 MiB


class ProcessError(UserError):
    """Another process of the call failed or is gone. original, code: its own message and exit code, where it told."""

    def __init__(self, message: str, original: str = "", code: int = 1):
        super().__init__(message)
        self.original, self.code = original, code


@contextmanager
def _connected():
    try:
        yield
    except dist.DistError as error:
        reason = str(error).strip().split("\n")[0]
        raise ProcessError(f"the first process, or the network to it, is gone ({reason}); start all again") from None


@dataclass
class Processes:
    """This process among `count`; the one of rank 0 plans, shows and writes.

    kept: what outlives this start of the call, where torchrun starts it anew. beside: those whose faults end this one
    too, though it shares no work with them. gone: who fell silent, and was done without.
    """

    rank: int = 0
    count: int = 1
    store: dist.Store = field(default_factory=dist.HashStore)
    kept: dist.Store = field(default_factory=dist.HashStore)
    beside: "Processes | None" = None
    gone: set[int] = field(default_factory=set)
    stop: threading.Event | None = None  # once it is set, a wait for what may take long ends with KeyboardInterrupt
    heard: dict[int, tuple[int, float]] = field(default_factory=dict)  # of each: signs of life, and when it was new
    looked: float = 0.0

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def others(self) -> list[int]:
        return [rank for rank in range(self.count) if rank != self.rank and rank not in self.gone]

    @property
    def name(self) -> str:
        return f"process {self.rank} on {socket.gethostname()}"

    @property
    def mark(self) -> str:
        """What tells this process's unfinished files from the others'; "" for the first, which knows its own."""
        return "" if self.first else f".{socket.gethostname()}-{os.getpid()}"

    def live(self) -> None:
        """Give signs of life from now on, until Python ends: a thread in the store's code then would abort it."""
        ended = threading.Event()

        def beat():
            with suppress(dist.DistError):  # the store is gone; whoever waits for something will tell
                self.store.add(f"alive/{self.rank}", 1)
                while not ended.wait(BEAT):
                    self.store.add(f"alive/{self.rank}", 1)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        atexit.register(lambda: (ended.set(), thread.join(5)))

    def alone(self) -> "Processes":
        """For work that this process does by itself, while it still ends with the others' faults."""
        return Processes(beside=self)

    # ------------------------------------------------------------ telling and hearing
    def tell(self, key: str, value) -> None:
        """value: what JSON can hold."""
        data = json.dumps(value)
        pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        with _connected():
            for number, piece in enumerate(pieces):
                self.store.set(f"{key}/{number}", piece)
            self.store.set(key, str(len(pieces)))

    def told(self, key: str) -> bool:
        with _connected():
            return self.store.check([key])

    def hear(self, key: str, rank: int = 0):
        """What process `rank` told, waiting for it. Raises ProcessError."""
        self.wait(lambda: self.told(key), [rank], stoppable=True)
        with _connected():
            pieces = range(int(self.store.get(key)))
            return json.loads(b"".join(self.store.get(f"{key}/{number}") for number in pieces))

    def gather(self, place: str, value) -> list:
        """What each tells there, by rank, this process `value`."""
        self.tell(f"{place}/{self.rank}", value)
        return [self.hear(f"{place}/{rank}", rank) for rank in range(self.count)]

    def once(self, what: str) -> bool:
        """Whether this is the first time, also if the call was started anew since."""
        with _connected():
            return self.kept.add(f"once/{what}", 1) == 1

    def count_up(self, key: str, more: int = 1) -> int:
        """Add to a number that all share, which begins with 0; the sum."""
        with _connected():
            return self.store.add(key, more)

    def wait(self, done: Callable[[], bool], ranks: Iterable[int], stoppable: bool = False) -> None:
        """Until `done()`. Raises ProcessError where a process failed, or one of `ranks` is silent or stuck."""
        until = time.monotonic() + STUCK
        while not done():
            if stoppable and self.stop and self.stop.is_set():
                raise KeyboardInterrupt
            if gone := self.silent(ranks):
                raise ProcessError(
                    f"process {gone[0]} of {self.count} has given no sign of life for {SILENT:.0f} s; start all again"
                )
            if time.monotonic() > until:
                raise ProcessError(f"one of processes {[*ranks]} is stuck for {STUCK:.0f} s; start all again")
            time.sleep(POLL)

    def meet(self, place: str) -> None:
        """Wait until all are here. Raises ProcessError where one will not come."""
        if self.count > 1:
            self.count_up(f"here/{place}")
            self.wait(lambda: self.count_up(f"here/{place}", 0) == self.count, self.others)

    def silent(self, ranks: Iterable[int]) -> list[int]:
        """Those of `ranks` that are taken for dead. Raises ProcessError where a process has failed."""
        now = time.monotonic()
        if now - self.looked > BEAT / 4:
            self.looked = now
            self.raise_fault()
            for rank in self.others:
                signs = self.count_up(f"alive/{rank}", 0)
                if rank not in self.heard or self.heard[rank][0] != signs:
                    self.heard[rank] = signs, now
        return [rank for rank in ranks if rank in self.heard and now - self.heard[rank][1] > SILENT]

    # ------------------------------------------------------------ faults
    def fail(self, text: str, code: int) -> None:
        """Let the others end with this message and exit code; only the first of a call counts."""
        with suppress(ProcessError):  # where nobody is left to hear it
            if self.count_up("faults") > 1:
                self.part()
                return
            self.tell("fault", [f"{self.name}: {text}", text, code, self.rank])
            until = time.monotonic() + PARTING
            while self.count_up("faults heard", 0) < self.count - 1 and time.monotonic() < until:
                time.sleep(POLL)

    def part(self) -> None:
        """This process ends for the fault of another, and has said what it had to say: the store may go."""
        with suppress(ProcessError):
            self.count_up("faults heard")

    def raise_fault(self) -> None:
        if self.beside:
            self.beside.raise_fault()
        elif self.count > 1 and self.told("fault"):
            *fault, rank = self.hear("fault")
            if rank != self.rank:
                raise ProcessError(*fault)

    def first_to_say(self, text: str) -> bool:
        """Whether no other process of this host has said that."""
        with suppress(ProcessError):
            return self.count_up(f"said/{socket.gethostname()}/{sha256(text.encode()).hexdigest()}") == 1
        return True


@cache
def join() -> Processes:
    """This process's place in its call, by what torchrun and accelerate put into the environment; alone without that.

    Each takes a card of its own. Raises ProcessError where the others do not come.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Processes()
    from torch.distributed.rendezvous import rendezvous

    try:
        kept, rank, count = next(rendezvous("env://", timeout=timedelta(seconds=JOIN)))
        store = _of_this_start(kept, rank, count)
    except (ValueError, RuntimeError) as error:
        raise ProcessError(
            f"the {os.environ['WORLD_SIZE']} processes of WORLD_SIZE do not come together ({error}); expected RANK, "
            "WORLD_SIZE, MASTER_ADDR and MASTER_PORT as torchrun sets them: start with it, or unset WORLD_SIZE"
        ) from None
    take_card(int(os.environ.get("LOCAL_RANK", rank)))
    if torch.cuda.is_available():
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", count))  # torchrun gives each one thread of the host
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // beside))
    found = Processes(rank, count, store, kept)
    found.live()
    return found


def _of_this_start(kept: dist.Store, rank: int, count: int) -> dist.Store:
    """The part of the store that is this start's own: where torchrun starts all anew, it keeps the store as it was.

    Each says hello by a name that it makes up, and the first tells it the part's. To what an earlier start left it
    answers too, and nobody hears it. Raises RuntimeError where one does not come.
    """
    own = uuid4().hex
    if rank:
        kept.set(f"hello/{rank}", own)
        part = dist.PrefixStore(kept.get(f"welcome/{own}").decode(), kept)  # it waits for that
        part.add("here", 1)
        return part
    part, until = dist.PrefixStore(own, kept), time.monotonic() + JOIN
    while (here := part.add("here", 0)) < count - 1:
        for other in range(1, count):
            if kept.check([f"hello/{other}"]):
                kept.set(f"welcome/{kept.get(f'hello/{other}').decode()}", own)
        if time.monotonic() > until:
            raise RuntimeError(f"{here + 1} came")
        time.sleep(POLL)
    return part


def take_card(number: int) -> None:
    """Let this process see one of its host's cards alone: as the first, for which compiled layers are on the disk."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # "": they are hidden on purpose
    names = [str(card) for card in range(_cards())] if visible is None else visible.split(",")
    if len(names) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]


def _cards() -> int:
    """How many there are, asked without CUDA, which would keep to them."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


@dataclass
class Queue:
    """Batches that all take from, one at a time: a slow card takes fewer, and a hard region holds nobody up."""

    processes: Processes
    name: str
    todo: list[int]

    def take(self) -> Iterator[int]:
        """A batch for this process, again and again, until none is left. Raises ProcessError where a process failed."""
        while (at := self.processes.count_up(f"{self.name}/taken") - 1) < len(self.todo):
            self.processes.raise_fault()
            yield self.todo[at]

    def over(self, report: dict) -> None:
        """This process has filed what it took, and takes no more."""
        self.processes.tell(f"{self.name}/over/{self.processes.rank}", report)

    def filed(self, rows: int) -> int:
        """So many rows more are filed; how many by all."""
        return self.processes.count_up(f"{self.name}/rows", rows)

    def settle(self, each: Callable[[int], object], patience: float = STUCK) -> tuple[dict[int, dict], list[int]]:
        """For the first process, when it has nothing left to take: the others' reports by rank, and who fell silent.

        Those that did are done without from now on.

        `each(rows)` is told meanwhile how many rows all have filed. Raises ProcessError where for `patience` seconds
        nothing is filed.
        """
        processes, reports, before = self.processes, {}, set(self.processes.gone)
        rows, moved = -1, time.monotonic()
        while waiting := [rank for rank in processes.others if rank not in reports]:
            for rank in waiting:
                if processes.told(f"{self.name}/over/{rank}"):
                    reports[rank] = processes.hear(f"{self.name}/over/{rank}", rank)
            processes.gone.update({*processes.silent(waiting)} - {*reports})
            last, rows = rows, self.filed(0)
            each(rows)
            if rows != last:
                moved = time.monotonic()
            elif time.monotonic() - moved > patience:
                raise ProcessError(f"processes {waiting} are stuck for {patience:.0f} s; start all again")
            if processes.stop and processes.stop.is_set():
                raise KeyboardInterrupt
            time.sleep(POLL)
        return reports, sorted(processes.gone - before)


@dataclass
class SharedBar:
    """A progress bar (or none) of what all processes have filed."""

    bar: object | None
    queue: Queue
    shown: int = 0

    def update(self, rows: int) -> None:
        """So many rows more are filed by this process."""
        if self.bar and torch.cuda.is_available():
            self.bar.show(GPU=f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB")
        self.show_all(self.queue.filed(rows))

    def show_all(self, rows: int) -> None:
        if self.bar and rows > self.shown:
            self.bar.update(rows - self.shown)
            self.shown = rows

    def close(self) -> None:
        if self.bar:
            self.bar.close()
