"""Shared pieces: the demo's files, and one loaded scorer for the whole run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import command_line

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# With AMX, oneDNN sums a bfloat16 product by the number of its rows; here the CPU stands for cards, which do not.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo"


@pytest.fixture(scope="session")
def demo() -> Path:
    return DEMO


@pytest.fixture(scope="session")
def base(demo) -> Path:
    return demo / "base"


@pytest.fixture(scope="session")
def scorer(demo):
    """The demo's first checkpoint on its 4-bit base, float32 arithmetic."""
    from scoring import Scorer

    return Scorer.load(str(demo / "checkpoints" / "fold0"))


@pytest.fixture(scope="session")
def plain_base(base):
    """The demo's base in float32, without adapters."""
    from scoring.engine.model import Model

    return Model.load(base, "none")


@pytest.fixture(scope="session")
def test_rows(demo):
    from scoring import read_questions

    return read_questions(demo / "test.csv")


@pytest.fixture
def cli():
    """Run the command line in a process of its own."""

    def call(*arguments, check: int | None = 0, cwd: Path = ROOT, env: dict | None = None):
        if env is None:
            done = command_line.run(*arguments, cwd=cwd)
        else:  # what counts from the interpreter's start
            command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
            done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=280)
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call


@pytest.fixture
def small_table(tmp_path, demo):
    """A table of the first rows of the demo's test.csv, with its pictures, in a folder of its own."""

    def make(rows: int = 6, name: str = "small.csv") -> Path:
        lines = (demo / "test.csv").read_text("utf-8").splitlines()[: rows + 1]
        (tmp_path / "images").mkdir(exist_ok=True)
        for line in lines[1:]:
            picture = line.split(",")[1]
            shutil.copy(demo / picture, tmp_path / picture)
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    return make
