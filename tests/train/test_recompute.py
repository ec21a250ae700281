"""Layers that are computed again in the backward pass."""

import pytest
import torch
from torch import nn

from train.recompute import recomputed


class Layer(nn.Linear):
    """Counts how often it is computed, and what each time takes with it for the backward pass."""

    calls = 0

    def forward(self, hidden, shift=0.0):
        self.calls += 1
        return torch.tanh(super().forward(hidden)) * hidden + shift


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Layer(5, 5)


@pytest.mark.parametrize("hidden_learns", [True, False])
def test_gradients_have_the_same_bits_as_without(layer, hidden_learns):
    gradients = []
    for run in (layer, lambda hidden, shift: recomputed(layer, hidden, shift)):
        layer.zero_grad()
        hidden = torch.linspace(-1, 1, 15).view(3, 5).requires_grad_(hidden_learns)
        run(hidden, 0.5).sin().sum().backward()
        gradients.append([hidden.grad, layer.weight.grad, layer.bias.grad])
    assert (gradients[0][0] is not None) == hidden_learns
    for kept, again in zip(*gradients):
        assert kept is again is None or torch.equal(kept, again)
    assert layer.calls == 3


def test_only_the_input_is_kept(layer):
    saved = []
    hidden = torch.ones(3, 5, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor), lambda _: None):
        recomputed(layer, hidden)
    assert [tensor is hidden or tensor.data_ptr() == hidden.data_ptr() for tensor in saved] == [True]


def test_where_nothing_learns_it_is_computed_once(layer):
    layer.requires_grad_(False)
    with torch.no_grad():
        assert not recomputed(layer, torch.ones(3, 5)).requires_grad and layer.calls == 1
    other = torch.ones((), requires_grad=True)
    (recomputed(layer, torch.ones(3, 5)).sum() * other).backward()  # what it is a part of learns
    assert other.grad is not None


def test_weights_gradients_add_up_over_several_passes(layer):
    hidden = torch.ones(3, 5)
    for _ in range(2):
        recomputed(layer, hidden).sum().backward()
    twice = layer.weight.grad.clone()
    layer.zero_grad()
    layer(hidden).sum().backward()
    assert torch.allclose(twice, 2 * layer.weight.grad)
