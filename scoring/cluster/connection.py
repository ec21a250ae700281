"""A Ray cluster: the one that runs, or one on this machine for as long as it is needed."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec

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


class ClusterError(ScoringError):
    """A cluster that cannot be reached, has no room, or loses what works for this run again and again."""


@dataclass(frozen=True)
class Room:
    """What a cluster has."""

    nodes: int
    cards: int
    cores: float

    @classmethod
    def of_cluster(cls) -> "Room":
        """Of the one that is connected."""
        import ray

        whole: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
        return cls(nodes, int(whole.get("GPU", 0)), whole.get("CPU", 0.0))


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
    try:
        with _own_signals():
            ray.init(address, log_to_driver=False, configure_logging=True, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = address or "the cluster of this machine"
        reason = str(error).strip().split("\n")[0]
        raise ClusterError(
            f"{where}: {reason}; expected a running Ray cluster (`ray status` tells), or --ray without an address"
        ) from None
    try:
        room = Room.of_cluster()
        say(f"Ray: {counted(room.nodes, 'node')}, {counted(room.cards, 'card')}, {room.cores:g} cores")
        yield
    finally:
        ray.shutdown()


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
