"""What stands for a layer's modules computes what they compute; the whole network's tests are in test_families.py."""

from collections import Counter

import pytest
import torch

from scoring.engine.attention import packed_attention
from scoring.engine.fused import FusedAttention, FusedModule
from scoring.engine.loading import Model
from scoring.engine.packed import PackedModel
from scoring.engine.stand_in import unwrap
from scoring.inputs.families.registry import policy_of
from tests.shared.families import tiny_base

LAYERS, BLOCKS = 3, 3  # of the tiny bases


def packed(folder) -> PackedModel:
    return PackedModel(Model.load(folder, "none"), [None], policy_of(folder))


@pytest.fixture(scope="module")
def packed_tiny(base, tmp_path_factory):
    return packed(tiny_base("qwen2_5_vl", base, tmp_path_factory.mktemp("tiny") / "base"))


def stand_ins(model: PackedModel) -> Counter:
    return Counter(type(module).__name__ for module in model.network.modules() if isinstance(module, FusedModule))


def test_every_layer_and_every_block_of_the_tower_has_its_stand_ins(packed_tiny):
    assert stand_ins(packed_tiny) == {
        "FusedNorm": 2 * LAYERS + 1,
        "FusedFeedForward": LAYERS,
        "FusedAttention": LAYERS,
        "FusedPatchAttention": BLOCKS,
    }
    unwrapped = unwrap(packed_tiny.network)
    assert not stand_ins(packed_tiny)
    for replacement in unwrapped:
        replacement.put_in()


@pytest.mark.parametrize("model_type, with_norms", [("glm4v", True), ("qwen3_5", False)])
def test_attention_of_another_kind_stays_the_librarys(base, tmp_path, model_type, with_norms):
    """Partial rotation, gates, or norms whose weight is an offset: none of these is computed as if it were plain."""
    counts = stand_ins(packed(tiny_base(model_type, base, tmp_path / "base")))
    assert not counts["FusedAttention"] and bool(counts["FusedNorm"]) == with_norms


def test_attention_is_the_librarys_on_one_sequence(packed_tiny):
    """A tree of one segment: the library's causal attention, to the rounding of other products."""
    parts = packed_tiny.parts
    layer = parts.language.layers[1]
    attention = layer.self_attn
    assert isinstance(attention, FusedAttention)
    hidden = torch.randn(1, 9, parts.sizes.width, generator=torch.Generator().manual_seed(0))
    rotation = parts.language.rotary_emb(hidden, parts.positions(torch.arange(9).expand(3, 1, 9)))
    bounds = torch.tensor([0, 9], dtype=torch.int32)
    tree = {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": 9, "max_length_k": 9}
    with torch.no_grad():
        expected, _ = attention(hidden, rotation, attention_mask=None)
        with packed_attention(parts):
            output, _ = attention(hidden, rotation, key_index=torch.arange(9), **tree)
            last, _ = attention(
                hidden[:, 8:],
                tuple(angles[:, 8:] for angles in rotation),
                keys_and_values=attention.keys_and_values(hidden, rotation),
                key_index=torch.arange(9),
                **tree | {"cu_seq_lens_q": torch.tensor([0, 1], dtype=torch.int32), "max_length_q": 1},
            )
    assert torch.allclose(output, expected, atol=1e-5) and torch.allclose(last, expected[:, 8:], atol=1e-5)


def test_norms_and_feed_forwards_compute_the_same_packed_or_not(packed_tiny):
    parts = packed_tiny.parts
    layer = parts.language.layers[0]
    hidden = torch.randn(1, 5, parts.sizes.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for module in (layer.input_layernorm, layer.mlp):
            with packed_attention(parts):
                assert parts.packing and torch.equal(module(hidden), module.inner(hidden))
            assert not parts.packing and torch.equal(module(hidden), module.inner(hidden))
