"""What transformers' own forward answers to questions in all their cyclic orders, and how far scores are from it;
and tensors without content."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scoring.engine.attention import attend
from scoring.engine.reference import reference_logits
from scoring.inputs.orders import orders_of, reordered


def reference_labels(scorer, questions, orders="cyclic"):
    """(question's id, order) -> the label logits, by the letters of that order."""
    return {
        (question.id, order): reference_logits(scorer.model.network, *scorer.prepare(reordered(question, order)))[
            scorer.label_ids[: len(order)]
        ].numpy()
        for question in questions
        for order in orders_of(question, orders)
    }


def largest_difference(result, questions, orders, expected) -> float:
    """Of the first member's logits from the expected ones, over all rows, orders and letters."""
    largest = 0.0
    for row, question in enumerate(questions):
        for number, order in enumerate(orders_of(question, orders)):
            by_letter = result.logits[row, 0, number, ["abcd".index(letter) for letter in order]]
            largest = max(largest, float(np.abs(by_letter - expected[question.id, order]).max()))
    return largest


@contextmanager
def without_content():
    """A FakeTensorMode. Attention is the operator, whose shape is known; by itself a CPU's asks for the bounds."""
    with pytest.MonkeyPatch.context() as patch, FakeTensorMode(allow_non_fake_inputs=True) as mode:
        patch.setattr("scoring.engine.attention.plain_attend", attend)
        yield mode


def as_fake(mode, value):
    """A tensor, or each of a list, as one without content in a FakeTensorMode; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return mode.from_tensor(value)
    return [as_fake(mode, each) for each in value] if isinstance(value, list) else value
