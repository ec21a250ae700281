"""`bench` as a function: the figures of bench.json as a record, and nothing left behind unless it is asked for."""

import json
from pathlib import Path

import pytest

from scoring.errors import CallError, ScoringError
from scoring.library import benchmarking
from scoring.library.benchmarking import bench, rows_or_demo
from scoring.report.records import BenchRun, read_record
from scoring.tables.reading import read_table
from tests.shared.demo import FOLD0


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def known_scorer(scorer, monkeypatch):
    """The benchmark takes a model that is loaded already."""
    monkeypatch.setattr("scoring.benchmark.measure.BatchScorer", lambda plan, weights: scorer.with_plan(plan))


def test_the_figures_are_those_of_the_file(known_scorer, small_table, tmp_path):
    steps, ways = [], ["forward", "engine"]
    measured = bench(
        small_table(3), FOLD0, out="kept", ways=ways, repeats=1, limit=2, progress=lambda *step: steps.append(step)
    )
    assert list(measured.ways) == ways and measured.rows == 2 and steps[0] == (0, 4) and steps[-1] == (4, 4)
    assert measured == read_record(BenchRun, json.loads(Path("kept/bench.json").read_text("utf-8")))
    assert Path("kept/report.html").exists() and all(way.rows_per_second > 0 for way in measured.ways.values())


def test_rows_in_memory_are_measured_and_nothing_is_left_behind(known_scorer, demo, tmp_path):
    row = read_table(demo / "test.csv").questions[0]
    rows = [{"id": "1", "path": row.picture.read_bytes(), "question": row.question, "choices": list(row.options)}]
    measured = bench(rows, FOLD0, ways=["engine"], repeats=1)
    assert [(each.id, each.picture) for each in measured.per_row] == [("1", "")] and measured.ways[
        "engine"
    ].ratio is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"ways": ["engine", "fast"]}, "ways: found 'fast'; expected some of seed"),
        ({"repeats": 0}, "repeats=0"),
        ({"limit": 0}, "limit=0"),
        ({"pixels": 5}, "pixels '5': expected a side of at least 32"),
        ({"ckpt": None}, "name the checkpoint with ckpt="),
        ({"weights": "8bit"}, 'weights="8bit": expected one of'),
    ],
)
def test_what_cannot_be_measured_is_refused(small_table, arguments, message):
    with pytest.raises(ScoringError, match=message):
        bench(small_table(1), **{"ckpt": FOLD0} | arguments)


def test_without_rows_the_demo_is_measured(demo, tmp_path, monkeypatch):
    assert rows_or_demo(None, None, None) == (demo / "test.csv", str(demo / "checkpoints" / "fold0"), 80)
    assert rows_or_demo(None, "mine", 3) == (demo / "test.csv", "mine", 3)
    assert rows_or_demo("rows", "mine", None) == ("rows", "mine", None)
    monkeypatch.setattr(benchmarking, "DEMO", tmp_path)
    with pytest.raises(CallError, match="the demo is not installed with the package"):
        rows_or_demo(None, None, None)
