"""JSON bodies with something else in a place."""

import math
import random
from typing import Any

ODD: list[Any] = [
    None,
    True,
    0,
    -1.5,
    math.nan,
    10**400,
    "",
    "\0",
    "\ud800",
    "<image 1>",
    [],
    {},
    [[]],
    {"type": "x"},
    *("user", "choice", "noul", "input_text", "message", "data:image/png;base64,QUJD"),
]
KEYS = ["x", "type", "role", "\ud800", "(a)"]


def mutated(value: Any, chance: random.Random) -> Any:
    """The same with something else in no place, in one, or in several."""
    if chance.random() < 0.02:
        return chance.choice(ODD)
    if isinstance(value, dict):
        found = {key: mutated(each, chance) for key, each in value.items() if chance.random() > 0.01}
        return found | ({chance.choice(KEYS): "y"} if chance.random() < 0.01 else {})
    if isinstance(value, list):
        return [mutated(each, chance) for each in value for _ in range(chance.choice([1] * 30 + [0, 2]))]
    return value
