"""Attention over segments of unequal length."""

import numpy as np
import pytest
import torch

from scoring.engine.attention import attend


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("lengths", [[(3, 5), (4, 4), (1, 6)], [(4, 4), (4, 4)]])
def test_attention_by_segments(causal, lengths):
    torch.manual_seed(0)
    queries, keys = (sum(pair[index] for pair in lengths) for index in (0, 1))
    q, k, v = torch.randn(queries, 4, 8), torch.randn(keys, 2, 8), torch.randn(keys, 2, 8)
    if not causal:
        k, v = torch.randn(keys, 4, 8), torch.randn(keys, 4, 8)
    bounds = [
        torch.tensor(np.concatenate([[0], np.cumsum([pair[index] for pair in lengths])]), dtype=torch.int32)
        for index in (0, 1)
    ]
    result = attend(q, k, v, *bounds, 6, 6, 0.3, causal)
    start = key_start = 0
    for count, total in lengths:
        for head in range(4):
            head_keys = k[key_start : key_start + total, head // (4 // k.shape[1])]
            scores = q[start : start + count, head] @ head_keys.T * 0.3
            if causal:
                scores += torch.full_like(scores, float("-inf")).triu(total - count + 1)
            values = v[key_start : key_start + total, head // (4 // k.shape[1])]
            assert torch.allclose(result[start : start + count, head], scores.softmax(1) @ values, atol=1e-5)
        start, key_start = start + count, key_start + total
