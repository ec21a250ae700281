"""Whether bitsandbytes can hold weights in 4 bits on this machine."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_importing = threading.Lock()  # what is hidden for a moment is hidden from all threads


@cache
def why_no_4bit() -> str:
    """Import bitsandbytes; the reason why it cannot be used here, "" where it can.

    Call it before any library that imports bitsandbytes by itself, such as PEFT or transformers.
    """
    try:
        # with `kernels` it would fetch compiled code from the hub, and run it
        with _importing, package_hidden("kernels"), _nothing_compiled(), _errors_alone("bitsandbytes"):
            import bitsandbytes  # noqa: F401
    except Exception as error:  # the package is missing, or its library does not fit the card or the system
        hide_package("bitsandbytes")  # PEFT only looks whether it is installed: it must do without it too
        return str(error).strip().split("\n")[0]
    return ""


@contextmanager
def _errors_alone(name: str) -> Iterator[None]:
    """Inside, a library's logger takes errors alone: on a CPU, bitsandbytes warns that it misses compiled code."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def package_hidden(name: str) -> Iterator[None]:
    """Inside, no module can import the package `name`, whether it is installed or not."""
    module = sys.modules.get(name)
    hide_package(name)
    try:
        yield
    finally:
        del sys.modules[name]
        if module is not None:
            sys.modules[name] = module


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """Inside, functions that are marked for `torch.compile` stay as they are.

    bitsandbytes marks four that nothing here calls; PyTorch would import its compiler for that, in two seconds.
    """
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before


def hide_package(name: str) -> None:
    """Make the package `name` count as not installed in this process.

    Python's import system defines it so: where `sys.modules` holds None, `import` raises ModuleNotFoundError, and
    `importlib.util.find_spec` finds nothing.
    """
    sys.modules[name] = None  # type: ignore[assignment]
