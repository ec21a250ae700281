"""Several processes of the command line at once, and what they print."""

import os
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from threading import Thread

from benchmarks import command_line

ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as each of several has


def stderr_of_all(processes: list, err: Path, first: int = 0) -> list[str]:
    """The stderr of each process, once all have ended."""
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    return [Path(f"{err}.{rank}").read_text("utf-8") for rank in range(first, first + len(processes))]


def run_alone(*arguments) -> None:
    """The command in one process, with as many threads as each of several has."""
    process = command_line.start(*arguments, env=ONE_THREAD)
    process.join()
    assert process.exitcode == 0


def run_together(count: int, err: Path, *arguments, codes: tuple[int, ...] = (0,)) -> list[str]:
    """The stderr of each of `count` processes that make the same call; they exit with one of `codes`."""
    processes = command_line.start_several(count, *arguments, err=err)
    messages = stderr_of_all(processes, err)
    assert {process.exitcode for process in processes} <= {*codes}, messages
    return messages


def with_code(code: str, arguments: list) -> tuple[str, str]:
    """(program, argument) that run `code` and then the command line."""
    words = ["cli.py", *map(str, arguments)]
    return "benchmarks.command_line", f"import sys\n{code}\nimport cli\nsys.argv = {words!r}\ncli.main()"


# ------------------------------------------------------------------ processes that torchrun starts
FORKED = """
import os, sys
from multiprocessing.connection import Client
connection = Client({address!r}, authkey={key!r})
connection.send(dict(os.environ))
code = connection.recv()
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


def forked_program(folder: Path, code: str) -> Path:
    """A program that runs `code` in a process forked from the one that has imported the libraries.

    It passes its environment on, ends as that process does, and takes it along where it is killed itself. What the
    processes print goes to `folder`/worker0.out, worker0.err, worker1.out and so on.
    """
    key, numbers = os.urandom(16), count()
    listener = Listener(("127.0.0.1", 0), authkey=key)

    def follow(connection: Connection) -> None:
        worker = folder / f"worker{next(numbers)}"
        out, err = f"{worker}.out", f"{worker}.err"
        program, env = "benchmarks.command_line", connection.recv()
        process = command_line.start(code, program=program, env=env, out=out, err=err)
        while process.is_alive() and not connection.poll(0.05):
            pass
        if process.is_alive():  # the other end is gone
            process.kill()
        process.join()
        with suppress(OSError):
            connection.send(process.exitcode)

    def serve() -> None:
        while True:
            Thread(target=follow, args=(listener.accept(),), daemon=True).start()

    Thread(target=serve, daemon=True).start()
    program = folder / "forked.py"
    program.write_text(FORKED.format(address=listener.address, key=key), "utf-8")
    return program
