"""A linear layer whose adapter learns."""

import pytest
import torch

from train.dropout import Dropout
from train.linear import LoraProduct


class Layer:
    """What `LoraProduct` asks of a layer."""

    def __init__(self, weight, share):
        self.weight, self.bias, self.number, self.dropout = weight, None, 3, Dropout(share, 7)

    def base_weight(self):
        return self.weight

    def in_type(self, down, up, dtype):
        return down, up


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_product_has_its_own_derivative(share):
    torch.manual_seed(0)
    x, down, up = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((6, 5), (2, 5), (4, 2)))
    layer = Layer(torch.randn(4, 5, dtype=torch.float64), share)
    assert torch.autograd.gradcheck(lambda *tensors: LoraProduct.apply(*tensors, layer, 1.7), (x, down, up))
