"""Which rows are shown in which orders, where that is not the same for all of them."""

import random

from scoring.inputs.orders import orders_of
from scoring.inputs.questions import Question

FEWEST_SAMPLED, SAMPLED = 64, 0.05  # rows that `--orders pride` shows in all cyclic orders


def first_passes(questions: list[Question], orders: str) -> list[tuple[str, list[Question]]]:
    """(orders, rows) that are scored first. With `adaptive` more follow where these leave doubts."""
    if orders == "adaptive":
        return [("half", questions)]
    if orders == "pride":
        sample = set(random.Random(0).sample(range(len(questions)), sampled(len(questions))))
        parts = (
            [question for at, question in enumerate(questions) if at in sample],
            [question for at, question in enumerate(questions) if at not in sample],
        )
        return list(zip(("cyclic", "1"), parts))
    return [(orders, questions)]


def sampled(rows: int) -> int:
    return min(rows, max(FEWEST_SAMPLED, round(SAMPLED * rows)))


def told_pride(rows: list[Question]) -> str:
    return (
        f"the letters' prior was estimated on {sampled(len(rows)):,} rows in all cyclic orders, and taken off the rest"
    )


def told_adaptive(rows: list[Question], unsure: list[Question], margin: float) -> str:
    """What was saved against showing every row in all cyclic orders."""
    every, half = (sum(len(orders_of(row, orders)) for row in rows) for orders in ("cyclic", "half"))
    shown = half + sum(len(orders_of(row, "rest")) for row in unsure)
    return (
        f"adaptive orders: {shown:,} of the {every:,} prompts of --orders cyclic ({1 - shown / max(every, 1):.0%} "
        f"saved); all orders for {len(unsure):,} of {len(rows):,} rows, where the lead was under {margin:g}"
    )
