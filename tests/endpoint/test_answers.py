"""Answers as servers give them: what is read of good ones, and what is said of others."""

import math
import random

import numpy as np
import pytest

from scoring.endpoint.answers import FLOOR, describe_rounding, read_answer, read_cost
from scoring.endpoint.errors import NoAnswerError
from scoring.endpoint.requests import AskedOrder
from tests.shared.broken_json import mutated

NAME, VALUES = "answer_1", ("a cat", "a dog")


def decisions(probabilities=((VALUES[1], 0.75), (VALUES[0], 0.25)), **more):
    listed = [{"value": value, "probability": number} for value, number in probabilities]
    answer = {"type": "choice", "name": NAME, "choice": VALUES[1], "confidence": 0.5, "probabilities": listed}
    return {"model": "small-1", "answers": [answer | more], "usage": {"input_tokens": 12, "output_tokens": 0}}


def systemone(probabilities=None, **more):
    answer = {"type": "choice", "choice": VALUES[1], "probabilities": probabilities or dict(zip(VALUES, (0.25, 0.75)))}
    return {"model": "small-1", "answers": {NAME: answer | more}, "usage": {"input_tokens": 12}}


def read(body, api="decisions", values=VALUES):
    """The answer to a row in one order."""
    (answer,) = read_answer(body, api, [AskedOrder(NAME, (), values)])
    return answer


@pytest.mark.parametrize("api, body", [("decisions", decisions()), ("systemone", systemone())])
def test_probabilities_are_those_of_the_values_whatever_their_order(api, body):
    found = read(body, api)
    assert found.probabilities == (0.25, 0.75) and math.isnan(found.label_mass)
    assert np.allclose(found.log_probabilities, np.log([0.25, 0.75]))


def test_what_a_server_tells_beside_them_is_taken_where_it_makes_sense():
    assert read(decisions(label_mass=0.9)).label_mass == 0.9
    assert math.isnan(read(systemone(label_mass="high"), "systemone").label_mass)
    assert (read_cost(decisions()).input_tokens, read_cost(decisions()).model) == (12, "small-1")
    for usage in (None, {}, {"input_tokens": -1}, {"input_tokens": "12"}, {"input_tokens": True}):
        assert read_cost({"usage": usage, "model": 7}).input_tokens is None
    assert read_cost([]).model == ""


def test_each_order_has_its_answer():
    second = decisions([("a dog", 0.1), ("a cat", 0.9)], name="answer_2")["answers"]
    body = {"answers": decisions()["answers"] + second}
    orders = [AskedOrder(NAME, (), VALUES), AskedOrder("answer_2", (), VALUES[::-1])]
    assert [each.probabilities for each in read_answer(body, "decisions", orders)] == [(0.25, 0.75), (0.1, 0.9)]
    with pytest.raises(NoAnswerError, match="found an answer to 'answer_1' in the place of answer_2"):
        read_answer({"answers": decisions()["answers"] * 2}, "decisions", orders)
    with pytest.raises(NoAnswerError, match="expected a list of 2"):
        read_answer(decisions(), "decisions", orders)


WRONG = [
    ([], "found a list of 0 as the answer; expected an object"),
    ({}, "found nothing as answers"),
    ({"answers": []}, "found a list of 0 as answers"),
    (decisions(type="refusal"), "the model refused to answer"),
    (decisions(type="score"), "found an answer of type 'score'"),
    (decisions([("a cat", 1.0)]), "found no probability of 'a dog'"),
    (decisions([("a cat", 0.5), ("a dog", 0.5), ("a hen", 0.0)]), "of 'a hen', which is no choice"),
    (decisions([("a cat", 0.5), ("a cat", 0.5)]), "found a probability of 'a cat'"),
    (decisions([("a cat", 0.5), (True, 0.5)]), "found a probability of True"),
    (decisions([("a cat", 0.9), ("a dog", 0.9)]), "the sum 1.8; expected 1"),
    (decisions([("a cat", 0.0), ("a dog", 0.0)]), "the sum 0; expected 1"),
    (decisions([("a cat", 2.0), ("a dog", -1.0)]), "found 2.0 as the probability of 'a cat'"),
    (decisions([("a cat", math.nan), ("a dog", 1.0)]), "found nan"),
    (decisions([("a cat", True), ("a dog", 0.0)]), "found True"),
    (decisions([("a cat", "1.0"), ("a dog", 0.0)]), "found '1.0'"),
    (
        {"answers": [{"type": "choice", "probabilities": {"a cat": 1}}]},
        "found an object of 1 as probabilities; expected a list",
    ),
    ({"answers": ["a cat"]}, "found 'a cat' as answer_1; expected an object"),
]


@pytest.mark.parametrize("body, told", WRONG)
def test_an_odd_answer_is_none_and_the_reason_is_told(body, told):
    with pytest.raises(NoAnswerError, match=told):
        read(body)


@pytest.mark.parametrize("body", [decisions(), {"answers": {}}, {"answers": {"other": {}}}, systemone({"a cat": 1.0})])
def test_an_odd_answer_of_the_other_interface_is_none(body):
    with pytest.raises(NoAnswerError):
        read(body, "systemone")


@pytest.mark.parametrize("api, body", [("decisions", decisions()), ("systemone", systemone())])
def test_damaged_answers_give_numbers_or_a_reason_that_can_be_written(api, body):
    chance, good = random.Random(1), 0
    for _ in range(3_000):
        damaged = mutated(body, chance)
        read_cost(damaged).model.encode()
        try:
            assert np.isfinite(read(damaged, api).log_probabilities).all()
            good += 1
        except NoAnswerError as error:
            assert str(error).isprintable() and str(error).encode() and len(str(error)) < 300
    assert 500 < good < 2_900


def test_a_sum_that_rounding_explains_is_accepted():
    values = tuple("abc")
    body = decisions([("a", 0.33), ("b", 0.33), ("c", 0.33)])
    assert read(body, values=values).probabilities == (0.33, 0.33, 0.33)


def test_zero_gets_a_logarithm_below_which_no_other_is():
    zeros = read(decisions([("a cat", 0.0), ("a dog", 1.0)]))
    assert np.allclose(np.exp(zeros.log_probabilities), [FLOOR, 1])
    values = tuple("abc")
    small = read(decisions([("a", 0.0), ("b", 1e-9), ("c", 1.0)]), values=values)
    assert small.log_probabilities[0] == small.log_probabilities[1]


def test_it_is_told_how_answers_are_rounded():
    def told(rows):
        return describe_rounding(np.log(np.array(rows, np.float64)).astype(np.float32))

    assert "rounded to 2 decimals" in told([[0.12, 0.88], [0.5, 0.5]])
    assert "rounded to 4 decimals; 1 of 4 were 0, and became 1e-06" in told([[0.1234, 0.8766], [FLOOR, 1.0]])
    assert "more than 5 decimals" in told([[1 / 3, 2 / 3], [np.nan, np.nan]])
