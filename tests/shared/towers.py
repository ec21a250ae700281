"""What holds for every tower that sees pictures as tiles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.forward import encode_pictures
from scoring.engine.loading import Model
from scoring.inputs.questions import Question


def picture_features(scorer: BatchScorer, rows: list[Question]) -> torch.Tensor:
    """(N, D) what the tower makes of the pictures of rows in one batch, on the CPU."""
    batch, packed = with_tensors(prepare_batch(scorer.prepare, rows, "1"), "cpu").tensors, scorer.packed
    with torch.no_grad(), packed.switched(packed.members[0]):
        return encode_pictures(packed.parts, batch, packed.values, packed.policy).embeddings


def assert_same_bits(scorer: BatchScorer, rows: list[Question], sizes: Sequence[int]) -> None:
    """Rows in batches of these sizes, and all in one."""
    whole = scorer.score(rows).logits
    for size in sizes:
        assert np.array_equal(scorer.score(rows, batch_rows=size).logits, whole)


def assert_float32_tower(half: BatchScorer, scorer: BatchScorer, rows: list[Question]) -> None:
    """half: in float16. Its tower and projector are not, and its logits are near those of `scorer`."""
    assert {weight.dtype for module in half.packed.parts.seeing for weight in module.parameters()} == {torch.float32}
    whole, result = (each.score(rows).logits for each in (scorer, half))
    assert 0 < np.abs(result - whole).max() < 0.01 * np.abs(whole).max()


def assert_only_language_is_quantized(base: Path) -> None:
    """In 4 bits, tower and projector are not."""
    parts = Model.load(base, "nf4").parts
    assert not any(hasattr(weight, "quant_state") for module in parts.seeing for weight in module.parameters())
    assert all(hasattr(layer.mlp.up_proj.weight, "quant_state") for layer in parts.language.layers)
