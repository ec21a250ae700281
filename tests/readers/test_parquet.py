"""Parquet: cells with their types, in small blocks, and pictures among them without filling the memory."""

import gzip
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.errors import InputError
from scoring.readers import parquet
from scoring.readers.opening import open_table
from scoring.readers.parquet import BLOCK, BLOCK_BYTES, BLOCK_WITH_BYTES, holds_bytes, open_parquet

PICTURE = {"bytes": b"\x89PNG", "path": "p.png"}


def test_cells_have_their_types_in_blocks_of_any_size(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    cells = {"id": [1, 2, 3], "choices": [["a", "b"], [], None], "question": ["q", None, "가"]}
    pq.write_table(pa.table(cells), path)
    for block in (1, 2, 1000):
        monkeypatch.setattr(parquet, "BLOCK", block)
        table = open_parquet(path)
        assert table.block == block and [list(row) for row in table.rows()] == [
            [1, 0, [1, ["a", "b"], "q"]],
            [2, 0, [2, [], None]],
            [3, 0, [3, None, "가"]],
        ]
    assert table.header == list(cells) and table.format == "Parquet" and not table.notices
    assert table.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert table.count == 3 and table.place_of(2) == (path, 2)


def test_bytes_are_read_as_they_are(tmp_path):
    path = tmp_path / "t.parquet"
    cells = {"id": [1], "image": [PICTURE], "images": [[PICTURE]], "raw": [b"x"], "question": ["q"]}
    pq.write_table(pa.table(cells), path)
    table = open_parquet(path)
    assert next(table.rows()).cells == [1, PICTURE, [PICTURE], b"x", "q"] and not table.notices


def test_columns_that_are_not_needed_are_left_out(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [1, 2], "image": [PICTURE, PICTURE], "question": ["q", "r"]}), path)
    rows = open_parquet(path).rows(without=["image"])
    assert [row.cells for row in rows] == [[1, None, "q"], [2, None, "r"]]


@pytest.mark.parametrize(
    "cells, rows_at_once",
    [
        ({"question": ["q"] * 10}, BLOCK),
        ({"image": [b"x"] * 10}, BLOCK_WITH_BYTES),
        (
            {"image": [os.urandom(BLOCK_BYTES // 2) for _ in range(3)]},
            1,
        ),  # each a little over the half, with its length
        ({"image": [os.urandom(BLOCK_BYTES * 2)]}, 1),
        ({"question": []}, BLOCK),
    ],
)
def test_a_block_has_fewer_rows_where_they_are_large(tmp_path, cells, rows_at_once):
    pq.write_table(pa.table(cells), tmp_path / "t.parquet", compression="none")
    assert open_parquet(tmp_path / "t.parquet").block == rows_at_once


def test_the_largest_part_of_a_file_decides_on_its_blocks(tmp_path):
    small, large = pa.table({"image": [b"x"] * 1000}), pa.table({"image": [os.urandom(1 << 20)] * 2})
    with pq.ParquetWriter(tmp_path / "t.parquet", small.schema, use_dictionary=False) as writer:
        writer.write_table(small)
        writer.write_table(large)
    assert open_parquet(tmp_path / "t.parquet").block == 7  # 8 MiB over a little more than 1 MiB


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system tells no peak of memory")
def test_a_large_part_of_a_file_is_not_held_in_memory(tmp_path):
    """300 MB of bytes in one row group are read within 100 MiB more than 3 MB are."""
    code = (
        "import re, sys; from pathlib import Path; from scoring.readers.parquet import open_parquet\n"
        "assert sum(len(row.cells[0]) for row in open_parquet(Path(sys.argv[1])).rows()) == int(sys.argv[2])\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1]) >> 10)"
    )
    peaks = []
    for name, rows in (("small", 30), ("large", 3000)):
        table = pa.table({"image": [os.urandom(100_000) for _ in range(rows)]})
        pq.write_table(table, tmp_path / name, write_batch_size=10)  # pages of 1 MB: one is in memory as a whole
        command = [sys.executable, "-c", code, str(tmp_path / name), str(rows * 100_000)]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    assert peaks[1] < peaks[0] + 100


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


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: pa.compress(data, "zstd", asbytes=True)])
def test_a_packed_file_is_the_same_table(tmp_path, pack):
    pq.write_table(pa.table({"id": ["1", "2"], "image": [b"x", b"y"]}), tmp_path / "plain")
    (tmp_path / "packed").write_bytes(pack((tmp_path / "plain").read_bytes()))
    plain, packed = (open_table(tmp_path / name, set()) for name in ("plain", "packed"))
    assert list(packed.rows()) == list(plain.rows()) == list(packed.rows())
    assert (packed.digest, packed.count, packed.file.name) == (plain.digest, 2, "packed")


@pytest.mark.parametrize("after", [0, 1, 2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(tmp_path, monkeypatch, after, pack):
    path, ids = tmp_path / "t.parquet", pa.table({"id": range(7), "image": [PICTURE] * 7})
    with pq.ParquetWriter(path, ids.schema) as writer:
        for start, end in ((0, 0), (0, 3), (3, 6), (6, 6), (6, 7)):  # also row groups without rows
            writer.write_table(ids.slice(start, end - start))
    path.write_bytes(pack(path.read_bytes()))
    for block in (1, 2, 1000):
        monkeypatch.setattr(parquet, "BLOCK_WITH_BYTES", block)
        table = open_table(path, set())
        assert list(table.rows(after=after)) == list(table.rows())[after:]
        assert list(table.rows(["image"], after)) == [(n + 1, 0, [n, None]) for n in range(after, 7)]


def test_row_groups_before_the_first_row_are_not_read(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": range(4)}), path, row_group_size=2, compression="gzip")
    table, data = open_parquet(path), bytearray(path.read_bytes())
    start, end = (pq.read_metadata(path).row_group(n).column(0).dictionary_page_offset for n in (0, 1))
    data[start:end] = b"\xff" * (end - start)
    path.write_bytes(data)
    with pytest.raises(InputError, match="a broken Parquet file"):
        list(table.rows(after=1))
    assert [row.number for row in table.rows(after=2)] == [3, 4]
