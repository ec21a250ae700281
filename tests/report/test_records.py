"""What the report reads of the files: numbers as text, and errors that name file and field."""

import json

import pytest

from scoring.files.reading import FileError
from scoring.report.page import write_report
from scoring.report.records import Cost, Estimate, Metrics, number, read_record
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import RunError, open_scores
from tests.shared.report_folders import bench_json, folder


def test_numbers_are_shown_in_cells_and_none_is_a_dash():
    assert [number(0.12345), number(None), number(3 * 2**30, ".2f", unit=2**30)] == ["0.123", "–", "3.00"]
    estimate, undefined = Estimate(0.5, 0.25, 0.75), Estimate(None, None, None)
    assert [estimate.text(), estimate.text(".1%"), estimate.interval()] == ["0.500", "50.0%", "0.250 – 0.750"]
    assert [undefined.text(), undefined.interval()] == ["–", "–"]


@pytest.mark.parametrize("hours, text", [(0.5, "30.0 min"), (1.0, "1.0 h"), (1234.56, "1,234.6 h")])
def test_durations_are_shown_in_minutes_or_hours(hours, text):
    assert Cost(1, hours, None).duration == text


def test_keys_that_the_report_does_not_know_are_ignored(tmp_path):
    metrics = evaluate_scores(open_scores(folder(tmp_path / "s", members=2)))
    assert read_record(Metrics, metrics | {"more": 1}) == read_record(Metrics, metrics)
    assert read_record(Metrics, metrics).ensemble and sorted(read_record(Metrics, metrics).task_types) == [
        "count",
        "object",
    ]


def test_damaged_metrics_are_named_by_file_and_field(tmp_path):
    path = folder(tmp_path / "s")
    metrics = evaluate_scores(open_scores(path))
    del metrics["overall"]["nll"]["low"]
    (path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(FileError, match=r"metrics\.json: found no overall\.nll\.low; expected one"):
        write_report(path)


def test_a_damaged_benchmark_is_named_by_file_and_field(tmp_path):
    path = bench_json(tmp_path / "b")
    values = json.loads((path / "bench.json").read_text())
    values["ways"]["seed"]["rows_per_second"] = "fast"
    (path / "bench.json").write_text(json.dumps(values))
    with pytest.raises(RunError, match=r"ways\.seed\.rows_per_second is 'fast'; expected a valid number.*run it again"):
        write_report(path)
