"""Which rows form which batch, and a batch prepared: pictures read, prompts encoded, the tree built.

In: questions and their option orders. Out, in three steps:

    costs_of          question          -> TokenCost, what it adds to a tree
    plan_batches      costs, a budget   -> row numbers of each batch
    read_ahead        batches           -> PreparedBatch, with its `TreeBatch` on the host

Next: `scorer`, which answers prepared batches.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scoring.engine.forward import TreeBatch
from scoring.engine.tree import Tree, tree_tokens
from scoring.inputs.digests import picture_key
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.pixels import Grid, PixelPolicy
from scoring.inputs.prepare import Preparer, status_of
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

CHUNK = 1_000  # rows whose prompts are encoded together
READERS = min(8, os.cpu_count() or 1)  # threads that decode pictures: more of them wait for Python's lock
AHEAD = {"cpu": 0, "cuda": 2}  # batches that are prepared while one is answered
SAMPLED = 64  # every so many-th pixel of a picture tells it from most others

Pixels = NDArray[np.uint8]  # (height, width, 3)


# ------------------------------------------------------------ costs and plan
@dataclass(frozen=True)
class TokenCost:
    """What a row adds to a tree, in tokens.

    picture: what rows of the same pictures have in common. prefix_tokens: before the pictures, once a batch.
    picture_tokens: of pictures before all texts, once for all rows of these pictures. text_tokens: the others, of all
    orders of the row together; pictures between the texts are among them.
    """

    picture: object
    prefix_tokens: int
    picture_tokens: int
    text_tokens: int

    @property
    def tokens(self) -> int:
        """What the row adds where it is the first of its pictures."""
        return self.picture_tokens + self.text_tokens


def costs_of(preparer: Preparer, questions: list[Question], orders: str) -> Iterator[TokenCost | PictureError]:
    """The cost of each row in these option orders (see `orders_of`), or why it cannot be scored."""
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        encoded = _encode(preparer, [(question, question.sizes) for question in chunk], orders)
        for question, (_, sequences) in zip(chunk, encoded):
            yield sequences if isinstance(sequences, PictureError) else _token_cost(question, sequences)


def _encode(
    preparer: Preparer, rows: Sequence[tuple[Question, Sequence[tuple[int, int]]]], orders: str
) -> Iterator[tuple[list[str], list[TokenSequence] | PictureError]]:
    """For each (question, sizes of its pictures) its orders, and its prompt in each of them or why it has none."""
    orders_by_row = [orders_of(question, orders) for question, _ in rows]
    prompts = [(*row, order) for row, row_orders in zip(rows, orders_by_row) for order in row_orders]
    encoded = iter(preparer.encode_many(prompts))
    for row_orders in orders_by_row:
        sequences, fault = [], None
        for sequence in [next(encoded) for _ in row_orders]:
            if isinstance(sequence, PictureError):
                fault = fault or sequence
            else:
                sequences.append(sequence)
        yield row_orders, fault or sequences


def _token_cost(question: Question, sequences: list[TokenSequence]) -> TokenCost:
    """The cost of a row, from its prompt in each of its orders."""
    head, pictures = sequences[0].head, sequences[0].pictures
    tokens = tree_tokens(sequences) if len(sequences) > 1 else len(sequences[0].ids)
    first = [placed.tokens for placed in pictures if placed.tokens.stop <= head]
    start, stop = (first[0].start, first[-1].stop) if first else (head, head)
    return TokenCost(pictures_key(question), start, stop - start, tokens - stop)


def tokens_in(costs: Iterable[TokenCost]) -> int:
    """Tokens of all these rows, those of the pictures before their texts once."""
    costs = list(costs)
    pictures = {cost.picture: cost.picture_tokens for cost in costs}
    return sum(cost.text_tokens for cost in costs) + sum(pictures.values())


def pictures_key(question: Question) -> object:
    """What two rows that show the same pictures have in common; a row without a picture has nothing in common."""
    keys = tuple(map(picture_key, question.pictures))
    return keys or id(question)


def plan_batches(costs: list[TokenCost], budget: int) -> list[list[int]]:
    """Row numbers of each batch: rows of a picture together, long ones first, at most `budget` tokens (or one row).

    The longest first: memory is at its highest in the first batch, and the time left is not underestimated.
    """
    first: dict[object, int] = {}
    longest: dict[object, int] = {}
    for row, cost in enumerate(costs):
        first.setdefault(cost.picture, row)
        longest[cost.picture] = max(longest.get(cost.picture, 0), cost.tokens)
    order = sorted(range(len(costs)), key=lambda row: (-longest[costs[row].picture], first[costs[row].picture], row))
    batches: list[list[int]] = []
    used, picture = 0, None
    for row in order:
        cost = costs[row]
        added = cost.text_tokens + (0 if batches and cost.picture == picture else cost.picture_tokens)
        if not batches or used + added > budget:
            batches.append([])
            used, added = cost.prefix_tokens, cost.text_tokens + cost.picture_tokens
        batches[-1].append(row)
        used, picture = used + added, cost.picture
    return batches


# ------------------------------------------------------------ prepared batches
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
    encoded = _encode(preparer, [(questions[row], row_sizes) for (row, _), row_sizes in zip(readable, sizes)], orders)
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
    costs = [_token_cost(batch.questions[row], each) for row, each in sequences.items()]
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
