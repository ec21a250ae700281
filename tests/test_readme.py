"""Every command and example of the README runs; where it names the real 8B and one's own tables, on the demo's."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import command_line

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.S | re.M)
COMMANDS = [
    line for kind, block in BLOCKS if kind == "bash" for line in block.replace("\\\n", " ").splitlines() if line
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # each of several
QUICK = {"score": ["--limit", "8"], "bench": ["--limit", "4"], "train": ["--epochs", "1"]}  # the same, on fewer rows


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder as a user's: the repository's files, and tables of one's own."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("cli.py", "demo", "Makefile", "setup.cfg", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    for name, table, first in (("train", "train", 1), ("test", "test", 1), ("valid", "test", 41)):
        lines = (ROOT / "demo" / f"{table}.csv").read_text("utf-8").splitlines()
        (folder / f"{name}.csv").write_text("\n".join([lines[0], *lines[first : first + 40]]) + "\n", "utf-8")
    shutil.copytree(ROOT / "demo" / "images", folder / "images")
    return folder


def test_the_readme_has_commands():
    assert len(COMMANDS) > 10 and any(kind == "python" for kind, _ in BLOCKS)


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, workplace):
    words = shlex.split(command.split("  #")[0].replace("Qwen/Qwen3-VL-8B-Instruct", "demo/base"))
    if words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=workplace, check=True, capture_output=True)
        return
    if words[0] in ("git", "cd", "pip"):
        return  # how one gets here
    if words[0] == "torchrun":
        further = QUICK[words[4]] + ["--batch", "8"] * (words[4] == "train")
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:], *further]
        done = subprocess.run(words, cwd=workplace, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    else:
        assert words[:2] == ["python", "cli.py"], command
        done = command_line.run(*words[2:], *QUICK.get(words[2], []), cwd=workplace)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [block for kind, block in BLOCKS if kind == "python"])
def test_example(block, workplace):
    quick = block.replace('read_questions("demo/test.csv")', 'read_questions("demo/test.csv")[:8]')
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{quick}"],
        cwd=workplace,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
