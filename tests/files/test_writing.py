"""Files appear whole or not at all."""

import json

from scoring.files import writing as files
from scoring.files.writing import write_columns
from scoring.files.writing import write_csv as write_csv_rows


def test_a_link_beside_a_file_is_replaced_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "x.json.tmp").symlink_to(precious)
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert precious.read_text() == "mine" and json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_columns_are_written_as_the_csv_module_writes_them(tmp_path):
    columns = {"id": ["a", 'b"c', "d,e", "f\ng", "", " j"], "x": list("123456")}
    write_columns(tmp_path / "columns.csv", columns)
    write_csv_rows(tmp_path / "rows.csv", [list(columns), *zip(*columns.values())])
    assert (tmp_path / "columns.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()
