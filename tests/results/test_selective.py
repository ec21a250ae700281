"""Answering only where it is sure enough: bounds and sets keep their promises."""

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from scoring.results.selective import (
    guarantee,
    lower_bound,
    option_sets,
    risk_coverage,
    set_quantile,
    threshold_for,
)


def drawn(n, rng, sharp=3.0):
    p = rng.dirichlet(np.full(4, 1 / sharp), n)
    return p, (p.cumsum(1) > rng.random((n, 1))).argmax(1)


def test_the_curve_equals_a_loop():
    p, y = drawn(57, np.random.default_rng(0))
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    curve = risk_coverage(confidence, right)
    assert len(curve) == 57
    for count, point in enumerate(curve, 1):
        kept = np.argsort(-confidence, kind="stable")[:count]
        assert point["risk"] == pytest.approx(1 - right[kept].mean()) and point["coverage"] == pytest.approx(count / 57)
        assert point["threshold"] == pytest.approx(confidence[kept].min())
    assert len(risk_coverage(np.random.default_rng(1).random(5000), np.ones(5000))) == 100


@pytest.mark.parametrize("right, total", [(0, 10), (10, 10), (37, 40)])
def test_the_bound_is_clopper_and_pearsons(right, total):
    expected = proportion_confint(right, total, alpha=0.1, method="beta")[0]
    assert float(lower_bound(right, total, 0.95)) == pytest.approx(expected, abs=1e-9)


def test_the_threshold_keeps_its_promise():
    """Its accuracy on rows to come is under the wanted one in at most 5 % of draws (here: far fewer)."""
    rng, broken, found_some = np.random.default_rng(2), 0, 0
    far, truth = drawn(100_000, rng, 12)
    sure, hit = far.max(1), far.argmax(1) == truth
    for _ in range(200):
        p, y = drawn(400, rng, 12)
        found = threshold_for(p.max(1), (p.argmax(1) == y).astype(float), 0.9)
        if found["threshold"] is not None:
            found_some += 1
            broken += hit[sure >= found["threshold"]].mean() < 0.9
            assert found["accuracy"] >= found["bound"] >= 0.9
    assert found_some > 150 and broken <= 10


def test_no_threshold_where_none_can_promise():
    p, y = drawn(30, np.random.default_rng(3))
    found = threshold_for(p.max(1), (p.argmax(1) == y).astype(float), 0.99)
    assert found["threshold"] is None and found["coverage"] == 0


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_sets_hold_the_right_option_as_often_as_asked(level):
    rng, covered, n = np.random.default_rng(4), [], 99
    for _ in range(300):
        p, y = drawn(n + 200, rng)
        quantile = set_quantile(1 - p[np.arange(n), y[:n]], level)
        covered.append(option_sets(p[n:], quantile)[np.arange(200), y[n:]].mean())
    assert np.mean(covered) == pytest.approx(level, abs=0.01)  # exactly ⌈(n+1)·level⌉ / (n+1) = level here


def test_the_quantile_is_the_finite_samples():
    values = np.arange(1, 20) / 20
    assert set_quantile(values, 0.9) == 0.9 and set_quantile(values, 0.95) == 0.95
    assert set_quantile(values, 0.96) == float("inf") and set_quantile(np.array([]), 0.5) == float("inf")
    assert option_sets(np.array([[0.5, 0.5, np.nan]]), float("inf")).tolist() == [[True, True, False]]


def test_the_guarantee_says_what_it_is_not():
    told = guarantee(0.9, 120)
    assert "exchangeable" in told and "at least 90%" in told and "not a promise for each row" in told
