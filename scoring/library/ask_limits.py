"""What limits questions that are asked together: tokens, and another thread that withdraws them."""

import threading
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from scoring.errors import CallError


class CancelToken:
    """Questions asked with it are given up once another thread cancels it, such as those of a client that went away.

    What is being computed already is finished.

    >>> token = CancelToken()
    >>> token.cancel()
    >>> token.cancelled
    True
    """

    def __init__(self) -> None:
        self.cancelled = False
        self._lock = threading.Lock()
        self._futures: set[Future[Any]] = set()

    def cancel(self) -> None:
        """Give up; those who wait get `concurrent.futures.CancelledError`."""
        with self._lock:
            self.cancelled, futures = True, list(self._futures)
        for future in futures:
            future.cancel()

    def watch(self, future: "Future[Any]") -> None:
        """Cancel a future with this token, also where that is cancelled already."""
        with self._lock:
            self._futures.add(future)
        future.add_done_callback(self._forget)
        if self.cancelled:
            future.cancel()

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._futures.discard(future)


@dataclass
class AskLimits:
    """Of questions that are asked together. most_tokens: that they may have; None for no limit.

    tokens: how many they had, in all orders and for all members; those of pictures that questions share count once.
    cancel: withdraws them.

    >>> limits = AskLimits(most_tokens=100)
    >>> limits.count(60)
    >>> limits.count(60)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    scoring.errors.CallError: 120 tokens or more, ...
    """

    most_tokens: int | None = None
    tokens: int = 0
    cancel: CancelToken | None = None

    def check(self) -> None:
        """Raises CancelledError once they are withdrawn."""
        if self.cancel and self.cancel.cancelled:
            raise CancelledError

    def count(self, tokens: int) -> None:
        """Add tokens. Raises CallError where they are too many."""
        self.refuse(tokens)
        self.tokens += tokens

    def refuse(self, tokens: int) -> None:
        """Raises CallError where there would be too many with these."""
        if self.most_tokens is not None and self.tokens + tokens > self.most_tokens:
            found = f"{self.tokens + tokens:,} tokens or more, with those of the pictures and in all option orders"
            raise CallError(f"{found}; expected at most {self.most_tokens:,}: ask less at once")
