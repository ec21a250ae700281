"""Two systems on the same rows."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from scoring.results.compare import compare, verdict
from scoring.results.metrics import row_nll


def two(n=400, seed=0, worse=0.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), n)
    y = np.array([rng.choice(4, p=row) for row in p])
    other = p * np.exp(rng.normal(0, 0.3 + worse, p.shape))
    return p, other / other.sum(1, keepdims=True), y


def test_differences_and_their_intervals():
    p, q, y = two()
    found = compare(p, q, y)
    right = [table.argmax(1) == y for table in (p, q)]
    assert found["accuracy"]["difference"]["value"] == pytest.approx(right[1].mean() - right[0].mean())
    assert found["accuracy"]["only_first"] - found["accuracy"]["only_second"] == right[0].sum() - right[1].sum()
    saved = row_nll(q, y) - row_nll(p, y)
    theirs = bootstrap((saved,), np.mean, method="percentile", rng=0).confidence_interval
    ours = found["nll"]["difference"]
    assert ours["value"] == pytest.approx(saved.mean())
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert found["nll"]["smallest"] == pytest.approx(2.8016 * saved.std() / 20, rel=0.1)


def test_what_is_said():
    p, q, y = two(worse=1.5)
    told = verdict(compare(p, q, y), ("A", "B"))
    assert told.startswith("A has the better probabilities")
    assert "right in the same rows" in verdict(compare(p, p, y), ("A", "B"))
    assert "cannot be told apart" in verdict(compare(p, two(seed=0)[1], y), ("A", "B"))


def test_the_smallest_effect_is_seen_four_times_in_five():
    """Two systems whose losses differ by that much, in 300 repeats."""
    rng, seen = np.random.default_rng(1), 0
    n, spread = 200, 0.5
    smallest = 2.8016 * spread / np.sqrt(n)
    for _ in range(300):
        saved = rng.normal(smallest, spread, n)
        error = saved.std(ddof=1) / np.sqrt(n)
        seen += abs(saved.mean() / error) > 1.972
    assert 0.72 < seen / 300 < 0.88
