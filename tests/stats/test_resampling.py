"""Rows of one picture are right or wrong together: intervals cover and tests err as often as they say, simulated.

100 pictures of four rows whose hits are correlated by about .8: rows of a picture nearly always draw their labels by
one random number. The bounds hold for the number of repeats: 95 % intervals cover .93 to .97, tests err in 4 to 6 %.
"""

import itertools

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest, multivariate_normal, norm
from statsmodels.genmod.cov_struct import Exchangeable
from statsmodels.genmod.families import Binomial
from statsmodels.genmod.generalized_estimating_equations import GEE

from scoring.stats.calibration import LabelledRows, _best_temperature, calibrate, efficient_scores
from scoring.stats.comparison import compare
from scoring.stats.metrics import aurc, auroc, ece, measure, measure_members, noise_floor, row_brier, row_nll
from scoring.stats.resampling import (
    clusters_of,
    draws_for,
    effective_rows,
    latent_correlation,
    length_interval,
    mcnemar,
    mean_error,
    share_of,
    sign_flip_p,
    tail,
    with_interval,
)
from scoring.stats.selective import threshold_for

PICTURES, ROWS = 100, 4
CLUSTERS = np.repeat(np.arange(PICTURES), ROWS)


def draw_pictures(rng, pictures=PICTURES, rows=ROWS, shared=0.98):
    """(N, 4) true log-probabilities and (N,) labels; rows of a picture are alike, and draw by one number."""
    z = rng.normal(0, 2, (pictures, 1, 4)) * 0.99 + rng.normal(0, 2, (pictures, rows, 4)) * 0.15
    p = softmax(z, axis=2)
    one = rng.random((pictures, 1)) < shared
    u = np.where(one, rng.random((pictures, 1)), rng.random((pictures, rows)))
    order = np.argsort(-p, 2)
    rank = (np.take_along_axis(p, order, 2).cumsum(2) > u[..., None]).argmax(2)
    y = np.take_along_axis(order, rank[..., None], 2)[..., 0]
    return np.log(p).reshape(-1, 4), y.ravel()


def test_hits_of_a_picture_are_correlated_by_about_four_fifths():
    log_p, y = draw_pictures(np.random.default_rng(0), 20_000)
    hits = (log_p.argmax(1) == y).reshape(-1, ROWS).astype(float)
    assert np.corrcoef(hits[:, 0], hits[:, 1])[0, 1] == pytest.approx(0.8, abs=0.05)


@pytest.mark.simulation
@pytest.mark.parametrize("clusters, inside", [(CLUSTERS, True), (None, False)])
def test_the_interval_of_accuracy_covers_only_over_pictures(clusters, inside):
    rng = np.random.default_rng(1)
    log_p, y = draw_pictures(rng, 50_000)
    truth, covered = (log_p.argmax(1) == y).mean(), 0
    for _ in range(1000):
        log_p, y = draw_pictures(rng)
        interval = share_of(log_p.argmax(1) == y, clusters)
        covered += interval["low"] <= truth <= interval["high"]
    assert (0.93 <= covered / 1000 <= 0.97) == inside, covered


@pytest.mark.simulation
def test_every_interval_of_measure_covers_over_pictures():
    """So many repeats notice coverage of .82: over rows that of NLL is .83, and percentiles of ECE never cover 0."""
    rng = np.random.default_rng(2)
    log_p, y = draw_pictures(rng, 20_000)
    p = np.exp(log_p)
    hits = p.max(1), (p.argmax(1) == y).astype(float)
    truth = {"nll": row_nll(p, y).mean(), "brier": row_brier(p, y).mean(), "auroc": auroc(*hits), "aurc": aurc(*hits)}
    truth |= dict.fromkeys(("ece", "classwise_ece", "smooth_ece", "rms_calibration_error"), 0.0)
    covered, beyond, repeats = dict.fromkeys(truth, 0), 0, 100
    for _ in range(repeats):
        log_p, y = draw_pictures(rng)
        metrics = measure(np.exp(log_p), y, CLUSTERS)
        for name, value in truth.items():
            covered[name] += metrics[name]["low"] - 1e-12 <= value <= metrics[name]["high"]
            assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"], name
        beyond += metrics["ece"]["value"] > metrics["ece"]["floor_95"]
    for name, count in covered.items():
        assert binomtest(count, repeats, 0.95).pvalue > 0.01 or count / repeats > 0.95, (name, count)
    assert binomtest(beyond, repeats, 0.05).pvalue > 0.01, beyond  # a calibrated model lies within the noise floor


