"""Lines of text and progress bars on stderr."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
MANY = 1_000  # items: a loop over at least so many shows a progress bar


class Bar:
    """A progress bar with rows/s and the time left; where stderr is no terminal, a line every half minute."""

    def __init__(self, total: int | None, done: int = 0, unit: str = "row", scale: bool = False, disable: bool = False):
        """scale: write large numbers with a unit's prefix, as for bytes."""
        from tqdm import tqdm

        terminal = sys.stderr.isatty()
        self.open = True
        self._bar = tqdm(
            total=total,
            initial=done,
            unit=unit,
            unit_scale=scale,
            dynamic_ncols=terminal,
            smoothing=0.1,
            mininterval=0.2 if terminal else 30,
            delay=0 if terminal else 30,
            disable=disable,
        )

    def update(self, count: int) -> None:
        self._bar.update(count)

    def show(self, **values: str) -> None:
        self._bar.set_postfix(values, refresh=False)

    def close(self) -> None:
        self._bar.close()
        self.open = False

    def write(self, text: str) -> None:
        """Print a line above the bar."""
        self._bar.write(text, file=sys.stderr)


class Console:
    """What a call prints on stderr. quiet: it prints nothing, as in all processes of a call but the first."""

    def __init__(self) -> None:
        self.quiet = False
        self._bar: Bar | None = None  # the one that was opened last

    def say(self, text: str, everyone: bool = False) -> None:
        """Print a line, above the progress bar where there is one. everyone: also where the console is quiet."""
        if self.quiet and not everyone:
            return
        if self._bar and self._bar.open:
            self._bar.write(text)
        else:
            print(text, file=sys.stderr)

    def progress(self, total: int | None, done: int = 0, unit: str = "row", scale: bool = False) -> Bar:
        """A new progress bar."""
        self._bar = Bar(total, done, unit, scale, disable=self.quiet)
        return self._bar

    def count(self, items: Iterable[T], total: int | None, unit: str) -> Iterator[T]:
        """The items; where there are many, with a progress bar. total: None where only counting them tells it."""
        bar = None if total is None or total < MANY else self.progress(total, unit=unit)
        for number, item in enumerate(items):
            if number == MANY and total is None:
                bar = self.progress(None, done=number, unit=unit)
            if bar:
                bar.update(1)
            yield item
        if bar:
            bar.close()
