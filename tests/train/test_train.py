"""Training on a handful of demo rows: repeatable to the bit, honest about loss and accumulation."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train.loop
from benchmarks import command_line
from scoring import Scorer
from scoring.engine.checkpoint import folds_of, read_checkpoint
from scoring.engine.plan import plan_members
from scoring.inputs.questions import read_table
from scoring.results.folder import open_scores
from scoring.results.judging import judge
from train.config import TrainConfig
from train.folder import finished
from train.folds import fold_places, train_folds
from train.log import LogError, check_trackers
from train.loop import Trainer, TrainError
from train.model import LearningModel
from train.state import StateError

QUICK = TrainConfig(epochs=1, batch=8, learning_rate=2e-3, warmup=0.1, batch_tokens=700)


@pytest.fixture(scope="module")
def questions(demo):
    return read_table(demo / "train.csv").questions


def trained(base, questions, out, config=QUICK, rows=20, **options):
    trainer = Trainer(str(base), questions[:rows], questions[100:124], out, config, say=lambda text: None, **options)
    return trainer, trainer.run()


@pytest.fixture(scope="module")
def first(base, questions, tmp_path_factory):
    out = tmp_path_factory.mktemp("first") / "ckpt"
    return out, *trained(base, questions, out)


def test_the_files_of_a_checkpoint(first, base):
    out, trainer, results = first
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "last",
        "scoring.json",
        "train.jsonl",
        "train.toml",
        "validation",
        "validation.csv",
    ]
    checkpoint = read_checkpoint(str(out))
    manifest = checkpoint.manifest
    assert manifest.training["learning_rate"] == 2e-3 and manifest.quantization == "nf4" and manifest.letters == "abcd"
    assert manifest.pixels == {"min_pixels": 36864, "max_pixels": 36864} and manifest.metrics["nll"] == results[0].nll
    assert checkpoint.calibration.fingerprint["adapter"] == checkpoint.fingerprint()
    assert (
        manifest.base == json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    )
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 3] and steps[-1]["valid_nll"] > 0
    assert len((out / "validation.csv").read_text().splitlines()) == 25


def test_the_last_step_takes_the_rows_that_are_left_and_the_schedule_ends_with_it(first):
    """20 rows in steps of 8: three steps, the last of 4 rows; the rate falls in a line to 0 after them."""
    steps = [json.loads(line) for line in (first[0] / "train.jsonl").read_text().splitlines()][:3]
    assert np.allclose([entry["learning_rate"] for entry in steps], [2e-3, 2e-3 * 2 / 3, 2e-3 / 3], atol=1e-6)
    assert first[1].rows_done == 20


def test_gradients_are_clipped(base, questions, tmp_path):
    """AdamW hides how long a gradient is, unless it is as short as its epsilon."""
    trainer, _ = trained(base, questions, tmp_path, replace(QUICK, clip=1e-13), rows=8)
    moved = max(weight.abs().max().item() for weight in trainer.model.weights if not weight.abs().max() > 1e-2)
    assert moved < 2e-3 * 1e-3


def test_seeds_repeat_the_training_bit_for_bit(first, base, questions, tmp_path):
    out, _, results = first
    _, again = trained(base, questions, tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        out / "adapter_model.safetensors"
    ).read_bytes()
    assert np.array_equal(again[0].logits, results[0].logits)
    assert (tmp_path / "again" / "adapter_config.json").read_bytes() == (out / "adapter_config.json").read_bytes()
    trained(base, questions, tmp_path / "other", replace(QUICK, seed=1))
    assert (tmp_path / "other" / "adapter_model.safetensors").read_bytes() != (
        out / "adapter_model.safetensors"
    ).read_bytes()


def test_scoring_the_checkpoint_gives_its_validation_logits(first, questions):
    out, _, results = first
    found = Scorer.load(str(out)).score(questions[100:124])
    assert np.abs(found.logits[:, 0, 0] - results[0].logits).max() < 1e-4


def test_a_loss_that_is_no_number_stops_with_the_rows(base, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(LearningModel, "loss_backward", lambda *arguments: torch.tensor(float("nan")))
    with pytest.raises(TrainError, match=questions[0].id[:5]):
        trained(base, questions, tmp_path / "nan")


def test_the_best_epoch_is_kept(base, questions, tmp_path, monkeypatch):
    """Epoch 2 is made worse: the folder keeps epoch 1, the tables tell both."""
    validate = train.loop.validate

    def worse(*arguments):
        result = validate(*arguments)
        if result.epoch == 2:
            result.calibration.nll_after += 10
        return result

    monkeypatch.setattr(train.loop, "validate", worse)
    out = tmp_path / "two"
    trained(base, questions, out, replace(QUICK, epochs=2), rows=8)
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (out, out / "last")]
    assert adapters[0] != adapters[1]
    assert read_checkpoint(str(out)).manifest.metrics["epoch"] == 1
    assert read_checkpoint(str(out / "last")).manifest.metrics["epoch"] == 2
    table = (out / "validation.csv").read_text().splitlines()
    assert len(table) == 1 + 2 * 24 and {line.rsplit(",", 1)[1] for line in table[1:]} == {"1", "2"}
    again = tmp_path / "early"
    found = trained(base, questions, again, replace(QUICK, epochs=4, patience=1), rows=8)[1]
    assert [result.epoch for result in found] == [1, 2] and not (again / "training_state.safetensors").exists()


def test_validation_rows_are_a_scores_folder(first, questions):
    out, _, results = first
    found = open_scores(out / "validation")
    logits = found.logits
    assert np.array_equal(logits.logits[:, 0, 0], results[0].logits) and logits.scored.all()
    assert judge(found)["overall"]["nll"]["value"] == pytest.approx(results[0].nll, abs=1e-6)


# ------------------------------------------------------------------ going on
class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture(scope="module")
def whole(base, questions, tmp_path_factory):
    """A training of two epochs of four steps that nothing killed."""
    config = replace(QUICK, epochs=2, batch=6, save_every=1, ema=0.9, schedule="cosine", shuffle_options=True)
    out = tmp_path_factory.mktemp("whole") / "ckpt"
    trained(base, questions, out, config)
    return out, config


@pytest.mark.parametrize("at", [2, 5])  # within the first epoch; at a later one's first step
def test_a_killed_training_ends_with_the_same_bytes(base, questions, whole, tmp_path, monkeypatch, at):
    (whole, config), killed = whole, tmp_path / "ckpt"
    write = train.loop.Trainer._save_state

    def kill(self, log):
        write(self, log)
        if self.step == at:
            log.write(self.step, loss=9.0)  # a line after the state, which must go
            raise Killed

    monkeypatch.setattr(train.loop.Trainer, "_save_state", kill)
    with pytest.raises(Killed):
        trained(base, questions, killed, config)
    monkeypatch.setattr(train.loop.Trainer, "_save_state", write)
    with pytest.raises(StateError, match="rank was 16, now 8"):
        trained(base, questions, killed, replace(config, rank=8))
    said: list[str] = []
    Trainer(str(base), questions[:20], questions[100:124], killed, config, say=said.append).run()
    assert any(f"going on: {at} steps are done" in line for line in said)
    for name in ("adapter_model.safetensors", "last/adapter_model.safetensors", "validation.csv"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    logs = [[json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()] for out in (whole, killed)]
    assert [(row["step"], row.get("loss")) for row in logs[0]] == [(row["step"], row.get("loss")) for row in logs[1]]


def test_a_training_killed_by_the_system_goes_on_to_the_same_bytes(cli, small_table, tmp_path):
    table = small_table(8)
    choices = ["--epochs", 2, "--batch", 4, "--learning-rate", 1e-3, "--save-every", 1, "--seed", 1]
    command = ["train", table, "--base", "demo/base", "--valid", table, *choices, "--out"]
    cli(*command, tmp_path / "whole")
    killed = tmp_path / "killed"
    process, log = command_line.start(*command, killed), killed / "train.jsonl"
    command_line.wait_until(process, lambda: log.exists() and log.read_text().count("\n") >= 2)
    process.kill()
    process.join()
    assert "going on: " in cli(*command, killed).stderr
    for name in ("adapter_model.safetensors", "validation.csv", "calibration.json", "last/adapter_model.safetensors"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert not list(killed.glob("*.tmp"))


def test_a_training_killed_before_its_first_epoch_is_filed_is_not_finished(base, questions, tmp_path, monkeypatch):
    def kill(*arguments):
        raise Killed

    monkeypatch.setattr(train.loop, "write_epochs", kill)  # the adapter is written, the state after it is not
    with pytest.raises(Killed):
        trained(base, questions, tmp_path, rows=8)
    assert (tmp_path / "adapter_model.safetensors").exists() and not finished(tmp_path)
    monkeypatch.undo()
    trained(base, questions, tmp_path, rows=8)
    assert finished(tmp_path)


def test_a_damaged_state_is_told(base, questions, tmp_path):
    (tmp_path / "training_state.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="damaged: start anew with --overwrite"):
        trained(base, questions, tmp_path)


# ------------------------------------------------------------------ folds and trackers
def test_folds_leave_out_of_fold_logits_and_are_scored_together(base, questions, tmp_path):
    out, said = tmp_path / "folds", []

    def trainer(rows, valid, folder, apart):
        return Trainer(str(base), rows, valid, folder, QUICK, say=said.append)

    train_folds(questions[:42], 2, 0, out, trainer, said.append)
    logits = open_scores(out / "out-of-fold").logits
    assert logits.scored.all() and logits.ids == [row.id for row in questions[:42]]
    assert [Path(name).name for name in folds_of(str(out))] == ["fold0", "fold1"]
    held = fold_places(questions[:42], 2, 0)[1]
    found = Scorer.load(str(out / "fold1")).score([questions[at] for at in held])
    assert np.abs(found.logits - logits.logits[held]).max() < 1e-4
    assert plan_members([str(out)]).members == ["fold0", "fold1"]
    before = (out / "out-of-fold" / "probabilities.csv").read_bytes()
    train_folds(questions[:42], 2, 0, out, trainer, said.append)  # nothing is trained again
    assert "fold 1: finished before" in said
    assert (out / "out-of-fold" / "probabilities.csv").read_bytes() == before


def test_trackers_get_the_numbers_of_the_log(base, questions, tmp_path, monkeypatch):
    written: dict[str, list] = {"wandb": [], "trackio": [], "tensorboard": []}

    class Run:
        def __init__(self, name):
            self.log = lambda values, step: written[name].append((step, values))
            self.finish = lambda: written[name].append("closed")

    class Board:
        def __init__(self, folder):
            self.close = lambda: written["tensorboard"].append("closed")

        def add_scalar(self, key, value, step):
            written["tensorboard"].append((step, {key: value}))

    runs = {name: Run(name) for name in ("wandb", "trackio")}
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: runs["wandb"]))
    trackio = SimpleNamespace(init=lambda **_: None, log=runs["trackio"].log, finish=runs["trackio"].finish)
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Board))
    trained(base, questions, tmp_path / "ckpt", rows=8, trackers=("wandb", "trackio", "tensorboard"))
    lines = [json.loads(line) for line in (tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()]
    for name in ("wandb", "trackio"):
        assert written[name][-1] == "closed" and len(written[name]) == len(lines) + 1
        assert written[name][0][1]["loss"] == lines[0]["loss"]
    assert (1, {"loss": lines[0]["loss"]}) in written["tensorboard"] and written["tensorboard"][-1] == "closed"


def test_a_tracker_that_is_not_installed_is_told_at_once(monkeypatch):
    monkeypatch.setattr("train.log.find_spec", lambda name: None)
    with pytest.raises(LogError, match="--log trackio needs a package that is not installed: pip install trackio"):
        check_trackers(("trackio",))


def test_generating_gives_its_accuracy_too(base, questions, tmp_path):
    _, results = trained(base, questions, tmp_path / "ckpt", replace(QUICK, generate=True), rows=8)
    last = json.loads((tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()[-1])
    assert 0 <= results[0].generated <= 1 and last["valid_accuracy_generated"] == round(results[0].generated, 6)
