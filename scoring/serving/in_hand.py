"""The requests that a server has in hand: how many there may be, when to come again, and how they end when it stops."""

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from scoring.library.ask_limits import CancelToken
from scoring.serving.request import RequestError

T = TypeVar("T")
LONGEST_RETRY = 60  # seconds
RECENT = 0.1  # the weight of the latest request in the mean of their seconds


class InHand:
    """Requests from their first byte to their answer; used from the event loop alone.

    most: of them at a time. `dropped` counts those that were given up because the server is to end.
    """

    def __init__(self, most: int):
        self.most, self.count, self.dropped = most, 0, 0
        self.stopping = self.dropping = False
        self._tokens: set[CancelToken] = set()
        self._reading: set[asyncio.Task[Any]] = set()
        self._seconds = 0.0  # of recent requests

    @contextmanager
    def request(self) -> Iterator[CancelToken]:
        """One of them, and what withdraws its work. Raises RequestError 429 and 503 where there is no room for it."""
        if self.stopping:
            raise _stopping()
        if self.count >= self.most:
            wait = self.retry_after
            found = f"{self.count} requests wait already; try again in {wait} s"
            raise RequestError(429, found, code="server_busy", retry_after=wait)
        token, start = CancelToken(), time.monotonic()
        self.count += 1
        self._tokens.add(token)
        try:
            yield token
        finally:
            self.count -= 1
            self._tokens.discard(token)
            self._seconds += RECENT * (time.monotonic() - start - self._seconds)

    @property
    def retry_after(self) -> int:
        """Seconds after which a request is likely to find room: as long as recent ones took."""
        return min(LONGEST_RETRY, max(1, math.ceil(self._seconds)))

    async def arriving(self, reading: Coroutine[Any, Any, T]) -> T:
        """What is read of a request. Raises RequestError 503 where the server is to end before it is there."""
        task = asyncio.ensure_future(reading)
        self._reading.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self.stopping:
                self.dropped += 1
                raise _stopping() from None
            raise
        finally:
            self._reading.discard(task)

    def stop(self) -> None:
        """Take no more requests, and wait for no body; what is complete is answered."""
        self.stopping = True
        for task in self._reading:
            task.cancel()

    def drop(self) -> None:
        """Give up what is not answered yet."""
        self.stopping = self.dropping = True
        for token in list(self._tokens):
            token.cancel()

    def given_up(self) -> RequestError | None:
        """Why a withdrawn request has no answer; None where its client went away."""
        if not self.dropping:
            return None
        self.dropped += 1
        return _stopping()


def _stopping() -> RequestError:
    return RequestError(503, "the server is stopping; try again later", code="stopping")
