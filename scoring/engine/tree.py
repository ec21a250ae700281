"""Token sequences -> a prefix tree, as flat arrays. Numpy alone.

In: B sequences and which pictures each shows. Out: a `Tree` of T tokens, where T is less than the sum of their lengths:
sequences that begin alike share their beginning. So the system prompt, a picture under several questions, and the
option orders of one question are computed once.

Sorted by their tokens, each sequence adds one *segment*: the tokens that no sequence before it has. A segment's queries
are those tokens. Its keys are the whole path from the root to its end, picked by index. Causal attention of the queries
over the keys, aligned at the end, lets each token attend to what it would attend to in its sequence alone:

    sequence 1   system picture which colour …   segment 1   system picture which colour …   keys: its own
    sequence 2   system picture which shape …    segment 2   shape …                         keys: system picture which,
                                                                                             and its own

Next: `forward` turns a tree into tensors and computes it; `tests/engine/test_tree.py` holds its properties.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scoring.inputs.tokens import TokenSequence

PICTURE_KEY = 1 << 31  # added to a picture's number: all picture tokens have one id, and the picture tells them apart

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Tree:
    """T tokens in S segments for B sequences. A token's position in the T is its index.

    ids: (T,) int64 token ids; positions: (3, T) int64, for the rotary embedding.
    keys: indices of every segment's keys, one segment after the other; its last ones are its own tokens.
    query_bounds, key_bounds: (S + 1,) int32, where each segment's tokens and keys begin and end.
    leaves: (B,) int64, the index of each sequence's last token, in the order in which the sequences were given.
    leaf_keys, leaf_bounds: indices of all tokens of each sequence, which its last token attends to; bounds (B + 1,).
    pictures: for each run of picture tokens in `ids`, in turn, the number of its picture.
    picture_tokens: (N,) int64 indices of all picture tokens.
    """

    ids: Integers
    positions: Integers
    keys: Integers
    query_bounds: Integers
    key_bounds: Integers
    leaves: Integers
    leaf_keys: Integers
    leaf_bounds: Integers
    pictures: list[int]
    picture_tokens: Integers

    @classmethod
    def build(cls, sequences: list[TokenSequence], pictures: Sequence[Sequence[int]], share: bool = True) -> "Tree":
        """pictures: for each sequence the numbers of its pictures in their places: the same number, the same pixels.

        share: False lays every sequence out whole, as a plain packed batch: tests compare the tree with it.
        """
        table, lengths = _table(sequences, pictures)
        order = _sorted_rows(table)
        table, lengths = table[order], lengths[order]
        starts = _shared_lengths(table, lengths) if share else np.zeros_like(lengths)
        ends = np.cumsum(lengths - starts)
        paths = np.empty(table.shape, np.int64)  # for each token of each sorted sequence, its index in the tree
        for row, (start, length, end) in enumerate(zip(starts, lengths, ends)):
            if start:
                paths[row, :start] = paths[row - 1, :start]
            paths[row, start:length] = np.arange(end - length + start, end)
        sorted_row = np.argsort(order)  # of each sequence
        leaf_paths = [paths[row, : lengths[row]] for row in sorted_row]
        segments = [
            (paths[row, :length], number, start)
            for row, (number, start, length) in enumerate(zip(order, starts, lengths))
            if length > start
        ]
        runs = [  # of picture tokens: the indices, and the picture's number
            (path[placed.tokens], picture)
            for path, number, start in segments
            for placed, picture in zip(sequences[number].pictures, pictures[number])
            if start <= placed.tokens.start
        ]
        return cls(
            ids=np.concatenate([sequences[number].ids[start:] for _, number, start in segments]),
            positions=np.concatenate([sequences[number].positions(start) for _, number, start in segments], axis=1),
            keys=np.concatenate([path for path, _, _ in segments]),
            query_bounds=_bounds([len(path) - start for path, _, start in segments]),
            key_bounds=_bounds([len(path) for path, _, _ in segments]),
            leaves=np.array([path[-1] for path in leaf_paths]),
            leaf_keys=np.concatenate(leaf_paths),
            leaf_bounds=_bounds([len(path) for path in leaf_paths]),
            pictures=[picture for _, picture in runs],
            picture_tokens=np.concatenate([np.empty(0, np.int64), *(indices for indices, _ in runs)]),
        )

    @property
    def longest(self) -> tuple[int, int]:
        """(queries, keys) of the largest segments."""
        return int(np.diff(self.query_bounds).max()), int(np.diff(self.key_bounds).max())


def tree_tokens(sequences: list[TokenSequence]) -> int:
    """The number of tokens in the tree of one question's sequences."""
    table, lengths = _table(sequences, [[placed.index for placed in sequence.pictures] for sequence in sequences])
    order = _sorted_rows(table)
    return int((lengths[order] - _shared_lengths(table[order], lengths[order])).sum())


def _table(sequences: list[TokenSequence], pictures: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """(B, L) what tells tokens apart, 0 after the end, and (B,) lengths. Big-endian: bytes sort as numbers do."""
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    table = np.zeros((len(sequences), lengths.max()), ">u4")
    for row, (sequence, numbers) in enumerate(zip(sequences, pictures)):
        table[row, : lengths[row]] = sequence.ids + 1
        for placed, number in zip(sequence.pictures, numbers):
            table[row, placed.tokens] = PICTURE_KEY + number
    return table, lengths


def _sorted_rows(table: Integers) -> Integers:
    """Rows in the order of their tokens: those that share a beginning are neighbours."""
    return np.array(sorted(range(len(table)), key=[row.tobytes() for row in table].__getitem__))


def _shared_lengths(table: Integers, lengths: Integers) -> Integers:
    """(B,) how many tokens each sorted row shares with the row before it: no earlier one shares more."""
    differs = table[1:] != table[:-1]
    first = np.where(differs.any(1), differs.argmax(1), lengths[1:])
    return np.concatenate([[0], np.minimum(first, lengths[1:])])


def _bounds(lengths: list[int]) -> Integers:
    """(len(lengths) + 1,) int32: where stretches of these lengths begin and end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
