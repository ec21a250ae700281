"""Exit codes of every command: 0 done, 1 a fault of ours, 2 wrong input, 3 rows without a score, 130 stopped."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import command_line

FOLD0, FOLD1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))
# Each command, with a call of it and what a fault is put into.
CALLS = {
    "check": (["demo/test.csv"], "scoring.terminal.checking.read_all_rows"),
    "train": (["demo/train.csv", "--base", "demo/base", "--out", "OUT"], "cli.read"),
    "score": (["demo/test.csv", "--ckpt", FOLD0, "--out", "OUT"], "cli.read_in_ranges"),
    "calibrate": (["none", "--ckpt", FOLD0], "scoring.checkpoints.calibrate.calibrate_checkpoint"),
    "evaluate": (["none"], "scoring.scores.external.open_or_import"),
    "ensemble": (["none", "neither", "--out", "OUT"], "scoring.scores.pooling.pool_files"),
    "merge": (["none", "--out", "OUT"], "scoring.run.shards.merge"),
    "soup": ([FOLD0, FOLD1, "--out", "OUT"], "scoring.checkpoints.soup.soup"),
    "bench": ([], "cli.read"),
    "report": (["none"], "scoring.report.page.write_report"),
    "show": ([FOLD0], "scoring.checkpoints.checkpoint.read_checkpoint"),
}
# What is raised there -> the exit code, what is told, and where the command that goes on is told too.
FAULTS = {
    "LookupError('lost')": (1, "error: LookupError: lost\nThis is a fault of the program or the machine; --debug"),
    "MemoryError()": (1, "error: out of memory; lower --batch-tokens"),
    "torch.OutOfMemoryError('CUDA')": (1, "error: out of memory; lower --batch-tokens"),
    "OSError(28, 'No space left on device', 'x')": (1, "error: x: no space left on the disk; free some"),
    "OSError(5, 'Input/output error', 'x')": (1, "error: x: Input/output error; is the file or the drive still there?"),
    "PermissionError(13, 'Permission denied', 'x')": (
        2,
        "error: x: Permission denied; expected a file or folder that you may use",
    ),
    "KeyboardInterrupt('halfway')": (130, "stopped: halfway"),
}


def failing(command: str, fault: str, out: Path, *before: str):
    call, place = CALLS[command]
    module, name = place.rsplit(".", 1)
    words = [*before, command, *(str(out) if word == "OUT" else word for word in call)]
    return command_line.python(
        f"import sys, importlib, torch, cli\n"
        f"def fail(*given, **more): raise {fault}\n"
        f"module = importlib.import_module({module!r})\n"
        f"assert hasattr(module, {name!r}); setattr(module, {name!r}, fail)\n"
        f"sys.argv = {['cli.py', *words]!r}\n"
        "cli.main()\n"
    )


@pytest.mark.parametrize(
    "command, fault",
    [(command, list(FAULTS)[at]) for command in CALLS for at in (0, -1)]
    + [(command, fault) for command in ("train", "check") for fault in list(FAULTS)[1:-1]],
)
def test_what_goes_wrong_is_told_in_one_line(tmp_path, command, fault):
    code, told = FAULTS[fault]
    done = failing(command, fault, tmp_path / "out")
    assert done.returncode == code and told in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    goes_on = command in ("score", "train") and not fault.startswith("LookupError")
    assert ("go on with: python cli.py" in done.stderr) == goes_on


def test_a_trace_on_demand(tmp_path):
    done = failing("score", "LookupError('lost')", tmp_path / "out", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "LookupError: lost" in done.stderr


@pytest.mark.parametrize("command", CALLS)
def test_a_call_that_cannot_be_ends_with_2(cli, command):
    done = cli(command, "--no-such-option", check=2)
    assert re.search("No such option:? '?--no-such-option", done.stderr) and "Traceback" not in done.stderr


# ------------------------------------------------------------------ rows without a score
@pytest.fixture
def one_bad(small_table) -> Path:
    """Eight rows; the picture of the second is missing."""
    table = small_table(8)
    rows = list(csv.reader(table.read_text("utf-8").splitlines()))
    rows[2][1] = "images/none.jpg"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return table


def test_rows_that_are_left_out_end_with_3_and_are_named(quick_cli, tmp_path, one_bad):
    training = ["--epochs", 1, "--batch", 8, "--learning-rate", 1e-3]
    for call in (
        ["check", one_bad],
        ["score", one_bad, "--ckpt", FOLD0, "--out", tmp_path / "scores"],
        ["bench", one_bad, "--ckpt", FOLD0, "--out", tmp_path / "bench", "--ways", "engine", "--repeats", 1],
        ["train", one_bad, "--base", "demo/base", "--out", tmp_path / "ckpt", *training],
    ):
        assert "Traceback" not in quick_cli(*call, check=2).stderr
        done = quick_cli(*call, "--skip-bad-rows", check=3)
        assert "row 2 (line 3, id 'test_0001'), column path" in done.stderr
        assert "going on without 1 of 8 rows" in done.stderr
    other = ["score", one_bad, "--ckpt", FOLD1, "--out", tmp_path / "other"]
    quick_cli(*other, "--skip-bad-rows", check=3)
    pool = ["ensemble", tmp_path / "scores", tmp_path / "other", "--out", tmp_path / "pool"]
    assert "1 row has no score: 'test_0001'" in quick_cli(*pool, check=3).stderr


def test_logits_that_are_no_numbers_mark_their_rows(cli, tmp_path, small_table, demo):
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "huge")
    (folder / "calibration.json").unlink()
    weights = load_file(folder / "adapter_model.safetensors")
    next(value for key, value in weights.items() if "lora_B" in key)[:] = 3e38  # their products overflow
    save_file(weights, folder / "adapter_model.safetensors")
    call = ["score", small_table(3), "--ckpt", folder, "--base", "demo/base", "--out", tmp_path / "scores"]
    done = cli(*call, check=3)
    assert "0 of 3 rows scored" in done.stdout and "no finite logits" in done.stderr
    lines = list(csv.DictReader((tmp_path / "scores" / "probabilities.csv").read_text("utf-8").splitlines()))
    assert all(line["pred"] == "" and "no finite logits" in line["status"] for line in lines)
    assert cli(*call, check=3).returncode == 3  # read again, not repeated


def test_a_checkpoint_that_cannot_be_scored_is_shown_with_its_fault(cli, tmp_path, demo):
    folder = shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "c")
    about = json.loads((folder / "scoring.json").read_text("utf-8"))
    (folder / "scoring.json").write_text(json.dumps(about | {"base_fingerprint": "0" * 16}))
    done = cli("show", folder, "--base", "demo/base", check=2)
    assert re.search(r"FAULT +the base is \w+, but the adapter was trained on 0000", done.stdout)
