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


# ------------------------------------------------------------------ the first lines
@pytest.mark.parametrize("first", ["sep=;", '"sep=;"', "\ufeffSEP=;"])
def test_excels_line_with_the_separator_is_no_header(opened, first):
    table = opened(f"{first}\na;b\n1,5;2\n")
    assert (table.delimiter, table.header) == (";", ["a", "b"])
    assert list(table.rows()) == [(1, 3, ["1,5", "2"])]


def test_invisible_characters_in_names_of_columns_are_stripped(opened):
    assert opened("\ufeff\ufeffa,\u200bb\n1,2\n").header == ["a", "b"]


# ------------------------------------------------------------------ encodings
def test_a_doubtful_decoding_is_shown_with_a_sample(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("a,b\n1,2\n3,고양이\n".encode("cp949"))
    notice = open_delimited(path, {"a"}).notices[0]
    assert "read as cp949 (Korean Windows): '3,고양이' in line 3; if that is not the text, name the encoding" in notice
    path.write_bytes("a,b\n1,2\n".encode("utf-16-le"))
    assert open_delimited(path, {"a"}).notices == []  # nothing in it that another encoding would show otherwise


def test_text_that_was_lost_before_is_reported(opened):
    notice = opened("a,b\n1,2\n3,고\ufffd이\n").notices[0]
    assert "line 3 holds the replacement character U+FFFD" in notice


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_characters_on_the_edge_of_a_block_are_read(tmp_path, monkeypatch, size):
    monkeypatch.setattr("scoring.readers.unpacking.BLOCK", size)
    path = tmp_path / "t.csv"
    for encoding in ("utf-8", "cp949", "utf-16"):
        path.write_bytes("a,b\n고양이,강아지\n".encode(encoding))
        assert [row.cells for row in open_delimited(path, {"a"}).rows()] == [["고양이", "강아지"]]
    path.write_bytes("a,b\n고양이,".encode() + b"\xff\n")
    with pytest.raises(InputError, match="byte 0xff in line 2, not text in utf-8-sig or cp949"):
        open_delimited(path, {"a"})
