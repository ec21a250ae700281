"""Errors and Ctrl-C as a person sees them: a message, an exit code, and the command that continues."""

import errno
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from types import FrameType
from typing import NoReturn

import click

from scoring.errors import CallError, ScoringError
from scoring.terminal.session import Session

BUG, BAD_INPUT, SOME_UNSCORED, STOPPED = 1, 2, 3, 130  # exit codes beside 0; a failed machine counts as a bug


@contextmanager
def report_errors(session: Session, distributed: bool = False) -> Iterator[None]:
    """Inside, an error that the user can fix ends with its message and exit code 2, any other with exit code 1.

    With --debug any error is raised. distributed: inside, this process works with the others that torchrun or
    accelerate started; without it, only the first of them does anything.
    """
    several = int(os.environ.get("WORLD_SIZE") or 1) > 1
    if several and not distributed and int(os.environ.get("RANK") or 0):
        sys.exit(0)
    try:
        with ExitStack() as stack:
            if distributed:
                session.join()
            if not session.first:
                stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
            yield
    except (click.ClickException, CallError) as error:
        raise _as_usage(error) from None
    except KeyboardInterrupt as stopped:
        _end_stopped(session, str(stopped))
    except Exception as error:
        text, code = _describe(session, error)
        if session.processes:
            code = _end_all(session, error, text, code)
        elif not session.debug:
            click.echo(f"error: {text}", err=True)
        if session.debug:
            raise
        sys.exit(code)


def _as_usage(error: click.ClickException | CallError) -> click.ClickException:
    """The error of a call that cannot be, as click shows it: with how the command is called."""
    return error if isinstance(error, click.ClickException) else click.UsageError(str(error))


def _end_stopped(session: Session, progress: str) -> NoReturn:
    """Say how far a stopped call came and how to continue it, and end it."""
    session.console.say(f"\nstopped{f': {progress}' if progress else ''}{_how_to_continue(session)}")
    if session.processes and session.first:
        session.processes.fail("stopped", STOPPED)
    elif session.processes:
        session.processes.leave()
    sys.exit(STOPPED)


def _describe(session: Session, error: Exception) -> tuple[str, int]:
    """An error's message, and the exit code."""
    if fault := _machine_fault(error):
        text, code = fault
        return f"{text}{_how_to_continue(session)}", code
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError", "ArrowMemoryError"):
        return f"out of memory; lower --batch-tokens, or close other programs{_how_to_continue(session)}", BUG
    if isinstance(error, ScoringError) and not isinstance(error, RuntimeError):  # whose fault is not the input's
        return str(error), BAD_INPUT
    return (
        f"{type(error).__name__}: {error}\nThis is a fault of the program or the machine; "
        "--debug (before the command) shows the traceback."
    ), BUG


def _machine_fault(error: Exception) -> tuple[str, int] | None:
    """The message and exit code for a full disk, a missing drive or a missing permission; None for other errors."""
    number = error.errno if isinstance(error, OSError) else None
    if "No space left on device" in str(error):  # as libraries in other languages put it
        number = errno.ENOSPC
    if number is None:
        return None
    file = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{file}no space left on the disk; free some. Rows and steps that were saved are kept", BUG
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{file}{os.strerror(number)}; expected a file or folder that you may use", BAD_INPUT
    return f"{file}{os.strerror(number)}; is the file or the drive still there?", BUG


def _end_all(session: Session, error: Exception, text: str, code: int) -> int:
    """Print why the call ends, unless a process of this host has, and let the others end too; the exit code."""
    from scoring.run.processes import ProcessError

    processes = session.processes
    assert processes is not None
    who = "" if processes.first or isinstance(error, ProcessError) else f"{processes.name}: "
    if processes.is_first_to_say() and not session.debug:
        click.echo(f"error: {who}{text}", err=True)
    if isinstance(error, ProcessError):
        processes.leave()
        return error.code
    processes.fail(text, code)
    return code


def _how_to_continue(session: Session) -> str:
    """A line with the command that continues stopped work: the same, without --overwrite; "" where none does."""
    if click.get_current_context().info_name not in ("score", "train"):
        return ""
    if session.processes:
        without = ", without --overwrite," if "--overwrite" in sys.argv else ""
        return f"\nthe same command{without} goes on"
    words = [word for word in sys.argv if word != "--overwrite"]
    return f"\ngo on with: {shlex.join(['python', *words] if words[0].endswith('.py') else words)}"


@contextmanager
def stoppable(session: Session) -> Iterator[None]:
    """Inside, the first Ctrl-C (or SIGTERM) sets `session.stop`: work stops once saved. A second one stops at once."""

    def ask(number: int, frame: FrameType | None) -> None:
        if session.stop.is_set():
            raise KeyboardInterrupt
        session.stop.set()
        if session.first:
            os.write(2, b"\nstopping after the current work is saved; press Ctrl-C again to stop at once\n")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
