"""A mixture of experts in the place of the feed-forward, as in Qwen3-VL-30B-A3B and 235B-A22B."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.shapes import QWEN3_VL_8B
from scoring.checkpoints.export import ExportOptions, export_model
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import BaseWeights, CheckpointError
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.device_map import GIB, make_device_map
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from tests.shared.families import tiny_base
from tests.shared.references import largest_difference, reference_labels
from tests.shared.trainings import PLAIN, trained

# Qwen3-VL-235B-A22B's and 32B's language models, where they differ from the 8B's.
REAL_235B = {
    "hidden_size": 4096,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
}
REAL_32B = {"hidden_size": 5120, "intermediate_size": 25600, "num_attention_heads": 64, "num_hidden_layers": 64}


def test_it_is_scored_as_the_library_does(mixture, test_rows):
    scorer = BatchScorer(plan_members([str(mixture)], quantization="nf4"))
    assert any("the experts stay in float32" in note for note in scorer.model.notes)
    result = scorer.score(test_rows[:8], "cyclic").logits[:, 0, 0]
    for question, logits in zip(test_rows[:8], result):
        expected = reference_logits(scorer.model.network, *scorer.prepare(question))[scorer.label_ids[:4]]
        assert np.abs(logits - expected.numpy()).max() < 1e-4


def test_float16_is_refused_before_it_is_loaded(mixture):
    with pytest.raises(CheckpointError, match="not computed in float16; expected cards that compute in bfloat16"):
        Model.load(mixture, "none", dtype=torch.float16)


def test_tokens_are_counted_by_the_experts_they_go_through():
    dense, mixture = (QWEN3_VL.sizes(QWEN3_VL_8B.config["text_config"] | changes) for changes in ({}, REAL_235B))
    assert (dense.inner, dense.copies) == (12288, 0) and (mixture.inner, mixture.copies) == (8 * 1536, 16)


def test_experts_are_laid_out_in_16_bits(configured, tmp_path):
    """235B-A22B fits on eight cards of 80 GB, in 4 bits too, for its experts are not quantized; 32B on two of 16 GB."""
    folder = configured(tmp_path / "235B", QWEN3_VL_8B.config, REAL_235B)
    result = make_device_map(folder, torch.bfloat16, True, dict.fromkeys(range(8), 79 * GIB))
    layers = [result[f"model.language_model.layers.{number}"] for number in range(94)]
    assert layers == sorted(layers) and set(layers) == set(range(8))
    with pytest.raises(CheckpointError, match="do not fit"):
        make_device_map(folder, torch.bfloat16, True, dict.fromkeys(range(6), 79 * GIB))
    folder = configured(tmp_path / "32B", QWEN3_VL_8B.config, REAL_32B)
    result = make_device_map(folder, torch.bfloat16, True, {0: 15 * GIB, 1: 15 * GIB})
    assert set(result.values()) == {0, 1}


# ------------------------------------------------------------ Qwen3 in words alone: its experts are stored one by one
@pytest.fixture(scope="module")
def text_mixture(base, tmp_path_factory):
    return tiny_base("qwen3_moe", base, tmp_path_factory.mktemp("qwen3_moe") / "base")


def test_a_text_mixture_is_trained_scored_and_exported_as_it_is_stored(text_mixture, test_rows, tmp_path):
    rows = [replace(row, pictures=(), sizes=()) for row in test_rows]
    assert {*load_file(text_mixture / "model.safetensors")} > {"model.layers.0.mlp.experts.7.down_proj.weight"}
    config = replace(PLAIN, epochs=1, batch=4, learning_rate=1e-2, quantization="none", rank=4, alpha=8)
    checkpoint = tmp_path / "ckpt"
    trained(text_mixture, rows, checkpoint, config, rows=8, valid=2)
    adapted = {key.split(".lora_")[0] for key in load_file(checkpoint / "adapter_model.safetensors")}
    assert len(adapted) == 3 * 4 and all(".self_attn." in name for name in adapted)
    scorer = BatchScorer.load(str(checkpoint))
    scorer.model.use(scorer.adapters[0])
    result = scorer.score(rows[:8], "cyclic")
    expected = reference_labels(scorer, rows[:8])
    scale = max(np.abs(labels).max() for labels in expected.values())
    assert largest_difference(result, rows[:8], "cyclic", expected) < 1e-5 * scale
    export_model(str(checkpoint), tmp_path / "whole", options=ExportOptions(dtype="fp32"))
    names = {*load_file(tmp_path / "whole" / "model.safetensors")}
    assert names == {*load_file(text_mixture / "model.safetensors")}
    exported = BatchScorer.load(str(tmp_path / "whole")).score(rows[:8], "cyclic")
    assert np.nanmax(np.abs(exported.logits - result.logits)) < 1e-4


def test_experts_in_4_bits_are_refused(text_mixture, tmp_path):
    folder = shutil.copytree(text_mixture, tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    state = json.dumps({"shape": list(tensors[name].shape), "quant_type": "nf4", "blocksize": 64}).encode()
    tensors[f"{name}.quant_state.bitsandbytes__nf4"] = torch.frombuffer(bytearray(state), dtype=torch.uint8)
    tensors[name] = torch.zeros(tensors[name].numel() // 2, 1, dtype=torch.uint8)
    save_file(tensors, folder / "model.safetensors")
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="its experts are in 4 bits, which is not supported"):
        BaseWeights.of(folder)
