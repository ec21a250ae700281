"""What families say of themselves without torch, and which bases are refused, by name and alike by every command."""

import json
import re
import shutil

import pytest

from benchmarks.shapes import QWEN3_5_9B, QWEN3_VL_8B
from scoring.checkpoints.weights import CheckpointError, check_base
from scoring.inputs.families.internvl import INTERNVL
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL
from scoring.inputs.families.qwen3_5 import QWEN3_5
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from scoring.inputs.families.registry import FAMILIES, FamilyError, family_of, family_of_config, known_types
from scoring.inputs.families.text import LLAMA, QWEN3

WINDOW = "its layers attend within a sliding window"


@pytest.fixture
def other(base, tmp_path):
    """The demo's base under another model type, or with other settings of its language model."""

    def make(model_type, **text):
        folder = tmp_path / model_type
        shutil.copytree(base, folder)
        config = json.loads((base / "config.json").read_text()) | {"model_type": model_type}
        config["text_config"] |= text
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return make


CHAT = "the repository whose name ends in -hf has the same model"


@pytest.mark.parametrize(
    "model_type, reason",
    [("llava", "model type 'llava'; expected"), ("gemma3", WINDOW), ("internvl_chat", CHAT)],
)
def test_other_families_are_refused_by_name_by_every_command(other, cli, demo, tmp_path, model_type, reason):
    folder = other(model_type)
    for arguments in (
        ["show", folder],
        ["show", demo / "checkpoints" / "fold0", "--base", folder],
        ["score", demo / "test.csv", "--ckpt", folder, "--out", tmp_path / "out"],
        ["train", demo / "train.csv", "--base", folder, "--out", tmp_path / "ckpt"],
    ):
        done = cli(*arguments, check=2)
        words = " ".join((done.stdout + done.stderr).split())
        assert reason in words and f"expected {known_types()}" in words, arguments
    assert not (tmp_path / "out").exists()


def test_the_known_types_are_listed():
    seeing = "qwen3_vl, qwen3_vl_moe, qwen3_5, qwen3_5_moe, qwen2_5_vl, qwen2_vl, glm4v, glm46v"
    seeing += ", internvl, llava_onevision"
    assert known_types() == f"{seeing}, qwen3, qwen3_moe, qwen2 or llama"
    seeing = ["Qwen3-VL", "Qwen3.5", "Qwen2.5-VL", "Qwen2-VL", "GLM-4.1V", "GLM-4.6V", "InternVL", "LLaVA-OneVision"]
    assert [family.name for family in FAMILIES] == [*seeing, "Qwen3", "Qwen2.5", "Llama 3"]
    assert [family.name for family in FAMILIES if family.sees_pictures] == seeing


def test_a_model_type_belongs_to_one_family(tmp_path):
    types = [model_type for family in FAMILIES for model_type in family.model_types]
    assert len(set(types)) == len(types)
    for family in FAMILIES:
        for model_type in family.model_types:
            assert family_of_config({"model_type": model_type}, tmp_path) is family
            assert family.is_mixture({"model_type": model_type}) == model_type.endswith("_moe")


def test_another_language_model_within_a_known_base_is_refused(tmp_path):
    """As in GLM-4.6V of 106 billion weights, a mixture of experts; its smaller sister is dense."""
    dense, mixture = (
        {"model_type": "glm46v", "text_config": {"model_type": f"{kind}_text"}} for kind in ("glm4v", "glm4v_moe")
    )
    assert family_of_config(dense, tmp_path).name == "GLM-4.6V"
    with pytest.raises(FamilyError, match="GLM-4.6V with a language model of type 'glm4v_moe_text'"):
        family_of_config(mixture, tmp_path)


@pytest.mark.parametrize(
    "text", [{"use_sliding_window": True}, {"layer_types": ["full_attention", "sliding_attention"]}]
)
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_sliding_windows_are_refused(other, model_type, text):
    with pytest.raises(CheckpointError, match="-VL with layers that attend within a sliding window"):
        check_base(other(model_type, **text))


def test_windows_and_caps_are_found_in_older_configurations_too(tmp_path):
    flat = {"model_type": "qwen2_vl", "use_sliding_window": False, "sliding_window": 32_768}  # as on the hub
    assert family_of_config(flat, tmp_path).name == "Qwen2-VL"
    for change in ({"use_sliding_window": True}, {"attn_logit_softcapping": 50.0}):
        with pytest.raises(FamilyError, match="Qwen2-VL with"):
            family_of_config(flat | change, tmp_path)


