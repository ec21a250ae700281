"""The body of an answer -> probabilities, checked: whatever is odd is the reason why a row has no score.

Probabilities over HTTP are rounded, by many servers to a few decimals. A sum that rounding explains is accepted, and
results divide by it. 0 has no logarithm: it becomes `FLOOR`, or the answer's smallest other probability if that is
less.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scoring.endpoint.address import Api
from scoring.endpoint.errors import NoAnswerError
from scoring.endpoint.requests import AskedOrder
from scoring.errors import counted, first_of, quoted

FLOOR = 1e-6  # what a probability of 0 becomes
ROUNDING = 0.005  # of a probability: servers round to 2 decimals or more
SLACK = 1e-6  # by which a probability may be above 1
MOST_DECIMALS = 5  # to which rounding is noticed


@dataclass(frozen=True)
class OrderAnswer:
    """probabilities: of the values in the request's order. label_mass: NaN where the server tells none."""

    probabilities: tuple[float, ...]
    label_mass: float

    @property
    def log_probabilities(self) -> np.ndarray:
        """(K,) float32, not divided by their sum."""
        p = np.array(self.probabilities)
        floor = min(FLOOR, *p[p > 0])
        log_p: np.ndarray = np.log(np.maximum(p, floor)).astype(np.float32)
        return log_p


@dataclass(frozen=True)
class AnswerCost:
    """What an answer took, and who gave it, as the server calls it. input_tokens: None where the server counts none."""

    input_tokens: int | None
    model: str


def read_cost(body: object) -> AnswerCost:
    """Of any answer, also of one that tells no probabilities."""
    found = body if isinstance(body, dict) else {}
    usage, model = found.get("usage"), found.get("model")
    tokens = usage.get("input_tokens") if isinstance(usage, dict) else None
    counted_tokens = isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0
    return AnswerCost(tokens if counted_tokens else None, quoted(model)[1:-1] if isinstance(model, str) else "")


def read_answer(body: object, api: Api, orders: Sequence[AskedOrder]) -> list[OrderAnswer]:
    """The answers to a row in these orders. Raises NoAnswerError."""
    found = _object(body, "the answer")
    answers = _answers(found.get("answers"), api, [order.name for order in orders])
    return [_order_answer(answer, api, order.values) for answer, order in zip(answers, orders)]


def _answers(answers: object, api: Api, names: list[str]) -> list[dict[str, object]]:
    """The answers to the questions of these names, in their order."""
    if api == "systemone":
        by_name = _object(answers, "answers")
        if by_name.keys() != set(names):
            raise NoAnswerError(f"found answers to {first_of(map(quoted, by_name)) or 'nothing'}; expected {names[0]}")
        return [_object(by_name[name], name) for name in names]
    if not isinstance(answers, list) or len(answers) != len(names):
        raise NoAnswerError(f"found {_shown(answers)} as answers; expected a list of {len(names)}")
    listed = [_object(answer, name) for answer, name in zip(answers, names)]
    for answer, name in zip(listed, names):
        if answer.get("name") not in (None, name):
            raise NoAnswerError(f"found an answer to {_shown(answer.get('name'))} in the place of {name}")
    return listed


def _order_answer(answer: dict[str, object], api: Api, values: Sequence[str]) -> OrderAnswer:
    if answer.get("type") == "refusal":
        raise NoAnswerError("the model refused to answer")
    if answer.get("type") != "choice":
        raise NoAnswerError(f"found an answer of type {_shown(answer.get('type'))}; expected choice")
    probabilities = _by_value(answer.get("probabilities"), api)
    if probabilities.keys() != set(values):
        missing = [quoted(value) for value in values if value not in probabilities]
        added = [quoted(value) for value in probabilities if value not in values]
        what = f"no probability of {missing[0]}" if missing else f"a probability of {added[0]}, which is no choice"
        raise NoAnswerError(f"found {what}; expected one of each choice")
    numbers = tuple(_probability(value, probabilities[value]) for value in values)
    total = sum(numbers)
    if abs(total - 1) > max(0.01, ROUNDING * len(numbers)):
        raise NoAnswerError(f"found probabilities with the sum {total:.4g}; expected 1")
    return OrderAnswer(numbers, _mass(answer.get("label_mass")))


def _by_value(probabilities: object, api: Api) -> dict[str, object]:
    if api == "systemone":
        return _object(probabilities, "probabilities")
    if not isinstance(probabilities, list):
        raise NoAnswerError(f"found {_shown(probabilities)} as probabilities; expected a list")
    result: dict[str, object] = {}
    for each in probabilities:
        pair = _object(each, "a probability")
        value = pair.get("value")
        if not isinstance(value, str) or value in result:
            raise NoAnswerError(f"found a probability of {_shown(value)}; expected one of each choice")
        result[value] = pair.get("probability")
    return result


def _probability(value: str, number: object) -> float:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1 + SLACK:
        raise NoAnswerError(f"found {_shown(number)} as the probability of {quoted(value)}; expected 0 to 1")
    return float(number)


def _mass(number: object) -> float:
    is_share = isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 1 + SLACK
    return float(number) if is_share else math.nan  # type: ignore[arg-type]


def _object(value: object, name: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise NoAnswerError(f"found {_shown(value)} as {name}; expected an object")
    return value


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return "nothing" if value is None else quoted(value) if isinstance(value, str) else quoted(str(value))[1:-1]


# ------------------------------------------------------------------ rounding
def describe_rounding(log_p: np.ndarray) -> str:
    """In a sentence, how answers are rounded. log_p: log-probabilities as `OrderAnswer` has them, NaN for none."""
    known = log_p[np.isfinite(log_p)]
    zeros = int((known == np.float32(math.log(FLOOR))).sum())
    p = np.exp(known[known > np.float32(math.log(FLOOR))].astype(np.float64))
    decimals = next(
        (n for n in range(1, MOST_DECIMALS + 1) if len(p) and (abs(p * 10**n - np.rint(p * 10**n)) < 0.01).all()), None
    )
    rounded = (
        f"are rounded to {counted(decimals, 'decimal')}" if decimals else f"have more than {MOST_DECIMALS} decimals"
    )
    told = f"log-probabilities are those of the answers' probabilities, which {rounded}"
    return told + (f"; {zeros:,} of {len(known):,} were 0, and became {FLOOR:g}" if zeros else "")