@pytest.mark.simulation
def test_the_interval_of_ece_covers_where_there_is_an_error_and_where_there_is_none():
    """Percentiles of the bootstrap did not: a calibrated model's ECE lay below its own interval in 39 % of draws."""
    rng, repeats = np.random.default_rng(3), 150
    for sharpness in (1.0, 1.6):
        log_p, y = draw_pictures(rng, 100_000, 1)
        q = softmax(sharpness * log_p, axis=1)
        truth = 0.0 if sharpness == 1 else ece(q.max(1), (q.argmax(1) == y).astype(float))
        covered = 0
        for _ in range(repeats):
            log_p, y = draw_pictures(rng, 400, 1)
            interval = measure_members(softmax(sharpness * log_p, axis=1)[None], y)[0]["ece"]  # as `measure` has it
            assert interval["low"] <= interval["value"] <= interval["high"]
            covered += interval["low"] <= truth <= interval["high"]
        assert covered / repeats >= 0.93, (sharpness, covered)


def test_lengths_are_corrected_for_noise_and_never_negative():
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 1, (2000, 10))
    interval = length_interval(lambda v: np.abs(v).sum(-1), np.zeros(10), noise, 1000)
    assert interval["low"] == 0 and interval["high"] >= 0
    strong = length_interval(lambda v: np.abs(v).sum(-1), np.full(10, 50.0), noise, 1000)
    assert strong["low"] == pytest.approx(500 - 1.96 * np.sqrt(10), abs=0.6)
    assert strong["high"] == pytest.approx(500 + 1.96 * np.sqrt(10), abs=0.6)


def test_the_smallest_signal_of_a_length_is_no_longer_than_what_was_observed():
    """Noise that takes half of the signal in every draw would make 1.5 times the signal as long as observed."""
    interval = length_interval(lambda v: np.abs(v).sum(-1), np.array([2.0, 0.0]), np.tile([-1.0, 0.0], (50, 1)), 1000)
    assert interval["low"] == pytest.approx(2, abs=0.01) and interval["low"] <= 2
    assert interval["high"] == pytest.approx(3)  # what the noise took


# ------------------------------------------------------------------ shares and levels
def test_draws_are_fewer_where_rows_times_draws_would_be_over_fifty_million():
    assert [draws_for(rows) for rows in (0, 1, 50_000)] == [1000] * 3
    assert [draws_for(rows) for rows in (50_001, 62_500, 200_000, 10**7)] == [999, 800, 250, 200]


