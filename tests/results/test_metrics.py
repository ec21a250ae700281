"""Metrics against other people's implementations and against brute force."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from scoring.results.metrics import accuracy, ece, ece_with_floor, evaluate, mcnemar, row_brier, row_nll, wilson


def answers(n=400, k=4, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(k), n)
    return p, np.array([rng.choice(k, p=row) for row in p])


def test_accuracy_nll_and_brier_equal_scikit_learn():
    p, y = answers()
    assert accuracy(p, y)["value"] == pytest.approx(accuracy_score(y, p.argmax(1)), abs=1e-12)
    assert row_nll(p, y).mean() == pytest.approx(log_loss(y, p), abs=1e-9)
    brier = sum(brier_score_loss((y == k).astype(int), p[:, k]) for k in range(4))
    assert row_brier(p, y).mean() == pytest.approx(brier, abs=1e-9)


@pytest.mark.parametrize("right, total", [(0, 10), (10, 10), (7, 10), (340, 400)])
def test_wilson_equals_statsmodels(right, total):
    low, high = proportion_confint(right, total, method="wilson")
    assert wilson(right, total) == pytest.approx({"low": low, "high": high}, abs=1e-9)


@pytest.mark.parametrize("b, c", [(0, 0), (5, 0), (3, 9), (12, 12)])
def test_mcnemar_equals_statsmodels(b, c):
    first = np.array([True] * b + [False] * c + [True] * 20)
    second = np.array([False] * b + [True] * c + [True] * 20)
    expected = statsmodels_mcnemar([[20, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    assert mcnemar(first, second) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_ece_equals_brute_force():
    p, y = answers(203)
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    order = np.argsort(confidence, kind="stable")
    total = sum(len(part) * abs(right[part].mean() - confidence[part].mean()) for part in np.array_split(order, 15))
    assert ece(confidence, right) == pytest.approx(total / 203, abs=1e-12)
    assert ece(np.stack([confidence] * 2), np.stack([right, 1 - right]))[0] == pytest.approx(total / 203, abs=1e-12)


def test_the_noise_floor_is_that_of_a_perfect_model():
    """Not 0, and falling with the square root of the rows; a perfectly calibrated model lies within it."""
    floors = {}
    for rows in (400, 2000):
        p, y = answers(rows, seed=1)
        found = ece_with_floor(p, y, np.random.default_rng(0))
        assert found["value"] < found["floor_95"] * 1.2
        floors[rows] = found["floor_mean"]
    assert 0.03 < floors[400] < 0.08 and floors[400] / floors[2000] == pytest.approx(5**0.5, rel=0.1)


def test_over_confidence_stands_out_of_the_floor():
    p, y = answers(400, seed=2)
    sharp = p**4 / (p**4).sum(1, keepdims=True)
    found = ece_with_floor(sharp, y, np.random.default_rng(0))
    assert found["value"] > 2 * found["floor_95"]


def test_groups_and_single_rows():
    p, y = answers(30)
    found = evaluate(p, y, ["x"] * 29 + ["y"])
    assert found["groups"]["y"]["rows"] == 1 and found["overall"]["rows"] == 30
    assert "groups" not in evaluate(p, y, ["x"] * 30)
    assert evaluate(p, y) == evaluate(p, y)  # the same seed each time


def test_rows_with_fewer_options():
    p = np.array([[0.6, 0.4, np.nan], [0.2, 0.3, 0.5]])
    assert accuracy(p, np.array([0, 2]))["value"] == 1
    assert row_brier(p, np.array([0, 2])) == pytest.approx([0.32, 0.38])
