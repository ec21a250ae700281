"""A folder to write into: one process at a time, and nothing in it that leads elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scoring.errors import UserError

LOCK = ".lock"


class HoldError(UserError):
    """A folder that cannot be written into now, or must not be."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Inside, no other process writes into `folder`, which is made where it is missing.

    The system lets go of a process that dies. Raises HoldError where another holds the folder, where it holds links
    (a folder from a stranger could send a write anywhere), or where it cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        links = sorted(path.name for path in folder.iterdir() if path.is_symlink())
        if links:
            raise HoldError(
                f"{folder} holds links to other places ({', '.join(links[:5])}); expected plain files and folders: "
                "remove them, or choose another --out"
            )
        lock = FileLock(folder / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout:
        raise HoldError(
            f"another process is writing into {folder}; wait for it, stop it, or choose another --out"
        ) from None
    except OSError as error:
        raise HoldError(
            f"{folder} cannot be written ({error.strerror or error}); expected a folder of yours: choose another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def check_held(folder: Path, patience: float = 60) -> None:
    """HoldError where another machine's hold of the folder is not seen here for so many seconds: it is another folder.

    What is new in a network's folder may be seen late.
    """
    until = time.monotonic() + patience
    while not (folder / LOCK).exists():
        if time.monotonic() > until:
            raise HoldError(
                f"{folder} is not the folder that the first process writes into; expected one that all share"
            )
        time.sleep(0.05)
