"""Parquet: cells with their types, block by block, and bytes that stay in the file."""

import hashlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.errors import InputError
from scoring.readers import parquet
from scoring.readers.parquet import holds_bytes, open_parquet


def test_cells_have_their_types_in_blocks_of_any_size(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    cells = {"id": [1, 2, 3], "choices": [["a", "b"], [], None], "question": ["q", None, "가"]}
    pq.write_table(pa.table(cells), path)
    for block in (1, 2, 1000):
        monkeypatch.setattr(parquet, "BLOCK", block)
        table = open_parquet(path)
        assert [list(row) for row in table.rows()] == [
            [1, 0, [1, ["a", "b"], "q"]],
            [2, 0, [2, [], None]],
            [3, 0, [3, None, "가"]],
        ]
    assert table.header == list(cells) and table.format == "Parquet" and not table.notices
    assert table.digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_inside_the_table_are_left_there_and_said(tmp_path):
    path = tmp_path / "t.parquet"
    picture = [{"bytes": b"\x89PNG", "path": "p.png"}]
    pq.write_table(pa.table({"id": [1], "image": picture, "images": [picture], "raw": [b"x"], "question": ["q"]}), path)
    table = open_parquet(path)
    assert table.header == ["id", "question"] and next(table.rows()).cells == [1, "q"]
    assert "bytes inside a table are not read (column image, images, raw)" in table.notices[0]


@pytest.mark.parametrize(
    "kind, expected",
    [
        (pa.binary(), True),
        (pa.large_binary(), True),
        (pa.binary(4), True),
        (pa.list_(pa.struct({"bytes": pa.binary()})), True),
        (pa.string(), False),
        (pa.list_(pa.string()), False),
        (pa.int64(), False),
    ],
)
def test_types_that_hold_bytes(kind, expected):
    assert holds_bytes(kind) is expected


def test_broken_files_and_columns_of_one_name_are_refused(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["id", "id"]), path)
    with pytest.raises(InputError, match="two columns 'id'"):
        open_parquet(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="a broken Parquet file"):
        open_parquet(path)
