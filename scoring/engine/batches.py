"""Which rows form which batch, and a batch made ready: pictures read, prompts encoded, the tree built."""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from scoring.engine.forward import TreeBatch
from scoring.engine.tree import Tree, tree_tokens
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import Preparer
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

CHUNK = 1_000  # rows whose prompts are encoded together
READERS = min(8, os.cpu_count() or 1)  # threads that decode pictures: more of them wait for Python's lock
AHEAD = {"cpu": 0, "cuda": 2}  # batches that are made ready before their turn


@dataclass(frozen=True)
class Cost:
    """What a row adds to a tree: its picture's tokens (once for all its rows) and its own, those of all its orders."""

    picture: object
    shared: int  # before the picture: once a batch
    seen: int
    own: int


def costs_of(preparer: Preparer, questions: list[Question], orders: str) -> Iterator[Cost | PictureError]:
    """The cost of each row, or why it cannot be scored."""
    for at in range(0, len(questions), CHUNK):
        chunk = questions[at : at + CHUNK]
        for question, (_, found) in zip(chunk, _encoded(preparer, [(row, row.size) for row in chunk], orders)):
            yield found if isinstance(found, PictureError) else _cost(question, found)


def _encoded(
    preparer: Preparer, rows: list[tuple[Question, tuple[int, int]]], orders: str
) -> Iterator[tuple[list[str], list[TokenSequence] | PictureError]]:
    """For each (question, size of its picture) its orders, and its prompt in each of them or what is wrong with one."""
    names = [orders_of(question, orders) for question, _ in rows]
    prompts = [(*row, order) for row, row_orders in zip(rows, names) for order in row_orders]
    encoded = iter(preparer.encode_many(prompts))
    for row_orders in names:
        sequences = [next(encoded) for _ in row_orders]
        fault = next((found for found in sequences if isinstance(found, PictureError)), None)
        yield row_orders, fault or sequences


def _cost(question: Question, sequences: list[TokenSequence]) -> Cost:
    place = sequences[0].picture
    own = tree_tokens(sequences) if len(sequences) > 1 else len(sequences[0].ids)
    return Cost(picture_key(question), place.start, place.stop - place.start, own - place.stop)


def tokens_in(costs: Iterable[Cost]) -> int:
    """Tokens of all these rows, a picture's once."""
    costs = list(costs)
    return sum(cost.own for cost in costs) + sum({cost.picture: cost.seen for cost in costs}.values())


def picture_key(question: Question):
    """What two rows have in common that show the same picture."""
    return (
        question.picture
        if isinstance(question.picture, str) or hasattr(question.picture, "parts")
        else id(question.picture)
    )


def plan_batches(costs: list[Cost], budget: int) -> list[list[int]]:
    """Row numbers of each batch: rows of a picture together, long ones first, at most `budget` tokens (or one row).

    The longest first: memory is at its highest in the first batch, and the time left is not underestimated.
    """
    first: dict[object, int] = {}
    longest: dict[object, int] = {}
    for row, cost in enumerate(costs):
        first.setdefault(cost.picture, row)
        longest[cost.picture] = max(longest.get(cost.picture, 0), cost.seen + cost.own)
    order = sorted(range(len(costs)), key=lambda row: (-longest[costs[row].picture], first[costs[row].picture], row))
    batches: list[list[int]] = []
    used, picture = 0, None
    for row in order:
        cost = costs[row]
        more = cost.own + (0 if batches and cost.picture == picture else cost.seen)
        if not batches or used + more > budget:
            batches.append([])
            used, more = cost.shared, cost.own + cost.seen
        batches[-1].append(row)
        used, picture = used + more, cost.picture
    return batches


