"""An adapter's configuration: ranks, scaling and layers as PEFT means them, and settings that are refused."""

import pytest

from scoring.checkpoints.adapter_config import AdapterConfig, unknown_settings
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.files.reading import FileError

UP_0, UP_1, GATE_0 = (f"model.layers.{layer}" for layer in ("0.mlp.up_proj", "1.mlp.up_proj", "0.mlp.gate_proj"))


def configured(**settings):
    return AdapterConfig(**{"r": 16, "lora_alpha": 32} | settings)


def test_scaling_is_alpha_over_rank_or_with_rslora_over_its_root():
    assert configured().scaling(UP_0) == 2
    assert configured(use_rslora=True).scaling(UP_0) == 8


def test_the_first_pattern_that_matches_gives_a_layers_rank_and_alpha():
    config = configured(rank_pattern={"layers.0.mlp.up_proj": 4, "up_proj": 8}, alpha_pattern={"up_proj": 24})
    assert [config.rank(layer) for layer in (UP_0, UP_1, GATE_0)] == [4, 8, 16]
    assert [config.scaling(layer) for layer in (UP_0, UP_1, GATE_0)] == [6, 3, 2]


@pytest.mark.parametrize(
    "settings, targeted",
    [
        ({"target_modules": ["up_proj"]}, [UP_0, UP_1]),
        ({"target_modules": ["up_proj"], "layers_to_transform": [1]}, [UP_1]),
        ({"target_modules": ["up_proj"], "exclude_modules": r".*layers\.1\..*"}, [UP_0]),
        ({"target_modules": r".*layers\.0\..*"}, [UP_0, GATE_0]),
        ({"target_modules": "all-linear"}, [UP_0, UP_1, GATE_0]),
        ({}, []),
    ],
)
def test_the_configuration_names_layers_as_in_peft(settings, targeted):
    config = configured(**settings)
    assert [layer for layer in (UP_0, UP_1, GATE_0, "lm_head") if config.targets(layer)] == targeted


def test_rank_patterns_and_rslora_load_as_peft_means_them(copy, base, test_rows, scorer):
    from peft import PeftModel  # imports bitsandbytes, which loading `scorer` must do first

    def cut(tensors):  # rank 8 in the first layer's q_proj
        return {
            key: (value[:8] if "lora_A" in key else value[:, :8]).contiguous()
            if "layers.0.self_attn.q_proj" in key
            else value
            for key, value in tensors.items()
        }

    folder = copy(
        cut, use_rslora=True, rank_pattern={"layers.0.self_attn.q_proj": 8}, alpha_pattern={"mlp.down_proj": 7}
    )
    model = Model.load(base, "none")
    PeftModel.from_pretrained(model.network, folder).eval()
    for name in ("scoring.json", "calibration.json"):
        (folder / name).unlink()
    loaded = BatchScorer.load(str(folder), base=str(base), quantization="none", allow_mismatch=True)
    logits = loaded.score(test_rows[:3]).logits[:, 0, 0]
    for row, question in enumerate(test_rows[:3]):
        expected = reference_logits(model.network, *loaded.prepare(question))[loaded.label_ids[:4]].numpy()
        assert abs(expected - logits[row]).max() < 1e-4


@pytest.mark.parametrize("setting, value", [("modules_to_save", ["lm_head"]), ("bias", "all"), ("peft_type", "IA3")])
def test_settings_that_are_not_applied_are_refused_by_name(copy, setting, value):
    with pytest.raises(FileError, match=value if setting == "peft_type" else setting):
        read_checkpoint(str(copy(**{setting: value})))


def test_unknown_settings_are_named_unless_they_are_empty():
    assert unknown_settings({"r": 16, "use_qalora": True, "new_method": 2, "newer_method": None}) == ["new_method"]
