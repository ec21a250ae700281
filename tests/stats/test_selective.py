"""Answering only where it is sure enough: bounds and sets keep their promises."""

import numpy as np
import pytest
from scipy.stats import beta, norm, t
from statsmodels.stats.proportion import proportion_confint

from scoring.stats.selective import (
    guarantee,
    lower_bound,
    nonconformity,
    option_sets,
    risk_coverage,
    set_quantile,
    threshold_for,
)


def draw_answers(n, rng, sharp=3.0):
    p = rng.dirichlet(np.full(4, 1 / sharp), n)
    return p, (p.cumsum(1) > rng.random((n, 1))).argmax(1)


def test_the_curve_equals_a_loop():
    p, y = draw_answers(57, np.random.default_rng(0))
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    curve = risk_coverage(confidence, right)
    assert len(curve) == 57
    for count, point in enumerate(curve, 1):
        answered = np.argsort(-confidence, kind="stable")[:count]
        assert point["risk"] == pytest.approx(1 - right[answered].mean())
        assert point["coverage"] == pytest.approx(count / 57)
        assert point["threshold"] == pytest.approx(confidence[answered].min())
    assert len(risk_coverage(np.random.default_rng(1).random(5000), np.ones(5000))) == 100


def test_the_curve_of_many_rows_has_a_hundred_points_and_equal_rows_stay_in_order():
    confidence = np.tile([0.5, 0.9], 150)
    right = np.stack([np.tile([1.0, 0.0], 75), np.r_[np.ones(100), np.zeros(50)]], 1).ravel()
    curve = risk_coverage(confidence, right)
    assert len(curve) == 100
    assert [curve[index] for index in (0, 33, 49, 99)] == [
        {"coverage": 1 / 300, "risk": 0.0, "threshold": 0.9},
        {"coverage": 101 / 300, "risk": 1 / 101, "threshold": 0.9},
        {"coverage": 149 / 300, "risk": 49 / 149, "threshold": 0.9},
        {"coverage": 1.0, "risk": 125 / 300, "threshold": 0.5},
    ]
    steps = np.diff([point["coverage"] * 300 for point in curve]).round(6)
    assert set(steps) == {3.0, 4.0} and sum(steps) == 299


@pytest.mark.parametrize("right, total", [(0, 10), (1, 1), (1, 7), (10, 10), (37, 40)])
def test_the_bound_is_clopper_and_pearsons(right, total):
    expected = proportion_confint(right, total, alpha=0.1, method="beta")[0]
    assert float(lower_bound(right, total, 0.95)) == pytest.approx(expected, abs=1e-9)


def test_effective_rows_may_be_fractions():
    assert float(lower_bound(0.5, 3.5, 0.95)) == pytest.approx(beta.ppf(0.05, 0.5, 4.0))


def graded(sizes):
    """Rows at confidence .305, .405, … with so many of them, (right, wrong) at each, in mixed order."""
    confidence = np.concatenate([np.full(sum(size), 0.305 + step / 10) for step, size in enumerate(sizes)])
    right = np.concatenate([np.repeat([1.0, 0.0], size) for size in sizes])
    order = np.random.default_rng(0).permutation(len(right))
    return confidence[order], right[order]


def test_the_lowest_threshold_that_promises_enough_is_chosen():
    """From .405 on 240 of 252 rows are right, of which .9 could be promised for one threshold, but not for seventy."""
    confidence, right = graded([(30, 30), (60, 9), (60, 1), (60, 1), (60, 1)])
    bounds = {}
    for least, hits, total in ((0.31, 240, 252), (0.41, 180, 183), (0.51, 120, 122)):
        one, seventy = (proportion_confint(hits, total, 2 * alpha, "beta")[0] for alpha in (0.05, 0.05 / 70))
        bounds[least] = (one, seventy)
    assert bounds[0.31][0] > 0.9 > bounds[0.31][1] and bounds[0.41][1] > 0.9 and bounds[0.51][1] > 0.9
    result = threshold_for(confidence, right, 0.9)
    assert result == pytest.approx(
        {"wanted": 0.9, "threshold": 0.41, "coverage": 183 / 312, "accuracy": 180 / 183, "bound": bounds[0.41][1]}
    )
    lax = threshold_for(confidence, right, 0.9, level=0.3)
    expected = proportion_confint(240, 252, 2 * 0.7 / 70, "beta")[0]
    assert (lax["threshold"], lax["bound"]) == pytest.approx((0.31, expected))
    assert threshold_for(confidence, right, result["bound"])["threshold"] == 0.41  # just as much is enough
    assert threshold_for(confidence, right, np.nextafter(result["bound"], 1))["threshold"] is None
    everywhere = threshold_for(np.full(500, 0.7), np.ones(500), 0.9)
    expected = proportion_confint(500, 500, 0.1 / 70, "beta")[0]
    assert everywhere == pytest.approx(
        {"wanted": 0.9, "threshold": 0.3, "coverage": 1.0, "accuracy": 1.0, "bound": expected}
    )