def test_rows_that_are_copies_count_once():
    hits = np.random.default_rng(5).random(100) < 0.7
    copied = share_of(np.repeat(hits, ROWS), CLUSTERS)
    alone = share_of(hits)
    assert copied["design_effect"] == pytest.approx(ROWS, rel=0.05)
    assert copied["value"] == alone["value"]
    assert copied["high"] - copied["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.03)
    assert "design_effect" not in alone


def test_effective_rows_equal_those_of_generalised_estimating_equations():
    """The variance of the share over clusters, by statsmodels' robust covariance."""
    log_p, y = draw_pictures(np.random.default_rng(6))
    hits = (log_p.argmax(1) == y).astype(float)
    model = GEE(hits, np.ones((len(hits), 1)), CLUSTERS, family=Binomial(), cov_struct=Exchangeable())
    share = hits.mean()
    variance = model.fit().cov_params()[0, 0] * (share * (1 - share)) ** 2 * PICTURES / (PICTURES - 1)
    t = 1.9842169515  # of 99 degrees of freedom
    expected = share * (1 - share) / variance * (1.959964 / t) ** 2
    assert effective_rows(hits, CLUSTERS) == pytest.approx(expected, rel=1e-3)


def test_effective_rows_where_nothing_can_be_estimated():
    assert effective_rows(np.ones(400), CLUSTERS) == PICTURES and effective_rows(np.zeros(400), CLUSTERS) == PICTURES
    assert effective_rows(np.ones(400), None) == 400
    assert effective_rows(np.array([1.0, 0, 1]), np.array([5, 9, 2])) == 3  # each row has a picture of its own
    assert effective_rows(np.array([1.0, 0, 1, 1]), np.zeros(4, int)) == 1
    assert effective_rows(np.array([1.0, 0]), np.zeros(2, int)) == 1
    spread = np.tile([1.0, 0, 1, 0], PICTURES)  # less than independent rows would: still no more rows than there are
    assert effective_rows(spread, CLUSTERS) == pytest.approx(400 * (1.959964 / 1.9842169515) ** 2)


def test_levels_widen_where_clusters_are_few():
    assert tail(10**9) == pytest.approx(0.025, abs=1e-6) and tail(1) == 0.025
    assert tail(100) == pytest.approx(0.023064, abs=1e-5) and tail(5) < 0.002
    interval = with_interval(0.5, np.linspace(0, 1, 100_001), 10**9)
    assert interval == pytest.approx({"value": 0.5, "low": 0.025, "high": 0.975}, abs=1e-4)
    assert with_interval(float("nan"), np.ones(3), 5) == {"value": None, "low": None, "high": None}
    assert with_interval(1.0, np.array([np.nan]), 5) == {"value": None, "low": None, "high": None}


def test_the_error_of_a_mean_counts_clusters_instead_of_rows():
    values = np.random.default_rng(7).normal(size=100)
    assert mean_error(values) == pytest.approx(values.std(ddof=1) / 10)
    assert mean_error(np.repeat(values, ROWS), CLUSTERS) == pytest.approx(values.std(ddof=1) / 10)
    assert mean_error(np.ones(1)) == 0 and mean_error(np.ones(4), np.zeros(4, int)) == 0
    assert mean_error(values, np.arange(100) * 3) == pytest.approx(mean_error(values))  # numbers may have gaps


def test_names_are_numbered_from_the_first_in_order_and_only_where_some_are_equal():
    assert clusters_of(["b", "a", "c", "a"]).tolist() == [1, 0, 2, 0]
    assert clusters_of(["b", "a", "c"]) is None


def test_the_error_of_two_clusters_is_as_worked_out_by_hand():
    assert mean_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
    assert mean_error(np.array([1.0, 1.0, 3.0, 3.0]), np.array([0, 0, 1, 1])) == pytest.approx(1.0)


# ------------------------------------------------------------------ tests
@pytest.mark.parametrize("clusters", [None, np.repeat(np.arange(9), 2), np.repeat([0, 3, 4, 7, 9, 12, 14, 15, 17], 2)])
def test_sign_flips_equal_a_loop_and_come_near_the_share_of_all_flips(clusters):
    rng = np.random.default_rng(3)
    scores = rng.normal(0.8, 1, (9 if clusters is None else 18, 2))
    scores[-1 if clusters is None else slice(-2, None)] = 0  # a cluster without scores has no sign to flip
    units = scores if clusters is None else scores[::2] + scores[1::2]
    units = units[:-1]
    inverse = np.linalg.inv(sum(np.outer(unit, unit) for unit in units))

    def length(signs):
        total = (np.array(signs)[:, None] * units).sum(0)
        return total @ inverse @ total

    observed = length(np.ones(8))
    every = np.mean([length(signs) >= observed - 1e-12 for signs in itertools.product((-1, 1), repeat=8)])
    assert 0.005 < every < 0.9 and sign_flip_p(scores, clusters) == pytest.approx(every, abs=0.03)
    for seed in (0, 5):
        flips = np.random.default_rng(seed).integers(0, 2, (4000, 8), np.int8) * 2 - 1
        expected = (1 + sum(length(signs) >= observed - 1e-12 for signs in flips)) / 4001
        assert sign_flip_p(scores, clusters, seed) == pytest.approx(expected, abs=1e-12)
    assert sign_flip_p(scores, clusters) == sign_flip_p(scores, clusters, 0)


def test_zero_scores_and_dependent_scores_are_tested_too():
    assert sign_flip_p(np.zeros((5, 2)), None) == 1.0
    scores = np.random.default_rng(4).normal(0.3, 1, (12, 1))
    assert sign_flip_p(np.hstack([scores, 2 * scores]), None) == sign_flip_p(scores, None)


def test_the_clustered_test_counts_all_flips():
    """By brute force over every flip of six pictures, and as McNemar's where no picture has two rows."""
    rng = np.random.default_rng(8)
    clusters = np.repeat(np.arange(6), 3)
    first, second = rng.random((2, 18)) < 0.5
    sums = np.bincount(clusters, second.astype(int) - first.astype(int))
    outcomes = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=6)]
    observed = abs(sums.sum())
    expected = np.mean([(out > observed) + (out == observed) / 2 for out in outcomes])
    assert mcnemar(first, second, clusters) == pytest.approx(expected)
    alone = mcnemar(first, second)
    only = (int((first & ~second).sum()), int((second & ~first).sum()))
    assert alone == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert mcnemar(first, first, clusters) == 1 and mcnemar(first, first) == 1


