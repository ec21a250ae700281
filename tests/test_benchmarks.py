"""The programs that time the product run at demo size, and what they time at full size is made as it should be."""

import json
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner
from PIL import Image
from safetensors import safe_open

from benchmarks import command_line, first_run, scaling, training, workload
from benchmarks.faults import check_picture, check_table, damage, good_pictures, good_tables
from scoring.tables.reading import read_table


def test_every_way_is_timed_in_one_run(tmp_path):
    out = tmp_path / "t.json"
    choices = ["--rows", 4, "--repeats", 1, "--no-exact", "--work", tmp_path, "--out", out]
    done = command_line.run(*choices, program="benchmarks.throughput")
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert [way["way"] for way in report["ways"]] == [
        "the notebook: generate 2 tokens, a row at a time",
        "generate 2 tokens, 16 rows",
        "padded forward, 16 rows (transformers and peft)",
        "engine: one order",
        "engine: cyclic orders (4)",
        "engine: 2 checkpoints",
    ]
    assert all(way["rows"] == 4 and way["rows_per_second"] > 0 for way in report["ways"])
    assert report["versions"]["torch"] and "rows/s" in done.stdout


def test_single_questions_are_timed(tmp_path):
    out = tmp_path / "o.json"
    choices = ["--questions", 2, "--repeats", 1, "--modes", "16bit", "--work", tmp_path, "--out", out]
    done = command_line.run(*choices, program="benchmarks.one_question")
    assert done.returncode == 0, done.stderr
    ways = json.loads(out.read_text())["ways"]
    calls = [("score", "1"), ("score", "cyclic"), ("ask", "1")]
    assert [(way["call"], way["orders"]) for way in ways] == calls * (2 if command_line.CARD else 1)
    assert all(way["calls"] == 2 and 0 < way["p50_ms"] <= way["p95_ms"] for way in ways) and "p50 ms" in done.stdout


def test_every_way_of_training_is_timed(monkeypatch, tmp_path):
    """By one step of each, with at most two rows instead of 16."""
    ways, out = [replace(way, batch=min(way.batch, 2)) for way in training.ways_of(False)], tmp_path / "t.json"
    monkeypatch.setattr(training, "ways_of", lambda on_card: ways)
    choices = ["--rows", "12", "--steps", "0", "--work", str(tmp_path), "--out", str(out)]
    done = CliRunner().invoke(training.main, choices, catch_exceptions=False)
    report = json.loads(out.read_text())
    assert len(report["ways"]) == 5 and all(way["rows_per_second"] > 0 for way in report["ways"])
    assert done.exit_code == 0 and "tree, recomputing" in done.stdout


def test_a_large_table_is_timed(tmp_path):
    done = command_line.run("--rows", 500, "--pictures", 20, "--out", tmp_path / "r.json", program="benchmarks.reading")
    found = json.loads((tmp_path / "r.json").read_text())
    assert done.returncode == 0 and found["exit"] == 0 and found["said"].startswith("500 good rows, 4 options, 20 pict")


def test_damaged_files_are_read_or_refused():
    for good, check in ((good_tables(), check_table), (good_pictures(), check_picture)):
        found = damage(good, check, 100, check.__name__, seed=0)
        assert found["files"] == 100 and found["refused"] > 0 and found["good"] > 0


def test_the_full_size_workload(tmp_path, base):
    workload.make_pictures(tmp_path / "images", 8)
    with Image.open(tmp_path / "images" / "000007.jpg") as picture:
        assert picture.size == (640, 480) and picture.format == "JPEG"
    for name, questions in (("single", 1), ("four", 4)):
        workload.make_table(tmp_path / f"{name}.csv", 8, questions)
        table = read_table(tmp_path / f"{name}.csv")
        assert len(table.good) == 8 and len({row.picture for row in table.good}) == 8 // questions
    workload.make_adapter(tmp_path / "fold0", base, 0)
    with safe_open(tmp_path / "fold0" / "adapter_model.safetensors", "pt") as file:
        assert len(file.keys()) == 5 * 7 * 2


