"""Trees filled up to a few shapes: nothing else changes or attends to fillers, and shapes are as documented."""

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.engine.buckets import filled_up, is_small
from scoring.engine.tree import Tree
from tests.shared.trees import made, rows, sequence_of

LEAVES = 16


def counts(tree: Tree) -> tuple[int, int, int, int, int]:
    """Tokens, keys, segments, leaves and keys of leaves."""
    return len(tree.ids), len(tree.keys), len(tree.query_bounds) - 1, len(tree.leaves), len(tree.leaf_keys)


def of_lengths(*lengths: int, shared: int = 0) -> Tree:
    """Of sequences in words alone whose first `shared` tokens are the same."""
    sequences = [sequence_of([1] * shared + [number + 2] * (length - shared)) for number, length in enumerate(lengths)]
    return Tree.build(sequences, [[]] * len(lengths))


@settings(max_examples=200, deadline=None)
@given(rows, st.booleans())
def test_a_filled_up_tree_begins_with_the_tree(drawn, share):
    tree = Tree.build(*made(drawn), share)
    filled = filled_up(tree, LEAVES)
    for field in fields(Tree):
        before, after = getattr(tree, field.name), getattr(filled, field.name)
        if field.name in ("pictures", "picture_tokens"):
            assert np.array_equal(before, after)
        else:
            assert np.array_equal(before, after[..., : np.shape(before)[-1]]) and after.dtype == before.dtype


@settings(max_examples=200, deadline=None)
@given(rows)
def test_fillers_attend_to_fillers_alone_and_nothing_else_does(drawn):
    tree = Tree.build(*made(drawn))
    filled, first, own_segments = filled_up(tree, LEAVES), len(tree.ids), len(tree.query_bounds) - 1
    assert (filled.ids[first:] == 0).all() and (filled.positions[:, first:] == 0).all()
    assert len(filled.keys) == filled.key_bounds[-1] and len(filled.ids) == filled.query_bounds[-1]
    paths = np.split(filled.keys, filled.key_bounds[1:-1])
    for number, (path, start, stop) in enumerate(zip(paths, filled.query_bounds, filled.query_bounds[1:])):
        assert stop > start and path[start - stop :].tolist() == list(range(start, stop))  # its own tokens are last
        assert (path >= first).all() if number >= own_segments else (path < first).all()
    leaf_paths = np.split(filled.leaf_keys, filled.leaf_bounds[1:-1])
    for number, (path, leaf) in enumerate(zip(leaf_paths, filled.leaves)):
        assert len(path) and path[-1] == leaf and ((path >= first) == (number >= len(tree.leaves))).all()


def test_shapes_are_as_documented():
    """Tokens by 64 with a filler for each filler segment, segments by powers of two, keys by 64 for two segments."""
    assert counts(filled_up(of_lengths(361), LEAVES)) == (384, 384, 2, 16, 400)
    assert counts(filled_up(of_lengths(383), LEAVES)) == (384, 384, 2, 16, 400)
    assert counts(filled_up(of_lengths(384), LEAVES)) == (448, 448, 2, 16, 464)
    # 300 tokens that four sequences share and 100 of each: 700 of 1,600 keys, and four filler segments.
    orders = of_lengths(400, 400, 400, 400, shared=300)
    assert counts(orders) == (700, 1_600, 4, 4, 1_600)
    assert counts(filled_up(orders, LEAVES)) == (704, 1_792, 8, 16, 1_808)
    three = of_lengths(100, 90, 80)
    assert counts(filled_up(three, LEAVES)) == (320, 384, 4, 16, 400)


def test_sequences_that_are_alike_have_more_keys_of_leaves_than_keys():
    """The second one adds no segment: 200 keys of 100 tokens."""
    tree = Tree.build([sequence_of([1] * 100)] * 2, [[], []])
    assert counts(tree) == (100, 100, 1, 2, 200)
    assert counts(filled_up(tree, LEAVES)) == (128, 128, 2, 16, 256)


@pytest.mark.parametrize(
    "length, sequences, small", [(2_048, 1, True), (2_049, 1, False), (9, 15, True), (9, 16, False)]
)
def test_a_tree_is_small_with_few_tokens_and_a_leaf_to_spare(length, sequences, small):
    tree = Tree.build([sequence_of([1] * length)] * sequences, [[]] * sequences)
    assert is_small(tree, LEAVES) == small
