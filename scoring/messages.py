"""How long work reports to a person: lines of text and progress bars. Protocols alone; `terminal` has the real ones."""

from typing import Protocol


class Say(Protocol):
    """Prints one line for a person, such as `print`."""

    def __call__(self, text: str, /) -> object: ...


class ProgressBar(Protocol):
    """A progress bar that is open."""

    def update(self, count: int, /) -> None:
        """Move forward by `count`."""

    def show(self, **values: str) -> None:
        """Show these values beside the bar."""

    def close(self) -> None:
        """Finish the bar."""


class Progress(Protocol):
    """Opens a progress bar of `total` steps, of which `done` were done by an earlier call."""

    def __call__(self, total: int, done: int = 0, /) -> ProgressBar: ...


def silent(text: str, /) -> None:
    """A `Say` that prints nothing."""
