"""Prompts of a few kinds of tokens with pictures between them, for properties of trees."""

import numpy as np
from hypothesis import strategies as st

from scoring.engine.tree import Tree
from scoring.inputs.tokens import PlacedPicture, TokenSequence

IMAGE = 9
GRIDS = [(1, 4, 2), (1, 2, 2), (1, 4, 4)]


def sequence_of(*parts: list[int] | int) -> TokenSequence:
    """Of texts, and of pictures by their number."""
    ids: list[int] = []
    pictures = []
    for part in parts:
        if isinstance(part, int):
            grid = GRIDS[part % 3]
            count = grid[1] * grid[2] // 4
            pictures.append(PlacedPicture(part, slice(len(ids), len(ids) + count), grid, (grid[1] // 2, grid[2] // 2)))
            ids += [IMAGE] * count
        else:
            ids += part
    return TokenSequence(np.array(ids, np.int64), tuple(pictures), 0)


texts = st.lists(st.integers(0, 2), max_size=6)
pictures_and_texts = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(0, 2), min_size=1, max_size=4)), max_size=3
)
rows = st.lists(st.tuples(st.sampled_from([[7], [7, 8]]), pictures_and_texts), min_size=1, max_size=14)


def made(drawn) -> tuple[list[TokenSequence], list[list[int]]]:
    """Prompts of texts with up to three pictures between them, and the numbers of these."""
    sequences = [sequence_of(first, *(part for pair in pairs for part in pair)) for first, pairs in drawn]
    return sequences, [[placed.index for placed in row.pictures] for row in sequences]


def paths_of(tree: Tree) -> list[list[int]]:
    """The indices of each sequence's tokens in a tree."""
    return [path.tolist() for path in np.split(tree.leaf_keys, tree.leaf_bounds[1:-1])]
