"""A table that no process holds: scored range by range, and the files are those of a table that is held."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Event

import pyarrow.parquet as pq
import pytest

from benchmarks.faults import SCORED, content
from scoring.files import writing
from scoring.run import joining, ranges
from scoring.run.groups import plan_groups
from scoring.run.options import RunContext, RunOptions
from scoring.scores import logits
from scoring.scores.folder import open_scores
from scoring.tables import reading
from tests.shared.demo import BOTH, FOLD0

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def held(monkeypatch):
    """Sets how many rows are held at a time."""
    return lambda rows: monkeypatch.setattr(reading, "ROWS_HELD", rows)


@pytest.fixture
def both(quick_cli, held, tmp_path):
    """A call with ranges of 7 rows, and with all rows at once: the two folders."""

    def call(*arguments, check: int = 0):
        for name, rows in (("ranges", 7), ("whole", 1000)):
            held(rows)
            quick_cli("score", *arguments, "--out", tmp_path / name, check=check)
        return tmp_path / "ranges", tmp_path / "whole"

    return call


@pytest.fixture
def calibrated(quick_cli, held, tmp_path) -> Path:
    """A checkpoint with a calibration that sets can be made from."""
    held(1000)
    checkpoint = shutil.copytree(FOLD0, tmp_path / "fold0")
    quick_cli(
        "score",
        "demo/test.csv",
        "--ckpt",
        checkpoint,
        "--base",
        "demo/base",
        "--limit",
        "60",
        "--out",
        tmp_path / "labelled",
    )
    quick_cli("calibrate", tmp_path / "labelled", "--ckpt", checkpoint)
    return checkpoint


@pytest.mark.parametrize(
    "more",
    [(), ("--ckpt", BOTH[1], "--orders", "cyclic"), ("--orders", "adaptive")],
    ids=["one order", "two checkpoints, cyclic", "adaptive"],
)
def test_numbers_are_those_of_a_table_that_is_held(both, small_table, more):
    parts, whole = both(small_table(18), "--ckpt", FOLD0, *more)
    assert len(list((parts / "logits").iterdir())) == 3 and not (parts / "ranges").exists()
    first, second = open_scores(parts), open_scores(whole)
    assert first.logits.ids == second.logits.ids and first.logits.status == second.logits.status
    assert first.questions == second.questions
    assert abs(first.log_p - second.log_p).max() < 1e-4
    assert (parts / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes()
    runs = [json.loads((folder / "run.json").read_text()) for folder in (parts, whole)]
    assert runs[0]["identity"].pop("rows_held") == 7
    for name in ("data", "identity", "checkpoints", "warnings", "notes", "weights", "versions"):
        assert runs[0][name] == runs[1][name], name
    for name in ("rows", "scored", "scored_now", "unscored", "tokens"):
        assert runs[0]["counts"][name] == runs[1]["counts"][name], name
    assert runs[0]["seconds"].keys() == runs[1]["seconds"].keys()


def test_rows_without_a_score_and_pictures_of_some_ranges_alone(both, small_table):
    path = small_table(16)
    lines = path.read_text("utf-8").splitlines(keepends=True)
    lines[9] = lines[9].replace("images/", "none/")
    path.write_text("".join(lines), "utf-8")
    parts, whole = both(path, "--ckpt", FOLD0, "--skip-bad-rows", check=3)
    assert (parts / "submission.csv").read_bytes() == (whole / "submission.csv").read_bytes()
    warnings = [json.loads((folder / "run.json").read_text())["warnings"] for folder in (parts, whole)]
    assert warnings[0] == warnings[1] and any("1 row has no score" in warning for warning in warnings[0])


def test_a_sample_submission(both, small_table, tmp_path, quick_cli):
    path = small_table(16)
    ids = [line.split(",")[0] for line in path.read_text("utf-8").splitlines()[1:]]
    (tmp_path / "sample.csv").write_text("ID,label\n" + "".join(f"{id},x\n" for id in reversed(ids)))
    parts, whole = both(path, "--ckpt", FOLD0, "--sample", tmp_path / "sample.csv")
    assert (parts / "submission.csv").read_text().startswith(f"ID,label\n{ids[-1]},")
    for name in ("submission.csv", "metrics.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("where", ["batch", "range", "end"])
def test_a_run_that_ends_anywhere_goes_on_with_the_same_bytes(
    quick_cli, held, small_table, tmp_path, monkeypatch, where
):
    call = ["score", small_table(18), "--ckpt", FOLD0, "--batch-tokens", 400]
    held(7)
    quick_cli(*call, "--out", tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(*arguments, **named):
        raise Stopped

    with monkeypatch.context() as broken:
        if where == "batch":  # in the second range
            write, parts = writing.whole_file, []

            def whole_file(path, *arguments, **named):
                parts.append(path)
                if path.parent.parent.name == "1" and path.parent.name == "logits" and len(parts) % 2:
                    raise Stopped
                return write(path, *arguments, **named)

            broken.setattr(writing, "whole_file", whole_file)
        elif where == "range":
            leave = ranges._leave
            broken.setattr(
                ranges, "_leave", lambda out, number, scored: stop() if number else leave(out, number, scored)
            )
        else:
            broken.setattr(joining, "write_json", stop)
        with pytest.raises(AssertionError, match="exit 1"):
            quick_cli(*call, "--out", tmp_path / "killed")
    done = [path.name for path in sorted((tmp_path / "killed" / "logits").iterdir())]
    assert len(done) == (3 if where == "end" else 1)
    again = quick_cli(*call, "--out", tmp_path / "killed")
    assert "ranges have their scores already" in again.stderr
    files = (*SCORED, "metrics.json", "plan.json", "questions.parquet")
    assert content(tmp_path / "killed", files) == content(tmp_path / "whole", files)
    assert not (tmp_path / "killed" / "ranges").exists()


def test_the_same_call_again_writes_the_results_anew_without_a_model(
    quick_cli, held, small_table, tmp_path, monkeypatch
):
    held(7)
    monkeypatch.setattr(joining, "SAMPLED", 12)
    call = ["score", small_table(18), "--ckpt", FOLD0, "--out", tmp_path / "out"]
    quick_cli(*call)
    before = content(tmp_path / "out", (*SCORED, "metrics.json", "questions.parquet"))
    runs = [json.loads((tmp_path / "out" / "run.json").read_text())]
    (tmp_path / "out" / "probabilities.csv").unlink()
    monkeypatch.setattr("scoring.run.loader.ModelLoader.load", None)
    quick_cli(*call)
    assert content(tmp_path / "out", (*SCORED, "metrics.json", "questions.parquet")) == before
    runs.append(json.loads((tmp_path / "out" / "run.json").read_text()))
    assert runs[0]["notes"] == runs[1]["notes"] and runs[0]["seconds"] == runs[1]["seconds"]


def test_another_call_into_the_folder_is_refused_before_a_range_is_scored(quick_cli, held, small_table, tmp_path):
    held(7)
    table, out = small_table(18), ["--out", tmp_path / "out"]
    quick_cli("score", table, "--ckpt", FOLD0, *out)
    done = quick_cli("score", table, "--ckpt", FOLD0, "--orders", "cyclic", *out, check=2)
    assert "holds the results of another run: orders was 1, now cyclic" in done.stderr
    done = quick_cli("score", table, "--ckpt", FOLD0, "--limit", "9", *out, check=2)
    assert "rows was 18, now 9; rows_held was 7, now None" in done.stderr
    held(5)
    done = quick_cli("score", table, "--ckpt", FOLD0, *out, check=2)
    assert "rows_held was 7, now 5" in done.stderr
    quick_cli("score", table, "--ckpt", FOLD0, "--orders", "cyclic", "--overwrite", *out)
    assert len(list((tmp_path / "out" / "logits").iterdir())) == 4


@pytest.mark.parametrize("more", [("--orders", "pride"), ("--orders", "1,2"), ("--shard", "1/1")])
def test_what_needs_all_rows_holds_them(quick_cli, held, small_table, tmp_path, more):
    held(7)
    done = quick_cli("score", small_table(18), "--ckpt", FOLD0, *more, "--out", tmp_path / "out")
    assert "all 18 rows are held in memory" in done.stderr


@pytest.mark.parametrize("more", [(), ("--sets-method", "aps", "--sets-seed", "5")])
def test_sets_are_those_of_a_table_that_is_held(both, small_table, calibrated, more):
    parts, whole = both(
        small_table(18), "--ckpt", calibrated, "--base", "demo/base", "--allow-mismatch", "--sets", "0.8", *more
    )
    tables = [(folder / "probabilities.csv").read_text("utf-8").splitlines() for folder in (parts, whole)]
    sets = [[row["set"] for row in csv.DictReader(table)] for table in tables]
    assert sets[0] == sets[1] and len(set(sets[0])) > 1
    runs = [json.loads((folder / "run.json").read_text()) for folder in (parts, whole)]
    assert runs[0]["sets"] == runs[1]["sets"]
    assert (parts / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_a_part_of_many_lines_is_written_and_read_some_at_a_time(both, small_table, monkeypatch):
    monkeypatch.setattr(logits, "LINES", 20)
    parts, whole = both(small_table(18), "--ckpt", FOLD0, "--ckpt", BOTH[1], "--orders", "cyclic")
    assert pq.read_metadata(parts / "logits" / "part-000000.parquet").num_row_groups > 1
    first, second = open_scores(parts), open_scores(whole)
    assert first.logits.status == second.logits.status and abs(first.log_p - second.log_p).max() < 1e-4


def test_notes_count_the_rows_of_all_ranges(both, small_table):
    path = small_table(18)
    rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    for number in (2, 5, 11):
        rows[number][6] = "all of the above"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n", "utf-8")
    parts, whole = both(path, "--ckpt", FOLD0, "--orders", "cyclic", "--allow-mismatch")
    notes = [json.loads((folder / "run.json").read_text())["notes"] for folder in (parts, whole)]
    assert notes[0] == notes[1] and any(note.startswith("3 of 18 rows keep") for note in notes[0])


def test_a_folder_that_is_a_link_is_refused(quick_cli, held, small_table, tmp_path):
    held(7)
    call = ["score", small_table(18), "--ckpt", FOLD0, "--out", tmp_path / "out"]
    quick_cli(*call)
    (tmp_path / "out" / "logits" / "part-000001.parquet").unlink()
    (tmp_path / "elsewhere" / "logits").mkdir(parents=True)
    (tmp_path / "out" / "ranges").mkdir()
    (tmp_path / "out" / "ranges" / "1").symlink_to(tmp_path / "elsewhere")
    assert "a link; expected a folder of this run" in quick_cli(*call, check=2).stderr
    assert (tmp_path / "elsewhere" / "logits").exists()


def test_processes_of_torchrun_score_ranges_together(small_table, tmp_path):
    script = tmp_path / "held.py"
    script.write_text("import sys\nfrom scoring.tables import reading\nreading.ROWS_HELD = 7\nimport cli\ncli.main()\n")
    call = ["score", small_table(18), "--ckpt", FOLD0, "--no-verify", "--batch-tokens", "400"]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, start in (("one", [sys.executable]), ("two", launched)):
        line = [*start, script, *call, "--out", tmp_path / name]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        subprocess.run(list(map(str, line)), cwd=ROOT, env=environment, check=True, timeout=120)
    assert content(tmp_path / "one", SCORED) == content(tmp_path / "two", SCORED)
    assert len(list((tmp_path / "two" / "logits").iterdir())) == 3
    assert len(json.loads((tmp_path / "two" / "run.json").read_text())["processes"]) == 2


def test_a_limit_holds_its_rows_alone(both, small_table):
    limited, whole = both(small_table(18), "--ckpt", FOLD0, "--limit", "9", "--batch-tokens", 400)
    assert not json.loads((limited / "plan.json").read_text()).get("rows_held")
    for name in ("probabilities.csv", "submission.csv", "metrics.json", "questions.parquet"):
        assert (limited / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize("where", ["in a range", "between two ranges", "at the end"])
def test_a_run_that_is_to_stop_does_so_at_once(held, small_table, tmp_path, where, known_models):
    held(7)
    table, stop = reading.read_in_ranges(small_table(18)), Event()
    (group,) = plan_groups([str(FOLD0)])
    said = {"in a range": "range 2 of 3: rows", "between two ranges": "never", "at the end": "never"}[where]

    def say(text):
        if said in text:
            stop.set()

    class Bar:
        def update(self, rows):
            filed.append(rows)
            if where == "between two ranges" and sum(filed) == 7:
                stop.set()
            if where == "at the end" and sum(filed) == 18:
                stop.set()

        def show(self, **values):
            pass

        def close(self):
            pass

    filed = []
    context = RunContext(progress=lambda total, done=0: Bar(), say=say, stop=stop)
    with pytest.raises(KeyboardInterrupt) as stopped:
        ranges.run_ranges(table, group.plan, tmp_path / "out", RunOptions(batch_tokens=400, verify=False), context)
    expected = {
        "in a range": "range 2 of 3: 1 of ",
        "between two ranges": "before range 2 of 3",
        "at the end": "all rows are scored, and the results are not written yet",
    }
    assert str(stopped.value).startswith(expected[where])
    assert len(list((tmp_path / "out" / "logits").iterdir())) == (3 if where == "at the end" else 1)


def test_a_new_start_leaves_nothing_of_the_run_before(quick_cli, held, small_table, tmp_path):
    held(7)
    quick_cli("score", small_table(18), "--ckpt", FOLD0, "--ckpt", BOTH[1], "--out", tmp_path / "out")
    path = small_table(18)
    lines = [line.rsplit(",", 3) for line in path.read_text("utf-8").splitlines()]
    path.write_text("\n".join([",".join(lines[0]), *(",".join([row[0], "", *row[2:]]) for row in lines[1:])]), "utf-8")
    quick_cli("score", path, "--ckpt", FOLD0, "--out", tmp_path / "out", "--overwrite")
    assert not (tmp_path / "out" / "metrics.json").exists() and not (tmp_path / "out" / "members").exists()


def test_metrics_and_warnings_are_of_a_sample_where_there_are_many_rows(
    quick_cli, held, small_table, tmp_path, monkeypatch
):
    monkeypatch.setattr(joining, "SAMPLED", 20)
    held(15)
    done = quick_cli("score", small_table(60), "--ckpt", FOLD0, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["drawn"]["of"] == 60 and 8 < metrics["drawn"]["rows"] == metrics["overall"]["rows"] < 36
    assert f"{metrics['drawn']['rows']} of 60 scored rows, drawn at random" in done.stderr
    run_json = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run_json["counts"]["scored"] == 60 and "60 of 60 rows scored" in done.stdout
    assert pq.read_metadata(tmp_path / "out" / "questions.parquet").num_row_groups == 4


def test_questions_that_list_their_options_are_refused_in_other_orders(quick_cli, held, small_table, tmp_path):
    held(7)
    path = small_table(18)
    rows = [line.split(",") for line in path.read_text("utf-8").splitlines()]
    rows[12][2] = f"{rows[12][2]} a) {rows[12][3]} b) {rows[12][4]} c) {rows[12][5]} d) {rows[12][6]}"
    path.write_text("\n".join(",".join(row) for row in rows) + "\n", "utf-8")
    done = quick_cli("score", path, "--ckpt", FOLD0, "--orders", "cyclic", "--out", tmp_path / "out", check=2)
    assert "list their options too (first: row 12)" in done.stderr
