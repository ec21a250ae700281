"""Does a row's answer depend on the rows in its batch, and how far is the engine from the reference?

Part of the measurement of speed, with the types of numbers that the machine uses:

    python -m benchmarks.throughput --size 8b --tokenizer DIR --work DIR          without --no-exact
"""

from pathlib import Path

import numpy as np
import torch

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import PreparedBatch, prepare_batch
from scoring.engine.forward import TreeBatch
from scoring.engine.reference import reference_logits
from scoring.engine.tree import Tree
from scoring.tables.reading import read_questions


@torch.no_grad()
def exactness(scorer: BatchScorer, table: Path, rows: int = 128, alone: int = 8) -> dict:
    """Differences of label logits between ways to form a batch (0: the same bits), and from the reference.

    rows: of the table that are scored. alone: how many of them are also scored one by one.
    """
    questions = read_questions(table)[:rows]
    letters = scorer.label_ids[:4]
    ready = prepare_batch(scorer.prepare, questions, "1")
    together = answers(scorer, Tree.build(ready.sequences, ready.picture_numbers), ready)
    flat = answers(scorer, Tree.build(ready.sequences, ready.picture_numbers, share=False), ready)
    singles = torch.cat(
        [scorer.answer(prepare_batch(scorer.prepare, [row], "1"), 4)[0].labels for row in questions[:alone]]
    )
    cyclic = prepare_batch(scorer.prepare, questions[:8], "cyclic")
    orders = answers(scorer, Tree.build(cyclic.sequences, cyclic.picture_numbers), cyclic)
    orders_flat = answers(scorer, Tree.build(cyclic.sequences, cyclic.picture_numbers, share=False), cyclic)
    prepared = [scorer.prepare(row) for row in questions]
    network = scorer.model.network

    def reference() -> torch.Tensor:
        with torch.compiler.set_stance("force_eager"):
            return torch.stack([reference_logits(network, *row)[letters] for row in prepared])

    scorer.model.use(scorer.adapters[0])
    expected = reference()
    with scorer.packed.switched(scorer.packed.members[0]):
        same_weights = reference()
    return {
        "rows": len(questions),
        "tree_minus_flat": (together - flat).abs().max().item(),
        "orders_tree_minus_flat": (orders - orders_flat).abs().max().item(),
        "alone_minus_together": (singles - together[:alone]).abs().max().item(),
        "reference_logit_std": expected.std().item(),
        "against_the_reference": distance(together, expected),
        "against_the_reference_with_merged_weights": distance(together, same_weights),
        "merged_against_separate_adapter_both_by_the_reference": distance(same_weights, expected),
    }


def distance(logits: torch.Tensor, expected: torch.Tensor) -> dict:
    """How far label logits (N, 4) are from the expected ones: as logits, letters and probabilities."""
    difference = (logits.softmax(1) - expected.softmax(1)).abs().max(1).values.cpu().numpy()
    return {
        "max_dlogit": (logits - expected).abs().max().item(),
        "same_letter": (logits.argmax(1) == expected.argmax(1)).float().mean().item(),
        "median_dp": float(np.median(difference)),
        "max_dp": float(difference.max()),
    }


def answers(scorer: BatchScorer, tree: Tree, ready: PreparedBatch) -> torch.Tensor:
    """(S, 4) label logits of the S sequences of a tree."""
    batch = TreeBatch.of(tree, ready.pictures, ready.grids, scorer.model.device.type).to(scorer.model.device)
    return scorer.packed.answer(batch, scorer.label_ids[:4])[0].labels
