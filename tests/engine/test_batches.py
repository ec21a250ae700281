"""Batches: which rows meet in one, what they cost, and what travels to the device."""

from dataclasses import replace

import numpy as np
import torch

from scoring.engine.batches import TokenCost, costs_of, plan_batches, prepare_batch, with_tensors
from scoring.engine.forward import TreeBatch
from scoring.engine.tree import Tree


def test_batches_are_planned_within_the_budget():
    rng = np.random.default_rng(0)
    costs = [TokenCost(int(rng.integers(60)), 30, 50, int(rng.integers(20, 300))) for _ in range(300)]
    costs.append(TokenCost("long", 30, 50, 5_000))
    batches = plan_batches(costs, 2_000)
    assert sorted(row for batch in batches for row in batch) == list(range(301)) and batches[0] == [300]
    for batch in batches:
        pictures = {costs[row].picture for row in batch}
        total = 30 + 50 * len(pictures) + sum(costs[row].text_tokens for row in batch)
        assert len(batch) == 1 or total <= 2_000
    apart = sum(
        len({number for number, batch in enumerate(batches) for row in batch if costs[row].picture == p})
        for p in range(60)
    )
    assert apart < 60 + len(batches)  # a picture's rows meet, unless the budget cuts between them
    assert plan_batches(costs, 2_000) == batches and plan_batches([], 10) == []


def test_the_cost_of_a_row_is_what_its_tree_computes(scorer, rows):
    for orders in ("1", "cyclic"):
        costs = list(costs_of(scorer.prepare, rows[:5], orders))
        ready = prepare_batch(scorer.prepare, rows[:5], orders)
        tree = Tree.build(ready.sequences, ready.picture_numbers)
        planned = costs[0].prefix_tokens + sum(cost.tokens for cost in costs)
        assert len(tree.ids) <= planned <= len(tree.ids) + 5 * 12  # rows may begin alike after their pictures


def test_nothing_travels_twice(scorer, test_rows):
    """Pixels go to the device as bytes: a fourth of their patches in 32 bits, and half again for the second frame."""
    ready = with_tensors(prepare_batch(scorer.prepare, test_rows[:4], "1"), "cpu")
    assert isinstance(ready.tensors, TreeBatch) and all(pixels.dtype == torch.uint8 for pixels in ready.tensors.pixels)


def test_a_picture_alone_and_among_others_is_read_once_where_their_number_makes_no_difference(scorer, test_rows):
    first, second = test_rows[:2]
    both = replace(first, id="both", pictures=first.pictures + second.pictures, sizes=first.sizes + second.sizes)
    ready = prepare_batch(scorer.prepare, [first, both], "1")
    assert len(ready.pictures) == 2 and ready.picture_numbers == [[0], [0, 1]]
