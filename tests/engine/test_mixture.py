"""A mixture of experts in the place of the feed-forward, as in Qwen3-VL-30B-A3B and 235B-A22B."""

import numpy as np
import pytest
import torch

from benchmarks.shapes import QWEN3_VL_8B
from scoring.checkpoints.plan import plan_members
from scoring.checkpoints.weights import CheckpointError
from scoring.engine.device_map import GIB, make_device_map
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from scoring.engine.scorer import Scorer
from scoring.inputs.families.qwen3_vl import QWEN3_VL

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
    scorer = Scorer(plan_members([str(mixture)], quantization="nf4"))
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
    result = make_device_map(folder, torch.bfloat16, QWEN3_VL.not_quantized, True, dict.fromkeys(range(8), 79 * GIB))
    layers = [result[f"model.language_model.layers.{number}"] for number in range(94)]
    assert layers == sorted(layers) and set(layers) == set(range(8))
    with pytest.raises(CheckpointError, match="do not fit"):
        make_device_map(folder, torch.bfloat16, QWEN3_VL.not_quantized, True, dict.fromkeys(range(6), 79 * GIB))
    folder = configured(tmp_path / "32B", QWEN3_VL_8B.config, REAL_32B)
    result = make_device_map(folder, torch.bfloat16, QWEN3_VL.not_quantized, True, {0: 15 * GIB, 1: 15 * GIB})
    assert set(result.values()) == {0, 1}
