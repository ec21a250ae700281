"""A folder belongs to one run: what is taken up, what is refused, what a killed start leaves."""

import json

import pytest

from scoring.engine.run import _claim
from scoring.results.folder import RunError

IDENTITY = {"data": "d", "batch_tokens": 100}


def test_a_new_folder_gets_its_plan(tmp_path):
    assert _claim(tmp_path / "a" / "b", IDENTITY, False).is_dir()
    assert json.loads((tmp_path / "a" / "b" / "plan.json").read_text()) == IDENTITY


def test_a_start_that_was_killed_at_once_is_no_obstacle(tmp_path):
    (tmp_path / "logits").mkdir()
    (tmp_path / "plan.json.tmp").write_text("{")
    assert _claim(tmp_path, IDENTITY, False) == tmp_path / "logits"


def test_differences_are_named_and_overwriting_starts_anew(tmp_path):
    parts = _claim(tmp_path, IDENTITY, False)
    (parts / "part-000000.parquet").write_bytes(b"x")
    (parts / "part-000001.parquet.tmp").write_bytes(b"x")
    _claim(tmp_path, IDENTITY, False)
    assert [path.name for path in parts.iterdir()] == ["part-000000.parquet"]
    with pytest.raises(RunError, match="batch_tokens was 100, now 200"):
        _claim(tmp_path, IDENTITY | {"batch_tokens": 200}, False)
    assert not any(_claim(tmp_path, IDENTITY | {"batch_tokens": 200}, True).iterdir())


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="other files"):
        _claim(tmp_path, IDENTITY, False)
