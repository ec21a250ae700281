"""Training on a handful of demo rows: repeatable to the bit, honest about loss and accumulation."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scoring import Scorer
from scoring.engine.checkpoint import read_checkpoint
from scoring.engine.reference import reference_logits
from scoring.inputs.questions import read_table
from train.config import TrainConfig
from train.loop import Trainer, TrainError, base_name

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
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "scoring.json",
        "train.jsonl",
        "validation.csv",
    ]
    checkpoint = read_checkpoint(str(out))
    manifest = checkpoint.manifest
    assert manifest.training["learning_rate"] == 2e-3 and manifest.quantization == "nf4" and manifest.letters == "abcd"
    assert manifest.pixels == {"min_pixels": 36864, "max_pixels": 36864} and manifest.metrics["nll"] == results[0].nll
    assert checkpoint.calibration["fingerprint"]["adapter"] == checkpoint.fingerprint()
    assert (
        manifest.base == json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    )
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [entry.get("step") for entry in steps] == [1, 2, 3, None] and steps[-1]["valid_nll"] > 0
    assert len((out / "validation.csv").read_text().splitlines()) == 25


class Board:
    """As TensorBoard's writer is called."""

    def __init__(self):
        self.scalars = []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))


def test_tensorboard_gets_the_numbers_of_the_log(base, questions, tmp_path):
    board = Board()
    trained(base, questions, tmp_path / "ckpt", board=board)
    lines = [json.loads(line) for line in (tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()]
    losses = [(line["loss"], line["step"]) for line in lines if "loss" in line]
    assert [(value, step) for name, value, step in board.scalars if name == "loss"] == losses
    assert ("valid_nll", lines[-1]["valid_nll"], 3) in board.scalars


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


def test_gradients_are_those_of_the_mean_answer_token_loss(base, questions, tmp_path):
    """Against transformers' forward, one row at a time: only the answer's token counts, and every row once."""
    config = replace(QUICK, dropout=0.0, quantization="none", batch_tokens=400)
    trainer = Trainer(str(base), questions[:6], questions[100:104], tmp_path / "x", config, say=lambda text: None)
    from scoring.engine.model import Model
    from train.batches import micro_batches
    from train.lora import add_lora

    torch.manual_seed(0)
    trainer.model = Model.load(trainer.folder, "none")
    trainer.peft = add_lora(trainer.model.network, config)
    for name, weight in trainer.peft.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.02)
    weights = [weight for weight in trainer.peft.parameters() if weight.requires_grad]
    scaler = torch.amp.GradScaler(enabled=False)
    parts = micro_batches(trainer.lengths, np.arange(6), 400)
    assert len(parts) > 1
    loss = sum(trainer._backward(part, 1, 6, scaler) for part in parts)
    ours = torch.cat([weight.grad.flatten() for weight in weights])
    for weight in weights:
        weight.grad = None
    expected = 0
    for question in questions[:6]:
        logits = reference_logits.__wrapped__(trainer.model.network, *trainer.prepare(question))
        target = torch.tensor(trainer.label_ids["abcd".index(question.answer)])
        expected += F.cross_entropy(logits, target) / 6
    expected.backward()
    theirs = torch.cat([weight.grad.flatten() for weight in weights])
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert (ours - theirs).norm() / theirs.norm() < 1e-4


def test_a_loss_that_is_no_number_stops_with_the_rows(base, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_backward", lambda *arguments: float("nan"))
    with pytest.raises(TrainError, match=questions[0].id[:5]):
        trained(base, questions, tmp_path / "nan")


def test_the_best_epoch_is_kept(base, questions, tmp_path, monkeypatch):
    """Epoch 2 is made worse: the folder keeps epoch 1, the tables tell both."""
    validate = Trainer._validate

    def worse(self, epoch):
        result = validate(self, epoch)
        if epoch == 2:
            result.calibration.nll_after += 10
        return result

    monkeypatch.setattr(Trainer, "_validate", worse)
    out = tmp_path / "two"
    trained(base, questions, out, replace(QUICK, epochs=2), rows=8)
    assert read_checkpoint(str(out)).manifest.metrics["epoch"] == 1
    assert len((out / "validation.csv").read_text().splitlines()) == 1 + 2 * 24
    assert [json.loads(line).get("best") for line in (out / "train.jsonl").read_text().splitlines()] == [
        None,
        True,
        None,
        False,
    ]


def test_checkpointing_changes_nothing(first, base, questions, tmp_path):
    _, _, results = first
    _, again = trained(base, questions, tmp_path / "saved", replace(QUICK, checkpointing=True))
    assert np.abs(again[0].logits - results[0].logits).max() < 1e-3


def test_how_a_base_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert base_name("base", tmp_path / "ckpt" / "fold0") == "../../base"
    assert base_name("base", tmp_path.parent / "elsewhere") == str(tmp_path / "base")
    assert base_name("Qwen/Qwen3-VL-8B-Instruct", tmp_path) == "Qwen/Qwen3-VL-8B-Instruct"
