"""Rows that have no metrics are refused by number, with the reason."""

import numpy as np
import pytest

from scoring.stats.checks import MetricsError, check_rows
from scoring.stats.metrics import measure

NAN = np.nan


def refused(p, y, clusters=None):
    with pytest.raises(MetricsError) as error:
        check_rows(np.array(p, float), np.array(y), clusters)
    return str(error.value)


def test_rows_of_probabilities_with_an_answer_are_taken():
    check_rows(np.array([[0.5, 0.5, NAN], [0.2, 0.295, 0.5]]), np.array([1, 2]))  # rounded to a sum of .995
    check_rows(np.array([[1.0, 0.0]]), np.array([1], np.uint8), np.array([0]))


def test_a_row_without_any_probability_is_refused():
    text = refused([[NAN, NAN], [0.5, 0.5], [NAN, NAN]], [0, 1, 1])
    assert text == "2 rows with no probability; leave out rows without a score. By number, from 0: 0, 2"


def test_numbers_that_are_no_probabilities_are_refused():
    assert "1 row with probabilities that do not sum to 1" in refused([[0.5, 0.5], [0.9, 0.6]], [0, 0])
    assert refused([[0.5, 0.5], [0.9, 0.6]], [0, 0]).endswith("By number, from 0: 1 (1.5)")
    assert refused([[1.5, 0.2]], [0]).endswith("0 (1.7)")
    assert "negative probabilities; expected numbers from 0 to 1" in refused([[1.3, -0.3]], [0])
    assert refused([[1.3, -0.3]], [0]).endswith("0 (-0.3)")
    assert "do not sum to 1" in refused([[np.inf, 0.2]], [0])


def test_an_answer_that_is_no_option_is_refused():
    text = refused([[0.5, 0.5], [0.5, 0.5], [1.0, NAN]], [2, -1, 0])
    assert "2 rows with an answer that is no option; expected the right option's index, 0 to 1" in text
    assert text.split("\n")[0].endswith("0 (2), 1 (-1)")
    assert "an answer whose probability is NaN" in refused([[1.0, NAN]], [1])
    assert "answers of type float64; expected indices" in refused([[0.5, 0.5]], [1.0])
    assert "answers of type <U1" in refused([[0.5, 0.5]], ["b"])


def test_shapes_that_do_not_fit_are_refused():
    assert refused([[0.5, 0.5]], [0, 1]).startswith("shapes: probabilities (1, 2), answers (2,); expected (N, K)")
    assert refused([0.5, 0.5], [0, 1]).startswith("shapes: probabilities (2,), answers (2,)")
    assert "clusters (2,)" in refused([[0.5, 0.5]], [0], np.array([0, 1]))
    assert (
        refused(np.empty((0, 4)), np.empty(0, int))
        == "no rows; expected one or more: give the labelled rows that have a score"
    )


def test_many_faults_are_told_at_once_and_many_rows_in_a_line():
    text = refused([[NAN, NAN]] * 12 + [[0.1, 0.1]], [0] * 12 + [5])
    first, *others = text.split("\n")
    assert len(others) == 2 and first.startswith("12 rows") and first.endswith("8, 9 … and 2 more")


def test_metrics_are_of_checked_rows_alone():
    """An all-NaN row was an answer a, and unnormalised rows had an NLL below 0."""
    for p, y in (([[0.5, 0.5], [NAN, NAN]], [0, 0]), ([[1.3, 0.2]], [0]), ([[0.5, 0.5]], [2])):
        with pytest.raises(MetricsError):
            measure(np.array(p), np.array(y))
