"""Several processes that score one table: the files of one, whatever happens to one of them on the way."""

import json
import os
import re
from itertools import count
from pathlib import Path

import pytest
from torch.distributed import HashStore

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from scoring.run import processes as module
from scoring.run.processes import PIECE, ProcessError, Processes, Queue, join, take_card
from tests.shared.processes import run_alone, run_together, stderr_of_all, with_code

ROOT = Path(__file__).resolve().parents[2]
FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))


@pytest.mark.parametrize("orders", ["adaptive", "1,cyclic"])
def test_two_processes_leave_the_files_of_one(tmp_path, small_table, orders):
    table = small_table(6)
    arguments = ["score", table, "--ckpt", FOLD0, "--ckpt", FOLD1, "--batch-tokens", 250, "--orders", orders]
    run_alone(*arguments, "--out", tmp_path / "one")
    told = run_together(2, tmp_path / "err", *arguments, "--out", tmp_path / "two")
    runs = [name for name in (".", "runs/1", "runs/2") if (tmp_path / "one" / name / "plan.json").exists()]
    assert len(runs) == (2 if "," in orders else 1)
    for run in ["." if "," in orders else runs[0], *runs]:
        assert content(tmp_path / "two" / run, SCORED) == content(tmp_path / "one" / run, SCORED)
        each = json.loads((tmp_path / "two" / run / "run.json").read_text()).get("processes", [])
        assert [one["process"] for one in each] == [0, 1][: len(each)] and sum(one["rows"] for one in each) >= len(each)
    assert told[1] == "" and (tmp_path / "err.1.out").read_text() == ""
    assert "6 of 6 rows scored" in (tmp_path / "err.0.out").read_text()
    assert not list((tmp_path / "two").glob("**/*.tmp"))


def test_fewer_rows_than_processes_and_two_of_them_over_two_shards(tmp_path, small_table):
    table = small_table(2)
    arguments = ["score", table, "--ckpt", FOLD0, "--batch-tokens", 100]
    run_alone(*arguments, "--out", tmp_path / "one")
    run_together(3, tmp_path / "err", *arguments, "--out", tmp_path / "three")
    assert content(tmp_path / "three", SCORED) == content(tmp_path / "one", SCORED)
    shards = [tmp_path / "shard1", tmp_path / "shard2"]
    for number, out in enumerate(shards, 1):
        run_together(2, tmp_path / "err", *arguments, "--shard", f"{number}/2", "--out", out)
    done = command_line.run("merge", *shards, "--out", tmp_path / "merged")
    assert done.returncode == 0 and content(tmp_path / "merged", SCORED) == content(tmp_path / "one", SCORED)


def test_an_error_of_one_ends_all_with_its_message(tmp_path, small_table):
    broken = (
        "import os\nfrom scoring.engine.batch_scorer import BatchScorer\n"
        "import time\nwhole = BatchScorer.begin\n"
        "def begin(*given):\n"
        "    if os.environ['RANK'] == '1': raise RuntimeError('the card is broken')\n"
        "    time.sleep(.2)\n    return whole(*given)\n"
        "BatchScorer.begin = begin"
    )
    arguments = ["score", small_table(24), "--ckpt", FOLD0, "--batch-tokens", 200, "--out", tmp_path / "two"]
    program, text = with_code(broken, arguments)
    processes = command_line.start_several(2, text, program=program, err=tmp_path / "err")
    told = stderr_of_all(processes, tmp_path / "err")
    assert [process.exitcode for process in processes] == [1, 1]
    assert len(re.findall(r"error: process 1 on .*: RuntimeError: the card is broken", "".join(told))) == 1


def test_a_table_that_cannot_be_is_told_once(tmp_path, small_table):
    table = small_table(3)
    table.write_text(table.read_text("utf-8").replace("images/", "none/", 1), "utf-8")
    told = run_together(2, tmp_path / "err", "score", table, "--ckpt", FOLD0, "--out", tmp_path / "two", codes=(2,))
    assert "".join(told).count("no file 'none/") == 1


def test_processes_that_see_different_things_are_told_apart(tmp_path, small_table):
    other = small_table(4, "other.csv")
    table = small_table(3)
    swap = f"import os, sys\nif os.environ['RANK'] == '1': words[1] = {str(other)!r}"
    words = ["score", str(table), "--ckpt", FOLD0, "--out", str(tmp_path / "two")]
    code = f"import sys\nwords = {words!r}\n{swap}\nimport cli\nsys.argv = ['cli.py', *words]\ncli.main()"
    processes = command_line.start_several(2, code, program="benchmarks.command_line", err=tmp_path / "err")
    told = "".join(stderr_of_all(processes, tmp_path / "err"))
    assert [process.exitcode for process in processes] == [2, 2]
    assert "rows is 4, but 3 to the first process" in told and told.count("error:") == 1


def test_who_does_not_come_is_waited_for_and_named(tmp_path, small_table):
    arguments = ["score", small_table(3), "--ckpt", FOLD0, "--out", tmp_path / "two"]
    program, text = with_code("import scoring.run.processes as p; p.JOIN = 2", arguments)
    process = command_line.start_several(2, text, program=program, err=tmp_path / "err", ranks=[0])[0]
    told = stderr_of_all([process], tmp_path / "err")[0]
    assert process.exitcode == 2 and "the 2 processes of WORLD_SIZE do not come together" in told


def test_what_needs_no_help_is_done_by_one(tmp_path):
    processes = command_line.start_several(2, "show", FOLD0, err=tmp_path / "err")
    assert stderr_of_all(processes, tmp_path / "err") == ["", ""] and not any(process.exitcode for process in processes)
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


def test_who_makes_progress_is_waited_for_and_who_makes_none_is_named():
    steps, waiting = count(), Processes(0, 3)
    waiting.wait(lambda: next(steps) > 50, [1], progress=lambda: next(steps), limit=0.05)
    with pytest.raises(ProcessError, match="waited 0 s in vain for process 1 and 2; start all again") as error:
        waiting.wait(lambda: False, [1, 2], limit=0.05)
    assert error.value.code == 1


def test_what_an_earlier_start_left_in_the_store_is_not_read(monkeypatch):
    kept = HashStore()
    monkeypatch.setattr(module, "rendezvous", lambda url, timeout: iter([(kept, 1, 2)]))
    monkeypatch.setattr(module, "take_card", lambda number: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    first = join()
    assert first.first_time("overwrite")
    first.publish("fault", ["the card is broken", 1])
    with pytest.raises(ProcessError, match="what an earlier one left; start all again, without automatic restarts"):
        join()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    second = join()
    second.raise_fault()
    assert second.add("x") == 1 and not second.first_time("overwrite")
