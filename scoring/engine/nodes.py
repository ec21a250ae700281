"""A prefix tree -> its nodes, for layers that carry a state from token to token. Numpy alone.

Attention picks the keys of a path by index. A recurrent layer has no keys: what it knows of the tokens before is one
state, so that it must begin where a path branches off, with the state that was there. Segments may branch off in the
middle of an earlier one. There the earlier one is cut, and its pieces are *nodes*: each begins with the state after its
parent's last token, and all nodes of a level, which have as many ancestors, can be computed at once.

    segment 1   system picture which colour …   nodes   system picture which (level 0)  →  colour … (level 1)
    segment 2   shape …                                                                 →  shape …  (level 1)

Next: `recurrent`, which computes level by level; `tests/engine/test_nodes.py` holds the properties.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scoring.engine.tree import Integers, Tree

CHUNK = 64  # tokens that a recurrent layer computes at once, one chunk after the other
SHORT_CHUNKS = (16, 32)  # for nodes that are shorter


@dataclass(frozen=True)
class Nodes:
    """N nodes of a tree of T tokens, in the order of their tokens, which they cut into runs.

    bounds: (N + 1,) where each node's tokens begin and end. parents: (N,) each node's parent, -1 for none; it comes
    before the node. levels: (N,) how many ancestors each has.
    """

    bounds: Integers
    parents: Integers
    levels: Integers

    @classmethod
    def of(cls, tree: Tree) -> "Nodes":
        starts, before = tree.query_bounds[:-1].astype(np.int64), earlier_tokens(tree, 1)[:, 0]
        cuts = np.unique(np.concatenate([starts, before[before >= 0] + 1]))
        cuts = cuts[cuts < len(tree.ids)]
        parents = np.arange(-1, len(cuts) - 1)  # the node before, where a segment was cut
        parents[np.searchsorted(cuts, starts)] = np.searchsorted(cuts, before, "right") - 1
        levels = np.zeros(len(cuts), np.int64)
        for node in np.flatnonzero(parents >= 0):
            levels[node] = levels[parents[node]] + 1
        return cls(np.append(cuts, len(tree.ids)), parents, levels)

    def groups(self, most: int) -> "list[list[NodeGroup]]":
        """For each level the groups of its nodes that are computed together.

        Their nodes are filled up to one length: whole chunks, as each of them would be by itself. most: tokens of a
        group of several nodes, so that its memory is bounded.
        """
        sizes = filled_lengths(np.diff(self.bounds))
        continued = np.zeros(len(self.parents), bool)
        continued[self.parents[self.parents >= 0]] = True
        rows = np.zeros(len(self.parents), np.int64)  # of a continued node among those of its level
        levels = []
        for level in range(int(self.levels.max()) + 1):
            groups, count = [], 0
            for size in np.unique(sizes[self.levels == level]):
                nodes = np.flatnonzero((self.levels == level) & (sizes == size))
                step = max(1, most // int(size))
                for part in (nodes[start : start + step] for start in range(0, len(nodes), step)):
                    going_on = part[continued[part]]
                    rows[going_on] = np.arange(count, count + len(going_on))
                    count += len(going_on)
                    groups.append(self._group(part, int(size), rows, continued))
            levels.append(groups)
        return levels

    def _group(self, nodes: Integers, size: int, rows: Integers, continued: NDArray[np.bool_]) -> "NodeGroup":
        starts, lengths = self.bounds[nodes, None], np.diff(self.bounds)[nodes, None]
        places = np.arange(size)
        return NodeGroup(
            tokens=starts + np.minimum(places, lengths - 1),
            own=places < lengths,
            parents=rows[self.parents[nodes]] if self.levels[nodes[0]] else np.empty(0, np.int64),
            continued=np.flatnonzero(continued[nodes]),
        )


@dataclass(frozen=True)
class NodeGroup:
    """n nodes of one level, each filled up to L tokens.

    tokens: (n, L) indices in the tree; where a node has fewer, its last token again. own: (n, L) which are the node's.
    parents: (n,) rows of the parents' states among those that the level before hands on; empty for the first level.
    continued: the rows of the nodes that have children: their states are handed on, in the order of the groups.
    """

    tokens: Integers
    own: NDArray[np.bool_]
    parents: Integers
    continued: Integers


def filled_lengths(lengths: Integers) -> Integers:
    """The length in whole chunks of nodes of these lengths."""
    filled = -(-lengths // CHUNK) * CHUNK
    for chunk in reversed(SHORT_CHUNKS):
        filled = np.where(lengths <= chunk, chunk, filled)
    return filled


def chunk_of(filled: int) -> int:
    """The size of the chunks that make up such a length."""
    return min(filled, CHUNK)


def earlier_tokens(tree: Tree, count: int) -> Integers:
    """(S, count) the last tokens before each segment on its path, in their order; -1 before the path's beginning."""
    own, ends = np.diff(tree.query_bounds), tree.key_bounds[1:]
    places = (ends - own)[:, None] + np.arange(-count, 0)
    return np.where(places >= tree.key_bounds[:-1, None], tree.keys[np.maximum(places, 0)], -1)
