"""The end of an epoch: the best one is kept, and an epoch is finished only with its state."""

from dataclasses import replace

import pytest

import train.epoch_end
from scoring.checkpoints.checkpoint import read_checkpoint
from tests.shared.trainings import QUICK, Killed, trained
from train.folder import finished
from train.validation import Validator


def test_the_best_epoch_is_kept(base, questions, tmp_path, monkeypatch):
    """Epoch 2 is made worse: the folder keeps epoch 1, the tables tell both."""
    validate = Validator.validate

    def worse(*arguments):
        result = validate(*arguments)
        if result.epoch == 2:
            result.calibration.nll_after += 10
        return result

    monkeypatch.setattr(Validator, "validate", worse)
    out = tmp_path / "two"
    trained(base, questions, out, replace(QUICK, epochs=2), rows=4, valid=2)
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (out, out / "last")]
    assert adapters[0] != adapters[1]
    assert read_checkpoint(str(out)).manifest.metrics["epoch"] == 1
    assert read_checkpoint(str(out / "last")).manifest.metrics["epoch"] == 2
    table = (out / "validation.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 2 and {line.rsplit(",", 1)[1] for line in table[1:]} == {"1", "2"}
    again = tmp_path / "early"
    results = trained(base, questions, again, replace(QUICK, epochs=4, patience=1), rows=4, valid=2)[1]
    assert [result.epoch for result in results] == [1, 2] and not (again / "training_state.safetensors").exists()


def test_a_training_killed_before_its_first_epoch_is_filed_is_not_finished(base, questions, tmp_path, monkeypatch):
    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(train.epoch_end, "write_epochs", kill)  # the adapter is written, the state after it is not
    with pytest.raises(Killed):
        trained(base, questions, tmp_path, rows=4, valid=2)
    assert (tmp_path / "adapter_model.safetensors").exists() and not finished(tmp_path)
    monkeypatch.undo()
    trained(base, questions, tmp_path, rows=4, valid=2)
    assert finished(tmp_path)


def test_what_a_checkpoint_lacks_is_told_once(base, questions, tmp_path, monkeypatch):
    monkeypatch.setattr("train.checkpoint.write_decision_files", lambda *arguments: ["files were not written"])
    lines = []
    trained(base, questions, tmp_path / "two", replace(QUICK, epochs=2), rows=4, valid=2, say=lines.append)
    assert lines.count("files were not written") == 1
