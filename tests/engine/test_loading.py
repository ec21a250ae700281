"""The model of a run: its base is loaded whole, in 4 bits where that can be."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
)
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import DeviceError, Model, WeightForm, check_room, device_of


def test_without_bitsandbytes_there_are_16_or_32_bits_and_a_note(demo, monkeypatch):
    monkeypatch.setattr("scoring.engine.loading.why_no_4bit", lambda: "no library for this card")
    loaded = BatchScorer.load(str(demo / "checkpoints" / "fold0"))
    assert loaded.model.quantization == "none" and "no library for this card" in loaded.model.notes[0]


def test_a_sharded_folder_loads_the_same(sharded, plain_base):
    assert len(list(sharded.glob("*.safetensors"))) > 3
    loaded = Model.load(sharded, "none")
    expected = plain_base.network.state_dict().values()
    for (name, weight), expected_weight in zip(loaded.network.state_dict().items(), expected):
        assert torch.equal(weight, expected_weight), name
    assert BaseWeights.of(sharded).shapes["model.language_model.norm.weight"] == (256,)


def test_a_base_that_does_not_fit_a_card_is_refused_with_what_would(base):
    """The demo's: 5 layers of two million weights are quantized, embeddings, tower and norms are not."""
    weights, float16 = BaseWeights.of(base), {name: 2 * math.prod(shape) for name, shape in sizes(base).items()}
    linear = [name for name in float16 if ".layers." in name and "norm" not in name]
    whole = sum(float16.values())
    in_4bit = whole - sum(float16[name] for name in linear) * (1 - (0.5 + 1 / 64) / 2)
    forms = [WeightForm.choose(base, kind, torch.float16) for kind in ("none", "nf4")]
    check_room(weights, forms[0], whole)
    check_room(weights, forms[1], math.ceil(in_4bit))
    with pytest.raises(CheckpointError, match=r"GiB in float16.*: --quantization nf4, in which .*, or several"):
        check_room(weights, forms[0], whole - 1)
    for form in forms:
        with pytest.raises(CheckpointError, match=r"free on the card; expected room for all of them: several"):
            check_room(weights, form, int(in_4bit) - 1)


def sizes(base):
    return {name: tensor.shape for name, tensor in load_file(base / "model.safetensors").items()}


def test_missing_weights_never_start_at_random(sharded, base):

    for path in sharded.glob("model*"):
        path.unlink()
    weights = load_file(base / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, sharded / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="model.language_model.norm.weight"):
        Model.load(sharded, "none")


@pytest.mark.parametrize("name", ["cuda:9", "tpu", "meta", "", 5])
def test_a_device_that_is_not_here_is_refused_by_name(name):
    assert device_of("cpu") == torch.device("cpu") and device_of(None) == device_of("auto")
    with pytest.raises(DeviceError, match=f"device '{name}': .* expected one of cpu"):
        device_of(name)
