"""Which rows meet in which step, and their tensors."""

import numpy as np

from scoring.engine.padded import PaddedBatch, collate
from scoring.inputs.orders import refer_to_each_other, reordered
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question


def epoch_order(count: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Row numbers of each step of one epoch: every row once, the last step with what is left."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return [order[start : start + batch] for start in range(0, count, batch)]


def shuffled(question: Question, seed: int, epoch: int) -> Question:
    """Its options in an order of this epoch, unless they refer to each other."""
    if refer_to_each_other(question.options):
        return question
    order = np.random.default_rng((seed, epoch, question.row)).permutation(len(question.options))
    return reordered(question, "".join(LETTERS[at] for at in order))


def micro_batches(lengths: np.ndarray, rows: np.ndarray, budget: int) -> list[np.ndarray]:
    """One step's rows in forwards of at most `budget` padded tokens, like lengths together."""
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    parts, start = [], 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or (end + 1 - start) * lengths[rows[end]] > budget:
            parts.append(rows[start:end])
            start = end
    return parts


def to_batch(prepare: Preparer, questions: list[Question]) -> PaddedBatch:
    """Prompts and pictures of the questions as one padded batch."""
    sequences, patches = zip(*map(prepare, questions))
    return collate(list(sequences), list(patches))
