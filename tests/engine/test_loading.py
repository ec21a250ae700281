"""The model of a run: its base is loaded whole, in 4 bits where that can be."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring import Scorer
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
)
from scoring.engine.loading import Model


def test_without_bitsandbytes_there_are_16_or_32_bits_and_a_note(demo, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.why_no_4bit", lambda: "no library for this card")
    loaded = Scorer.load(str(demo / "checkpoints" / "fold0"))
    assert loaded.model.quantization == "none" and "no library for this card" in loaded.model.notes[0]


def test_a_sharded_folder_loads_the_same(sharded, plain_base):
    assert len(list(sharded.glob("*.safetensors"))) > 3
    loaded = Model.load(sharded, "none")
    expected = plain_base.network.state_dict().values()
    for (name, weight), expected_weight in zip(loaded.network.state_dict().items(), expected):
        assert torch.equal(weight, expected_weight), name
    assert BaseWeights.of(sharded).shapes["model.language_model.norm.weight"] == (256,)


def test_missing_weights_never_start_at_random(sharded, base):

    for path in sharded.glob("model*"):
        path.unlink()
    weights = load_file(base / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, sharded / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model.language_model.norm.weight"):
        Model.load(sharded, "none")
