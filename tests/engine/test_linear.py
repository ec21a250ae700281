"""A linear layer that multiplies once."""

import pytest
import torch

from scoring.engine.linear import half_product


@pytest.mark.parametrize("scale", [1e-8, 1.0, 3e4, 1e9])
def test_float16_products_do_not_overflow(scale):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(5, 64) * scale, torch.randn(8, 64).half(), torch.randn(8).half()
    exact = x @ weight.float().T + bias.float()
    assert torch.allclose(half_product(x, weight, bias), exact, rtol=5e-3, atol=0.02 * scale)
