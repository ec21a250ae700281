"""Which rows form which batch, and a batch prepared: pictures read, prompts encoded, the tree built.

In: questions and their option orders. Out, in three steps:

    costs_of          question          -> TokenCost, what it adds to a tree
    plan_batches      costs, a budget   -> row numbers of each batch
    read_ahead        batches           -> PreparedBatch, with its `TreeBatch` on the host

Next: `scorer`, which answers prepared batches.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scoring.engine.forward import TreeBatch
from scoring.engine.tree import Tree, tree_tokens
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import Preparer
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

CHUNK = 1_000  # rows whose prompts are encoded together
READERS = min(8, os.cpu_count() or 1)  # threads that decode pictures: more of them wait for Python's lock
AHEAD = {"cpu": 0, "cuda": 2}  # batches that are prepared while one is answered

Pixels = NDArray[np.uint8]  # (height, width, 3)


# ------------------------------------------------------------ costs and plan
@dataclass(frozen=True)
class TokenCost:
    """What a row adds to a tree, in tokens.

    picture: what rows of the same picture have in common. prefix_tokens: before the picture, once a batch.
    picture_tokens: once for all rows of the picture. text_tokens: after the picture, of all its orders together.
    """

    picture: object
    prefix_tokens: int
    picture_tokens: int
    text_tokens: int

    @property
    def tokens(self) -> int:
        """What the row adds where it is the first of its picture."""
        return self.picture_tokens + self.text_tokens


def costs_of(preparer: Preparer, questions: list[Question], orders: str) -> Iterator[TokenCost | PictureError]:
    """The cost of each row in these option orders (see `orders_of`), or why it cannot be scored."""
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        encoded = _encode(preparer, [(question, question.size) for question in chunk], orders)
        for question, (_, sequences) in zip(chunk, encoded):
            yield sequences if isinstance(sequences, PictureError) else _token_cost(question, sequences)


def _encode(
    preparer: Preparer, rows: list[tuple[Question, tuple[int, int]]], orders: str
) -> Iterator[tuple[list[str], list[TokenSequence] | PictureError]]:
    """For each (question, size of its picture) its orders, and its prompt in each of them or what is wrong with one."""
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
    picture = sequences[0].picture
    tokens = tree_tokens(sequences) if len(sequences) > 1 else len(sequences[0].ids)
    return TokenCost(picture_key(question), picture.start, picture.stop - picture.start, tokens - picture.stop)


def tokens_in(costs: Iterable[TokenCost]) -> int:
    """Tokens of all these rows, each picture's once."""
    costs = list(costs)
    pictures = {cost.picture: cost.picture_tokens for cost in costs}
    return sum(cost.text_tokens for cost in costs) + sum(pictures.values())


def picture_key(question: Question) -> object:
    """What two rows that show the same picture have in common."""
    return (
        question.picture
        if isinstance(question.picture, str) or hasattr(question.picture, "parts")
        else id(question.picture)
    )


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

    rows, orders: (S,) the row of each sequence, and its option order. picture: (S,) which of `pictures` it shows.
    faults: row -> why its picture could not be read; such a row has no sequence. tensors: see `with_tensors`.
    """

    questions: list[Question]
    rows: list[int]
    orders: list[str]
    sequences: list[TokenSequence]
    picture: list[int]
    pictures: list[Pixels]
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
        numbers = sorted({self.picture[index] for index in indices})
        return PreparedBatch(
            questions=self.questions,
            rows=[self.rows[index] for index in indices],
            orders=[self.orders[index] for index in indices],
            sequences=[self.sequences[index] for index in indices],
            picture=[numbers.index(self.picture[index]) for index in indices],
            pictures=[self.pictures[number] for number in numbers],
            faults={},
        )


def prepare_batch(
    preparer: Preparer, questions: list[Question], orders: str, readers: Executor | None = None
) -> PreparedBatch:
    """Read each picture once, resize it, encode every row in every order. Faults are kept, not raised."""
    keys = [picture_key(question) for question in questions]
    first_with = dict(zip(reversed(keys), reversed(questions)))

    def read(question: Question) -> tuple[tuple[int, int], Pixels] | PictureError:
        try:
            picture = preparer.picture(question)
            return picture.size, preparer.policy.resized(picture)
        except PictureError as error:
            return error

    results = dict(zip(first_with, (readers.map if readers else map)(read, first_with.values())))
    faults: dict[int, str] = {}
    readable: list[tuple[int, object, tuple[int, int], Pixels]] = []
    for row, key in enumerate(keys):
        result = results[key]
        if isinstance(result, PictureError):
            faults[row] = f"picture: {result.found}"
        else:
            readable.append((row, key, *result))
    encoded = _encode(preparer, [(questions[row], size) for row, _, size, _ in readable], orders)
    batch = PreparedBatch(questions, [], [], [], [], [], faults)
    numbers: dict[object, int] = {}
    for (row, key, _, pixels), (row_orders, sequences) in zip(readable, encoded):
        if isinstance(sequences, PictureError):
            faults[row] = f"picture: {sequences.found}"
            continue
        if key not in numbers:
            numbers[key] = len(batch.pictures)
            batch.pictures.append(pixels)
        batch.rows.extend([row] * len(sequences))
        batch.orders.extend(row_orders)
        batch.sequences.extend(sequences)
        batch.picture.extend([numbers[key]] * len(sequences))
    return batch


def build_tensors(batch: PreparedBatch, preparer: Preparer, device: str) -> TreeBatch:
    """The tree of a batch that has sequences, as tensors on the host. device: `cpu` or `cuda`, where they will go."""
    tree = Tree.build(batch.sequences, batch.picture)
    return TreeBatch.of(tree, batch.pictures, preparer.policy, device)


def with_tensors(batch: PreparedBatch, preparer: Preparer, device: str) -> PreparedBatch:
    """The batch with its tensors; itself, where it has no sequence."""
    return replace(batch, tensors=build_tensors(batch, preparer, device)) if batch.sequences else batch


def read_ahead(
    preparer: Preparer, batches: Iterable[tuple[list[Question], str]], device: str
) -> Generator[PreparedBatch, None, None]:
    """The batches, each with its orders, in turn: threads prepare some while the ones before are answered.

    On a CPU nothing is gained by reading ahead (benchmarks/LOG.md): threads that read take the cores from the others.
    """

    def prepare(questions: list[Question], orders: str) -> PreparedBatch:
        return with_tensors(prepare_batch(preparer, questions, orders, pool), preparer, device)

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