def test_pools_are_compared_and_files_timed(tmp_path):
    out = tmp_path / "e.json"
    choices = ["--repeats", 3, "--members", 3, "--rows", 500, "--out", out]
    done = command_line.run(*choices, program="benchmarks.ensembling")
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["simulated"]["default_is_lowest"] == {"as pooled": 1, "with a temperature": 1}
    assert [entry["files"] for entry in found["files"]] == ["csv", "scores"]


def test_what_more_processes_are_worth_is_told(monkeypatch, tmp_path):
    """Both by one process here: those of docs/scaling.md start several."""

    def alone(processes: int, *arguments) -> float:
        done = command_line.run(*arguments)
        assert done.returncode == 0, done.stderr
        return 1.0

    monkeypatch.setattr(scaling, "torchrun", alone)
    monkeypatch.setattr(scaling, "VALIDATED", 4)
    choices = ["--rows", "12", "--batches", "2", "--steps", "7", "--work", str(tmp_path), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(scaling.main, choices, catch_exceptions=False)
    assert done.exit_code == 0 and done.output.count(" times") == 2
    ways = json.loads((tmp_path / "o").read_text())["ways"]
    assert [(way["what"], way["processes"]) for way in ways] == [(w, n) for w in ("score", "train") for n in (1, 2)]
    assert all(way["rows_per_second"] > 0 for way in ways) and ways[1]["same_bytes"]


COMMAND = """import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
print(sys.argv[sys.argv.index("--limit") + 1], "rows, 1 checkpoint; loading …", file=sys.stderr, flush=True)
time.sleep(0.2)
(out / "logits").mkdir(parents=True)
for name in ("plan.json", "logits/part-000000.parquet", "logits/part-000001.parquet"):
    (out / name).write_text("{}")
    time.sleep(0.05)
seconds = dict(planning=0.01, loading=0.1, loading_weights=0.06, verifying=0, compiling=0, scoring=0.1)
(out / "run.json").write_text(json.dumps({"seconds": seconds, "peak_gpu_bytes": 2**30}))
"""


def test_the_seconds_of_a_whole_command_are_told_by_phase(monkeypatch, tmp_path):
    """Of a command that leaves what `score` leaves, in processes of its own."""
    (tmp_path / "cli.py").write_text(COMMAND, encoding="utf-8")
    monkeypatch.setattr(first_run, "ROOT", tmp_path)
    choices = [
        "--rows",
        "4",
        "--no-imports",
        "--work",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
        "--",
        "--no-verify",
    ]
    done = CliRunner().invoke(first_run.main, [*map(str, choices)], catch_exceptions=False)
    ways = json.loads((tmp_path / "o").read_text())["ways"]
    assert [(way["command"], way["state"]) for way in ways] == [("now", "new"), ("now", "installed"), ("now", "again")]
    seconds = ways[0]["seconds"]
    after_one_another = ("table", "libraries", "loading", "planning", "compiling", "verifying", "first_batch")
    after_one_another += ("other_batches", "results", "end")
    assert abs(sum(seconds[name] for name in after_one_another) - seconds["total"]) < 0.02
    assert min(seconds[name] for name in ("table", "libraries", "first_batch", "other_batches", "results", "end")) > 0
    assert (seconds["loading"], seconds["loading_weights"], seconds["loading_and_scoring"]) == (0.1, 0.06, 0.2)
    assert seconds["card_gib"] == 1 and "first batch" in done.output


def test_what_a_machine_keeps_is_forgotten_but_for_bytecode(tmp_path):
    for value in first_run.environment(tmp_path).values():
        if value.startswith(str(tmp_path)):
            (tmp_path / Path(value).name).mkdir()
    first_run.forget(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["bytecode"]
