"""Numbers of an answer that both interfaces give."""

import math
from collections.abc import Sequence
from typing import Any

from scoring.serving.request import AskedRequest, QuestionAnswer


def choice_confidence(probabilities: Sequence[float]) -> float:
    """How far the best of n options is above 1/n, from 0 to 1, as transformers' System One answers have it.

    >>> choice_confidence([.5, .5]), choice_confidence([0, 1])
    (0.0, 1.0)
    """
    uniform = 1 / len(probabilities)
    return max(0.0, (max(probabilities) - uniform) / (1 - uniform))


def score_confidence(probabilities: Sequence[float]) -> float:
    """How near levels are to the likeliest one, from 0 to 1, as transformers' System One answers have it.

    1 less the expected distance from the likeliest level, over a uniform distribution's from the middle; 0 at least.

    >>> score_confidence([0, 1, 0]), score_confidence([1/3, 1/3, 1/3])
    (1.0, 0.0)
    """
    count, best = len(probabilities), max(range(len(probabilities)), key=probabilities.__getitem__)
    distance = sum(probability * abs(level - best) for level, probability in enumerate(probabilities))
    uniform = sum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return max(0.0, 1 - distance / uniform)


def expected_level(probabilities: Sequence[float]) -> float:
    """The mean level, counted from 0."""
    return sum(level * probability for level, probability in enumerate(probabilities))


def extras(request: AskedRequest, answer: QuestionAnswer) -> dict[str, Any]:
    """What this product adds to an answer; a number that does not exist is null."""
    found: dict[str, Any] = {"label_mass": _number(answer.label_mass), "margin": _number(answer.margin)}
    if request.members:
        found["members"] = [{"name": name, "probabilities": list(each)} for name, each in answer.members.items()]
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
