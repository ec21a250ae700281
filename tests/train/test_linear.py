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


class Products:
    """The kernels' two functions in operations of PyTorch, without dropout."""

    @staticmethod
    def narrow_products(x, downs, masks, scale):
        return torch.stack([scale * x @ down.T for down in downs])

    @staticmethod
    def narrow_products_backward(x, adapters, inner_grad, x_grad, scale):
        for (down, _), grad in zip(adapters, inner_grad):
            x_grad.add_(scale * grad @ down)
        return torch.stack([scale * grad.T @ x for grad in inner_grad])


@pytest.mark.parametrize("learning", [(0,), (0, 1, 2), (1, 2)])
def test_by_kernels_outputs_and_gradients_are_the_same(monkeypatch, learning):
    """What is put together of them, also where only some of the layers that share an input learn."""
    torch.manual_seed(0)
    x, weights = random(6, 5), [random(height, 5, learns=False) for height in (4, 3, 2)]
    adapters = {number: (random(2, 5), random(len(weights[number]), 2)) for number in learning}
    layers = tuple(Layer(weight, 0.0, number, *adapters.get(number, ())) for number, weight in enumerate(weights))
    learned = [weight for number in range(3) for weight in adapters.get(number, (None, None))]
    inputs = [x, *(weight for weight in learned if weight is not None)]

    def outputs_and_gradients():
        outputs = LoraProducts.apply(x, layers, *learned)
        total = sum((output * output).sum() for output in outputs)
        return *outputs, *torch.autograd.grad(total, inputs)

    expected = outputs_and_gradients()
    monkeypatch.setattr("train.linear.has_kernels", lambda tensor: True)
    monkeypatch.setattr("train.linear._kernels", lambda: Products)
    for found, wanted in zip(outputs_and_gradients(), expected):
        assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-5)
