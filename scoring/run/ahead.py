"""What a call begins while Python imports the libraries: reading a base for its fingerprint, and waking the card.

Both work in threads, and neither needs Python's lock, which imports hold. Nothing here loads torch.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from scoring.checkpoints.checkpoint import folds_of, read_checkpoint
from scoring.checkpoints.weights import StoppedError, file_digests, weight_files
from scoring.errors import ScoringError

DRIVER = "libcuda.so.1"


@contextmanager
def begun(bases: Sequence[Path]) -> Iterator[None]:
    """Inside, threads read these bases and wake the card; at its end both are done. An error does not wait for that."""
    stop = Event()
    threads = [Thread(target=_read, args=(bases, stop)), Thread(target=wake_card)]
    for thread in threads:
        thread.start()
    try:
        yield
        for thread in threads:
            thread.join()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def bases_here(checkpoints: Sequence[str], base: str | None) -> list[Path]:
    """The bases of checkpoints, as far as both are on this machine. base: in place of the checkpoints' own.

    What is wrong with a checkpoint is left to the plan.
    """
    folders = []
    for name in (fold for checkpoint in checkpoints for fold in folds_of(checkpoint) if Path(fold).is_dir()):
        with suppress(ScoringError, OSError):
            folders.append(read_checkpoint(name, base).base_folder(local_only=True))
    return list(dict.fromkeys(folders))


def _read(bases: Sequence[Path], stop: Event) -> None:
    """Compute the digests of their weights, which `base_fingerprint` then knows."""
    for folder in bases:
        with suppress(ScoringError, OSError, StoppedError):
            file_digests(weight_files(folder), stop)


def wake_card() -> None:
    """Start the driver and make the first card's context, which PyTorch goes on with. Does nothing without a card."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError:
        return
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
