"""Runs that are stopped, doubled, out of disk or in a wrong folder: told in one line, and nothing finished is lost."""

import errno
import os
import signal
from pathlib import Path

import pytest

from benchmarks import command_line
from benchmarks.faults import FULL, SCORED, content
from scoring.checkpoints.plan import plan_members
from scoring.files import writing as files
from scoring.files.lock import lock_folder
from scoring.messages import silent
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.tables.reading import read_table

ROOT = Path(__file__).resolve().parents[2]
FOLD0 = "demo/checkpoints/fold0"


def trace_free(text: str) -> str:
    assert "Traceback" not in text and "fault of the program" not in text, text
    return text


@pytest.fixture(scope="module")
def ours(scorer):
    """Three rows of the demo, and a whole run of them in batches of a row or two."""
    table = read_table(ROOT / "demo" / "test.csv")
    table.questions = table.questions[:3]

    def score(out: Path, **options):
        plan = plan_members([FOLD0])
        quiet = RunContext(say=silent)
        return run(table, scorer.with_plan(plan), out, RunOptions(batch_tokens=200, **options), quiet)

    return score


# ------------------------------------------------------------------ stopped by hand
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_once_a_run_files_its_batch_and_tells_how_to_go_on(quick_cli, tmp_path, small_table, number):
    arguments = ["score", small_table(9), "--ckpt", FOLD0, "--batch-tokens", "200"]
    quick_cli(*arguments, "--out", tmp_path / "whole")
    out, said = tmp_path / "stopped", tmp_path / "said"
    process = command_line.start(*arguments, "--out", out, "--overwrite", err=str(said))
    command_line.wait_until(process, lambda: list(out.glob("logits/part-*.parquet")))
    os.kill(process.pid, number)
    process.join()
    told = trace_free(said.read_text("utf-8"))
    assert process.exitcode == 130 and "stopping after the current work is saved" in told
    assert "batches are filed" in told and "go on with: python cli.py score" in told and "--overwrite" not in told
    assert not list(out.glob("**/*.tmp")) and not (out / "run.json").exists()
    assert "going on:" in quick_cli(*arguments, "--out", out).stderr
    assert content(out, SCORED) == content(tmp_path / "whole", SCORED)


def test_stopped_twice_it_stops_at_once(tmp_path, small_table):
    said = tmp_path / "said"
    arguments = ["score", small_table(6), "--ckpt", FOLD0, "--out", tmp_path / "scores"]
    process = command_line.start(*arguments, err=str(said))
    command_line.wait_until(process, lambda: (tmp_path / "scores" / ".lock").exists())
    os.kill(process.pid, signal.SIGINT)
    command_line.wait_until(process, lambda: "stopping" in said.read_text("utf-8"))
    if process.is_alive():
        os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert process.exitcode == 130 and "stopped" in trace_free(said.read_text("utf-8"))


