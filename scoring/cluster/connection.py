"""A Ray cluster: the one that runs, or one on this machine for as long as it is needed."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil

from scoring.errors import CallError, ScoringError, counted
from scoring.messages import Say

PASSED_ON = (  # what actors need of this process's environment
    "MKL_CBWR",
    "ONEDNN_MAX_CPU_ISA",
    "TOKENIZERS_PARALLELISM",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TRANSFORMERS_VERBOSITY",
    "HF_HUB_DISABLE_PROGRESS_BARS",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "XDG_CACHE_HOME",
)
CONNECT_SECONDS = 10.0


class ClusterError(ScoringError):
    """A cluster that cannot be reached, has no room, or loses what works for this run again and again."""


@dataclass(frozen=True)
class Room:
    """What a cluster has. cores: of each node."""

    cores: tuple[float, ...]
    cards: int

    @classmethod
    def of_cluster(cls) -> "Room":
        """Of the one that is connected."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return cls(tuple(node.get("CPU", 0.0) for node in nodes), int(sum(node.get("GPU", 0) for node in nodes)))

    def share(self, actors: int) -> float:
        """The most cores that each of so many actors can have, whole ones where that can be; 0 where there are none."""
        for cores in range(int(max(self.cores, default=0)), 0, -1):
            if sum(node // cores for node in self.cores) >= actors:
                return float(cores)
        whole = sum(map(int, self.cores))
        return int(100 / ceil(actors / whole)) / 100 if whole else 0.0

    def places(self, wanted: int | None) -> tuple[int, dict[str, float]]:
        """How many actors, and what each takes. wanted: None for one on each card, or on each node without cards.

        Raises ClusterError where there is no room for so many.
        """
        if self.cards:
            if wanted and wanted > self.cards:
                found = f"--ray-actors {wanted}: the cluster has {counted(self.cards, 'card')}"
                raise ClusterError(f"{found}; expected no more actors")
            return wanted or self.cards, {"num_gpus": 1, "num_cpus": 1}
        count = wanted or sum(cores > 0 for cores in self.cores) or 1
        share = self.share(count)
        if not share:
            raise ClusterError("the cluster has no cores; expected a node that lends some (`ray start --num-cpus`)")
        return count, {"num_cpus": share}


@contextmanager
def connected(address: str | None, say: Say) -> Iterator[None]:
    """Inside, Ray is connected: to `address`, else to the cluster that runs here, else to one that is started here.

    A connection that the program has already is used, and left as it is. Raises CallError where Ray is not installed,
    and ClusterError where nobody answers at the address.
    """
    if find_spec("ray") is None:
        raise CallError("`--ray` needs Ray: pip install 'logit-scoring[ray]'")
    import ray

    if ray.is_initialized():
        yield
        return
    if given := address or os.environ.get("RAY_ADDRESS"):
        _check_answered(given)
    try:
        with _own_signals():
            ray.init(address, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
        raise _unreachable(given or "the cluster of this machine", error) from None
    try:
        room = Room.of_cluster()
        say(f"Ray: {counted(len(room.cores), 'node')}, {counted(room.cards, 'card')}, {sum(room.cores):g} cores")
        yield
    finally:
        ray.shutdown()


def _check_answered(address: str) -> None:
    """Raises ClusterError where nobody listens at host:port; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # `auto` and other words of Ray's own
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from None


def _unreachable(where: str, error: Exception) -> ClusterError:
    reason = str(error).strip().split("\n")[0]
    return ClusterError(
        f"{where}: {reason}; expected a running Ray cluster (`ray status` tells), with RAY_AUTH_MODE=token where it "
        "demands a token, or --ray without an address"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Inside, others may set a handler of SIGTERM, as Ray does; afterwards that of before has it again."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def environment() -> dict[str, str]:
    """What actors take over of this process's environment."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}
