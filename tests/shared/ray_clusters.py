"""Ray on this machine, for as long as a module's tests need it; none of it is left behind."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import psutil

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Inside, Ray keeps its files, and the address of its cluster, in a folder of its own; no other one is found.

    At the end no process of Ray is left whose files are there.
    """
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # a short path: sockets are in it
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Tokens: a process that had started a cluster of its own could not use another one later.
    own = {"RAY_TMPDIR": str(folder), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled"}
    try:
        with patch.dict(os.environ, own):
            os.environ.pop("RAY_ADDRESS", None)
            yield folder
        wait_for(lambda: not processes_of(folder), lambda: f"left: {[each.cmdline() for each in processes_of(folder)]}")
    finally:
        for process in processes_of(folder):
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def ray_variables() -> dict[str, str]:
    """What `ray_folder` has set, for a command that is forked from a process which knows none of it."""
    return {name: os.environ[name] for name in ("RAY_TMPDIR", "PYTHONPATH", "OMP_NUM_THREADS", "RAY_AUTH_MODE")}


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes of Ray's whose files are in a folder."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline", "status"]):
        info = process.info
        if info["status"] == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
            continue
        words = " ".join(info["cmdline"] or [])
        ours = (info["environ"] or {}).get("RAY_TMPDIR") == str(folder) or str(folder) in words
        if ours and any(mark in words for mark in ("ray::", "/ray/core/", "/ray/_private/", "/ray/dashboard/")):
            found.append(process)
    return found


def wait_for(done: Callable[[], object], otherwise: Callable[[], str], seconds: float = 20) -> None:
    """Wait until something is true. Raises AssertionError once `seconds` have passed."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, otherwise()
        time.sleep(0.02)
