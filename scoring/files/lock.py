"""A folder to write into: one process at a time, and no links in it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring.errors import ScoringError

LOCK = ".lock"


class LockError(ScoringError):
    """A folder that cannot be written into now, or must not be."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Inside, no other process writes into `folder`, which is made if it does not exist.

    The system releases the lock of a process that dies. Raises LockError if another process has the lock, if the
    folder holds links (a folder from a stranger could send a write anywhere), or if it cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        links = sorted(path.name for path in folder.iterdir() if path.is_symlink())
        if links:
            raise LockError(
                f"{folder} holds links to other places ({', '.join(links[:5])}); expected plain files and folders: "
                "remove them, or choose another --out"
            )
        lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout:
        raise LockError(
            f"another process is writing into {folder}; wait for it, stop it, or choose another --out"
        ) from None
    except OSError as error:
        raise LockError(
            f"{folder} cannot be written ({error.strerror or error}); expected a folder that you may write to: choose "
            "another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_folder_is_shared(folder: Path, patience: float = 60) -> None:
    """Raise LockError if the lock of a process on another machine does not appear in `folder` in `patience` seconds.

    Then this machine sees another folder under that name. New files on a network drive may appear late.
    """
    until = time.monotonic() + patience
    while not (folder / LOCK).exists():
        if time.monotonic() > until:
            raise LockError(
                f"{folder} is not the folder that the first process writes into; expected one that all processes share"
            )
        time.sleep(0.05)
