"""Files appear whole or not at all."""

import json

from scoring.files import writing as files


def test_a_link_beside_a_file_is_replaced_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "x.json.tmp").symlink_to(precious)
    files.write_json(tmp_path / "x.json", {"a": 1})
    assert precious.read_text() == "mine" and json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
