"""In which orders the options of a question are shown: `cabd` shows the data's option c at the letter a, and so on."""

import itertools
import math
import random
import re
from dataclasses import replace

from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question

# What an option says that is about the other options, or about their letters.
REFERS = re.compile(
    r"\b(all|none|both|neither|either|any|two) of (the )?(above|following|these|those|them|options|others)\b"
    r"|\b(above|previous|other) (options?|answers?|choices?)\b"
    r"|\b\(?[a-h]\)?\s*(,|&|and|or)\s*\(?[a-h]\)?(?![\w'])"
    r"|위의|앞의 (보기|것)|위 (보기|모두|전부|중)|보기 (중|모두|전부)"
    r"|(모두|전부|둘 다) (정답|해당|맞|아니)|(정답|해당)\s*(사항)?\s*없음"
    r"|\b[a-hA-H]\s*(와|과|및|,)\s*[a-hA-H]\b",
    re.IGNORECASE,
)
OF_CYCLIC = ("adaptive", "pride", "half", "rest")  # show some of the cyclic orders, not the same for all rows
MOST = 24  # orders of a question at most: all of four options


class OrdersError(ValueError):
    """A choice of orders that does not exist."""


def parse_orders(text: str) -> str:
    """`1`, `cyclic`, `all`, `adaptive`, `pride` or a number, as on the command line. Raises OrdersError."""
    text = text.strip().lower()
    if text in ("cyclic", "all", "adaptive", "pride") or (text.isdigit() and 1 <= int(text) <= MOST):
        return text if text.isalpha() else str(int(text))
    raise OrdersError(f"orders {text!r}: expected 1, cyclic, all, adaptive, pride, or a number up to {MOST}")


def option_orders(count: int, orders: str) -> list[str]:
    """The orders of a question with `count` options; the data's own is always the first.

    cyclic: `count` of them, in which each option stands at each letter once; also where rows are shown some of these
    alone. all: every order, at most 24. A number:
    that many, drawn without repetition, always the same ones.
    """
    own = LETTERS[:count]
    if orders == "1":
        return [own]
    if orders == "cyclic" or orders in OF_CYCLIC:
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


def refer_to_each_other(options: tuple[str, ...]) -> bool:
    """Whether an option speaks of the others ("both a and b", "위의 모두"): such a question keeps its order."""
    return any(REFERS.search(option) for option in options)


def orders_of(question: Question, orders: str) -> list[str]:
    """The orders in which a question is shown: its own alone where its options refer to each other.

    half: of the cyclic orders the first and the middle one; rest: the others. `adaptive` shows half, and the rest where
    that was not sure; `pride` shows a sample of rows all of them, and the others their own.
    """
    count = len(question.options)
    if refer_to_each_other(question.options):
        return option_orders(count, "1") if orders != "rest" else []
    every, half = option_orders(count, orders), {0, count // 2}
    if orders in ("half", "rest"):
        return [order for at, order in enumerate(every) if (at in half) == (orders == "half")]
    return every


def reordered(question: Question, order: str) -> Question:
    """The same question with its options in another order, and its answer's letter moved along."""
    return replace(
        question,
        options=tuple(question.options[LETTERS.index(letter)] for letter in order),
        answer=LETTERS[order.index(question.answer)] if question.answer else "",
    )
