"""Gives batches to actors, and goes on when one is lost: its batches go to others, and another actor is started.

Ray finds out what is lost, and finds room for what is started anew. A batch that is lost again and again ends the run:
from the second time on it is alone in its actor, so that it is known which one it is.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

from scoring.cluster.calls import LostError, result_of
from scoring.cluster.connection import ClusterError
from scoring.cluster.head import Head
from scoring.errors import counted
from scoring.messages import Say

if TYPE_CHECKING:
    from scoring.cluster.actor import Answered, Loaded
    from scoring.run.scheduler import Batch

IN_HAND = 3  # batches of an actor: one on the device, the others are prepared
ATTEMPTS = 3  # of a batch or fold, and of actors to start
START_SECONDS = 900.0  # to wait for actors when none is there
STUCK_SECONDS = 3_600.0  # without an answer
PARTING_SECONDS = 60.0  # to wait for batches or steps in hand once the run is to stop
POLL = 0.5
STAGES = {  # what Ray's dashboard calls them
    "adopt": "take over a plan",
    "machine": "look at the machine",
    "load": "load the model",
    "prepare": "verify the model",
    "answer": "answer a batch",
}


@dataclass(eq=False)
class _Task:
    """A batch on its way, and how many actors were lost with it."""

    batch: "Batch"
    lost: int = 0


@dataclass(eq=False)
class _Member:
    """An actor and what it has in hand."""

    handle: Any
    tasks: dict[Any, _Task] = field(default_factory=dict)

    def takes(self, task: _Task) -> bool:
        """Whether it has room: a batch with which an actor was lost is given out alone."""
        if task.lost or any(each.lost for each in self.tasks.values()):
            return not self.tasks
        return len(self.tasks) < IN_HAND


class ActorPool:
    """Actors that answer batches. create: makes one, for which Ray finds a place."""

    def __init__(self, create: Callable[[], Any], count: int, say: Say, stop: Event):
        self.create, self.count, self.say, self.stop = create, count, say, stop
        self.head = Head.of_cluster()
        self.members: list[_Member] = [_Member(create()) for _ in range(count)]
        self._starting: dict[Any, _Member] = {}
        self._failed_starts = 0

    def close(self) -> None:
        """End the actors."""
        import ray

        for member in [*self.members, *self._starting.values()]:
            ray.kill(member.handle)
        self.members, self._starting = [], {}

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """The results of a method of all actors; one that is lost meanwhile is replaced.

        Raises what the method raises, and ClusterError where actors are lost again and again or find no room, or the
        head is gone.
        """
        import ray

        results: dict[_Member, Any] = {}
        asked = {_ask(member, method, arguments): member for member in self.members}
        until, lost = time.monotonic() + START_SECONDS, 0
        while asked:
            if self.stop.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > until:
                raise ClusterError(
                    f"{len(asked)} of {counted(len(self.members), 'actor')} did not start within {START_SECONDS:.0f} "
                    "s; expected room for all (`ray status` tells what is asked for)"
                )
            self.head.check()
            done, _ = ray.wait([*asked], timeout=POLL)
            for ref in done:
                member = asked.pop(ref)
                try:
                    results[member] = result_of(ref)
                except LostError as error:
                    lost += 1
                    if lost == ATTEMPTS:
                        raise _lost_while_loading(error) from None
                    self.say(f"an actor is lost ({error}); another is started")
                    ray.kill(member.handle)
                    member.handle = self._create()
                    asked[_ask(member, method, arguments)] = member
        return [results[member] for member in self.members]

    def renew(self) -> None:
        """Start the actors anew that were being started: what they are to load has changed."""
        import ray

        for member in self._starting.values():
            ray.kill(member.handle)
        self._starting, self._failed_starts = {}, 0
        while len(self.members) + len(self._starting) < self.count:
            self._start()

    def load(self) -> "list[Loaded]":
        """Load the model everywhere. Raises as `call`."""
        return self.call("load")

    # ------------------------------------------------------------ batches
    def answers(self, batches: "Sequence[Batch]", orders: str, split: int = 1) -> "Iterator[Answered]":
        """The answers of all batches, as they come. orders, split: see `ModelActor.answer`.

        Raises what an actor raises, ClusterError where that goes on without end or the head is gone, and
        KeyboardInterrupt once the run is to stop and what is in hand was answered.
        """
        import ray

        waiting = deque(_Task(batch) for batch in batches)
        moved = time.monotonic()
        while waiting or any(member.tasks for member in self.members):
            stopping = self.stop.is_set()
            if not stopping:
                self._give_out(waiting, (orders, split))
            refs = {ref: member for member in self.members for ref in member.tasks}
            if stopping and (not refs or time.monotonic() - moved > PARTING_SECONDS):
                raise KeyboardInterrupt
            done, _ = ray.wait([*refs, *self._starting], num_returns=1, timeout=POLL)
            for ref in done:
                moved = time.monotonic()
                if ref in self._starting:
                    self._welcome(ref)
                elif ref in refs[ref].tasks:
                    yield from self._take(refs[ref], ref, waiting)
            self._check_moving(moved)
            self.head.check()

    def _give_out(self, waiting: deque[_Task], arguments: tuple[str, int]) -> None:
        """Give the first batches that wait to actors with room, the least busy first."""
        while waiting:
            able = [member for member in self.members if member.takes(waiting[0])]
            if not able:
                return
            member, task = min(able, key=lambda each: len(each.tasks)), waiting.popleft()
            member.tasks[_ask(member, "answer", (task.batch, *arguments))] = task

    def _take(self, member: _Member, ref: Any, waiting: deque[_Task]) -> "Iterator[Answered]":
        """The answer of a batch; where its actor is lost, its batches wait again."""
        try:
            answered: Answered = result_of(ref)
        except LostError as error:
            self._replace(member, waiting, str(error))
            return
        del member.tasks[ref]
        yield answered

    def _replace(self, member: _Member, waiting: deque[_Task], reason: str) -> None:
        """Another actor in place of one that is lost. Raises ClusterError for a batch that was lost too often."""
        import ray

        self.members.remove(member)
        ray.kill(member.handle)  # where Ray could not reach it, it may live on
        for task in reversed(member.tasks.values()):
            task.lost += 1
            if task.lost == ATTEMPTS:
                rows = task.batch.questions
                raise ClusterError(
                    f"{counted(ATTEMPTS, 'actor')} ended while answering batch {task.batch.number} (rows "
                    f"{rows[0].id!r} to {rows[-1].id!r}), the last: {reason}"
                )
            waiting.appendleft(task)
        self.say(f"an actor is lost ({reason}); batches that wait for another: {len(member.tasks)}")
        self._start_another(reason)

    def _create(self) -> Any:
        if not self.head.wait(self.stop):  # without it, Ray would not return from here
            raise KeyboardInterrupt
        return self.create()

    def _start(self) -> None:
        member = _Member(self._create())
        self._starting[_ask(member, "load", ())] = member

    def _start_another(self, reason: str) -> None:
        """Start one, unless too many were lost while they loaded. Raises ClusterError where none is left then."""
        if self._failed_starts < ATTEMPTS:
            self._start()
        elif not self.members and not self._starting:
            raise _lost_while_loading(reason)

    def _welcome(self, ref: Any) -> None:
        """Take in an actor that has loaded its model. Raises ClusterError where too many are lost while they do."""
        member = self._starting.pop(ref)
        try:
            result_of(ref)
        except LostError as error:
            self._failed_starts += 1
            if self._failed_starts == ATTEMPTS and self.members:
                left = counted(len(self.members), "actor")
                self.say(f"{ATTEMPTS} actors ended while loading, the last: {error}; going on with {left}")
            self._start_another(str(error))
            return
        self._failed_starts = 0
        self.members.append(member)

    def _check_moving(self, moved: float) -> None:
        """Raises ClusterError where nothing happens for too long."""
        silent = time.monotonic() - moved
        if not self.members and silent > START_SECONDS:
            raise ClusterError(
                f"no actor is left, and none could be started for {START_SECONDS:.0f} s; the same command goes on once "
                "the cluster has room"
            )
        if silent > STUCK_SECONDS:
            raise ClusterError(f"no batch was answered for {STUCK_SECONDS:.0f} s; the same command goes on")


def _ask(member: _Member, method: str, arguments: tuple[Any, ...]) -> Any:
    """Call a method of an actor, under its stage's name."""
    return getattr(member.handle, method).options(name=STAGES.get(method, method)).remote(*arguments)


def _lost_while_loading(reason: object) -> ClusterError:
    return ClusterError(
        f"{counted(ATTEMPTS, 'actor')} ended while loading, the last: {reason}; expected a model that fits into the "
        "memory of a node; the same command goes on"
    )
