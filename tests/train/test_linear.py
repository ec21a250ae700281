"""Linear layers whose adapters learn."""

import pytest
import torch

from train.dropout import Dropout
from train.linear import Adapter, LoraProducts


class Layer:
    """What `LoraProducts` asks of a layer."""

    def __init__(self, weight, share, number, *adapter):
        self.weight, self.bias, self.number, self.dropout = weight, None, number, Dropout(share, 7)
        self.adapter = Adapter(adapter, 1.7, adapter) if adapter else None

    def base_weight(self):
        return self.weight


def random(*shape, learns=True):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=learns)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_products_have_their_own_derivatives(share):
    """Of three layers that take the same input, of which one learns nothing."""
    torch.manual_seed(0)
    x, adapters = random(6, 5), [(random(2, 5), random(4, 2)), (), (random(3, 5), random(2, 3))]
    heights = (4, 3, 2)
    layers = tuple(
        Layer(random(height, 5, learns=False), share, number, *adapter)
        for number, (height, adapter) in enumerate(zip(heights, adapters))
    )
    weights = [weight for adapter in adapters for weight in adapter or (None, None)]
    assert torch.autograd.gradcheck(lambda x, *weights: LoraProducts.apply(x, layers, *weights), (x, *weights))
