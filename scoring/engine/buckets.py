"""Small trees filled up to a few shapes, so that what was recorded for one of them serves the next. Numpy alone.

In: a `Tree` of S segments and B sequences. Out: one whose answers for these are the same, with

    segments    the next power of two above S, so that at least one is a filler
    tokens      a multiple of `STEP`: at least one for each filler segment
    keys        a multiple of `STEP` for every two segments
    leaves      as many as asked for; at least one is a filler
    leaf keys   as many as keys, and one for each leaf; more only where sequences are alike

Fillers come last. Their tokens have id 0 and position 0, attend to fillers alone, and nothing else attends to them.

Next: `graphs`, which records a forward pass of such a shape.
"""

import numpy as np

from scoring.engine.tree import Integers, Tree

STEP = 64  # tokens: products with so many rows more cost next to nothing on a card
MOST_TOKENS = 2_048  # of a tree whose forward pass takes a card no longer than its launches take the host


def is_small(tree: Tree, leaves: int) -> bool:
    """Whether `filled_up` serves a tree: few tokens, and fewer sequences than leaves."""
    return len(tree.ids) <= MOST_TOKENS and len(tree.leaves) < leaves


def filled_up(tree: Tree, leaves: int) -> Tree:
    """The tree in the shape that the module's docstring describes; it must be small."""
    count = len(tree.query_bounds) - 1
    segments = 1 << count.bit_length()
    tokens = _up_to(len(tree.ids) + segments - count, STEP)
    fillers = np.arange(len(tree.ids), tokens)
    step = STEP * segments // 2
    keys = _up_to(len(tree.keys) + len(fillers), step)
    alone = segments - count - 1  # filler segments of one token, which is their only key; the last has all others
    more_leaves = leaves - len(tree.leaves)
    leaf_keys = len(tree.leaf_keys) + more_leaves
    leaf_keys = keys + leaves if leaf_keys <= keys + leaves else _up_to(leaf_keys, step)
    return Tree(
        ids=np.pad(tree.ids, (0, len(fillers))),
        positions=np.pad(tree.positions, ((0, 0), (0, len(fillers)))),
        keys=np.concatenate([tree.keys, _keys_of_fillers(fillers, alone, keys - len(tree.keys))]),
        query_bounds=_with_fillers(tree.query_bounds, alone, tokens),
        key_bounds=_with_fillers(tree.key_bounds, alone, keys),
        leaves=np.pad(tree.leaves, (0, more_leaves), constant_values=fillers[0]),
        leaf_keys=np.pad(tree.leaf_keys, (0, leaf_keys - len(tree.leaf_keys)), constant_values=fillers[0]),
        leaf_bounds=_with_fillers(tree.leaf_bounds, more_leaves - 1, leaf_keys),
        pictures=tree.pictures,
        picture_tokens=tree.picture_tokens,
    )


def _up_to(number: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-number // step) * step


def _keys_of_fillers(fillers: Integers, alone: int, count: int) -> Integers:
    """`count` keys of the filler segments; the last one's own tokens are at its end, and before them one of them."""
    return np.insert(fillers, alone, np.full(count - len(fillers), fillers[alone]))


def _with_fillers(bounds: Integers, alone: int, end: int) -> Integers:
    """Bounds, and those of `alone` stretches of one element, and of a last one that goes on to `end`."""
    return np.concatenate([bounds, bounds[-1] + np.arange(1, alone + 1), [end]]).astype(np.int32)
