"""Pools, their weights and what a member adds, against their definitions written anew and other libraries."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from statsmodels.stats.inter_rater import fleiss_kappa

from scoring.stats.pools import (
    KINDS,
    EnsembleError,
    PoolSettings,
    agreement,
    leave_one_out,
    likeness,
    lowest_loss,
    nll_weights,
    parse_weights,
    pool,
)
from tests.shared.predictions import likeliest_temperature, losses_of, members


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_equal_members_are_the_single_one_and_order_does_not_matter(kind):
    log_p, _ = members(3, 50)
    assert np.abs(np.exp(pool(log_p[[0, 0, 0]], kind)) - np.exp(log_p[0])).max() < 1e-6
    assert np.allclose(pool(log_p, kind), pool(log_p[::-1], kind), atol=1e-12)


def test_the_pools_are_their_definitions():
    log_p, _ = members(3, 40)
    p = np.exp(log_p)
    assert np.allclose(np.exp(pool(log_p, "linear")), p.mean(0))
    product = np.prod(p, 0) ** (1 / 3)
    assert np.allclose(np.exp(pool(log_p)), product / product.sum(1, keepdims=True))
    weighted = np.exp(pool(log_p, "linear", [0.5, 0.5, 0]))
    assert np.allclose(weighted, p[:2].mean(0))
    votes = np.exp(pool(log_p, "vote"))
    counts = np.stack([(log_p.argmax(2) == letter).sum(0) for letter in range(4)], 1)
    assert (counts[np.arange(40), votes.argmax(1)] == counts.max(1)).all() and np.allclose(votes, counts / 3, atol=2e-3)
    log_p[:, 0, 3] = np.nan
    assert np.isnan(pool(log_p)[0, 3]) and np.exp(pool(log_p, "linear")[0, :3]).sum() == pytest.approx(1)


def five_ways(log_p, y):
    """Losses on the second half of the rows, by ways whose temperatures are fitted on the first.

    Two for each way: as it is, and with a temperature of the pool.
    """
    half = len(y) // 2
    calibrated = np.stack([member / likeliest_temperature(member[:half], y[:half]) for member in log_p])
    calibrated = log_softmax(calibrated, axis=2)
    best = min(calibrated, key=lambda member: losses_of(member[:half], y[:half]).mean())
    ways = {
        "default": pool(calibrated),
        "best single": best,
        "linear": pool(calibrated, "linear"),
        "raw log": pool(log_p),
        "raw linear": pool(log_p, "linear"),
    }
    return {
        name: [losses_of(z[half:], y[half:], t) for t in (1.0, likeliest_temperature(z[:half], y[:half]))]
        for name, z in ways.items()
    }


def test_without_a_temperature_of_the_pool_the_default_is_the_best_of_five_ways():
    """A temperature for each member and the mean of log-probabilities, as it is shipped, against others as they are."""
    for seed in range(3):
        losses = {name: without for name, (without, _) in five_ways(*members(5, 4000, seed)).items()}
        for name in set(losses) - {"default"}:
            worse = losses[name] - losses["default"]
            assert worse.mean() > 3 * worse.std() / np.sqrt(len(worse)), name


def test_with_a_temperature_of_the_pool_log_pools_are_alike_and_the_best_of_five_ways():
    for seed in range(3):
        by_way = {name: fitted for name, (_, fitted) in five_ways(*members(5, 4000, seed)).items()}
        loss = {name: losses.mean() for name, losses in by_way.items()}
        assert abs(loss["raw log"] - loss["default"]) < 0.001  # members that are alike
        assert loss["default"] < loss["linear"] < loss["raw linear"] < loss["best single"]


def test_a_temperature_of_the_pool_gains_for_every_pool_and_not_for_a_single_member():
    for name, (without, fitted) in five_ways(*members(5, 4000)).items():
        saved = without - fitted
        if name == "best single":
            assert abs(saved.mean()) < 0.001
        else:
            assert saved.mean() > 3 * saved.std() / np.sqrt(len(saved)), name


def test_members_that_are_too_sure_by_unlike_amounts_need_temperatures_of_their_own():
    """The surest would outvote the others; a temperature of the pool alone does not mend that."""
    log_p, y = members(5, 4000)
    log_p = np.stack([log_softmax(member * size, axis=1) for member, size in zip(log_p, (0.2, 0.2, 0.2, 1, 3))])
    losses = {name: fitted for name, (_, fitted) in five_ways(log_p, y).items()}
    worse = losses["raw log"] - losses["default"]
    assert worse.mean() > 0.03 and worse.mean() > 3 * worse.std() / np.sqrt(len(worse))


def test_weights_are_fitted_only_where_the_rows_show_a_difference():
    log_p, y = members(2, 3000, sharp=1.0)
    noise = np.random.default_rng(1).normal(0, 1.5, log_p[0].shape)
    bad = np.stack([log_p[0], log_softmax(noise, axis=1)])
    chosen = nll_weights(bad, y)
    assert chosen.weights[0] > 0.75 and chosen.fitted and "gain" in chosen.why
    assert nll_weights(bad[:, :500], y[:500]).weights.tolist() == [0.5, 0.5]
    assert nll_weights(log_p[[0, 0]], y).weights.tolist() == [0.5, 0.5]


def test_agreement_equals_statsmodels():
    log_p, _ = members(4, 200)
    answers = log_p.argmax(2)
    counts = np.stack([(answers == letter).sum(0) for letter in range(4)], 1)
    result = agreement(log_p)
    assert result["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts), abs=1e-9)
    assert result["pairwise"][0][1] == pytest.approx((answers[0] == answers[1]).mean())


def test_a_member_that_hurts_is_marked():
    log_p, y = members(3, 1000, sharp=1.0)
    log_p[2] = np.roll(log_p[2], 7, axis=0)
    effects = leave_one_out(log_p, y, PoolSettings("log", [1 / 3] * 3))
    assert effects[2]["hurts"] and not effects[0]["hurts"] and not effects[1]["hurts"]


def unlike(n=60, seed=0):
    """Three members of which two agree more, some rows with three options, pictures of unlike sizes."""
    log_p, y = members(3, n, seed, noise=0.8)
    log_p[1] = log_softmax(log_p[1] + 0.8 * log_p[0], axis=1)
    log_p[:, np.flatnonzero(y < 3)[: n // 4], 3] = np.nan
    return log_p, y, np.random.default_rng(2).integers(0, n // 3, n)


def pooled_row_by_row(log_p, kind, weights, temperature=1.0):
    """(N, K) probabilities of a pool by its definition, NaN where an option is missing."""
    result = np.full(log_p.shape[1:], np.nan)
    for row in range(log_p.shape[1]):
        present = np.flatnonzero(~np.isnan(log_p[:, row]).any(0))
        p = np.exp(log_p[:, row][:, present])
        q = np.prod(p ** np.array(weights)[:, None], axis=0)
        q = q / q.sum()
        if kind == "linear":
            q = np.array(weights) @ p
        elif kind == "vote":
            choices = p.argmax(1)
            votes = [
                sum(w for w, choice in zip(weights, choices) if choice == option) for option in range(len(present))
            ]
            q = 0.999 * np.array(votes) + 0.001 * q
        q = q ** (1 / temperature)
        result[row, present] = q / q.sum()
    return result


@pytest.mark.parametrize("kind", ["log", "linear", "vote"])
def test_pools_are_their_definitions_with_weights_temperature_and_fewer_options(kind):
    log_p, _, _ = unlike()
    weights, shares = [2, 1, 1], [0.5, 0.25, 0.25]
    complete = log_p[:, ~np.isnan(log_p).any((0, 2))]
    for values in (log_p, complete):
        p = np.exp(pool(values, kind, weights, 1.7))
        assert np.allclose(p, pooled_row_by_row(values, kind, shares, 1.7), atol=1e-12, equal_nan=True)
        p = np.exp(pool(values, kind))
        assert np.allclose(p, pooled_row_by_row(values, kind, [1 / 3] * 3), atol=1e-12, equal_nan=True)


def test_one_member_without_an_option_takes_it_from_the_pool():
    log_p = np.log(np.array([[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]]))
    log_p[1, 0, 2] = np.nan
    for kind in ("log", "linear", "vote"):
        p = np.exp(pool(log_p, kind))
        assert np.isnan(p[0, 2]) and p[0, :2].sum() == pytest.approx(1)


def test_weights_in_a_text_are_finite_numbers_one_for_each_member():
    assert parse_weights("1,2.5,0", 3) == [1.0, 2.5, 0.0]
    for text, count in (("1,2", 3), ("1,x", 2), ("1,nan", 2), ("1,inf", 2), ("", 1)):
        assert parse_weights(text, count) is None


def test_weights_of_lowest_loss_are_judged_on_rows_held_out_with_their_pictures():
    """Parts, gains, error and weights by code written anew, with another solver."""
    log_p, y, _ = unlike(1000)
    log_p[2] += np.random.default_rng(1).normal(0, 5, log_p[2].shape)  # says little
    pictures = np.arange(1000) // 2

    def best(values, answers):
        def loss(free):
            weights = np.exp(free) / np.exp(free).sum()
            z = np.tensordot(weights, np.nan_to_num(values), 1)
            z = np.where(np.isnan(values).any(0), -np.inf, z)
            return losses_of(z, answers).mean()

        optimum = minimize(loss, np.zeros(3), method="SLSQP", options={"ftol": 1e-12}).x
        return np.exp(optimum) / np.exp(optimum).sum()

    def losses(values, weights, answers):
        z = np.where(np.isnan(values).any(0), -np.inf, np.tensordot(weights, np.nan_to_num(values), 1))
        return losses_of(z, answers)

    fold_of = np.random.default_rng(0).permutation(500) % 5
    gains = np.zeros(1000)
    for number in range(5):
        held = fold_of[pictures] == number
        weights = best(log_p[:, ~held], y[~held])
        equal = losses(log_p[:, held], np.full(3, 1 / 3), y[held])
        gains[held] = equal - losses(log_p[:, held], weights, y[held])
    sums = np.bincount(pictures, gains - gains.mean())
    error = np.sqrt((sums**2).sum() * 500 / 499) / 1000
    chosen = nll_weights(log_p, y, pictures)
    words = chosen.why.split()
    assert chosen.fitted and chosen.why.startswith("fitted weights on rows held out of the fit gain ")
    assert chosen.why.endswith(" NLL")
    assert float(words[10]) == pytest.approx(gains.mean(), abs=2e-4)
    assert float(words[12]) == pytest.approx(error, abs=2e-4)
    assert chosen.weights == pytest.approx(best(log_p, y), abs=2e-3)
    few = nll_weights(log_p[:, :999], y[:999])
    assert few.weights.tolist() == [1 / 3] * 3 and not few.fitted
    assert few.why == "equal weights: 999 labelled rows are under 1,000"


def test_weights_of_members_that_are_alike_stay_equal():
    log_p, y = members(3, 1000, seed=3)
    chosen = nll_weights(log_p[[0, 0, 0]], y)
    assert chosen.weights.tolist() == [1 / 3] * 3 and not chosen.fitted
    assert chosen.why == "equal weights: on rows held out of the fit, fitted ones are no better"


def test_agreement_counts_pairs_with_fewer_options_too():
    log_p, _, _ = unlike()
    answers = np.array([[np.nanargmax(row) for row in member] for member in log_p])
    result = agreement(log_p)
    for first in range(3):
        for second in range(3):
            assert result["pairwise"][first][second] == pytest.approx((answers[first] == answers[second]).mean())
    assert result["all_agree"] == (np.ptp(answers, axis=0) == 0).mean() < 1
    counts = np.stack([(answers == letter).sum(0) for letter in range(4)], 1)
    assert result["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts))
    assert agreement(np.log(np.tile([0.7, 0.3], (2, 5, 1))))["fleiss_kappa"] is None  # all answers are one letter


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_what_a_member_adds_is_the_loss_without_it_less_that_of_the_full_pool(kind):
    log_p, y, pictures = unlike()
    weights, rows = np.array([0.5, 0.3, 0.2]), np.arange(60)
    effects = leave_one_out(log_p, y, PoolSettings(kind, weights.tolist(), 1.4), pictures)
    full = pooled_row_by_row(log_p, kind, weights, 1.4)
    for member in range(3):
        others = [number for number in range(3) if number != member]
        reduced = pooled_row_by_row(log_p[others], kind, weights[others] / weights[others].sum(), 1.4)
        saved = np.log(full[rows, y]) - np.log(reduced[rows, y])
        sums = np.array([(saved[pictures == picture] - saved.mean()).sum() for picture in np.unique(pictures)])
        error = np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / 60
        right = (np.nanargmax(full, 1) == y).mean() - (np.nanargmax(reduced, 1) == y).mean()
        assert effects[member]["nll"] == pytest.approx(saved.mean())
        assert effects[member]["error"] == pytest.approx(error)
        assert effects[member]["accuracy"] == pytest.approx(right)
        assert effects[member]["hurts"] == (saved.mean() < -2 * error)


def test_without_the_only_member_that_has_a_weight_the_others_are_equal():
    log_p, y, _ = unlike()
    effects = leave_one_out(log_p, y, PoolSettings("log", [1.0, 0.0, 0.0]))
    reduced, rows = pooled_row_by_row(log_p[1:], "log", [0.5, 0.5]), np.arange(60)
    alone = np.exp(log_p[0])[rows, y] / np.nansum(np.exp(log_p[0]), 1)
    assert effects[0]["nll"] == pytest.approx((np.log(alone) - np.log(reduced[rows, y])).mean())
    assert effects[1]["nll"] == pytest.approx(0, abs=1e-12) and not effects[1]["hurts"]


@pytest.mark.filterwarnings("error")  # scipy warns of options that it does not know
def test_no_share_of_the_weights_of_lowest_loss_is_better_moved_to_another_member():
    log_p, y = members(3, 300)
    weights = lowest_loss(log_p, y)
    lowest = losses_of(np.tensordot(weights, log_p, 1), y).mean()
    assert weights.sum() == pytest.approx(1) and weights.min() > 0.01
    for giver in range(3):
        for taker in {0, 1, 2} - {giver}:
            moved = weights + 0.01 * (np.eye(3)[taker] - np.eye(3)[giver])
            assert losses_of(np.tensordot(moved, log_p, 1), y).mean() > lowest


# ------------------------------------------------------------------ members that are one
def normalised(logits):
    """Log-probabilities of (N, K) logits, NaN where an option is missing."""
    return logits - np.log(np.nansum(np.exp(logits), 1, keepdims=True))


def test_equal_numbers_are_one_member_where_options_are_missing_too():
    log_p = np.log(np.array([[0.6, 0.3, 0.1], [0.5, 0.5, np.nan]]))
    assert likeness(log_p, log_p.copy()) == ""
    assert likeness(np.full((2, 3), np.nan), np.full((2, 3), np.nan)) is None  # no number says so


def test_one_temperature_apart_is_seen_where_options_are_nearly_even_and_one_is_missing():
    """Logits of ±0.1 and of ±0.2: the temperature is 2."""
    flat = np.tile([0.1, -0.1, np.nan], (6, 1))
    assert likeness(normalised(flat), normalised(2 * flat)) == ", but for one temperature (2.00)"
    assert likeness(normalised(2 * flat), normalised(flat)) == ", but for one temperature (2.00)"
    assert likeness(normalised(flat), normalised(-flat)) is None


def test_members_with_other_options_are_two_however_unlikely_the_option_is():
    first = np.tile([0.6, 0.39999, 0.00001], (6, 1))
    second = np.tile([0.6, 0.4, np.nan], (6, 1))
    assert likeness(np.log(first), np.log(second)) is None
    second[:, 2] = 0.00002
    assert likeness(np.log(first), np.log(second)) == ", but for rounding"


def test_a_single_option_does_not_make_members_one():
    assert likeness(np.zeros((2, 1)), np.array([[0.0], [np.nan]])) is None


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda p: pool(p, "mean"), "pool of kind 'mean'; expected log, linear, vote"),
        (lambda p: pool([p[0], p[1, :, :3]]), r"members of shapes \(9, 4\), \(9, 3\); expected \(N, K\)"),
        (lambda p: pool(p[0]), r"members of shapes \(4,\), \(4,\)"),
        (lambda p: pool(p[:0]), "members of shapes none"),
        (lambda p: pool(p, weights=[1, 2]), r"weights \[1., 2.\]; expected 3 numbers from 0 on"),
        (lambda p: pool(p, weights=[1, -1, 1]), "expected 3 numbers from 0 on"),
        (lambda p: pool(p, weights=[0, 0, 0]), "not all 0"),
        (lambda p: pool(p, weights=[1, np.nan, 1]), "expected 3 numbers"),
        (lambda p: pool(p + [[[0], [1]] + [[0]] * 7], "linear"), r"1 row with mean probabilities .* 1 \(2.71828\)"),
    ],
)
def test_what_cannot_be_pooled_is_refused(call, message):
    log_p, _ = members(3, 9)
    with pytest.raises(EnsembleError, match=message):
        call(log_p)


def test_members_may_be_a_list_and_rows_without_a_score_stay_without():
    log_p, _ = members(3, 9)
    assert np.array_equal(pool(list(log_p)), pool(log_p))
    log_p[:, 4], log_p[1, 5] = np.nan, np.nan
    for kind in KINDS:
        pooled = pool(log_p, kind)
        assert np.isnan(pooled[[4, 5]]).all() and np.isfinite(np.delete(pooled, [4, 5], 0)).all()
