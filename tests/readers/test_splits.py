"""Rows of one split, told apart by a column."""

import pytest

from scoring.errors import InputError
from scoring.readers.opening import open_table

LINES = ["id,Split,question", "1,dev,q", "2,test,r", "3, test ,s", "4,train,t"]


@pytest.fixture
def table(tmp_path):
    def write(*lines: str):
        (tmp_path / "t.csv").write_text("\n".join(lines or LINES) + "\n")
        return tmp_path / "t.csv"

    return write


def test_rows_of_the_split_keep_their_numbers(table):
    path = table()
    whole, part = open_table(path, {"id"}), open_table(path, {"id"}, split="test")
    assert [(row.number, row.line, row.cells[0]) for row in part.rows()] == [(2, 3, "2"), (3, 4, "3")]
    assert part.format == "CSV, rows of the split 'test'" and part.header == whole.header
    assert part.place_of(3) == (path, 3) and part.count is None and part.notices == whole.notices
    assert len({whole.digest, part.digest, open_table(path, {"id"}, split="dev").digest}) == 3
    assert part.digest == open_table(path, {"id"}, split="test").digest


def test_without_a_choice_the_column_is_one_like_others(table):
    assert [row.number for row in open_table(table(), {"id"}).rows()] == [1, 2, 3, 4]


def test_a_split_that_no_row_has_is_refused_with_those_that_there_are(table):
    with pytest.raises(InputError, match="no row of the split 'val'; the splits are 'dev', 'test', 'train'; expected"):
        list(open_table(table(), {"id"}, split="val").rows())


def test_a_table_without_the_column_is_refused(table):
    with pytest.raises(InputError, match="no column 'split' among 'id', 'question'; expected a column .* --split test"):
        open_table(table("id,question", "1,q"), {"id"}, split="test")


def test_rows_whose_cells_do_not_fit_the_header_are_passed_on(table):
    part = open_table(table(*LINES, "5,dev", "6,dev,q"), {"id"}, split="test")
    assert [row.number for row in part.rows()] == [2, 3, 5]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 6, 7])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(table, after):
    part = open_table(table(*LINES, "5,dev", "6,dev,q"), {"id"}, split="test")
    assert list(part.rows(after=after)) == [row for row in part.rows() if row.number > after]
    assert list(open_table(table(), {"id"}, split="val").rows(after=1)) == []
