"""Several processes that score one table: the files of one, whatever happens to one of them on the way."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from scoring.run.processes import PIECE, Processes, Queue, take_card

ROOT = Path(__file__).resolve().parents[2]
FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))
ALONE = {"OMP_NUM_THREADS": "1"}  # as each of several has


def alone(*arguments) -> None:
    process = command_line.start("score", *arguments, env=ALONE)
    process.join()
    assert process.exitcode == 0


def ended(processes: list, err: Path, first: int = 0) -> list[str]:
    """What each told on stderr, once all are over."""
    for process in processes:
        process.join(120)
        assert process.exitcode is not None, "it hangs"
    return [Path(f"{err}.{rank}").read_text("utf-8") for rank in range(first, first + len(processes))]


def together(count: int, err: Path, *arguments, codes: tuple[int, ...] = (0,)) -> list[str]:
    processes = command_line.start_several(count, "score", *arguments, err=err)
    told = ended(processes, err)
    assert {process.exitcode for process in processes} <= {*codes}, told
    return told


def with_code(code: str, arguments: list) -> tuple[str, str]:
    """(program, argument) that run `code` and then the command line."""
    words = ["cli.py", *map(str, arguments)]
    return "benchmarks.command_line", f"import sys\n{code}\nimport cli\nsys.argv = {words!r}\ncli.main()"


@pytest.mark.parametrize("orders", ["1", "adaptive", "1,cyclic"])
def test_two_processes_leave_the_files_of_one(tmp_path, small_table, orders):
    table = small_table(24)
    arguments = [table, "--ckpt", FOLD0, "--ckpt", FOLD1, "--batch-tokens", 500, "--orders", orders]
    alone(*arguments, "--out", tmp_path / "one")
    told = together(2, tmp_path / "err", *arguments, "--out", tmp_path / "two")
    runs = [name for name in (".", "runs/1", "runs/2") if (tmp_path / "one" / name / "plan.json").exists()]
    assert len(runs) == (2 if "," in orders else 1)
    for run in ["." if "," in orders else runs[0], *runs]:
        assert content(tmp_path / "two" / run, SCORED) == content(tmp_path / "one" / run, SCORED)
        each = json.loads((tmp_path / "two" / run / "run.json").read_text()).get("processes", [])
        assert [one["process"] for one in each] == [0, 1][: len(each)] and sum(one["rows"] for one in each) >= len(each)
    assert told[1] == "" and (tmp_path / "err.1.out").read_text() == ""
    assert "24 of 24 rows scored" in (tmp_path / "err.0.out").read_text()
    assert not list((tmp_path / "two").glob("**/*.tmp"))


def test_fewer_rows_than_processes_and_three_of_them_over_two_shards(tmp_path, small_table):
    table = small_table(2)
    arguments = [table, "--ckpt", FOLD0, "--batch-tokens", 100]
    alone(*arguments, "--out", tmp_path / "one")
    together(3, tmp_path / "err", *arguments, "--out", tmp_path / "three")
    assert content(tmp_path / "three", SCORED) == content(tmp_path / "one", SCORED)
    shards = [tmp_path / "shard1", tmp_path / "shard2"]
    for number, out in enumerate(shards, 1):
        together(3, tmp_path / "err", *arguments, "--shard", f"{number}/2", "--out", out)
    done = command_line.run("merge", *shards, "--out", tmp_path / "merged")
    assert done.returncode == 0 and content(tmp_path / "merged", SCORED) == content(tmp_path / "one", SCORED)


def killed_halfway(tmp_path, arguments, which: int, code: str = "") -> tuple[list, Path]:
    """Two processes of which one is killed once some batches are filed."""
    err, out = tmp_path / "err", tmp_path / "two"
    program, text = with_code(code, ["score", *arguments, "--out", out])
    processes = command_line.start_several(2, text, program=program, err=err)
    command_line.wait_until(processes[which], lambda: len(list(out.glob("**/logits/*.parquet"))) > 2)
    processes[which].kill()
    processes[which].join()
    assert not (out / "run.json").exists()
    return processes, out


def test_the_rest_finishes_what_a_killed_process_leaves(tmp_path, small_table):
    """The run that it was killed in, and the next of the same call."""
    arguments = [small_table(60), "--ckpt", FOLD0, "--orders", "1,2", "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 1, "import scoring.run.processes as p; p.SILENT = 3")
    told = ended(processes[:1], tmp_path / "err")[0]
    assert processes[0].exitcode == 0 and told.count("process 1 does not respond any more") == 1
    assert not list(out.glob("**/*.tmp"))
    alone(*arguments, "--out", tmp_path / "one")
    for run in (".", "runs/1", "runs/2"):
        assert content(out / run, SCORED) == content(tmp_path / "one" / run, SCORED)


def test_without_the_first_process_the_others_end_and_the_next_start_completes(tmp_path, small_table):
    arguments = [small_table(60), "--ckpt", FOLD0, "--batch-tokens", 200]
    processes, out = killed_halfway(tmp_path, arguments, 0)
    told = ended(processes[1:], tmp_path / "err", first=1)[0]
    assert processes[1].exitcode == 1 and "is gone" in told and "Traceback" not in told
    told = together(2, tmp_path / "again", *arguments, "--out", out)
    assert "going on:" in told[0] and told[1] == ""
    alone(*arguments, "--out", tmp_path / "one")
    assert content(out, SCORED) == content(tmp_path / "one", SCORED)


def test_an_error_of_one_ends_all_with_its_message(tmp_path, small_table):
    broken = (
        "import os\nfrom scoring.engine.scorer import Scorer\n"
        "import time\nwhole = Scorer.answer\n"
        "def answer(*given):\n"
        "    if os.environ['RANK'] == '1': raise RuntimeError('the card is broken')\n"
        "    time.sleep(.2)\n    return whole(*given)\n"
        "Scorer.answer = answer"
    )
    arguments = ["score", small_table(24), "--ckpt", FOLD0, "--batch-tokens", 200, "--out", tmp_path / "two"]
    program, text = with_code(broken, arguments)
    processes = command_line.start_several(2, text, program=program, err=tmp_path / "err")
    told = ended(processes, tmp_path / "err")
    assert [process.exitcode for process in processes] == [1, 1]
    assert len(re.findall(r"error: process 1 on .*: RuntimeError: the card is broken", "".join(told))) == 1


def test_a_table_that_cannot_be_is_told_once(tmp_path, small_table):
    table = small_table(3)
    table.write_text(table.read_text("utf-8").replace("images/", "none/", 1), "utf-8")
    told = together(2, tmp_path / "err", table, "--ckpt", FOLD0, "--out", tmp_path / "two", codes=(2,))
    assert "".join(told).count("no file 'none/") == 1


def test_processes_that_see_different_things_are_told_apart(tmp_path, small_table):
    other = small_table(4, "other.csv")
    table = small_table(3)
    swap = f"import os, sys\nif os.environ['RANK'] == '1': words[1] = {str(other)!r}"
    words = ["score", str(table), "--ckpt", FOLD0, "--out", str(tmp_path / "two")]
    code = f"import sys\nwords = {words!r}\n{swap}\nimport cli\nsys.argv = ['cli.py', *words]\ncli.main()"
    processes = command_line.start_several(2, code, program="benchmarks.command_line", err=tmp_path / "err")
    told = "".join(ended(processes, tmp_path / "err"))
    assert [process.exitcode for process in processes] == [2, 2]
    assert "rows is 4, but 3 to the first process" in told and told.count("error:") == 1


def test_who_does_not_come_is_waited_for_and_named(tmp_path, small_table):
    arguments = ["score", small_table(3), "--ckpt", FOLD0, "--out", tmp_path / "two"]
    program, text = with_code("import scoring.run.processes as p; p.JOIN = 2", arguments)
    process = command_line.start_several(2, text, program=program, err=tmp_path / "err", ranks=[0])[0]
    told = ended([process], tmp_path / "err")[0]
    assert process.exitcode == 2 and "the 2 processes of WORLD_SIZE do not come together" in told


def test_two_hosts_that_start_anew_where_a_process_was_killed(tmp_path, small_table):
    """Two torchruns, as on two hosts that share a folder: docs/scaling.md's line for Slurm. What was filed is kept."""
    arguments = [small_table(20), "--ckpt", FOLD0, "--batch-tokens", 200]
    alone(*arguments, "--out", tmp_path / "one")
    words = ["cli.py", "score", *map(str, arguments), "--overwrite", "--out", str(tmp_path / "two")]
    program = tmp_path / "killed_once.py"
    program.write_text(
        "import os, signal, sys, time\nfrom pathlib import Path\nfrom scoring.engine.scorer import Scorer\n"
        f"mark, parts, whole = Path({str(tmp_path / 'killed')!r}), Path({str(tmp_path / 'two')!r}), Scorer.answer\n"
        "def answer(*given):\n"
        "    if os.environ['RANK'] == '1' and not mark.exists() and len(list(parts.glob('logits/*.parquet'))) > 1:\n"
        "        mark.touch()\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    time.sleep(0 if mark.exists() else 0.3)\n    return whole(*given)\n"
        f"Scorer.answer = answer\nimport cli\nsys.argv = {words!r}\ncli.main()\n"
    )
    meeting = ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{command_line.free_port()}"]
    group = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", "--max-restarts", "3", *meeting]
    environment = os.environ | ALONE | {"PYTHONPATH": str(ROOT)}
    started = [sys.executable, *group, str(program)]
    hosts = [subprocess.Popen(started, cwd=ROOT, env=environment, stdout=-1, stderr=-2, text=True) for _ in range(2)]
    told = [host.communicate(timeout=250)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], told
    assert (tmp_path / "killed").exists() and "".join(told).count("going on:") == 1
    assert "".join(told).count("20 of 20 rows scored") == 1
    assert content(tmp_path / "two", SCORED) == content(tmp_path / "one", SCORED)


