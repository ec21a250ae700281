"""Dropout that is drawn again where it is needed."""

import torch

from train.dropout import Dropout


def test_dropout_drops_its_share_repeats_and_differs_by_layer_and_place():
    dropout, x = Dropout(0.05), torch.zeros(400, 500)
    dropout.begin(0, 1, 2)
    drawn = dropout.draw(1, x)
    assert abs(drawn.float().mean().item() - 0.95) < 0.002 and torch.equal(drawn, dropout.draw(1, x))
    assert not torch.equal(drawn, dropout.draw(2, x))
    dropout.begin(0, 1, 3)
    assert not torch.equal(drawn, dropout.draw(1, x))