def test_many_clusters_of_many_sizes_are_counted_without_their_flips():
    rng = np.random.default_rng(9)
    clusters = rng.integers(0, 5000, 30_000)
    first, second = rng.random(30_000) < 0.7, rng.random(30_000) < 0.71
    sums = np.bincount(clusters, second.astype(float) - first.astype(float))
    z = abs(sums.sum()) / np.sqrt((sums**2).sum())
    assert mcnemar(first, second, clusters) == pytest.approx(2 * norm.sf(z), abs=0.003)


@pytest.mark.simulation
def test_a_comparison_errs_as_often_as_it_says():
    rng, repeats, called, missed = np.random.default_rng(10), 1500, 0, 0
    for _ in range(repeats):
        log_p, y = draw_pictures(rng)
        noise = rng.normal(0, 1.5, (2, PICTURES, 4)).repeat(ROWS, 1)
        p, q = softmax(log_p + noise, axis=2)
        right = [table.argmax(1) == y for table in (p, q)]
        called += mcnemar(*right, CLUSTERS) < 0.05
        missed += mcnemar(*right) < 0.05
    assert 0.04 <= called / repeats <= 0.06, called / repeats
    assert missed / repeats > 0.12  # what rows taken as independent would say
    comparison = compare(p, q, y, CLUSTERS)
    assert comparison["pictures"] == PICTURES and comparison["accuracy"]["mcnemar_p"] == mcnemar(*right, CLUSTERS)


@pytest.mark.simulation
def test_task_types_and_letters_are_wrongly_taken_once_in_twenty():
    rng, repeats, types, letters, types_by_rows = np.random.default_rng(11), 800, 0, 0, []
    ones = [np.where(np.arange(4) == letter, 1.0, 0.0)[None].repeat(400, 0) for letter in (1, 2, 3)]
    for repeat in range(repeats):
        log_p, y = draw_pictures(rng)
        logits = 1.5 * log_p
        half = np.repeat(rng.random(PICTURES) < 0.5, ROWS)[:, None]
        temperature = _best_temperature(logits, y)[0]
        feature = [np.where(half, logits, 0)]
        types += sign_flip_p(efficient_scores(logits, y, temperature, [logits], feature), CLUSTERS) < 0.05
        letters += sign_flip_p(efficient_scores(logits, y, temperature, [logits], ones), CLUSTERS) < 0.05
        if repeat % 8 == 0:  # its 4,000 signs of 400 rows take longer than all the rest
            types_by_rows.append(sign_flip_p(efficient_scores(logits, y, temperature, [logits], feature), None) < 0.05)
    assert 0.035 <= types / repeats <= 0.065 and letters / repeats <= 0.065, (types, letters)
    assert np.mean(types_by_rows) > 0.12


@pytest.mark.simulation
def test_a_real_difference_of_task_types_is_still_detected_over_pictures():
    rng = np.random.default_rng(12)
    log_p, y = draw_pictures(rng, 400)
    clusters = np.repeat(np.arange(400), ROWS)
    types = np.repeat(["x", "y"], 800)
    logits = np.where(types == "x", 1.0, 4.0)[:, None] * log_p
    calibration = calibrate(LabelledRows(logits, y, types.tolist(), clusters))
    assert calibration.groups["y"] / calibration.groups["x"] == pytest.approx(4, rel=0.35)
    assert "over 400 pictures" in calibration.choice[2]


