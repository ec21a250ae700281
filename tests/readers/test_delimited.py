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


def test_the_limit_of_the_process_is_raised_only_where_a_cell_is_longer(opened, monkeypatch):
    set_to, real = [], csv.field_size_limit
    monkeypatch.setattr(csv, "field_size_limit", lambda *limit: set_to.extend(limit) or real(*limit))
    limit = real()
    assert len(list(opened('a,b\n1,"2\n3"\n\n,\n5,6\n').rows())) == 2 and not set_to
    table = opened(f"a,b\n1,2\n,\n{'x' * (limit + 1)},3\n4,5\n")
    assert [row.number for row in table.rows()] == [1, 2, 3] and set_to.count(limit) == len(set_to) / 2 > 0
    assert len(table.notices) == 1 and "1 row without any text" in table.notices[0]
    names, calls = f"{'x' * (limit + 1)},b", len(set_to)
    assert opened(f"{names}\n1,2\n").header[1] == "b" and len(set_to) == calls + 2
    assert real() == limit


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_rows_before_a_long_cell_are_read_once(opened, monkeypatch, block):
    monkeypatch.setattr(delimited, "BLOCK", block)
    long = "x" * (csv.field_size_limit() + 1)
    table = opened(f"a,b\n1,2\n3,4\n5,6\n{long},8\n9,0\n")
    for _ in range(2):
        assert [(row.number, row.line, row.cells[1]) for row in table.rows()] == [
            *((number, number + 1, cell) for number, cell in enumerate("24680", 1))
        ]


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


@pytest.mark.parametrize(
    "encoding, text",
    [("shift_jis", "これは何ですか、猫"), ("gb18030", "这是什么动物"), ("big5", "這是什麼動物")],
)
def test_what_else_a_text_may_be_is_shown_where_it_is_unlike_korean(tmp_path, encoding, text):
    path = tmp_path / "t.csv"
    path.write_bytes(f"a,b\n{text},x\n".encode(encoding))
    assert f"{encoding}: '{text},x'" in open_delimited(path, {"a"}).notices[0]
    path.write_bytes("a,b\n무엇이 보이나요,x\n".encode("cp949"))
    assert "(shift_jis" not in open_delimited(path, {"a"}).notices[0]
    assert open_delimited(path, {"a"}).notices[0].endswith("with --encoding")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32", "utf-16"])
@pytest.mark.parametrize("header", ["a,b", "번호,a,b", "질문,정답"])
def test_wide_characters_are_read_with_and_without_a_mark(tmp_path, encoding, header):
    (tmp_path / "t.csv").write_bytes(f"{header}\n고양이,강아지\n".encode(encoding))
    table = open_delimited(tmp_path / "t.csv", {"a", "b"})
    assert table.header == header.split(",") and [row.cells for row in table.rows()] == [["고양이", "강아지"]]


def test_a_few_zeros_do_not_make_a_text_wide(opened):
    table = opened("a,b\n" + "x\0y,고양이와 강아지와 토끼\n" * 9)
    assert (table.encoding, len(list(table.rows()))) == ("utf-8-sig", 9)


def test_two_byte_order_marks_alone_are_not_taken_for_text(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbfa,b\nx,y\n")
    table = open_delimited(tmp_path / "t.csv", {"a", "b"})
    assert (table.header, table.notices) == (["a", "b"], [])


@pytest.mark.parametrize("block", [1, 2, 1000])
def test_rows_without_text_are_left_out_and_counted(opened, monkeypatch, block):
    monkeypatch.setattr(delimited, "BLOCK", block)
    table = opened("a,b\n1,2\n,\n\n3,4\n  ,\t\n,,,,\n5,6\n,\n")
    for _ in range(2):
        assert [(row.number, row.line, row.cells) for row in table.rows()] == [
            (1, 2, ["1", "2"]),
            (2, 5, ["3", "4"]),
            (3, 8, ["5", "6"]),
        ]
        assert [notice.partition(": ")[2] for notice in table.notices] == [
            "4 rows without any text left out (first: line 3)"
        ]
    assert list(opened("a,b\n,\n,\n").rows()) == []


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("block", [1, 2, 4, 1000])
@pytest.mark.parametrize("long", [False, True])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(opened, monkeypatch, after, block, long):
    monkeypatch.setattr(delimited, "BLOCK", block)
    cell = "x" * (csv.field_size_limit() + 1) if long else "x"
    text = f'a,b\n1,2\n,\n"3\n",4\n\n{cell},6\n7,8\n,,,\n9,0\n5\n,\n'
    whole = list(opened(text).rows())
    table = opened(text)
    for _ in range(2):
        assert list(table.rows(after=after)) == whole[after:] and len(whole) == 6
        assert len(table.notices) == 1 and "3 rows without any text left out (first: line 3)" in table.notices[0]


@pytest.mark.parametrize("before", ["\n\n", ",,\n", "\ufeff\n", " ; \n", "\nsep=,\n\n"])
def test_empty_lines_before_the_header_are_no_header(opened, before):
    table = opened(before + "a,b\n1,2\n")
    assert (table.header, [row.cells for row in table.rows()]) == (["a", "b"], [["1", "2"]])


def test_a_line_with_a_separator_that_is_not_used_is_left_out(opened):
    assert opened("sep=;\na,b\n1,2\n").header == opened("sep=,\na,b\n1,2\n").header == ["a", "b"]
    assert opened("sep=~\na~b\n1~2\n").header == ["a", "b"]


def test_vertical_bars_separate(opened):
    table = opened("a|b\n1,5|2\n")
    assert (table.format, [row.cells for row in table.rows()]) == ("CSV with vertical bars", [["1,5", "2"]])


@pytest.mark.parametrize("title", ["My questions", "# made by hand, in May", "Questions,,,", "x\n\ny"])
def test_a_title_above_the_names_of_columns_is_named(tmp_path, title):
    path = tmp_path / "t.csv"
    path.write_text(f"{title}\nid,question,a,b\n1,q,x,y\n", "utf-8")
    with pytest.raises(InputError, match="above the names of columns, 'id,question,a,b'.*remove the lines above"):
        open_delimited(path, {"id", "question", "a", "b"})
    path.write_text("nr,frage\n1,question\n", "utf-8")
    assert open_delimited(path, set()).header == ["nr", "frage"]  # where the names are not known


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
    with pytest.raises(InputError, match="byte 0xff in line 2, not text in UTF-8 or cp949"):
        open_delimited(path, {"a"})
