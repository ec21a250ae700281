"""Folds trained on a Ray cluster: an actor for each, which trains it as a process by itself does.

The process that was called plans the folds and shows how far they are; the actors write into its folder, which all
nodes share. A fold whose actor is lost goes on in another one, from its last saved state.
"""

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch

from scoring.cluster.calls import LostError, result_of
from scoring.cluster.connection import ClusterError, Room, environment
from scoring.cluster.head import Head
from scoring.cluster.pool import ATTEMPTS, PARTING_SECONDS, POLL, START_SECONDS
from scoring.engine.batch_scorer import machine
from scoring.files.lock import LockError, check_folder_is_shared
from scoring.messages import ProgressBar
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.trainer import Trainer

SILENT_SECONDS = 3_600.0  # without an answer of any actor
LOCKED_SECONDS = 60.0  # for a process that is no longer waited for to end, and leave the fold's folder


# ------------------------------------------------------------------ in a process of the cluster
@dataclass(frozen=True)
class News:
    """What a fold has to tell. rows: of all its epochs, so far. lines: since the last news."""

    rows: int
    lines: list[str]


@dataclass
class _RowsDone:
    """A progress bar that nobody sees. rows: done so far, also before this start."""

    rows: int = 0

    def begin(self, total: int, done: int = 0, /) -> "_RowsDone":
        self.rows = done
        return self

    def update(self, count: int, /) -> None:
        self.rows += count

    def show(self, **values: str) -> None:
        """Nothing: a bar of several folds has no room for values of one."""

    def close(self) -> None:
        """Nothing is open."""


class FoldActor:
    """Trains one fold, while a second thread answers how far it is."""

    def __init__(self) -> None:
        self.done, self.lines, self.stop = _RowsDone(), list[str](), Event()

    def train(self, inputs: TrainingInputs, folder: Path) -> str | None:
        """Train the fold; None once it is finished, else how far it came before it was stopped.

        folder: where the command was started; paths may be relative to it. Raises TrainError where this node lacks it,
        and what `Trainer.run` raises.
        """
        if not folder.is_dir():
            raise TrainError(f"{folder}: not on {os.uname().nodename}; expected the same folder on every node")
        os.chdir(folder)
        check_folder_is_shared(inputs.out.parent)
        trainer = Trainer(inputs, TrainContext(self.done.begin, self.lines.append, self.stop))
        until = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                trainer.run()
                return None
            except KeyboardInterrupt as stopped:
                return str(stopped)
            except LockError:
                if time.monotonic() > until:
                    raise
                time.sleep(POLL)

    def news(self) -> News:
        """How far the training is."""
        lines, self.lines[:] = [*self.lines], []
        return News(self.done.rows, lines)

    def end(self) -> None:
        """Save the current step, and stop."""
        self.stop.set()


# ------------------------------------------------------------------ in the process that was called
@dataclass(eq=False)
class _Fold:
    """A fold, its actor once it has one, and what it is waited for: its end, and news. lost: actors so far."""

    inputs: TrainingInputs
    actor: Any = None
    ended: Any = None
    asked: Any = None
    begun: bool = False
    rows: int = 0
    lost: int = 0

    @property
    def name(self) -> str:
        return self.inputs.out.name

    @property
    def total(self) -> int:
        """Rows of all epochs."""
        return self.inputs.config.epochs * len(self.inputs.train)


class RayFolds:
    """Trains folds on the cluster that is connected.

    actors: how many folds at a time; None for one on each card, or one on each node where there are no cards. Each has
    as many threads as this process, since the order of sums on a CPU depends on it.
    """

    def __init__(self, actors: int | None = None):
        self.wanted = actors

    def machine(self) -> dict[str, Any]:
        """What the bits depend on where the folds are trained. Raises ClusterError where no process starts there."""
        import ray

        _, options = self._options(1)
        asked = ray.remote(machine).options(name="tell the machine", **options).remote()
        if not ray.wait([asked], timeout=START_SECONDS)[0]:
            raise _no_room()
        try:
            found: dict[str, Any] = result_of(asked)
        except LostError as error:
            raise ClusterError(f"a process ended before it had begun: {error}; the same command goes on") from None
        return found

    def train(self, folds: Sequence[TrainingInputs], context: TrainContext) -> None:
        """Train all folds, each by itself into its folder `out`, side by side.

        Raises what the training of a fold raises, after the others have saved their steps; ClusterError where a fold
        loses its actors again and again, or none finds room, or the cluster's head is gone; KeyboardInterrupt once
        `context.stop` is set and all have saved their steps.
        """
        if folds:
            count, options = self._options(len(folds))
            _Call([_Fold(inputs) for inputs in folds], count, options, context).run()

    def _options(self, folds: int) -> tuple[int, dict[str, Any]]:
        """How many folds at a time, and what a process of theirs takes."""
        count, resources = Room.of_cluster().places(min(self.wanted, folds) if self.wanted else None)
        variables = environment() | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
        return count, {**resources, "scheduling_strategy": "SPREAD", "runtime_env": {"env_vars": variables}}


