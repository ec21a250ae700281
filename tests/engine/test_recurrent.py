"""States that are handed from node to node, and convolutions over paths, against a loop over each prompt alone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.engine.recurrent import TAPS, NodeBatch, RecurrentLayer
from scoring.engine.tree import Tree
from tests.shared.trees import made, paths_of, rows

CPU = torch.device("cpu")
PRIME = 1_000_003


def remember(rows, own, state, hand_on):
    """A rule that keeps everything: a number in base 31, whose digits are the tokens so far, modulo a prime."""
    (ids,) = rows
    state = torch.zeros_like(ids[:, 0]) if state is None else state
    outputs = []
    for place in range(ids.shape[1]):
        state = torch.where(own[:, place], (31 * state + ids[:, place] + 1) % PRIME, state)
        outputs.append(state)
    return torch.stack(outputs, 1), state if hand_on else None


@settings(max_examples=200, deadline=None)
@given(rows, st.booleans(), st.sampled_from([16, 48, 4096]))
def test_every_token_has_the_state_of_its_own_path(drawn, share, most):
    tree = Tree.build(*made(drawn), share)
    nodes = NodeBatch.of(tree, CPU, most)
    ids = torch.from_numpy(tree.ids)
    states = nodes.carry(remember, [ids])
    assert len(states) == len(ids)
    for path in paths_of(tree):
        state = 0
        for token in path:
            state = (31 * state + int(ids[token]) + 1) % PRIME
            assert states[token] == state


@settings(max_examples=200, deadline=None)
@given(rows, st.booleans())
def test_a_convolution_sees_the_tokens_before_on_the_path_and_zeros_before_those(drawn, share):
    tree = Tree.build(*made(drawn), share)
    values = torch.from_numpy(tree.ids)[:, None] + torch.tensor([1, 20])  # two channels
    weights = [1000, 100, 10, 1]  # of a token and those before it

    def convolution(rows):
        padded = torch.nn.functional.pad(rows, (TAPS, 0))
        return sum(weight * padded[..., TAPS - back : padded.shape[-1] - back] for back, weight in enumerate(weights))

    found = NodeBatch.of(tree, CPU).convolve(values, convolution)
    for path in paths_of(tree):
        for place, token in enumerate(path):
            before = [values[path[place - back]] if place >= back else torch.zeros(2) for back in range(len(weights))]
            expected = sum(weight * value for weight, value in zip(weights, before))
            assert torch.equal(found[token], expected.long())


def test_without_nodes_calls_go_to_the_layer_itself():
    class Doubled(RecurrentLayer):
        def branch(self, hidden, nodes):
            return 2 * self.inner(hidden)

    layer = Doubled(torch.nn.Linear(3, 3))
    hidden = torch.randn(1, 2, 3)
    assert torch.equal(layer(hidden), layer.inner(hidden))
