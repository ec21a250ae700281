"""Token sequences -> a prefix tree, as flat arrays. Numpy alone.

Sequences that begin alike share their beginning, so that the system prompt, a picture under several questions and the
option orders of one question are computed once. Laid out in the order of their tokens, each sequence adds one
*segment*: the tokens that none before it has. A segment's queries are those tokens; its keys are the whole path
from the root down to its end, picked by index. Causal attention of the one over the other, aligned at the end, is what
the sequence would see by itself.
"""

from dataclasses import dataclass

import numpy as np

from scoring.inputs.tokens import TokenSequence

PICTURE_KEY = 1 << 31  # picture tokens all have one id: what tells them apart is the picture


@dataclass(frozen=True)
class Tree:
    """T tokens in S segments for B sequences.

    ids: (T,) int64, and positions: (3, T) int64 of the tokens.
    keys: flat places of every segment's keys, one segment after the other; its last ones are its own tokens.
    query_bounds, key_bounds: (S + 1,) int32, where each segment's tokens and keys begin and end.
    leaves: (B,) int64, the place of each sequence's last token, in the order in which the sequences were given.
    leaf_keys, leaf_bounds: places of what each sequence's last token sees, its whole sequence, and their ends (B + 1,).
    pictures: for each run of picture tokens in `ids`, in turn, the number of its picture.
    picture_tokens: (N,) int64 places of all picture tokens.
    """

    ids: np.ndarray
    positions: np.ndarray
    keys: np.ndarray
    query_bounds: np.ndarray
    key_bounds: np.ndarray
    leaves: np.ndarray
    leaf_keys: np.ndarray
    leaf_bounds: np.ndarray
    pictures: list[int]
    picture_tokens: np.ndarray

    @classmethod
    def build(cls, sequences: list[TokenSequence], pictures: list[int], share: bool = True) -> "Tree":
        """`pictures` numbers the picture of each sequence: the same number, the same pixels.

        share: False lays every sequence out whole, as a plain packed batch: what the tree is tested against.
        """
        table, lengths = _table(sequences, pictures)
        order = _sorted(table, lengths)
        table, lengths = table[order], lengths[order]
        starts = _shared(table, lengths) if share else np.zeros_like(lengths)
        added = lengths - starts
        ends = np.cumsum(added)
        paths = np.empty(table.shape, np.int64)  # flat place of each token of each sequence
        for row, (start, length, end) in enumerate(zip(starts, lengths, ends)):
            if start:
                paths[row, :start] = paths[row - 1, :start]
            paths[row, start:length] = np.arange(end - length + start, end)
        back = np.argsort(order)  # sorted place of each sequence
        whole = [paths[row, : lengths[row]] for row in back]
        segments = [
            (paths[row, :length], sequences[at], start, pictures[at])
            for row, (at, start, length) in enumerate(zip(order, starts, lengths))
            if length > start
        ]
        return cls(
            np.concatenate([sequence.ids[start:] for _, sequence, start, _ in segments]),
            np.concatenate([sequence.positions(start) for _, sequence, start, _ in segments], axis=1),
            np.concatenate([path for path, *_ in segments]),
            _bounds([len(path) - start for path, _, start, _ in segments]),
            _bounds([len(path) for path, *_ in segments]),
            np.array([path[-1] for path in whole]),
            np.concatenate(whole),
            _bounds([len(path) for path in whole]),
            [picture for _, sequence, start, picture in segments if start <= sequence.picture.start],
            np.concatenate(
                [path[sequence.picture] for path, sequence, start, _ in segments if start <= sequence.picture.start]
            ),
        )

    @property
    def longest(self) -> tuple[int, int]:
        """(queries, keys) of the largest segments."""
        return int(np.diff(self.query_bounds).max()), int(np.diff(self.key_bounds).max())


def tree_tokens(sequences: list[TokenSequence]) -> int:
    """How many tokens the tree of sequences about one picture computes."""
    table, lengths = _table(sequences, [0] * len(sequences))
    order = _sorted(table, lengths)
    return int((lengths[order] - _shared(table[order], lengths[order])).sum())


def _table(sequences: list[TokenSequence], pictures: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(B, L) what tells tokens apart, 0 after the end, and (B,) lengths. Big-endian: bytes sort as numbers do."""
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    table = np.zeros((len(sequences), lengths.max()), ">u4")
    for row, (sequence, picture) in enumerate(zip(sequences, pictures)):
        table[row, : lengths[row]] = sequence.ids + 1
        table[row, sequence.picture] = PICTURE_KEY + picture
    return table, lengths


def _sorted(table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Rows in the order of their tokens: those that share a beginning stand together."""
    return np.array(sorted(range(len(table)), key=[row.tobytes() for row in table].__getitem__))


def _shared(table: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(B,) how many tokens each sorted row shares with the row before it: no earlier one shares more."""
    differs = table[1:] != table[:-1]
    first = np.where(differs.any(1), differs.argmax(1), lengths[1:])
    return np.concatenate([[0], np.minimum(first, lengths[1:])])


def _bounds(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
