"""`metrics` of arrays: letters or indices, lists or frames, clusters by any name."""

import doctest

import numpy as np
import pandas as pd
import pytest

from scoring.library import metrics as module
from scoring.library.answers import Answers
from scoring.library.metrics import metrics
from scoring.stats.checks import MetricsError
from scoring.stats.metrics import measure
from tests.shared.scores_folders import write_scores

P = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
Y = np.arange(40) % 3


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(module) == (0, 2)


def test_answers_are_indices_or_letters_and_probabilities_any_kind_of_rows():
    expected = measure(P, Y)
    letters = ["abc"[index] for index in Y]
    for p, answers in (
        (P, Y),
        (P.tolist(), letters),
        (pd.DataFrame(P), pd.Series(letters)),
        (P, np.char.upper(letters)),
    ):
        assert metrics(p, answers) == expected
    assert expected["nll"]["value"] == pytest.approx(-np.log(P[np.arange(40), Y]).mean(), abs=1e-6)


def test_clusters_have_names():
    pictures = np.arange(40) // 4
    assert metrics(P, Y, clusters=[f"{number}.jpg" for number in pictures]) == measure(
        P, Y, np.unique(pictures.astype(str), return_inverse=True)[1]
    )
    assert metrics(P, Y, seed=1)["nll"]["low"] != metrics(P, Y)["nll"]["low"]


def test_answers_with_their_own_pictures_have_the_figures_of_the_folder(tmp_path):
    answers = Answers.load(write_scores(tmp_path / "s", 40))
    assert metrics(answers) == answers.evaluate()["overall"]
    with pytest.raises(MetricsError, match="these know their pictures"):
        metrics(answers, clusters=[1] * 40)


@pytest.mark.parametrize(
    "p, answers, message",
    [
        (P, None, "answers=None; expected the right option of each row"),
        (P[:2], ["a", "two"], r"1 answer that is no letter. By number, from 0: 1 \('two'\)"),
        (P[:2], [None, "a"], r"0 \('none'\)"),
        (P, ["?"] * 40, "and 30 more; expected letters such as a"),
        ([["x", "y"]], ["a"], "probabilities: could not convert string to float"),
        ([[0.5, 0.5], [1.0]], ["a", "a"], "probabilities: setting an array element"),
        (P, Y[1:], r"shapes: probabilities \(40, 3\), answers \(39,\)"),
        (P[:1], ["d"], "an answer that is no option"),
        ([[0.5, 0.6]], [0], r"do not sum to 1; .* 0 \(1.1\)"),
    ],
)
def test_what_has_no_metrics_is_refused(p, answers, message):
    with pytest.raises(MetricsError, match=message):
        metrics(p, answers)
