"""Padded batches, as transformers has them."""

import torch

from scoring.benchmark.padded import collate, padded_states
from scoring.engine.forward import project
from scoring.engine.reference import reference_logits


def test_padded_batches_equal_the_reference(scorer, test_rows):
    """Every third row: of all kinds and pictures, and of several lengths."""
    scorer.model.use(scorer.adapters[0])
    network, label_ids = scorer.model.network, scorer.label_ids[:4]
    prepared = [scorer.prepare(question) for question in test_rows[:48:3]]
    expected = torch.stack([reference_logits(network, *row)[label_ids] for row in prepared])
    with torch.no_grad():
        states = padded_states(network, collate(*map(list, zip(*prepared))))
        result = project(states, scorer.model.head, label_ids)
    assert (result.labels - expected).abs().max() < 1e-4
