"""The prefix tree by itself: nothing lost, nothing twice, the order of the input of no account."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scoring.engine.tree import Tree, tree_tokens
from scoring.inputs.tokens import PlacedPicture, TokenSequence
from tests.shared.trees import IMAGE, made, rows, sequence_of


def sequence(before: list[int], after: list[int]) -> TokenSequence:
    return sequence_of(before, 0, after)


def distinct(row: TokenSequence) -> tuple:
    """The tokens, each of a picture with the picture's number."""
    numbers = {index: placed.index for placed in row.pictures for index in range(len(row.ids))[placed.tokens]}
    return tuple((numbers[index], token) if index in numbers else token for index, token in enumerate(row.ids.tolist()))


def paths(tree: Tree) -> list[np.ndarray]:
    """The flat places of each segment's keys."""
    return np.split(tree.keys, tree.key_bounds[1:-1])


@settings(max_examples=300, deadline=None)
@given(rows, st.booleans())
def test_walking_up_from_any_leaf_gives_back_the_sequence(drawn, share):
    sequences, pictures = made(drawn)
    tree = Tree.build(sequences, pictures, share)
    for row, leaf, path in zip(sequences, tree.leaves, np.split(tree.leaf_keys, tree.leaf_bounds[1:-1])):
        assert path[-1] == leaf
        assert tree.ids[path].tolist() == row.ids.tolist()
        assert (tree.positions[:, path] == row.positions()).all()


@settings(max_examples=300, deadline=None)
@given(rows)
def test_no_token_is_computed_twice(drawn):
    sequences, pictures = made(drawn)
    tree = Tree.build(sequences, pictures)
    prefixes = {tokens[: end + 1] for tokens in map(distinct, sequences) for end in range(len(tokens))}
    assert tree.picture_tokens.tolist() == np.flatnonzero(tree.ids == IMAGE).tolist()
    assert len(tree.ids) == len(prefixes) == tree.query_bounds[-1]
    assert (np.diff(tree.query_bounds) > 0).all()
    assert tree_tokens(sequences) == len(tree.ids)  # here a picture's index in its row is its number


@settings(max_examples=200, deadline=None)
@given(rows, st.randoms())
def test_the_order_of_the_input_does_not_matter(drawn, random):
    sequences, pictures = made(drawn)
    order = list(range(len(sequences)))
    random.shuffle(order)
    one = Tree.build(sequences, pictures)
    two = Tree.build([sequences[index] for index in order], [pictures[index] for index in order])
    for name in ("ids", "positions", "keys", "query_bounds", "key_bounds"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.leaves[order].tolist() == two.leaves.tolist() and one.pictures == two.pictures
    paths_of = [np.split(tree.leaf_keys, tree.leaf_bounds[1:-1]) for tree in (one, two)]
    assert all(np.array_equal(paths_of[0][index], path) for index, path in zip(order, paths_of[1]))


@settings(max_examples=200, deadline=None)
@given(rows)
def test_every_query_sees_its_ancestors_and_itself(drawn):
    """Aligned at the end: the last keys of a segment are its own queries, in their order."""
    sequences, pictures = made(drawn)
    tree = Tree.build(sequences, pictures)
    for index, path in enumerate(paths(tree)):
        own_tokens = np.arange(tree.query_bounds[index], tree.query_bounds[index + 1])
        assert path[-len(own_tokens) :].tolist() == own_tokens.tolist()
        assert (np.diff(path) > 0).all()
    assert tree.longest == (np.diff(tree.query_bounds).max(), np.diff(tree.key_bounds).max())


def test_the_picture_tells_equal_tokens_apart():
    rows = [sequence([1], [2]), sequence([1], [2]), sequence([1], [2])]
    tree = Tree.build(rows, [[0], [1], [0]])
    assert tree.pictures == [0, 1] and len(tree.ids) == 1 + 2 * 3
    assert tree.leaves[0] == tree.leaves[2] != tree.leaves[1]
    flat = Tree.build(rows, [[0], [1], [0]], share=False)
    assert sorted(flat.pictures) == [0, 0, 1] and len(flat.ids) == 12 and len(set(flat.leaves.tolist())) == 3


def test_one_picture_under_two_system_prompts_stands_twice():
    tree = Tree.build([sequence([1], [2]), sequence([2], [2])], [[0], [0]])
    assert tree.pictures == [0, 0] and len(tree.ids) == 8


def test_512_sequences_of_430_tokens_are_quick():
    """Under 30 ms by itself; four times that here, where other tests may be running."""
    rng = np.random.default_rng(0)
    system = rng.integers(10, 1000, 106)
    picture = PlacedPicture(0, slice(106, 106 + 192), (1, 24, 32), (12, 16))
    rows = [
        TokenSequence(np.concatenate([system, [IMAGE] * 192, rng.integers(10, 1000, 132)]), (picture,), 298)
        for _ in range(512)
    ]
    assert len(rows[0].ids) == 430
    Tree.build(rows, [[number] for number in range(512)])
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        tree = Tree.build(rows, [[number] for number in range(512)])
        seconds.append(time.perf_counter() - start)
    assert len(tree.ids) == 106 + 512 * 324
    print(f"{min(seconds) * 1e3:.1f} ms")
    assert min(seconds) < 0.12


@pytest.mark.parametrize("start", [0, 1, 2, 3, 5, 8])
def test_positions_from_any_token_on(start):
    for row in (sequence_of([1, 2], 2, [3, 4, 5, 6]), sequence_of([1, 2], 1, [3], 0, [4, 5, 6]), sequence_of([1] * 9)):
        assert (row.positions(start) == row.positions()[:, start:]).all() and row.positions(start).shape[0] == 3


def test_orders_of_options_share_everything_up_to_the_first_option_that_moves():
    """Two pictures as options: both orders have the question and the first option's letter in common."""
    tree = Tree.build([sequence_of([1, 2], 0, [3], 1, [4]), sequence_of([1, 2], 1, [3], 0, [4])], [[0, 1], [1, 0]])
    assert tree.pictures == [0, 1, 1, 0]  # a picture after another text is another part of the tree
    assert len(tree.ids) == 2 + 2 * (2 + 1 + 1 + 1)


def test_a_tree_without_a_picture():
    tree = Tree.build([sequence_of([1, 2, 3]), sequence_of([1, 2, 4])], [[], []])
    assert tree.pictures == [] and tree.picture_tokens.dtype == np.int64 and len(tree.ids) == 4
