"""In which orders the options of a question are shown: `cabd` shows the data's option c at the letter a, and so on."""

import itertools
import math
import random

from scoring.inputs.prompt import LETTERS

MOST = 24  # orders of a question at most: all of four options


class OrdersError(ValueError):
    """A choice of orders that does not exist."""


def parse_orders(text: str) -> str:
    """`1`, `cyclic`, `all` or a number, as given on the command line. Raises OrdersError."""
    text = text.strip().lower()
    if text in ("cyclic", "all") or (text.isdigit() and 1 <= int(text) <= MOST):
        return text if text.isalpha() else str(int(text))
    raise OrdersError(f"orders {text!r}: expected 1, cyclic, all, or a number up to {MOST}")


def option_orders(count: int, orders: str) -> list[str]:
    """The orders of a question with `count` options; the data's own is always the first.

    cyclic: `count` of them, in which each option stands at each letter once. all: every order, at most 24. A number:
    that many, drawn without repetition, always the same ones.
    """
    own = LETTERS[:count]
    if orders == "1":
        return [own]
    if orders == "cyclic":
        return [own[shift:] + own[:shift] for shift in range(count)]
    wanted = MOST if orders == "all" else int(orders)
    every = math.factorial(count)
    if every <= MOST:
        found = ["".join(order) for order in itertools.permutations(own)]
        rest = found[1:]
        if wanted < every:
            random.Random(count).shuffle(rest)
        return [own, *rest][:wanted]
    draw, found = random.Random(count), {own: None}
    while len(found) < wanted:
        found["".join(draw.sample(own, count))] = None
    return list(found)
