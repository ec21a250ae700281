"""The rows of the report page: all of a small table, a sample of a large one."""

import numpy as np

from scoring.report.page import write_report
from scoring.report.rows import sample
from tests.shared.report_folders import folder


def test_more_rows_than_a_page_shows_are_sampled_and_the_page_says_so(tmp_path):
    text = write_report(folder(tmp_path / "s", n=200, unscored=[150]), limit=20).read_text("utf-8")
    assert text.count("<article") == 20 and "20 of 200 rows are shown" in text


def test_the_sample_has_rows_of_every_flag():
    flags = {"wrong": np.arange(1000) % 10 == 0, "members": np.zeros(1000, bool)}
    rows = sample(flags, 100)
    assert rows == sorted(set(rows)) and len(rows) == 100 and rows == sample(flags, 100)
    assert 50 <= sum(row % 10 == 0 for row in rows) < 65
    few = {"wrong": np.arange(1000) == 7}
    assert 7 in sample(few, 10) and len(sample(few, 10)) == 10
    assert sample(few, 1000) == list(range(1000))
