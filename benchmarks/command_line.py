"""The command line in processes of their own that start at once: forked from one that has imported the libraries."""

import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = [
    "peft",
    "transformers.integrations.bitsandbytes",
    "cli",
    "scoring.run.groups",
    "scoring.library.runs",
    "scoring.library.training",
    "scoring.benchmark.measure",
    "train.start",
    "scoring.report.page",
    "scoring.checkpoints.description",
    "scoring.checkpoints.export",
    "scoring.checkpoints.soup",
    "scoring.tables.reading",
    "scoring.terminal.checking",
    "scoring.engine.families.qwen3_vl",
    "cleanlab.filter",
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "transformers.models.auto.modeling_auto",
    "transformers.optimization",
    "transformers.trainer_pt_utils",
]
CARD = os.path.exists("/dev/nvidiactl")  # CUDA does not survive a fork: there each starts by itself
_server = multiprocessing.get_context("spawn" if CARD else "forkserver")
if not CARD:
    _server.set_forkserver_preload(["benchmarks.preloaded"])


def start(
    *arguments,
    program: str = "cli",
    cwd: Path = ROOT,
    out: str = os.devnull,
    err: str = os.devnull,
    env: Mapping = (),
):
    """Start `python -m program arguments` in `cwd` and return its process; the files `out` and `err` get its output.

    env: variables to add to the environment; OMP_NUM_THREADS has its effect although the libraries are loaded.
    """
    words = [str(argument) for argument in arguments]
    process = _server.Process(target=_main, args=(program, words, str(cwd), out, err, dict(env)))
    process.start()
    return process


def wait_until(process, done: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `done()` is true, the process has ended or `seconds` have passed."""
    until = time.monotonic() + seconds
    while process.is_alive() and time.monotonic() < until and not done():
        time.sleep(0.002)


def python(code: str) -> subprocess.CompletedProcess:
    """Run `python -c code`, forked like the other commands: for faults that a test puts in."""
    return run(code, program="benchmarks.command_line")


def main() -> None:
    exec(sys.argv[1], {"__name__": "__main__"})


def run(
    *arguments, program: str = "cli", cwd: Path = ROOT, timeout: float = 280, env: Mapping = ()
) -> subprocess.CompletedProcess:
    """Start a command as `start` does, and wait for its end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = (os.path.join(folder, name) for name in ("out", "err"))
        process = start(*arguments, program=program, cwd=cwd, out=out, err=err, env=env)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        stdout, stderr = (Path(path).read_text("utf-8") for path in (out, err))
    return subprocess.CompletedProcess(list(arguments), process.exitcode, stdout, stderr)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_several(
    count: int, *arguments, err: Path, program: str = "cli", ranks: Sequence[int] | None = None, cwd: Path = ROOT
):
    """Start what `torchrun --nproc_per_node count cli.py arguments` starts, with one thread each.

    err: the stderr of each process goes to the file `err`.RANK. ranks: those to start; None: all.
    """
    environment = {"WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "OMP_NUM_THREADS": 1}
    processes = []
    for rank in range(count) if ranks is None else ranks:
        env = {name: str(value) for name, value in (environment | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        out = f"{err}.{rank}.out"
        processes.append(start(*arguments, program=program, cwd=cwd, out=out, err=f"{err}.{rank}", env=env))
    return processes


def _main(program: str, arguments: list[str], cwd: str, out: str, err: str, env: dict) -> None:
    os.chdir(cwd)
    os.environ.update(env)
    if "OMP_NUM_THREADS" in env:
        import torch

        torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", encoding="utf-8") for descriptor in (1, 2))
    sys.argv = [f"{program}.py", *arguments]
    try:
        importlib.import_module(program).main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
