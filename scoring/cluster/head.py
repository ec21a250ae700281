"""Whether the head of the cluster that is connected still answers.

Without it, actors answer on, but none can be started. Ray tries for a minute to reach it, and then ends this process in
the middle of whatever it does. So it is looked at here, and the run ends in good order before.
"""

import socket
import time
from threading import Event

from scoring.cluster.connection import ClusterError

GONE_SECONDS = 30.0  # without an answer; Ray ends the process after 60 (RAY_gcs_rpc_server_reconnect_timeout_s)
LOOK_SECONDS = 3.0  # between two looks, and for an answer
LOOKS = 3  # in vain, one after the other: the last answer may be long ago where nobody looked


class Head:
    """The head at an address (host:port). None where it cannot be reached from here: then nothing is looked at."""

    def __init__(self, address: str | None):
        self.address = address
        self._looked = self._answered = time.monotonic()
        self._in_vain = 0

    @classmethod
    def of_cluster(cls) -> "Head":
        """That of the cluster that is connected."""
        import ray

        head = cls(ray.get_runtime_context().gcs_address)
        return head if head.answers() else cls(None)  # a client of `ray://` may be outside of its network

    def answers(self) -> bool:
        """Whether somebody listens there."""
        if self.address is None:
            return True
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), LOOK_SECONDS).close()
        except OSError:
            return False
        return True

    def check(self) -> None:
        """Look, unless that was done just now. Raises ClusterError once nobody has answered for too long."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._look()

    def wait(self, stop: Event) -> bool:
        """True once it answers, as it must before anything is started; False where `stop` is set before.

        Raises as `check`.
        """
        while not self._look():
            if stop.wait(LOOK_SECONDS / 10):
                return False
        return True

    def _look(self) -> bool:
        answers, now = self.answers(), time.monotonic()
        self._looked = now
        if answers:
            self._answered, self._in_vain = now, 0
            return True
        self._in_vain += 1
        if self._in_vain >= LOOKS and now - self._answered > GONE_SECONDS:
            raise ClusterError(
                f"the head of the Ray cluster ({self.address}) is gone; the same command goes on once there is one "
                "again, or without --ray"
            )
        return False
