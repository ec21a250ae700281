"""Two systems on the same rows: every figure by hand, every sentence as it is written."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.power import TTestPower

from scoring.stats.comparison import compare, verdict
from scoring.stats.resampling import mcnemar


def two_systems(n=400, seed=0, worse=0.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), n)
    y = np.array([rng.choice(4, p=row) for row in p])
    other = p * np.exp(rng.normal(0, 0.3 + worse, p.shape))
    return p, other / other.sum(1, keepdims=True), y


def losses(p, y):
    return -np.log([row[right] for row, right in zip(p, y)])


def test_every_figure_of_a_comparison_equals_scipys_or_statsmodels():
    p, q, y = two_systems(worse=0.5)
    right = [table.argmax(1) == y for table in (p, q)]
    only = (int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum()))
    assert only[0] != only[1] and min(only) > 20
    comparison = compare(p, q, y)
    expected = {
        "accuracy": [np.mean(values) for values in right],
        "nll": [np.mean(losses(table, y)) for table in (p, q)],
    }
    differences = {"accuracy": right[1].astype(float) - right[0], "nll": losses(q, y) - losses(p, y)}
    for name, (first, second) in expected.items():
        difference, error = differences[name], differences[name].std() / 20
        reference = bootstrap((difference,), np.mean, method="percentile", rng=0).confidence_interval
        assert comparison[name]["first"] == pytest.approx(first) and comparison[name]["second"] == pytest.approx(second)
        interval = comparison[name]["difference"]
        assert interval["value"] == pytest.approx(second - first)
        assert (interval["low"], interval["high"]) == pytest.approx((reference.low, reference.high), abs=0.2 * error)
        smallest = TTestPower().solve_power(nobs=400, alpha=0.05, power=0.8) * differences[name].std()
        assert comparison[name]["smallest"] == pytest.approx(smallest, rel=0.07)
    assert (comparison["accuracy"]["only_first"], comparison["accuracy"]["only_second"]) == only
    exact = statsmodels_mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue
    assert comparison["accuracy"]["mcnemar_p"] == pytest.approx(exact)
    assert {name: [*values] if isinstance(values, dict) else values for name, values in comparison.items()} == {
        "rows": 400,
        "pictures": 400,
        "accuracy": ["first", "second", "difference", "only_first", "only_second", "mcnemar_p", "smallest"],
        "nll": ["first", "second", "difference", "smallest"],
    }


def test_rows_of_one_picture_count_as_one_in_every_part_of_a_comparison():
    """Four copies of each row tell no more than one: same values, intervals and effects of the hundred pictures."""
    p, q, y = two_systems(100, worse=0.5)
    alone = compare(p, q, y)
    clusters = np.repeat(np.arange(100), 4)
    copies = compare(p.repeat(4, 0), q.repeat(4, 0), y.repeat(4), clusters)
    assert (copies["rows"], copies["pictures"]) == (400, 100)
    for name in ("accuracy", "nll"):
        assert copies[name]["difference"] == pytest.approx(alone[name]["difference"], abs=1e-12)
        assert copies[name]["smallest"] == pytest.approx(alone[name]["smallest"])
    right = [(table.argmax(1) == y).repeat(4) for table in (p, q)]
    assert copies["accuracy"]["mcnemar_p"] == mcnemar(*right, clusters)
    assert copies["accuracy"]["mcnemar_p"] > 10 * mcnemar(*right)


def test_few_pictures_have_wider_intervals_than_the_percentiles_of_draws():
    """Six pictures: the levels allow for t of 5 degrees of freedom."""
    p, q, y = two_systems(6, seed=3, worse=0.5)
    saved = losses(q, y) - losses(p, y)
    interval = compare(p, q, y)["nll"]["difference"]
    reference = bootstrap((saved,), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert interval["high"] - interval["low"] > 1.2 * (reference.high - reference.low)


def test_options_that_a_row_lacks_are_never_answered_and_cost_nothing():
    p = np.array([[0.6, 0.4, np.nan], [0.2, 0.3, 0.5]])
    q = np.array([[0.3, 0.7, np.nan], [0.2, 0.3, 0.5]])
    comparison = compare(p, q, np.array([0, 2]))
    assert comparison["accuracy"]["first"] == 1 and comparison["accuracy"]["second"] == 0.5
    assert comparison["nll"]["first"] == pytest.approx(-np.log([0.6, 0.5]).mean())
    assert comparison["nll"]["second"] == pytest.approx(-np.log([0.3, 0.5]).mean())
    lacking = compare(p, q, np.array([2, 2]))["nll"]  # an answer that is no option: as good as impossible
    assert lacking["first"] == lacking["second"] == pytest.approx((-np.log(1e-12) - np.log(0.5)) / 2)


@pytest.mark.simulation
def test_the_smallest_effect_is_detected_four_times_in_five():
    """A second system better by just that much: what `compare` says of a hundred rows, in 300 draws."""
    rng, n, spread = np.random.default_rng(1), 100, 0.5
    effect, detected = 2.8016 * spread / np.sqrt(n), 0
    smallest = []
    for _ in range(300):
        gains = rng.normal(effect, spread, n)
        p = np.column_stack([np.full(n, 0.2), np.full(n, 0.8)])
        q = 0.2 * np.exp(gains)[:, None] * [1, 0]
        difference = compare(p, q, np.zeros(n, int))["nll"]
        assert difference["difference"]["value"] == pytest.approx(-gains.mean())
        detected += difference["difference"]["high"] < 0
        smallest.append(difference["smallest"])
    assert np.mean(smallest) == pytest.approx(effect, rel=0.03)
    power = norm.cdf(2.8016 - 1.96)
    assert power == pytest.approx(0.8, abs=1e-4) and abs(detected / 300 - power) < 3 * np.sqrt(0.16 / 300)


# ------------------------------------------------------------------ in words
BETTER = "{} has the better probabilities"
ALIKE = "their probabilities cannot be told apart on these rows"
HIGHER = "{} has the higher accuracy"
SAME = "they are right in the same rows"
UNDER = "their accuracies cannot be told apart (a difference under 12.3% would hardly be seen)"


@pytest.mark.parametrize(
    "low, high, value, p, gain, only, expected",
    [
        (0.1, 0.3, 0.2, 0.05, -0.1, (3, 1), (BETTER.format("A"), UNDER)),
        (-0.3, -0.1, -0.2, 0.0499, 0.1, (1, 9), (BETTER.format("B"), HIGHER.format("B"))),
        (-0.1, 0.3, 0.2, 0.01, -0.1, (9, 1), (ALIKE, HIGHER.format("A"))),
        (0.0, 0.3, 0.2, 1.0, 0.0, (2, 2), (ALIKE, UNDER)),
        (-0.3, 0.0, -0.2, 0.9, 0.0, (0, 1), (ALIKE, UNDER)),
        (0.0, 0.0, 0.0, 1.0, 0.0, (0, 0), (ALIKE, SAME)),
        (0.1, 0.3, 0.2, 0.9, 0.0, (1, 0), (BETTER.format("A"), UNDER)),
    ],
)
def test_a_verdict_says_which_is_better_and_where_that_cannot_be_said(low, high, value, p, gain, only, expected):
    comparison = {
        "nll": {"difference": {"value": value, "low": low, "high": high}},
        "accuracy": {
            "mcnemar_p": p,
            "difference": {"value": gain},
            "only_first": only[0],
            "only_second": only[1],
            "smallest": 0.123,
        },
    }
    assert verdict(comparison, ("A", "B")) == "; ".join(expected)


def test_the_verdict_names_the_better_system_whichever_comes_first():
    p, q, y = two_systems(worse=1.5)
    assert verdict(compare(p, q, y), ("A", "B")) == "A has the better probabilities; A has the higher accuracy"
    assert verdict(compare(q, p, y), ("A", "B")) == "B has the better probabilities; B has the higher accuracy"
    assert verdict(compare(p, p, y), ("A", "B")) == f"{ALIKE}; {SAME}"
