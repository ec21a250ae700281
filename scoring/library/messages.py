"""What the library tells a program: lines through `logging`, warnings of a category of its own, progress by a function.

Everything that the command line would print is told in a program's words, see `wording`.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable

from scoring.library.wording import for_programs

LOGGER = logging.getLogger("scoring")  # without a level or a handler of its own: whether lines are seen is the host's
LOGGER.addHandler(logging.NullHandler())
OURS = ("scoring", "train", "contextlib")  # packages whose frames stand between a warning and the line that caused it


class ScoringWarning(UserWarning):
    """Results that deserve a look, such as a low label mass or orders without a calibration."""


def say_to_log(text: str, /) -> None:
    """A `scoring.messages.Say`: the line goes to the logger "scoring", at the level INFO."""
    LOGGER.info("%s", for_programs(text))


def warn(texts: Iterable[str]) -> None:
    """A `ScoringWarning` for each text, at the line of the program that called the library."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in OURS:
        level, frame = level + 1, frame.f_back
    for text in texts:
        warnings.warn(for_programs(text), ScoringWarning, stacklevel=level)


class ProgressOf:
    """A `scoring.messages.Progress` that calls `callback(done, total)`: once at the start, then after each step.

    The callback is called in the thread that asked. What it raises ends the work.
    """

    def __init__(self, callback: Callable[[int, int], object]):
        self._callback = callback

    def __call__(self, total: int, done: int = 0, /) -> "Steps":
        return Steps(self._callback, total, done)


class Steps:
    """How many of `total` steps are done. A `scoring.messages.ProgressBar`."""

    def __init__(self, callback: Callable[[int, int], object], total: int, done: int = 0):
        self._callback, self.total, self.done = callback, total, done
        callback(done, total)

    def update(self, count: int, /) -> None:
        self.done += count
        self._callback(self.done, self.total)

    def show(self, **values: str) -> None:
        """Values beside a bar, which a program finds in the results."""

    def close(self) -> None:
        """The last step was the end."""
