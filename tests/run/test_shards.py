"""Shards of a table and their merge: the same bytes as one process, and whatever is missing or double is named."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import command_line
from benchmarks.faults import SCORED, content
from scoring.run.shards import assign_batches

FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))


@given(st.lists(st.integers(1, 10_000), max_size=60), st.integers(1, 9))
def test_every_batch_has_one_shard_and_shards_cost_alike(tokens, count):
    shards = [assign_batches(tokens, (number, count)) for number in range(1, count + 1)]
    assert sorted(batch for shard in shards for batch in shard) == list(range(len(tokens)))
    loads = [sum(tokens[batch] for batch in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(tokens, default=0)


def scored_in(call, folder: Path, count: int, arguments: list, check: int = 0) -> list[Path]:
    folders = [folder / f"shard{number}" for number in range(1, count + 1)]
    for number, out in enumerate(folders, 1):
        done = call("score", *arguments, "--shard", f"{number}/{count}", "--out", out)
        assert f"shard {number} of {count} is done" in done.stdout and not (out / "submission.csv").exists()
    return folders


@pytest.fixture
def table(small_table, tmp_path) -> Path:
    """8 rows; one picture is broken within, which only its batch finds."""
    path = small_table(8)
    rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    broken = tmp_path / rows[4][1]
    broken.write_bytes(broken.read_bytes()[:2000])
    return path


@pytest.mark.parametrize("orders", ["1", "cyclic", "pride"])
def test_merged_shards_are_the_bytes_of_one_process(quick_cli, tmp_path, table, orders):
    arguments = [table, "--ckpt", FOLD0, "--ckpt", FOLD1, "--batch-tokens", 350, "--orders", orders]
    quick_cli("score", *arguments, "--out", tmp_path / "whole", check=3)
    shards = scored_in(quick_cli, tmp_path, 2, arguments)
    done = quick_cli("merge", *reversed(shards), "--out", tmp_path / "merged", check=3)
    assert "1 row has no score" in done.stderr and "accuracy" in done.stdout
    assert content(tmp_path / "merged", SCORED) == content(tmp_path / "whole", SCORED)
    for name in ("plan.json", "metrics.json", "questions.parquet"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    whole, merged = (json.loads((tmp_path / name / "run.json").read_text("utf-8")) for name in ("whole", "merged"))
    differ = {key for key in {*whole, *merged} if whole.get(key) != merged.get(key)}
    assert differ <= {"command", "seconds", "sources", "processes"}
    assert sum(len(list((shard / "logits").iterdir())) for shard in shards) == whole["counts"]["batches"]


def test_more_shards_than_rows_and_a_row_that_is_left_out(quick_cli, tmp_path, small_table):
    path = small_table(4)
    path.write_text(path.read_text("utf-8").replace("images/", "none/", 1), "utf-8")
    arguments = [path, "--ckpt", FOLD0, "--skip-bad-rows"]
    quick_cli("score", *arguments, "--out", tmp_path / "whole", check=3)
    shards = scored_in(quick_cli, tmp_path, 5, arguments)
    assert sum(not any((shard / "logits").iterdir()) for shard in shards) == 4  # one batch in all
    quick_cli("merge", *shards, "--out", tmp_path / "merged", check=3)
    assert content(tmp_path / "merged", SCORED) == content(tmp_path / "whole", SCORED)


def test_a_killed_shard_goes_on(quick_cli, tmp_path, small_table):
    arguments = [small_table(9), "--ckpt", FOLD0, "--batch-tokens", 200]
    quick_cli("score", *arguments, "--out", tmp_path / "whole")
    first, second = tmp_path / "first", tmp_path / "second"
    process = command_line.start("score", *arguments, "--shard", "1/2", "--out", first)
    command_line.wait_until(process, lambda: list((first / "logits").glob("*.parquet")))
    process.kill()
    process.join()
    quick_cli("score", *arguments, "--shard", "2/2", "--out", second)
    assert (
        "begun, and not finished; the same command goes on"
        in quick_cli("merge", first, second, "--out", tmp_path / "merged", check=2).stderr
    )
    assert "going on:" in quick_cli("score", *arguments, "--shard", "1/2", "--out", first).stderr
    quick_cli("merge", first, second, "--out", tmp_path / "merged")
    assert content(tmp_path / "merged", SCORED) == content(tmp_path / "whole", SCORED)


def test_merge_takes_the_sample_and_a_shard_does_not(quick_cli, tmp_path, small_table):
    arguments = [small_table(6), "--ckpt", FOLD0]
    (tmp_path / "sample.csv").write_text("id,label\ntest_0004,a\ntest_0001,a\n")
    sample = ["--sample", tmp_path / "sample.csv"]
    refused = quick_cli("score", *arguments, *sample, "--shard", "1/2", "--out", tmp_path / "x", check=2)
    assert "give the sample to `merge`" in refused.stderr and not (tmp_path / "x").exists()
    shards = scored_in(quick_cli, tmp_path, 2, arguments)
    done = quick_cli("merge", *shards, *sample, "--out", tmp_path / "merged")
    assert "4 of 6 ids of the table are not in" in done.stderr
    quick_cli("score", *arguments, *sample, "--out", tmp_path / "whole")
    assert content(tmp_path / "merged", SCORED) == content(tmp_path / "whole", SCORED)
    lines = (tmp_path / "merged" / "submission.csv").read_text().splitlines()
    assert lines[0] == "id,label" and [line.split(",")[0] for line in lines[1:]] == ["test_0004", "test_0001"]
    about = json.loads((tmp_path / "merged" / "run.json").read_text())
    assert about["sample"]["file"] == str(tmp_path / "sample.csv")
    (tmp_path / "sample.csv").write_text("id,label\nstranger,a\n")
    refused = quick_cli("merge", *shards, *sample, "--out", tmp_path / "other", check=2)
    assert "1 of 1 ids that no row of the table has: 'stranger'" in refused.stderr
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_merged_is_named(quick_cli, tmp_path, small_table):
    arguments = [small_table(6), "--ckpt", FOLD0, "--batch-tokens", 200]
    shards = scored_in(quick_cli, tmp_path, 3, arguments)

    def told(*folders) -> str:
        done = quick_cli("merge", *folders, "--out", tmp_path / "merged", check=2)
        assert "Traceback" not in done.stderr and not (tmp_path / "merged").exists()
        return done.stderr

    assert "missing of 3 shards: 2" in told(shards[0], shards[2])
    double = told(shards[0], shards[0], shards[1], shards[2])
    assert f"shard 1 of 3 is there 2 times: {shards[0]}, {shards[0]}" in double
    other = tmp_path / "other"
    quick_cli("score", *arguments[:-1], 300, "--shard", "3/3", "--out", other)
    assert "batch_tokens is 300, but" in told(shards[0], shards[1], other)
    quick_cli("score", *arguments, "--shard", "2/4", "--out", tmp_path / "of4")
    assert "the number of shards is 4, but" in told(shards[0], tmp_path / "of4")
    assert "no shard; expected what `score --shard` leaves" in told(tmp_path)
    part = next((shards[1] / "logits").iterdir())
    part.unlink()
    assert f"1 of its parts are missing, such as logits{os.sep}{part.name}" in told(*shards)
    shutil.copytree(shards[1], tmp_path / "mixed")
    assert (
        "holds the results of another run: shard was [2, 3]"
        in quick_cli("score", *arguments, "--shard", "1/3", "--out", tmp_path / "mixed", check=2).stderr
    )
    assert "not a finished SCORES folder" in quick_cli("evaluate", shards[0], check=2).stderr


@pytest.mark.parametrize("shard", ["0/2", "3/2", "x", "1/0", "1"])
def test_a_shard_that_cannot_be(quick_cli, shard):
    assert (
        "expected the shard's number"
        in quick_cli("score", "demo/test.csv", "--ckpt", FOLD0, "--shard", shard, check=2).stderr
    )


def test_what_needs_all_rows_is_not_done_in_shards(quick_cli, tmp_path):
    call = ["score", "demo/test.csv", "--ckpt", FOLD0, "--shard", "1/2", "--out", tmp_path / "x"]
    assert "depends on all rows" in quick_cli(*call, "--orders", "adaptive", check=2).stderr
    assert "a call for each of them" in quick_cli(*call, "--orders", "1,cyclic", check=2).stderr
