"""The orders in which a question's options stand at its letters: in `cabd` the data's option c is at the letter a."""

import itertools
import math
import random
from collections.abc import Iterable
from dataclasses import replace

from scoring.errors import ScoringError, counted
from scoring.inputs.option_letters import repeats_options
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.inputs.referring import refer_to_each_other

CYCLIC_SUBSETS = ("adaptive", "pride", "half", "rest")  # some of the cyclic orders, not the same for all rows
MAX_ORDERS = 24  # of a question: all orders of four options


class OrdersError(ScoringError):
    """A choice of orders that does not exist."""


def parse_orders(text: str) -> str:
    """`1`, `cyclic`, `all`, `adaptive`, `pride` or a number, as on the command line. Raises OrdersError."""
    text = text.strip().lower()
    if text in ("cyclic", "all", "adaptive", "pride") or (text.isdigit() and 1 <= int(text) <= MAX_ORDERS):
        return text if text.isalpha() else str(int(text))
    raise OrdersError(f"orders {text!r}: expected 1, cyclic, all, adaptive, pride, or a number up to {MAX_ORDERS}")


def option_orders(count: int, orders: str) -> list[str]:
    """The orders of a question with `count` options; that of the data is always the first.

    cyclic, and the choices that use some of its orders: `count` of them, in which each option is at each letter once.
    all: every order, at most 24. A number: that many, drawn without repetition, always the same ones.
    """
    letters = LETTERS[:count]
    if orders == "1":
        return [letters]
    if orders == "cyclic" or orders in CYCLIC_SUBSETS:
        return [letters[shift:] + letters[:shift] for shift in range(count)]
    wanted, existing = MAX_ORDERS if orders == "all" else int(orders), math.factorial(count)
    generator = random.Random(count)
    if existing <= MAX_ORDERS:
        others = ["".join(order) for order in itertools.permutations(letters)][1:]
        if wanted < existing:
            generator.shuffle(others)
        return [letters, *others][:wanted]
    drawn = {letters: None}  # a dict, since it keeps their order
    while len(drawn) < wanted:
        drawn["".join(generator.sample(letters, count))] = None
    return list(drawn)


def check_orders(questions: Iterable[Question], orders: str, option: str = "") -> None:
    """Raises OrdersError for other orders than the data's where questions list their options too.

    option: what asked for them, if it is not --orders.
    """
    if orders == "1":
        return
    rows = [row.row for row in questions if not row.fault and repeats_options(row.question, row.options)]
    if rows:
        raise repeating_rows(len(rows), rows[0], option or f"--orders {orders}")


def repeating_rows(count: int, first: int, option: str) -> OrdersError:
    """The error for so many rows, where the option asks for other orders. first: a row's number."""
    return OrdersError(
        f"{option}: the questions of {counted(count, 'row')} list their options too (first: row {first}), "
        f"and would contradict them in another order; leave it out, or take the options out of the "
        "questions (--layout inline reads them from there)"
    )


def orders_of(question: Question, orders: str) -> list[str]:
    """The orders in which a question is scored: that of the data alone if its options refer to each other.

    half: of the cyclic orders the first and the middle one; rest: the others. `adaptive` scores half, and the rest if
    the answer was not clear; `pride` scores a sample of rows in all orders, and the other rows in that of the data.
    """
    count = len(question.options)
    if orders == "1" or refer_to_each_other(question.options):
        return option_orders(count, "1") if orders != "rest" else []
    choices, half = option_orders(count, orders), {0, count // 2}
    if orders in ("half", "rest"):
        return [order for index, order in enumerate(choices) if (index in half) == (orders == "half")]
    return choices


def reordered(question: Question, order: str) -> Question:
    """The same question with its options in another order, and its answer's letter moved along."""
    return replace(
        question,
        options=tuple(question.options[LETTERS.index(letter)] for letter in order),
        answer=LETTERS[order.index(question.answer)] if question.answer else "",
    )
