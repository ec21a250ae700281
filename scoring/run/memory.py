"""A batch's forward in as many pieces as memory has been found to need."""

import torch

from scoring.engine.batches import PreparedBatch
from scoring.engine.forward import AnswerLogits
from scoring.engine.loading import out_of_memory
from scoring.engine.scorer import Scorer

Begun = list[tuple[PreparedBatch, list[AnswerLogits]]]


def begin(scorer: Scorer, ready: PreparedBatch, letters: int, split: int) -> tuple[Begun, int]:
    """The forward of a batch, cut into `split` pieces and more where those do not fit; how many pieces that took.

    split: a power of two. A row that does not fit alone gets that as its fault.
    """
    pieces = [ready]
    for _ in range(split.bit_length() - 1):
        pieces = [half for piece in pieces for half in piece.halves()]
    begun: Begun = []
    while pieces:
        piece = pieces.pop(0)
        try:
            begun.append((piece, scorer.answer(piece, letters)))
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        halves = piece.halves()
        if len(halves) == 1:
            piece.faults |= dict.fromkeys(piece.rows, "out of memory, alone in its batch")
            begun.append((piece, []))
            continue
        while split < len(begun) + len(pieces) + 2:
            split *= 2
        pieces = halves + pieces
    return begun, split
