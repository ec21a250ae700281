"""The real thing by the same code: full-size shapes, sharded folders, incomplete and foreign ones."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.shapes import QWEN3_VL_8B
from scoring.checkpoints.adapter import check_adapter
from scoring.checkpoints.adapter_config import AdapterConfig
from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
    StoredTensor,
    base_fingerprint,
    check_base,
    read_header,
)
from scoring.inputs.families.qwen2_vl import QWEN2_5_VL
from scoring.inputs.families.qwen3_vl import QWEN3_VL


@pytest.fixture(scope="module")
def real_shapes(tmp_path_factory):
    """Name -> shape of the 8B's weights, from the library's class on the meta device."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("real")
    (folder / "config.json").write_text(json.dumps(QWEN3_VL_8B.config))
    check_base(folder)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.from_pretrained(folder))
    return model, {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_the_8b_has_its_known_size_and_rope(real_shapes):
    model, shapes = real_shapes
    assert sum(value.numel() for value in model.parameters()) == 8_767_123_696
    assert shapes["model.language_model.layers.35.mlp.down_proj.weight"] == (4096, 12288)
    assert shapes["lm_head.weight"] == (151_936, 4096)
    assert model.config.text_config.rope_parameters["mrope_section"] == [24, 20, 20]


def test_lora_lands_on_the_text_model_of_the_8b_alone(real_shapes):
    from train.config import TrainConfig
    from train.lora import add_lora

    model, shapes = real_shapes
    peft = add_lora(model, TrainConfig(), QWEN3_VL)
    names = [name for name, value in peft.named_parameters() if value.requires_grad]
    assert len(names) == 2 * 7 * 36 and all("language_model.layers" in name for name in names)
    assert sum(value.numel() for value in peft.parameters() if value.requires_grad) == 43_646_976
    peft.unload()


def test_names_of_targets_mean_the_language_model_where_it_has_them():
    """Qwen2.5-VL's vision tower has projections of the same names."""
    from train.lora import target_modules

    text, tower = "model.language_model.layers.1", "model.visual.blocks.0"
    modules = [f"{text}.self_attn.q_proj", f"{text}.mlp.gate_proj", f"{tower}.mlp.gate_proj", f"{tower}.attn.qkv"]
    modules += ["lm_head"]

    def chosen(*targets):
        named = target_modules(modules, list(targets), QWEN2_5_VL)
        config = AdapterConfig(r=1, lora_alpha=1, target_modules=named)
        return [name for name in modules if config.targets(name)]

    assert target_modules(modules, ["q_proj", "qkv"], QWEN2_5_VL) == ["q_proj", "qkv"]
    assert chosen("q_proj", "gate_proj") == modules[:2]
    assert chosen("gate_proj", "qkv", "lm_head") == [modules[1], *modules[3:]]
    assert chosen("mlp.gate_proj") == chosen("layers.1.mlp.gate_proj") == [modules[1]]
    assert chosen("blocks.0.mlp.gate_proj") == [modules[2]]


def test_adapters_for_the_8b_are_checked_by_headers_alone(real_shapes, tmp_path):

    _, shapes = real_shapes
    stored = {name: StoredTensor(tmp_path, name, "BF16", shape, start=0, size=0) for name, shape in shapes.items()}
    for prefix in (
        "base_model.model.model.language_model.layers",
        "base_model.model.model.layers",
        "base_model.model.language_model.model.layers",
    ):
        save_file(
            {
                f"{prefix}.3.self_attn.k_proj.lora_A.weight": torch.ones(16, 4096),
                f"{prefix}.3.self_attn.k_proj.lora_B.weight": torch.ones(1024, 16),
            },
            tmp_path / "adapter_model.safetensors",
        )
        check = check_adapter(tmp_path, BaseWeights(tmp_path, QWEN3_VL_8B.config, QWEN3_VL, stored))
        assert set(check.keys.values()) == {
            ("model.language_model.layers.3.self_attn.k_proj", f"lora_{factor}.weight") for factor in "AB"
        }
        assert not check.faults


def test_a_missing_shard_is_named(sharded):
    next(sharded.glob("*00002*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="missing model-00002"):
        BaseWeights.of(sharded)


def test_other_models_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mistral", "auto_map": {"AutoModel": "evil.Model"}}')
    with pytest.raises(CheckpointError, match="mistral"):
        check_base(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="no safetensors"):
        BaseWeights.of(tmp_path)


def test_the_fingerprint_follows_the_content(base, tmp_path):
    shutil.copytree(base, tmp_path / "copy")
    assert base_fingerprint(tmp_path / "copy") == base_fingerprint(base)
    data = bytearray((tmp_path / "copy" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "copy" / "model.safetensors").write_bytes(data)
    assert base_fingerprint(tmp_path / "copy") != base_fingerprint(base)


def test_pickles_and_cut_off_files_are_refused(copy, base):
    folder = copy()
    file = folder / "adapter_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-100])
    with pytest.raises(CheckpointError, match="cut off"):
        read_header(file)
    file.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="pickles can run code"):
        read_checkpoint(str(folder))
    file.write_bytes(b"not safetensors at all")
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(file)


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        [1],
        {"shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": 2, "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": []},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 3]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-4, 4]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0.0, 8.0]},
        {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]},
    ],
)
def test_a_header_that_contradicts_itself_is_refused_with_the_tensor(tmp_path, entry):
    header = json.dumps({"odd": entry}).encode()
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(CheckpointError, match="its header describes odd in an impossible way"):
        read_header(path)


@pytest.mark.parametrize("header", [b"1234", b"null", b'"ab"', b"[]", b"[" * 100_000])
def test_a_header_that_is_no_object_is_refused(tmp_path, header):
    (tmp_path / "f.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(tmp_path / "f.safetensors")
