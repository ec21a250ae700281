"""Files appear whole or not at all."""

import json
import os

import pytest

from scoring.files import writing as files
from scoring.files.writing import write_columns
from scoring.files.writing import write_csv as write_csv_rows


def test_a_link_beside_a_file_is_replaced_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "x.json.tmp").symlink_to(precious)
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert precious.read_text() == "mine" and json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path):
    (tmp_path / "x").write_bytes(b"before")

    def write(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError):
        files.write_whole(tmp_path / "x", write)
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_bytes() == b"before"


def test_bytes_are_waited_for_unless_they_can_be_made_again(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    files.write_whole(tmp_path / "x", lambda file: file.write(b"x"), sync=False)
    assert not synced and (tmp_path / "x").read_bytes() == b"x"
    files.write_whole(tmp_path / "y", lambda file: file.write(b"y"))
    assert len(synced) == 1


def test_columns_are_written_as_the_csv_module_writes_them(tmp_path):
    columns = {"id": ["a", 'b"c', "d,e", "f\ng", "", " j"], "x": list("123456")}
    write_columns(tmp_path / "columns.csv", columns)
    write_csv_rows(tmp_path / "rows.csv", [list(columns), *zip(*columns.values())])
    assert (tmp_path / "columns.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_columns_without_rows_are_a_header(tmp_path):
    for columns, header in (({"id": []}, "id\n"), ({"id": [], "answer": []}, "id,answer\n")):
        write_columns(tmp_path / "columns.csv", columns)
        assert (tmp_path / "columns.csv").read_text() == header


def test_json_is_indented_by_two_with_characters_as_they_are_and_null_for_no_number(tmp_path):
    files.write_json(tmp_path / "x.json", {"name": {"é": [float("nan"), 1.5]}, "n": float("-inf")})
    text = '{\n  "name": {\n    "é": [\n      null,\n      1.5\n    ]\n  },\n  "n": null\n}\n'
    assert (tmp_path / "x.json").read_bytes() == text.encode()
