"""A folder belongs to one run: what is taken up, what is refused, what a killed start leaves."""

import json

import pytest

from scoring.run.run_folder import RunState, prepare_folder, read_state
from scoring.scores.folder import RunError

PLAN = {"data": "d", "batch_tokens": 100, "compile": False, "split": 1}


def claim(out, values, overwrite=False):
    """The folder of parts, claimed for a run with these values in its plan."""
    before = read_state(out, values, overwrite)
    prepare_folder(out, before or RunState.from_json(values, "test"), is_new=before is None)
    return out / "logits"


def test_a_new_folder_gets_its_plan(tmp_path):
    assert claim(tmp_path / "a" / "b", PLAN).is_dir()
    assert json.loads((tmp_path / "a" / "b" / "plan.json").read_text()) == PLAN


def test_a_start_that_was_killed_at_once_is_no_obstacle(tmp_path):
    (tmp_path / "logits").mkdir()
    (tmp_path / "plan.json.tmp").write_text("{")
    assert claim(tmp_path, PLAN) == tmp_path / "logits"


def test_differences_are_named_and_overwriting_starts_anew(tmp_path):
    parts = claim(tmp_path, PLAN)
    (parts / "part-000000.parquet").write_bytes(b"x")
    (parts / "part-000001.parquet.tmp").write_bytes(b"x")
    claim(tmp_path, PLAN)
    assert [path.name for path in parts.iterdir()] == ["part-000000.parquet"]
    with pytest.raises(RunError, match="batch_tokens was 100, now 200"):
        claim(tmp_path, PLAN | {"batch_tokens": 200})
    assert not any(claim(tmp_path, PLAN | {"batch_tokens": 200}, True).iterdir())


def test_what_was_chosen_is_not_asked_again(tmp_path):
    """A run that goes on takes its figures from the plan: they are not part of what it must be asked for."""
    claim(tmp_path, PLAN)
    assert read_state(tmp_path, {"data": "d"}, False).to_json() == PLAN


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="other files"):
        claim(tmp_path, PLAN)
