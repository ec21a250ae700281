"""What transformers' own forward answers to questions in all their cyclic orders, and how far scores are from it."""

import numpy as np

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
