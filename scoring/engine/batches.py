"""A batch prepared: pictures read, prompts encoded, the tree built.

In: questions and their option orders, as `costs` put them together. Out:

    read_ahead        batches           -> PreparedBatch, with its `TreeBatch` on the host

Next: `scorer`, which answers prepared batches.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scoring.engine.costs import TokenCost, cost_in_orders, encode_in_orders, tokens_in
from scoring.engine.forward import TreeBatch
from scoring.engine.tree import Tree
from scoring.inputs.digests import picture_key
from scoring.inputs.pictures import PictureError
from scoring.inputs.pixels import Grid, PixelPolicy
from scoring.inputs.prepare import Preparer, status_of
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

READERS = min(8, os.cpu_count() or 1)  # threads that decode pictures: more of them wait for Python's lock
AHEAD = {"cpu": 0, "cuda": 2}  # batches that are prepared while one is answered
SAMPLED = 64  # every so many-th pixel of a picture tells it from most others

Pixels = NDArray[np.uint8]  # (height, width, 3)


@dataclass(frozen=True)
class PreparedBatch:
    """R rows whose pictures are read, as S sequences: several a row where its options are shown in several orders.

    rows, orders: (S,) the row of each sequence, and its option order. picture_numbers: (S,) which of `pictures` each
    sequence shows in its places. grids: of the pictures.
    faults: row -> why its picture could not be read; such a row has no sequence. tensors: see `with_tensors`.
    """

    questions: list[Question]
    rows: list[int]
    orders: list[str]
    sequences: list[TokenSequence]
    picture_numbers: list[list[int]]
    pictures: list[Pixels]
    grids: list[Grid]
    faults: dict[int, str]
    tensors: TreeBatch | None = None

    def raise_for_faults(self) -> None:
        """For callers who need all rows. Raises PictureError, naming the rows whose picture could not be read."""
        if self.faults:
            faults = "; ".join(f"row {self.questions[row].id!r}: {fault}" for row, fault in self.faults.items())
            raise PictureError(
                faults, "pictures that can be read", "run `check --deep`, which lists all of them beforehand"
            )

    def halves(self) -> "list[PreparedBatch]":
        """The same rows in two batches; itself alone, where it is one row."""
        present = sorted(set(self.rows))
        if len(present) < 2:
            return [self]
        cut = present[len(present) // 2]
        return [
            self._select([index for index, row in enumerate(self.rows) if (row < cut) == low]) for low in (True, False)
        ]

    def _select(self, indices: list[int]) -> "PreparedBatch":
        """The sequences with these indices, without tensors and faults."""
        numbers = sorted({number for index in indices for number in self.picture_numbers[index]})
        return PreparedBatch(
            questions=self.questions,
            rows=[self.rows[index] for index in indices],
            orders=[self.orders[index] for index in indices],
            sequences=[self.sequences[index] for index in indices],
            picture_numbers=[[numbers.index(number) for number in self.picture_numbers[index]] for index in indices],
            pictures=[self.pictures[number] for number in numbers],
            grids=[self.grids[number] for number in numbers],
            faults={},
        )


def prepare_batch(
    preparer: Preparer, questions: list[Question], orders: str, readers: Executor | None = None
) -> PreparedBatch:
    """Read and resize each picture once, encode every row in every order. Faults are kept, not raised."""
    pictures = _read_pictures(preparer, questions, readers)
    faults: dict[int, str] = {}
    readable: list[tuple[int, list[_Readable]]] = []
    for row, question in enumerate(questions):
        results = [pictures[key] for key in _cut_pictures(preparer, question)]
        if fault := next((result for result in results if isinstance(result, PictureError)), None):
            faults[row] = status_of(fault)
        else:
            readable.append((row, [result for result in results if isinstance(result, _Readable)]))
    sizes = [[picture.size for picture in row_pictures] for _, row_pictures in readable]
    prompts = [(questions[row], row_sizes) for (row, _), row_sizes in zip(readable, sizes)]
    encoded = encode_in_orders(preparer, prompts, orders)
    batch = PreparedBatch(questions, [], [], [], [], [], [], faults)
    numbers: dict[int, int] = {}  # id of a picture's pixels -> its index in the batch
    for (row, row_pictures), (row_orders, sequences) in zip(readable, encoded):
        if isinstance(sequences, PictureError):
            faults[row] = status_of(sequences)
            continue
        for picture in row_pictures:
            if numbers.setdefault(id(picture.pixels), len(batch.pictures)) == len(batch.pictures):
                batch.pictures.append(picture.pixels)
                batch.grids.append(picture.grid)
        row_numbers = [numbers[id(picture.pixels)] for picture in row_pictures]
        batch.rows.extend([row] * len(sequences))
        batch.orders.extend(row_orders)
        batch.sequences.extend(sequences)
        batch.picture_numbers.extend(
            [row_numbers[placed.index] for placed in sequence.pictures] for sequence in sequences
        )
    return batch


class _Readable(NamedTuple):
    """A picture that could be read: its upright size, and its grid and its pixels as the model sees them."""

    size: tuple[int, int]
    grid: Grid
    pixels: Pixels


def _cut_pictures(preparer: Preparer, question: Question) -> list[tuple[object, PixelPolicy]]:
    """The key of each of a question's pictures, and how it is cut: that may depend on how many there are."""
    policy = preparer.policy.for_count(len(question.pictures))
    return [(picture_key(picture), policy) for picture in question.pictures]