@pytest.mark.parametrize("field, name", [("rope_scaling", "type"), ("rope_parameters", "rope_type")])
def test_positions_that_depend_on_a_batch_are_refused(tmp_path, field, name):
    """Dynamic ones depend on prompts beyond the context alone, which are faults."""
    with pytest.raises(FamilyError, match="a Llama 3 with positions that depend .* of a batch .rope_type longrope"):
        family_of_config({"model_type": "llama", field: {name: "longrope"}}, tmp_path)
    for kind in ("llama3", "dynamic"):
        assert family_of_config({"model_type": "llama", field: {name: kind}}, tmp_path) is LLAMA


def test_a_folder_without_configuration_is_no_base(tmp_path):
    with pytest.raises(FamilyError, match=re.escape(f"{tmp_path}: no config.json")):
        family_of(tmp_path)


def test_sizes_of_real_models_are_read():
    """Qwen3-VL-8B's, and Qwen2.5-VL-7B's from its flat configuration, whose heads have 3584 / 28 = 128 values."""
    sizes = QWEN3_VL.sizes(QWEN3_VL_8B.config)
    assert (sizes.layers, sizes.width, sizes.heads, sizes.key_value_heads) == (36, 4096, 32, 8)
    assert (sizes.head_size, sizes.inner, sizes.copies) == (128, 12_288, 0)
    flat = {"hidden_size": 3584, "intermediate_size": 18_944, "num_attention_heads": 28, "num_key_value_heads": 4}
    sizes = QWEN2_5_VL.sizes(flat | {"num_hidden_layers": 28})
    assert (sizes.layers, sizes.heads, sizes.key_value_heads, sizes.head_size) == (28, 28, 4, 128)
    of_30b_a3b = {"hidden_size": 2048, "head_dim": 128, "num_attention_heads": 32, "num_hidden_layers": 48}
    sizes = QWEN3.sizes(of_30b_a3b | {"num_experts_per_tok": 8, "moe_intermediate_size": 768})
    assert (sizes.width, sizes.head_size, sizes.inner, sizes.copies) == (2048, 128, 8 * 768, 16)
    sizes = QWEN3_5.sizes(QWEN3_5_9B.config)
    assert (sizes.head_size, sizes.recurrent) == (256, 32 * 128)


@pytest.mark.parametrize(
    "name, module",
    [
        ("model.layers.3.self_attn.q_proj.weight", "model.language_model.layers.3.self_attn.q_proj.weight"),
        ("model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("model.norm.weight", "model.language_model.norm.weight"),
        ("visual.blocks.0.attn.qkv.bias", "model.visual.blocks.0.attn.qkv.bias"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("model.visual.merger.ln_q.weight", "model.visual.merger.ln_q.weight"),
        ("model.layers.0.mlp.up_proj.weight.absmax", "model.language_model.layers.0.mlp.up_proj.weight.absmax"),
    ],
)
def test_names_in_files_become_names_of_modules(name, module):
    assert QWEN2_5_VL.module_name(name) == module
    assert QWEN3_VL.module_name(name) == name


@pytest.mark.parametrize(
    "name, parameter",
    [
        ("model.layers.0.mlp.experts.7.gate_proj.weight", "model.layers.0.mlp.experts.gate_up_proj"),
        ("model.layers.0.mlp.experts.7.up_proj.weight", "model.layers.0.mlp.experts.gate_up_proj"),
        ("model.layers.0.mlp.experts.12.down_proj.weight", "model.layers.0.mlp.experts.down_proj"),
        ("model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.weight"),
        ("model.layers.0.mlp.gate.weight", "model.layers.0.mlp.gate.weight"),
    ],
)
def test_experts_that_are_stored_one_by_one_are_held_together(name, parameter):
    assert QWEN3.parameter_name(name) == parameter


@pytest.mark.parametrize(
    "name, module",
    [
        ("language_model.model.layers.3.mlp.up_proj.weight", "model.language_model.layers.3.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower.encoder.layer.0.lambda_1", "model.vision_tower.encoder.layer.0.lambda_1"),
        ("multi_modal_projector.linear_1.bias", "model.multi_modal_projector.linear_1.bias"),
        ("model.language_model.norm.weight", "model.language_model.norm.weight"),
        ("lm_head.weight", "lm_head.weight"),
    ],
)
def test_names_in_files_of_internvl_become_names_of_modules(name, module):
    assert INTERNVL.module_name(name) == module
