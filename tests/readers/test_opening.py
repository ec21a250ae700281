"""A table is read by its content, whatever its name."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.errors import InputError
from scoring.readers.opening import open_table

ROW = {"id": "7", "question": "무엇?"}


@pytest.fixture
def forms(tmp_path):
    """The same row in every format, each in a file without a suffix."""
    pq.write_table(pa.table({name: [cell] for name, cell in ROW.items()}), tmp_path / "Parquet")
    texts = {
        "CSV": "id,question\n7,무엇?\n",
        "TSV": "id\tquestion\n7\t무엇?\n",
        "CSV with semicolons": "sep=;\nid;question\n7;무엇?\n",
        "JSON": json.dumps([ROW]),
        "JSONL": f"{json.dumps(ROW)}\n{json.dumps(ROW)}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    return [tmp_path / name for name in ["Parquet", *texts]]


def test_every_format_is_recognised_packed_or_not(forms):
    for path in forms:
        plain = open_table(path, {*ROW})
        assert (plain.format, plain.header) == (path.name, ["id", "question"])
        assert next(plain.rows()).cells == ["7", "무엇?"]
        if path.name != "Parquet":
            data = path.read_bytes()
            for packed in (gzip.compress(data), pa.compress(data, "zstd", asbytes=True)):
                path.write_bytes(packed)
                table = open_table(path, {*ROW})
                assert list(table.rows()) == list(plain.rows()) and table.digest == plain.digest
                path.write_bytes(data)


def test_an_encoding_that_is_named_is_used(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("id,question\n1,犬は何匹？\n".encode("shift_jis"))
    guessed = open_table(path, {*ROW})
    assert "犬" not in next(guessed.rows()).cells[1] and "name the encoding with --encoding" in guessed.notices[0]
    named = open_table(path, {*ROW}, "shift_jis")
    assert next(named.rows()).cells == ["1", "犬は何匹？"] and not named.notices and named.format == "CSV in shift_jis"
    with pytest.raises(InputError, match="line 2, not text in utf-8; expected utf-8"):
        open_table(path, {*ROW}, "utf-8")
    with pytest.raises(InputError, match="found --encoding klingon; expected an encoding that Python knows"):
        open_table(path, {*ROW}, "klingon")


def test_a_folder_is_a_table_of_its_parquet_files_and_a_column_may_tell_their_splits(tmp_path):
    for number, split in enumerate(["dev", "test"]):
        pq.write_table(pa.table({"id": [number], "split": [split]}), tmp_path / f"part-{number}.parquet")
    assert [row.cells for row in open_table(tmp_path, {*ROW}).rows()] == [[0, "dev"], [1, "test"]]
    rows = list(open_table(tmp_path, {*ROW}, split="test").rows())
    assert [(row.number, row.cells) for row in rows] == [(2, [1, "test"])]
