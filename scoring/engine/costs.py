"""What rows cost in tokens, and which of them form which batch. No torch: a process that only counts starts at once.

    costs_of          questions         -> TokenCost of each, what it adds to a tree
    plan_batches      costs, a budget   -> row numbers of each batch

Next: `batches`, which prepares them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from scoring.engine.tree import tree_tokens
from scoring.inputs.digests import picture_key
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import Preparer
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

CHUNK = 1_000  # rows whose prompts are encoded together


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


RowCost = TokenCost | str  # what a row adds to a batch, or why it cannot be scored


def costs_of(preparer: Preparer, questions: list[Question], orders: str) -> Iterator[TokenCost | PictureError]:
    """The cost of each row in these option orders (see `orders_of`), or why it cannot be scored."""
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        encoded = encode_in_orders(preparer, [(question, question.sizes) for question in chunk], orders)
        for question, (_, sequences) in zip(chunk, encoded):
            yield sequences if isinstance(sequences, PictureError) else cost_in_orders(question, sequences)


def row_costs(preparer: Preparer, questions: list[Question], orders: str) -> Iterator[RowCost]:
    """The same, with the reason in words."""
    for cost in costs_of(preparer, questions, orders):
        yield cost.found if isinstance(cost, PictureError) else cost


def encode_in_orders(
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


def cost_in_orders(question: Question, sequences: list[TokenSequence]) -> TokenCost:
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


# ------------------------------------------------------------ messages between processes
def cost_to_json(cost: RowCost) -> str | list[int]:
    """A cost as a message: its numbers alone, since every process knows the pictures, and calls them as it likes."""
    return cost if isinstance(cost, str) else [cost.prefix_tokens, cost.picture_tokens, cost.text_tokens]


def cost_from_json(question: Question, value: Any) -> RowCost:
    """The cost of a question from the message of another process."""
    return value if isinstance(value, str) else TokenCost(pictures_key(question), *value)


# ------------------------------------------------------------ the plan
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