def test_one_row_promises_next_to_nothing():
    result = threshold_for(np.array([0.5]), np.ones(1), 5e-4)
    assert result == pytest.approx(
        {"wanted": 5e-4, "threshold": 0.3, "coverage": 1.0, "accuracy": 1.0, "bound": 0.05 / 70}
    )


def test_the_bound_of_rows_that_share_pictures_is_that_of_the_pictures():
    """Four copies of each row: the bound of as many rows as there are pictures, less what t asks for their number."""
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(400), 4)[order := rng.permutation(1600)]
    sure = np.repeat(np.r_[np.full(150, 0.405), np.full(250, 0.905)], 4)[order]
    hit = np.repeat(np.r_[np.tile([1.0, 0, 0], 50), np.tile([1.0] * 24 + [0], 10)], 4)[order]
    result = threshold_for(sure, hit, 0.8, clusters=clusters)
    effective = 250 * 249 / 250 * (norm.ppf(0.975) / t.ppf(0.975, 249)) ** 2
    bound = beta.ppf(0.05 / 70, 0.96 * effective, 0.04 * effective + 1)
    assert result == pytest.approx(
        {"wanted": 0.8, "threshold": 0.41, "coverage": 1000 / 1600, "accuracy": 0.96, "bound": bound}
    )
    assert threshold_for(sure, hit, bound + 0.01, clusters=clusters)["threshold"] is None
    assert threshold_for(sure, hit, bound + 0.01)["threshold"] == 0.41  # as if rows were independent


@pytest.mark.parametrize("wanted", [0, 1, -0.1, 1.5])
def test_an_accuracy_that_cannot_be_promised_is_refused(wanted):
    with pytest.raises(ValueError, match=rf"^an accuracy of {wanted}; expected a number between 0 and 1$"):
        threshold_for(np.ones(3), np.ones(3), wanted)


def test_the_threshold_keeps_its_promise():
    """Its accuracy on rows to come is under the wanted one in at most 5 % of draws (here: far fewer)."""
    rng, broken, promised = np.random.default_rng(2), 0, 0
    new_p, new_y = draw_answers(100_000, rng, 12)
    sure, hit = new_p.max(1), new_p.argmax(1) == new_y
    for _ in range(200):
        p, y = draw_answers(400, rng, 12)
        result = threshold_for(p.max(1), (p.argmax(1) == y).astype(float), 0.9)
        if result["threshold"] is not None:
            promised += 1
            broken += hit[sure >= result["threshold"]].mean() < 0.9
            assert result["accuracy"] >= result["bound"] >= 0.9
    assert promised > 150 and broken <= 10


def test_no_threshold_where_none_can_promise():
    p, y = draw_answers(30, np.random.default_rng(3))
    result = threshold_for(p.max(1), (p.argmax(1) == y).astype(float), 0.99)
    assert result == {"wanted": 0.99, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}
    unsure = threshold_for(np.full(900, 0.29), np.ones(900), 0.5)  # under every threshold
    assert unsure == {"wanted": 0.5, "threshold": None, "coverage": 0.0, "accuracy": None, "bound": None}


@pytest.mark.parametrize("level", [0.8, 0.9])
def test_sets_hold_the_right_option_as_often_as_asked(level):
    rng, covered, n = np.random.default_rng(4), [], 99
    for _ in range(300):
        p, y = draw_answers(n + 200, rng)
        quantile = set_quantile(1 - p[np.arange(n), y[:n]], level)
        covered.append(option_sets(p[n:], quantile)[np.arange(200), y[n:]].mean())
    assert np.mean(covered) == pytest.approx(level, abs=0.01)  # exactly ⌈(n+1)·level⌉ / (n+1) = level here


