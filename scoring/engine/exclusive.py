"""Who may change what a whole process shares: one thread that loads a model, while no thread computes.

transformers, PEFT and PyTorch switch things for a moment while they load: the type of new tensors, the device that
they are made on, what initializes them. Another thread that loads or computes meanwhile gets them too: two models that
loaded at once found missing weights in good files, and a forward pass had tensors on the meta device.

    with loading():      # alone: waits for those who compute, and those who come later wait for it
        ...
    with computing():    # beside others who compute
        ...
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A readers-writer lock: threads compute side by side, and load alone. Who waits to load comes next.

    A thread may take a side again that it has, and compute while it loads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._computing = 0  # threads
        self._waiting = 0  # threads that wait to load
        self._loading = False
        self._own = threading.local()  # of each thread: how often it has a side

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Inside, no other thread loads or computes. Raises RuntimeError in a thread that computes."""
        depth: int = getattr(self._own, "loading", 0)
        if not depth:
            if getattr(self._own, "computing", 0):
                raise RuntimeError("a thread that computes cannot load: it would wait for itself")
            self._begin_loading()
        self._own.loading = depth + 1
        try:
            yield
        finally:
            self._own.loading = depth
            if not depth:
                with self._changed:
                    self._loading = False
                    self._changed.notify_all()

    def _begin_loading(self) -> None:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._loading and not self._computing)
                self._loading = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()  # where Ctrl-C ended the wait, others need not wait for it

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, no other thread loads."""
        depth: int = getattr(self._own, "computing", 0)
        counts = not depth and not getattr(self._own, "loading", 0)
        if counts:
            with self._changed:
                self._changed.wait_for(lambda: not self._loading and not self._waiting)
                self._computing += 1
        self._own.computing = depth + 1
        try:
            yield
        finally:
            self._own.computing = depth
            if counts:
                with self._changed:
                    self._computing -= 1
                    self._changed.notify_all()


_turns = Turns()  # of this process: what it guards belongs to the process


def _begin_anew() -> None:
    """In a forked child the threads that had a side are gone."""
    global _turns
    _turns = Turns()


os.register_at_fork(after_in_child=_begin_anew)


@contextmanager
def loading() -> Iterator[None]:
    """Inside, no other thread of this process loads or computes. Raises RuntimeError in a thread that computes."""
    with _turns.loading():
        yield


@contextmanager
def computing() -> Iterator[None]:
    """Inside, no other thread of this process loads a model."""
    with _turns.computing():
        yield