class _Call:
    """One call's folds: those that wait for an actor, and those that have one."""

    def __init__(self, folds: list[_Fold], count: int, options: dict[str, Any], context: TrainContext):
        self.folds, self.count, self.options, self.context = folds, count, options, context
        self.head = Head.of_cluster()
        self.waiting, self.running = deque(folds), list[_Fold]()
        self.stopped: list[str] = []
        self.bar: ProgressBar | None = None
        self.heard = time.monotonic()  # when an actor answered last

    def run(self) -> None:
        """Until all are trained; see `RayFolds.train`."""
        if self.context.progress:
            self.bar = self.context.progress(sum(fold.total for fold in self.folds), 0)
        try:
            while self.waiting or self.running:
                if self.context.stop.is_set():
                    self._ask_to_stop()
                else:
                    self._start()
                self._take(POLL)
                self.head.check()
            if self.stopped:
                raise KeyboardInterrupt("; ".join(sorted(self.stopped)))
        except Exception:
            if self.head.answers():  # without it, Ray leaves no time
                self._part()
            raise
        finally:
            for fold in [*self.running]:
                self._close(fold)
            if self.bar:
                self.bar.close()

    # ------------------------------------------------------------ beginning
    def _start(self) -> None:
        """Give an actor to each fold that there is room for."""
        import ray

        while self.waiting and len(self.running) < self.count and self.head.wait(self.context.stop):
            fold = self.waiting.popleft()
            fold.actor = ray.remote(FoldActor).options(max_concurrency=2, max_restarts=0, **self.options).remote()
            fold.ended = fold.actor.train.options(name=f"train {fold.name}").remote(fold.inputs, Path.cwd())
            fold.asked, fold.begun = fold.actor.news.remote(), False
            self.running.append(fold)

    # ------------------------------------------------------------ going on
    def _take(self, seconds: float) -> None:
        """Take what the actors tell within so many seconds. Raises what a fold raises, and ClusterError."""
        import ray

        if not self.running:
            return
        ray.wait([fold.ended for fold in self.running], timeout=seconds)
        for fold in [*self.running]:
            if ray.wait([fold.ended], timeout=0)[0]:
                self._end(fold)
            elif ray.wait([fold.asked], timeout=0)[0]:
                self._tell(fold)
                fold.asked = fold.actor.news.remote()
        silent = time.monotonic() - self.heard
        if silent > (SILENT_SECONDS if any(fold.begun for fold in self.running) else START_SECONDS):
            raise _no_room()

    def _tell(self, fold: _Fold) -> None:
        """Print the lines of a fold, and move the bar. One whose actor is lost ends without."""
        try:
            news: News = result_of(fold.asked)
        except LostError:
            return
        fold.begun, self.heard = True, time.monotonic()
        for line in news.lines:
            self.context.say(f"{fold.name}: {line}")
        self._move(fold, news.rows)

    def _move(self, fold: _Fold, rows: int) -> None:
        """The bar as far as this fold is; one that goes on from a saved step does some rows again."""
        if self.bar and rows > fold.rows:
            self.bar.update(rows - fold.rows)
            fold.rows = rows

    def _end(self, fold: _Fold) -> None:
        """A fold's training is over: finished, stopped, failed, or lost with its actor."""
        try:
            stopped: str | None = result_of(fold.ended)
        except LostError as error:
            self._close(fold)
            self._retry(fold, str(error))
            return
        except Exception:
            self._last_words(fold)
            self._close(fold)
            raise
        self._last_words(fold)
        self._close(fold)
        if stopped is None:
            self._move(fold, fold.total)
        else:
            self.stopped.append(f"{fold.name}: {stopped}")

    def _retry(self, fold: _Fold, reason: str) -> None:
        """Let a fold whose actor is lost wait for another. Raises ClusterError where that was the last attempt."""
        fold.lost += 1
        if self.context.stop.is_set():
            self.stopped.append(f"{fold.name}: its process is lost")
            return
        if fold.lost == ATTEMPTS:
            raise ClusterError(
                f"{ATTEMPTS} processes ended while training {fold.name}, the last: {reason}; the same command goes on"
            )
        self.context.say(f"{fold.name}: its process is lost ({reason}); going on in another")
        self.waiting.appendleft(fold)

    # ------------------------------------------------------------ ending
    def _ask_to_stop(self) -> None:
        """Let all folds save their steps; those that have not begun stay as they are."""
        self.stopped += [f"{fold.name}: not begun" for fold in self.waiting]
        self.waiting.clear()
        for fold in [*self.running]:
            if fold.begun:
                fold.actor.end.remote()
            else:
                self._close(fold)
                self.stopped.append(f"{fold.name}: not begun")

    def _part(self) -> None:
        """Give folds the time to save their steps, where another one has failed."""
        import ray

        for fold in self.running:
            fold.actor.end.remote()
        ended = [fold.ended for fold in self.running if fold.begun]
        if ended:
            ray.wait(ended, num_returns=len(ended), timeout=PARTING_SECONDS)

    def _last_words(self, fold: _Fold) -> None:
        """What a fold told last. The news that were asked for may be there already, or come before these."""
        self._tell(fold)
        fold.asked = fold.actor.news.remote()
        self._tell(fold)

    def _close(self, fold: _Fold) -> None:
        """End a fold's actor."""
        import ray

        self.running.remove(fold)
        ray.kill(fold.actor)


def _no_room() -> ClusterError:
    return ClusterError(
        "no process of the cluster answers; expected room for a fold (`ray status` tells what is asked for); the same "
        "command goes on"
    )