def test_a_stopped_training_saves_its_step_and_ends_with_the_same_bytes(cli, tmp_path, small_table):
    table = small_table(8)
    choices = ["--epochs", 2, "--batch", 4, "--learning-rate", 1e-3, "--save-every", 100]
    command = ["train", table, "--base", "demo/base", *choices, "--out"]
    cli(*command, tmp_path / "whole")
    out, said = tmp_path / "stopped", tmp_path / "said"
    process, log = command_line.start(*command, out, err=str(said)), out / "train.jsonl"
    command_line.wait_until(process, lambda: log.exists() and log.read_text().count("\n"))
    os.kill(process.pid, signal.SIGINT)
    process.join()
    told = trace_free(said.read_text("utf-8"))
    assert process.exitcode == 130 and "of 4 steps are saved" in told and "go on with: python cli.py train" in told
    assert "going on: " in cli(*command, out).stderr
    for name in ("adapter_model.safetensors", "validation.csv", "calibration.json", "last/adapter_model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


# ------------------------------------------------------------------ two at once
def test_the_second_run_into_a_folder_stops(cli, tmp_path, small_table):
    with lock_folder(tmp_path / "scores"):
        done = cli("score", small_table(3), "--ckpt", FOLD0, "--out", tmp_path / "scores", check=2)
        assert "another process is writing into" in trace_free(done.stderr)
    cli("score", small_table(3), "--ckpt", FOLD0, "--out", tmp_path / "scores")
    with lock_folder(tmp_path / "ckpt"):
        command = ["train", small_table(8), "--base", "demo/base", "--out", tmp_path / "ckpt"]
        assert "another process" in trace_free(cli(*command, check=2).stderr)
        assert "another process" in trace_free(cli(*command, "--overwrite", check=2).stderr)


def test_who_dies_lets_go(tmp_path, small_table):
    out = tmp_path / "scores"
    process = command_line.start("score", small_table(6), "--ckpt", FOLD0, "--out", out)
    command_line.wait_until(process, lambda: (out / ".lock").exists())
    process.kill()
    process.join()
    with lock_folder(out), lock_folder(out):  # its own process may hold it more than once
        pass


# ------------------------------------------------------------------ disks and folders
def test_a_full_disk_at_any_write_loses_no_finished_row(ours, tmp_path, monkeypatch):
    ours(tmp_path / "whole")
    expected, sync, failed_at = content(tmp_path / "whole", SCORED), os.fsync, 0
    while True:
        writes, parts = iter(range(10_000)), 0

        def full(descriptor, writes=writes, failed_at=failed_at):
            if next(writes) == failed_at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        out = tmp_path / f"full{failed_at}"
        monkeypatch.setattr(files.os, "fsync", full)
        try:
            ours(out)
            break
        except OSError as error:
            assert error.errno == errno.ENOSPC
        parts = len(list(out.glob("logits/part-*.parquet")))
        monkeypatch.setattr(files.os, "fsync", sync)
        finished = ours(out)
        assert finished.scored_now <= 3 and content(out, SCORED) == expected, failed_at
        assert parts == max(0, min(failed_at - 1, len(expected) - len(SCORED) + 1)), "a finished part was lost"
        failed_at += 1
    assert failed_at >= len(expected)  # every file was once the one that did not fit


def test_a_full_disk_is_told_in_one_line(tmp_path, small_table):
    words = ["score", str(small_table(3)), "--ckpt", FOLD0, "--out", str(tmp_path / "scores")]
    done = command_line.python(FULL.format(writes=0, words=words))
    assert done.returncode == 1
    assert "no space left on the disk; free some" in trace_free(done.stderr) and "go on with:" in done.stderr


@pytest.mark.parametrize("command", ["score", "train"])
def test_a_folder_that_cannot_be_written_is_told_before_a_model_loads(quick_cli, tmp_path, small_table, command):
    (tmp_path / "file").write_text("in the way")
    words = ["--ckpt", FOLD0] if command == "score" else ["--base", "demo/base"]
    done = quick_cli(command, small_table(8), *words, "--out", tmp_path / "file" / "scores", check=2)
    assert "cannot be written" in trace_free(done.stderr) and "another --out" in done.stderr


def test_a_drive_that_vanishes_is_told(cli, tmp_path, small_table):
    """Its pictures cannot be read any more: rows without a score, with the reason; nothing is made up."""
    table = small_table(6)
    pictures = sorted((tmp_path / "images").iterdir())
    code = (
        "import sys, os, cli\n"
        "import scoring.engine.batches as batches\n"
        "make = batches.prepare_batch\n"
        "def gone(*given, **more):\n"
        f"    for name in {[str(path) for path in pictures[:2]]!r}:\n"
        "        if os.path.exists(name): os.rename(name, name + '.gone')\n"
        "    return make(*given, **more)\n"
        "batches.prepare_batch = gone\n"
        f"sys.argv = ['cli.py', 'score', {str(table)!r}, '--ckpt', {FOLD0!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "cli.main()\n"
    )
    done = command_line.python(code)
    assert done.returncode == 3 and "4 of 6 rows scored" in done.stdout, done.stderr
    lines = (tmp_path / "out" / "probabilities.csv").read_text("utf-8").splitlines()[1:]
    assert sum("No such file" in line for line in lines) == 2
    assert all(line.split(",")[1] == "" for line in lines if "No such file" in line)


# ------------------------------------------------------------------ links in the folder
@pytest.mark.parametrize("name", ["logits", "probabilities.csv", "members", "plan.json.tmp"])
def test_links_in_the_output_folder_are_not_written_through(quick_cli, tmp_path, small_table, name):
    out, precious = tmp_path / "scores", tmp_path / "precious"
    out.mkdir()
    if name in ("logits", "members"):
        precious.mkdir()
    else:
        precious.write_text("mine")
    (out / name).symlink_to(precious)
    done = quick_cli("score", small_table(3), "--ckpt", FOLD0, "--out", out, "--overwrite", check=2)
    assert f"holds links to other places ({name})" in trace_free(done.stderr)
    assert precious.read_text() == "mine" if precious.is_file() else not any(precious.iterdir())


# ------------------------------------------------------------------ what changed
def test_changed_options_are_noticed(quick_cli, tmp_path, small_table):
    table, out = small_table(3), tmp_path / "scores"
    quick_cli("score", table, "--ckpt", FOLD0, "--out", out)
    done = quick_cli("score", table, "--ckpt", FOLD0, "--out", out, "--images", tmp_path, check=2)
    assert "images was None, now" in trace_free(done.stderr)
    done = quick_cli("score", table, "--ckpt", FOLD0, "--out", out, "--column", "a=b", "--column", "b=a", check=2)
    assert "columns was None, now {'a': 'b', 'b': 'a'}" in trace_free(done.stderr)
    done = quick_cli("score", table, "--ckpt", "demo/checkpoints/fold1", "--out", out, check=2)
    assert "holds the results of another run" in trace_free(done.stderr) and "--overwrite" in done.stderr