def test_what_needs_no_help_is_done_by_one(tmp_path):
    processes = command_line.start_several(2, "show", FOLD0, err=tmp_path / "err")
    assert ended(processes, tmp_path / "err") == ["", ""] and not any(process.exitcode for process in processes)
    assert [(tmp_path / f"err.{rank}.out").read_text("utf-8").count("fold0") > 0 for rank in (0, 1)] == [True, False]


# ------------------------------------------------------------------ among themselves
@pytest.mark.parametrize(
    "visible, number, taken", [(None, 1, "1"), ("4,6", 1, "6"), ("4,6", 2, "4"), ("3", 1, "3"), ("", 1, "")]
)
def test_each_takes_a_card_of_its_host(monkeypatch, visible, number, taken):
    monkeypatch.setattr("scoring.run.processes._count_cards", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    take_card(number)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == taken


def test_without_cards_none_is_taken(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    take_card(1)
    assert "CUDA_VISIBLE_DEVICES" not in os.environ or os.path.exists("/dev/nvidiactl")


def test_what_is_told_is_heard_whatever_its_length():
    processes = Processes()
    processes.publish("long", ["가" * PIECE, {"a": 1}])
    assert processes.receive("long") == ["가" * PIECE, {"a": 1}]


def test_a_queue_gives_each_batch_once():
    processes = Processes()
    first, second = (Queue(processes, "x", [5, 3, 8]).take() for _ in range(2))
    assert [next(first), next(second), next(first), next(second, None), next(first, None)] == [5, 3, 8, None, None]
