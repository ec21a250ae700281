"""`Answer`: a mapping from letters to probabilities."""

import doctest
import pickle

import numpy as np
import pytest

from scoring.library import answer as module
from scoring.library.answer import Answer


def test_an_answer_is_a_mapping_from_letters_to_probabilities():
    answer = Answer("q1", "b", {"a": 0.25, "b": 0.75}, 0.5, 0.99, options=("a dog", "a cat"))
    assert answer["b"] == 0.75 and dict(answer) == {"a": 0.25, "b": 0.75} == answer and len(answer) == 2
    assert max(answer, key=answer.get) == answer.letter == "b" and answer.option == "a cat" and answer.scored
    assert repr(answer) == "Answer('q1', 'b': a 0.250, b 0.750)"
    assert pickle.loads(pickle.dumps(answer)) == answer
    with pytest.raises(AttributeError):
        answer.letter = "a"


def test_an_answer_without_a_score_has_no_probability_that_could_be_taken_for_one():
    answer = Answer("q1", status="no options", options=("a dog", "a cat"))
    assert not answer.scored and answer.letter == answer.option == "" and not answer and np.isnan(answer.margin)
    assert repr(answer) == "Answer('q1', no score: no options)"
    with pytest.raises(KeyError):
        answer["a"]
    with pytest.raises(ValueError):
        max(answer, key=answer.get)


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(module) == (0, 2)