@dataclass
class Ready:
    """A batch whose pictures are read: S sequences of R rows, several a row where options are shown in several orders.

    rows, orders: (S,) the row of each sequence, and its option order. picture: (S,) which of `pictures` it shows.
    faults: row -> why its picture could not be read; such a row has no sequence.
    """

    questions: list[Question]
    rows: list[int]
    orders: list[str]
    sequences: list[TokenSequence]
    picture: list[int]
    pictures: list[np.ndarray]
    faults: dict[int, str]
    tensors: TreeBatch | None = None

    def raise_for_faults(self) -> None:
        """PictureError, naming the rows, where one could not be read: for those who need all of them."""
        if self.faults:
            told = "; ".join(f"row {self.questions[row].id!r}: {fault}" for row, fault in self.faults.items())
            raise PictureError(told, "pictures that can be read", "`check --deep` tells all of them beforehand")

    def halves(self) -> "list[Ready]":
        """The same rows in two batches; itself alone, where it is one row."""
        present = sorted(set(self.rows))
        if len(present) < 2:
            return [self]
        cut = present[len(present) // 2]
        return [self._part([at for at, row in enumerate(self.rows) if (row < cut) == low]) for low in (True, False)]

    def _part(self, places: list[int]) -> "Ready":
        numbers = sorted({self.picture[at] for at in places})
        return Ready(
            self.questions,
            [self.rows[at] for at in places],
            [self.orders[at] for at in places],
            [self.sequences[at] for at in places],
            [numbers.index(self.picture[at]) for at in places],
            [self.pictures[number] for number in numbers],
            {},
        )


def make_ready(preparer: Preparer, questions: list[Question], orders: str, readers: Executor | None = None) -> Ready:
    """Read each picture once, resize it, encode every row in every order. Faults are kept, not raised."""
    keys = [picture_key(question) for question in questions]
    shown = dict(zip(reversed(keys), reversed(questions)))

    def read(question: Question):
        try:
            picture = preparer.picture(question)
            return picture.size, preparer.policy.resized(picture)
        except PictureError as error:
            return error

    found = dict(zip(shown, (readers.map if readers else map)(read, shown.values())))
    ready = Ready(questions, [], [], [], [], [], {})
    seen = []
    for row, key in enumerate(keys):
        if isinstance(found[key], PictureError):
            ready.faults[row] = f"picture: {found[key].found}"
        else:
            seen.append((row, key))
    encoded = _encoded(preparer, [(questions[row], found[key][0]) for row, key in seen], orders)
    numbers: dict[object, int] = {}
    for (row, key), (row_orders, sequences) in zip(seen, encoded):
        if isinstance(sequences, PictureError):
            ready.faults[row] = f"picture: {sequences.found}"
            continue
        if key not in numbers:
            numbers[key] = len(ready.pictures)
            ready.pictures.append(found[key][1])
        ready.rows += [row] * len(sequences)
        ready.orders += row_orders
        ready.sequences += sequences
        ready.picture += [numbers[key]] * len(sequences)
    return ready


def with_tensors(ready: Ready, preparer: Preparer, device: str) -> Ready:
    """The tree of the batch and its tensors, still on the host."""
    if ready.sequences:
        tree = Tree.build(ready.sequences, ready.picture)
        ready.tensors = TreeBatch.of(tree, ready.pictures, preparer.policy, device)
    return ready


def read_ahead(
    preparer: Preparer, batches: Iterable[tuple[list[Question], str]], device: str
) -> Generator[Ready, None, None]:
    """The batches, each with its orders, in turn: made ready by threads, some while the ones before are answered.

    On a CPU nothing is gained by reading ahead (benchmarks/LOG.md): threads that read take the cores from the others.
    """

    def prepare(questions: list[Question], shown: str) -> Ready:
        return with_tensors(make_ready(preparer, questions, shown, pool), preparer, device)

    with ThreadPoolExecutor(READERS) as pool, ThreadPoolExecutor(1) as maker:
        waiting: deque = deque()
        try:
            for questions, shown in batches:
                waiting.append(maker.submit(prepare, questions, shown))
                if len(waiting) > AHEAD[device]:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
