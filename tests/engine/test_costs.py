"""What rows cost, and which of them meet in a batch."""

import numpy as np

from scoring.engine.batches import prepare_batch
from scoring.engine.costs import TokenCost, costs_of, plan_batches
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
