"""Several processes of the command line at once, and what they print."""

from pathlib import Path

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
