"""Numbers of answers, against the formulas of transformers' System One."""

import math

import pytest

from scoring.serving.answers import choice_confidence, expected_level, extras, score_confidence
from scoring.serving.request import AskedRequest, QuestionAnswer


def test_confidence_is_1_where_certain_and_0_where_uniform():
    for count in range(2, 27):
        uniform, certain = [1 / count] * count, [0.0] * (count - 1) + [1.0]
        assert choice_confidence(certain) == score_confidence(certain) == 1
        assert choice_confidence(uniform) == pytest.approx(0, abs=1e-9)
        assert expected_level(uniform) == pytest.approx((count - 1) / 2)


def test_confidence_of_known_probabilities():
    assert choice_confidence([0.8, 0.1, 0.1]) == pytest.approx(0.7)
    assert score_confidence([0.1, 0.1, 0.8]) == pytest.approx(1 - 0.3 / (2 / 3))
    assert score_confidence([0.5, 0, 0.5]) == 0  # never below


def test_members_are_told_only_where_asked_for_and_no_number_is_nan():
    answer = QuestionAnswer((0.5, 0.5), math.nan, 0.25, {"fold0": (0.5, 0.5)})
    assert extras(AskedRequest("m", (), ()), answer) == {"label_mass": None, "margin": 0.25}
    asked = AskedRequest("m", (), (), members=True)
    assert extras(asked, answer)["members"] == [{"name": "fold0", "probabilities": [0.5, 0.5]}]
