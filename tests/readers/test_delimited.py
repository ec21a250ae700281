"""Rows of text: where they begin, and that reading them changes nothing for others in the process."""

import csv

import pytest

from scoring.errors import InputError
from scoring.readers import delimited
from scoring.readers.delimited import open_delimited


@pytest.fixture
def opened(tmp_path):
    """Write a table and open it."""

    def write(text: str):
        (tmp_path / "t.csv").write_text(text, "utf-8")
        return open_delimited(tmp_path / "t.csv", {"a", "b"})

    return write


@pytest.mark.parametrize("block", [1, 2, 3, 1000])
def test_rows_know_their_number_and_line(opened, monkeypatch, block):
    monkeypatch.setattr(delimited, "BLOCK", block)
    table = opened('a,b\n1,2\n\n"one\ntwo",3\n4,5\n6\n')
    assert list(table.rows()) == [
        (1, 2, ["1", "2"]),
        (2, 4, ["one\ntwo", "3"]),
        (3, 6, ["4", "5"]),
        (4, 7, ["6"]),
    ]
    assert list(table.rows()) == list(table.rows())


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_broken_quoting_is_reported_with_its_line(opened, monkeypatch, block):
    monkeypatch.setattr(delimited, "BLOCK", block)
    with pytest.raises(InputError, match="broken quoting from line 4 on"):
        list(opened('a,b\n1,2\n3,4\n"open,5\n6,7\n').rows())


def test_long_cells_are_read_and_the_limit_of_the_process_stays(opened):
    limit = csv.field_size_limit()
    text = "x" * (limit + 1)
    table = opened(f"a,b\n{text},1\n2,3\n")
    for row in table.rows():
        assert csv.field_size_limit() == limit  # also while a row is used
        assert row.cells in ([text, "1"], ["2", "3"])
    with pytest.raises(InputError):
        list(opened('a,b\n"open').rows())
    assert csv.field_size_limit() == limit


def test_two_readings_at_once_do_not_disturb_each_other(opened):
    limit = csv.field_size_limit()
    table = opened(f"a,b\n{'x' * (limit + 1)},1\n2,3\n")
    first, second = table.rows(), table.rows()
    assert next(first) == next(second) and next(second).cells == ["2", "3"] == next(first).cells
    assert csv.field_size_limit() == limit
