"""Modules that stand in a network's place."""

import torch
from torch import nn

from scoring.engine.stand_in import Replacement, StandIn, put_back, unwrap


class Doubled(StandIn):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.inner(x) * 2
        return output


def test_what_stands_in_is_taken_off_and_put_back_one_inside_the_other():
    inside = nn.Sequential(nn.Identity())
    network = nn.Sequential(inside, nn.Identity())
    plain = list(network.modules())
    for parent, name in ((network, "0"), (inside, "0"), (network, "1")):
        Replacement(parent, name, Doubled(parent.get_submodule(name))).put_in()
    doubled = list(network.modules())
    assert network(torch.ones(1)).item() == 8
    removed = unwrap(network)
    assert list(network.modules()) == plain and network(torch.ones(1)).item() == 1
    put_back(removed)
    assert list(network.modules()) == doubled and network(torch.ones(1)).item() == 8
