"""A killed training goes on from its saved state, and ends with the same bytes."""

import json
import re
import signal
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import command_line
from scoring.checkpoints.checkpoint import read_checkpoint
from tests.shared.trainings import QUICK, Killed, losses, trained, trainer_of
from train.folder import finished
from train.model import Memory
from train.state import StateError
from train.training import Training

ROWS = {"rows": 7, "valid": 2}  # in batches of two, the last one of one row


@pytest.fixture(scope="module")
def whole(base, questions, tmp_path_factory):
    """A training of two epochs of four steps that nothing killed."""
    config = replace(QUICK, epochs=2, batch=2, save_every=1, ema=0.9, schedule="cosine", shuffle_options=True)
    out = tmp_path_factory.mktemp("whole") / "ckpt"
    trained(base, questions, out, config, **ROWS)
    return out, config


@pytest.mark.parametrize("step", [2, 5])  # within the first epoch; at a later one's first step
def test_a_killed_training_ends_with_the_same_bytes(base, questions, whole, tmp_path, monkeypatch, step):
    (whole, config), killed = whole, tmp_path / "ckpt"
    save = Training.save_state

    def kill(self):
        save(self)
        if self.state.step == step:
            self.log.write(step, loss=9.0)  # a line after the saved state, which is cut off
            raise Killed

    monkeypatch.setattr(Training, "save_state", kill)
    with pytest.raises(Killed):
        trained(base, questions, killed, config, **ROWS)
    monkeypatch.setattr(Training, "save_state", save)
    with pytest.raises(StateError, match="rank was 16, now 8"):
        trained(base, questions, killed, replace(config, rank=8), **ROWS)
    lines: list[str] = []
    trainer_of(base, questions[:7], questions[100:102], killed, config, lines.append).run()
    assert any(f"going on: {step} steps are done" in line for line in lines)
    for name in ("adapter_model.safetensors", "last/adapter_model.safetensors", "validation.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    logs = [[json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()] for out in (whole, killed)]
    assert [(row["step"], row.get("loss")) for row in logs[0]] == [(row["step"], row.get("loss")) for row in logs[1]]


def test_a_training_killed_by_the_system_goes_on_to_the_same_bytes(cli, small_table, tmp_path):
    table = small_table(6)
    choices = ["--epochs", 2, "--batch", 1, "--learning-rate", 1e-3, "--save-every", 1, "--seed", 1]
    command = ["train", table, "--base", "demo/base", "--valid-share", 0.3, *choices, "--out"]
    cli(*command, tmp_path / "whole")
    killed = tmp_path / "killed"
    process, log = command_line.start(*command, killed), killed / "train.jsonl"
    command_line.wait_until(process, lambda: log.exists() and log.read_text().count("\n") >= 3)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL and not finished(killed), "killed too late to show anything"
    before = log.read_text().splitlines()
    steps = int(re.search(r"going on: (\d+) steps are done", cli(*command, killed).stderr)[1])
    assert 2 <= steps < 8
    logs = [(out / "train.jsonl").read_text().splitlines() for out in (tmp_path / "whole", killed)]
    assert logs[1][:2] == before[:2]  # steps that were done are not done again: their speed is in these lines
    whole, resumed = ([json.loads(line) | {"rows_per_second": 0} for line in lines] for lines in logs)
    assert whole == resumed and len(whole) == 8 + 2
    for name in ("adapter_model.safetensors", "validation.csv", "calibration.json", "last/adapter_model.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(killed.glob("*.tmp"))


def test_a_damaged_state_is_reported(base, questions, tmp_path):
    (tmp_path / "training_state.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="damaged: start anew with --overwrite"):
        trained(base, questions, tmp_path)


def test_a_training_goes_on_with_the_memory_that_is_chosen_now(base, questions, stopped, tmp_path):
    config = replace(QUICK, epochs=2, batch=2, save_every=1, dropout=0.0, memory="fast")
    trained(base, questions, tmp_path / "whole", config, rows=6, valid=2)
    out = tmp_path / "ckpt"
    stopped(out, config, rows=6, valid=2)
    training, _ = trained(base, questions, out, replace(config, memory="low", batch_tokens=200), rows=6, valid=2)
    assert training.memory == Memory("low", 200) and training.model.network.is_gradient_checkpointing
    recorded = read_checkpoint(str(out)).manifest.training
    assert (recorded["memory"], recorded["batch_tokens"]) == ("low", 200)
    assert len(losses(out)) == 8 and np.allclose(losses(out), losses(tmp_path / "whole"), rtol=0, atol=1e-5)


def test_a_training_goes_on_with_the_memory_of_its_state_where_none_is_chosen(base, questions, stopped, tmp_path):
    config = replace(QUICK, batch=2, save_every=1, memory="low", batch_tokens=200)
    stopped(tmp_path, config, rows=6, valid=2)
    training, _ = trained(base, questions, tmp_path, replace(config, memory="auto", batch_tokens=0), rows=6, valid=2)
    assert training.memory == Memory("low", 200)