def test_the_quantile_is_the_finite_samples():
    values = np.arange(1, 20) / 20
    assert set_quantile(values, 0.9) == 0.9 and set_quantile(values, 0.95) == 0.95
    assert set_quantile(values, 0.96) == float("inf") and set_quantile(np.array([]), 0.5) == float("inf")
    assert option_sets(np.array([[0.5, 0.5, np.nan]]), float("inf")).tolist() == [[True, True, False]]


def test_nonconformity_is_as_worked_out_by_hand():
    p = np.array([[0.5, 0.3, 0.2, 0.0], [0.25, 0.25, 0.5, np.nan]])
    assert nonconformity(p) == pytest.approx(np.array([[0.5, 0.7, 0.8, 1], [0.75, 0.75, 0.5, np.inf]]))
    cumulative = np.array([[0.5, 0.8, 1, 1], [0.75, 1, 0.5, np.inf]])
    assert nonconformity(p, "aps") == pytest.approx(cumulative)
    share = np.random.default_rng(3).random((2, 1))  # one for all options of a row
    random = nonconformity(p, "aps", np.random.default_rng(3))
    assert random == pytest.approx(cumulative - share * np.nan_to_num(p))


def test_equal_options_count_in_their_order_however_many_there_are():
    rows = np.tile([1 / 39, 2 / 39], 13)[None]
    expected = np.stack([26 + np.arange(1, 14), 2 * np.arange(1, 14)], 1).ravel() / 39
    assert nonconformity(rows, "aps")[0] == pytest.approx(expected)


def test_a_set_holds_options_just_as_unlike_as_the_quantile():
    p = np.array([[0.7, 0.2, 0.1]])
    assert option_sets(p, 1 - 0.2).tolist() == [[True, True, False]]
    assert option_sets(p, 0.8 - 1e-9).tolist() == [[True, False, False]]
    assert option_sets(p, 0.95, "aps").tolist() == [[True, True, False]]
    share = np.random.default_rng(0).random()
    assert option_sets(p, 1 - 0.1 * share + 1e-9, "aps", np.random.default_rng(0)).all()
    assert not option_sets(p, 1 - 0.1 * share - 1e-9, "aps", np.random.default_rng(0))[0, 2]


def test_the_quantile_weighs_pictures_alike_whatever_their_number_of_rows():
    """Three pictures, of one, two and three rows: each weighs a third, and (1 + 1/3) of the level is reached."""
    values, shares = np.array([0.5, 0.1, 0.4, 0.2, 0.6, 0.3]), np.array([6, 3, 3, 2, 2, 2]) / 18
    for level, expected in ((0.125, 0.1), (0.2, 0.2), (0.25, 0.3), (0.26, 0.3), (0.5, 0.5), (0.666, 0.5), (0.7, 0.6)):
        assert set_quantile(values, level, shares, 3) == expected, level
    assert set_quantile(values, 0.75, shares, 3) == 0.6 and set_quantile(values, 0.76, shares, 3) == float("inf")
    assert set_quantile(values, 6 / 7) == 0.6 and set_quantile(values, 0.86) == float("inf")


NEW = (
    "if {} to come are exchangeable with the {} (drawn like them, in any order), a set holds the right option with "
    "probability at least {}, over the draw of both. This is an average over rows: not a promise for each row, nor "
    "for each task type."
)


def test_the_guarantee_is_worded_exactly():
    assert guarantee(0.9, 1200) == NEW.format("rows", "1,200 labelled rows", "90%")
    assert guarantee(0.85, 1200, 1200) == NEW.format("rows", "1,200 labelled rows", "85%")
    assert guarantee(0.9, 5000, 1199) == NEW.format("pictures", "5,000 labelled rows of 1,199 pictures", "90%")
    assert guarantee(0.9, 5000, 0) == NEW.format("rows", "5,000 labelled rows", "90%")
    assert guarantee(0.8, 5000, 1199, 1000) == (
        "no promise: the epoch of the checkpoint was chosen on 1,000 of the 5,000 labelled rows, so that sets hold the "
        "right option a little less often than 80% (with three epochs .892 for .90). For a promise, score other "
        "labelled rows and `calibrate` on them."
    )
    assert guarantee(0.8, 5000, 1199, 1).startswith("no promise: the epoch of the checkpoint was chosen on 1 of")
