"""`CancelToken`: another thread withdraws questions that wait, such as those of a client that went away."""

import threading
from concurrent.futures import Future
from typing import Any


class CancelToken:
    """Questions asked with it are given up once it is cancelled; what is being computed already is finished.

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