# ------------------------------------------------------------------ the noise floor
def test_the_latent_correlation_of_hits_is_recovered():
    rng = np.random.default_rng(13)
    clusters = np.repeat(np.arange(3000), ROWS)
    confidence = rng.uniform(0.3, 0.95, 12_000)
    for rho in (0.0, 0.3, 0.8):
        u = np.sqrt(rho) * rng.normal(size=3000)[clusters] + np.sqrt(1 - rho) * rng.normal(size=12_000)
        residuals = (u < norm.ppf(confidence)) - confidence
        assert latent_correlation(confidence, residuals, clusters) == pytest.approx(rho, abs=0.06)


def test_the_correlation_of_four_hits_is_that_of_the_two_dimensional_normal():
    """The pairs' products are expected as Σ Φ₂(z, z'; ρ) − p·p', by scipy's bivariate normal distribution."""
    confidence, clusters = np.array([0.3, 0.6, 0.8, 0.5]), np.array([0, 0, 1, 1])
    z = norm.ppf(confidence)
    residuals = np.array([0.35, 0.4, 0.3, 0.4])
    observed = 2 * (0.35 * 0.4 + 0.3 * 0.4)
    assert observed < 1

    def beyond(rho, products):
        joint = (multivariate_normal([0, 0], [[1, rho], [rho, 1]]).cdf(z[pair]) for pair in ([0, 1], [2, 3]))
        return 2 * (sum(joint) - 0.3 * 0.6 - 0.8 * 0.5) - products

    for scale in (0.3, 0.6, 0.9):
        expected = brentq(beyond, 1e-6, 0.998, (scale**2 * observed,))
        assert latent_correlation(confidence, scale * residuals, clusters) == pytest.approx(expected, abs=5e-4)
    assert latent_correlation(confidence, residuals * [1, -1, 1, -1], clusters) == 0


def test_the_noise_floor_rises_where_rows_come_together():
    log_p, y = draw_pictures(np.random.default_rng(14))
    p = np.exp(log_p)
    right = (p.argmax(1) == y).astype(float)
    alone = noise_floor(p.max(1), np.random.default_rng(0))
    pictures = noise_floor(p.max(1), np.random.default_rng(0), right=right, clusters=CLUSTERS)
    assert pictures["floor_95"] > 1.15 * alone["floor_95"] and pictures["floor_mean"] > 1.15 * alone["floor_mean"]
    each = noise_floor(p.max(1), np.random.default_rng(0), right=right, clusters=np.arange(400))
    assert each == alone  # rows with pictures of their own do not come together


@pytest.mark.simulation
def test_a_threshold_keeps_its_promise_over_pictures():
    rng = np.random.default_rng(15)
    new_log_p, new_y = draw_pictures(rng, 50_000)
    sure, hit = np.exp(new_log_p).max(1), new_log_p.argmax(1) == new_y
    broken, broken_by_rows, promised = 0, 0, 0
    for _ in range(300):
        log_p, y = draw_pictures(rng)
        confidence, right = np.exp(log_p).max(1), (log_p.argmax(1) == y).astype(float)
        chosen = threshold_for(confidence, right, 0.8, clusters=CLUSTERS)
        other = threshold_for(confidence, right, 0.8)
        promised += chosen["threshold"] is not None
        broken += chosen["threshold"] is not None and hit[sure >= chosen["threshold"]].mean() < 0.8
        broken_by_rows += other["threshold"] is not None and hit[sure >= other["threshold"]].mean() < 0.8
    assert promised > 50 and broken <= 15 and broken_by_rows > broken


def test_raw_logits_need_no_softmax_first():
    """Scores do not depend on what is added to all options of a row."""
    log_p, y = draw_pictures(np.random.default_rng(16))
    shifted = log_p + np.random.default_rng(17).normal(size=(400, 1))
    scores, shifted_scores = (
        efficient_scores(values, y, 1.3, [values], [np.where(np.arange(400)[:, None] < 200, values, 0)])
        for values in (log_p, shifted)
    )
    assert np.allclose(scores, shifted_scores, atol=1e-6)
    assert np.allclose(log_softmax(shifted, axis=1), log_p)
