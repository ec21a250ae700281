"""Prepared batches: what is read for them, and what travels to the device."""

from dataclasses import replace

import torch

from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.forward import TreeBatch


def test_nothing_travels_twice(scorer, test_rows):
    """Pixels go to the device as bytes: a fourth of their patches in 32 bits, and half again for the second frame."""
    ready = with_tensors(prepare_batch(scorer.prepare, test_rows[:4], "1"), "cpu")
    assert isinstance(ready.tensors, TreeBatch) and all(pixels.dtype == torch.uint8 for pixels in ready.tensors.pixels)


def test_a_picture_alone_and_among_others_is_read_once_where_their_number_makes_no_difference(scorer, test_rows):
    first, second = test_rows[:2]
    both = replace(first, id="both", pictures=first.pictures + second.pictures, sizes=first.sizes + second.sizes)
    ready = prepare_batch(scorer.prepare, [first, both], "1")
    assert len(ready.pictures) == 2 and ready.picture_numbers == [[0], [0, 1]]