def _read_pictures(
    preparer: Preparer, questions: list[Question], readers: Executor | None
) -> dict[tuple[object, PixelPolicy], _Readable | PictureError]:
    """Each picture by its key and how it is cut, read once."""
    first_with = {
        key: (question, index)
        for question in reversed(questions)
        for index, key in enumerate(_cut_pictures(preparer, question))
    }

    def read(question_and_index: tuple[Question, int]) -> _Readable | PictureError:
        policy = preparer.policy.for_count(len(question_and_index[0].pictures))
        try:
            picture = preparer.picture(*question_and_index)
            return _Readable(picture.size, policy.grid(*picture.size), policy.resized(picture))
        except PictureError as error:
            return error.alone()

    return dict(zip(first_with, (readers.map if readers else map)(read, first_with.values())))


def cost_of(batch: PreparedBatch) -> TokenCost:
    """What the rows of a batch add to a tree."""
    sequences: dict[int, list[TokenSequence]] = {}
    for row, sequence in zip(batch.rows, batch.sequences):
        sequences.setdefault(row, []).append(sequence)
    costs = [cost_in_orders(batch.questions[row], each) for row, each in sequences.items()]
    if not costs:
        return TokenCost(None, 0, 0, 0)
    if any(cost.picture != costs[0].picture for cost in costs):
        return TokenCost(None, costs[0].prefix_tokens, 0, tokens_in(costs))
    return replace(costs[0], text_tokens=sum(cost.text_tokens for cost in costs))


def joined(batches: Sequence[PreparedBatch]) -> PreparedBatch:
    """The rows of several batches, in turn, in one. A picture that several of them show is there once."""
    if len(batches) == 1:
        return batches[0]
    whole = PreparedBatch([], [], [], [], [], [], [], {})
    alike: dict[tuple[Grid, bytes], list[int]] = {}  # pictures of one grid and one sample of pixels
    for batch in batches:
        first = len(whole.questions)
        numbers = []
        for pixels, grid in zip(batch.pictures, batch.grids):
            candidates = alike.setdefault((grid, pixels[::SAMPLED, ::SAMPLED].tobytes()), [])
            number = next((known for known in candidates if np.array_equal(whole.pictures[known], pixels)), None)
            if number is None:
                number = len(whole.pictures)
                candidates.append(number)
                whole.pictures.append(pixels)
                whole.grids.append(grid)
            numbers.append(number)
        whole.questions.extend(batch.questions)
        whole.rows.extend(first + row for row in batch.rows)
        whole.orders.extend(batch.orders)
        whole.sequences.extend(batch.sequences)
        whole.picture_numbers.extend([numbers[number] for number in shown] for shown in batch.picture_numbers)
        whole.faults.update({first + row: fault for row, fault in batch.faults.items()})
    return whole


def build_tensors(batch: PreparedBatch, device: str) -> TreeBatch:
    """The tree of a batch that has sequences, as tensors on the host. device: `cpu` or `cuda`, where they will go."""
    tree = Tree.build(batch.sequences, batch.picture_numbers)
    return TreeBatch.of(tree, batch.pictures, batch.grids, device)


def with_tensors(batch: PreparedBatch, device: str) -> PreparedBatch:
    """The batch with its tensors; itself, where it has no sequence."""
    return replace(batch, tensors=build_tensors(batch, device)) if batch.sequences else batch


def read_ahead(
    preparer: Preparer, batches: Iterable[tuple[list[Question], str]], device: str
) -> Generator[PreparedBatch, None, None]:
    """The batches, each with its orders, in turn: threads prepare some while the ones before are answered.

    On a CPU nothing is gained by reading ahead (benchmarks/LOG.md): threads that read take the cores from the others.
    """

    def prepare(questions: list[Question], orders: str) -> PreparedBatch:
        return with_tensors(prepare_batch(preparer, questions, orders, pool), device)

    with ThreadPoolExecutor(READERS) as pool, ThreadPoolExecutor(1) as maker:
        waiting: deque[Future[PreparedBatch]] = deque()
        try:
            for questions, orders in batches:
                waiting.append(maker.submit(prepare, questions, orders))
                if len(waiting) > AHEAD[device]:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
