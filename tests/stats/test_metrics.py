"""Metrics against other people's implementations and against brute force."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, recall_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from scoring.stats.metrics import (
    CELLS,
    Sums,
    _figures,
    _vectors,
    accuracy,
    aurc,
    auroc,
    ece,
    evaluate,
    measure,
    measure_members,
    noise_floor,
    row_brier,
    row_nll,
    smooth_error,
    smooth_width,
    smoothed,
)
from scoring.stats.resampling import mcnemar, wilson
from tests.shared.predictions import members


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
    total = sum(len(rows) * abs(right[rows].mean() - confidence[rows].mean()) for rows in np.array_split(order, 15))
    assert ece(confidence, right) == pytest.approx(total / 203, abs=1e-12)
    assert measure(p, y)["ece"]["value"] == pytest.approx(total / 203, abs=1e-7)
    total = sum(len(rows) * abs(right[rows].mean() - confidence[rows].mean()) for rows in np.array_split(order, 4))
    assert ece(confidence, right, 4) == pytest.approx(total / 203, abs=1e-12)


def test_the_noise_floor_is_that_of_a_perfect_model():
    """Not 0, and falling with the square root of the rows; a perfectly calibrated model lies within it."""
    floors = {}
    for rows in (400, 2000):
        p, y = answers(rows, seed=1)
        calibration_error = measure(p, y)["ece"]
        assert calibration_error["value"] < calibration_error["floor_95"] * 1.2
        floors[rows] = calibration_error["floor_mean"]
    assert 0.03 < floors[400] < 0.08 and floors[400] / floors[2000] == pytest.approx(5**0.5, rel=0.1)


def test_over_confidence_lies_far_above_the_noise_floor():
    p, y = answers(400, seed=2)
    sharp = p**4 / (p**4).sum(1, keepdims=True)
    calibration_error = measure(sharp, y)["ece"]
    assert calibration_error["value"] > 2 * calibration_error["floor_95"]


def test_groups_are_measured_down_to_a_single_row():
    p, y = answers(30)
    metrics = evaluate(p, y, {"task_type": ["x"] * 29 + ["y"]})
    assert metrics["by"]["task_type"]["y"]["rows"] == 1 and metrics["overall"]["rows"] == 30
    assert evaluate(p, y, {"task_type": ["x"] * 30})["by"] == {}
    assert evaluate(p, y) == evaluate(p, y)  # the same seed each time


def test_missing_options_do_not_count_in_accuracy_and_brier():
    p = np.array([[0.6, 0.4, np.nan], [0.2, 0.3, 0.5]])
    assert accuracy(p, np.array([0, 2]))["value"] == 1
    assert row_brier(p, np.array([0, 2])) == pytest.approx([0.32, 0.38])


def by_hand(p, y):
    """The figures that no library has, in loops."""
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    order = np.argsort(confidence, kind="stable")
    squared = 0.0
    for rows in np.array_split(order, 15):
        share, sure = right[rows].mean(), confidence[rows].mean()
        squared += len(rows) * ((share - sure) ** 2 - share * (1 - share) / (len(rows) - 1)) / len(y)
    classes = []
    for letter in range(p.shape[1]):
        bins = np.array_split(np.argsort(p[:, letter], kind="stable"), 15)
        gaps = [len(rows) * abs((y[rows] == letter).mean() - p[rows, letter].mean()) for rows in bins]
        classes.append(sum(gaps) / len(y))
    surest = np.argsort(-confidence, kind="stable")
    risks = [1 - right[surest[: count + 1]].mean() for count in range(len(y))]
    recall = [(p[y == letter].argmax(1) == letter).mean() for letter in range(p.shape[1])]
    return {
        "rms_calibration_error": max(squared, 0) ** 0.5,
        "classwise_ece": np.mean(classes),
        "aurc": np.mean(risks),
        "recall_std": np.std(recall),
    }


@pytest.mark.parametrize("sharpness, rows", [(1, 400), (4, 203), (0.3, 90)])
def test_the_other_figures_equal_loops_and_scikit_learn(sharpness, rows):
    p, y = answers(rows, seed=3)
    p = p**sharpness / (p**sharpness).sum(1, keepdims=True)
    metrics = measure(p, y)
    for name, value in by_hand(p, y).items():
        assert metrics[name]["value"] == pytest.approx(value, abs=1e-6), name
    assert metrics["auroc"]["value"] == pytest.approx(roc_auc_score(p.argmax(1) == y, p.max(1)), abs=1e-9)
    recalls = recall_score(y, p.argmax(1), average=None)
    assert metrics["recall_std"]["value"] == pytest.approx(np.std(recalls), abs=1e-6)
    assert [letter["recall"] for letter in metrics["letters"]] == pytest.approx(recalls)
    for index, letter in enumerate(metrics["letters"]):
        assert list(letter) == ["rows", "recall", "predicted"] and letter["rows"] == (y == index).sum()
        assert letter["predicted"] == (p.argmax(1) == index).mean()
    for name in ("nll", "brier", "ece", "smooth_ece", "auroc", "aurc"):
        assert metrics[name]["low"] < metrics[name]["high"]


def test_the_smooth_calibration_error_is_that_of_its_definition():
    """The width that equals the integral of the smoothed residuals, by a sum over a fine grid."""
    p, y = answers(300, seed=4)
    p = p**3 / (p**3).sum(1, keepdims=True)
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    width = measure(p, y)["smooth_ece"]["value"]
    grid = (np.arange(4000) + 0.5) / 4000
    total = np.zeros_like(grid)
    for shift, sign in ((-2, 1), (0, 1), (2, 1), (0, -1), (2, -1)):  # the kernel, reflected at 0 and 1
        centers = sign * confidence + shift
        total += (right - confidence) @ np.exp(-((grid - centers[:, None]) ** 2) / (2 * width**2))
    integral = np.abs(total).mean() / (width * np.sqrt(2 * np.pi)) / len(y)
    assert integral == pytest.approx(width, abs=2e-4)


def test_equal_confidences_count_half_in_auroc():
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    metrics = measure(p, np.array([0, 1, 0, 0]))
    assert metrics["auroc"]["value"] == pytest.approx(roc_auc_score([1, 0, 1, 1], [0.6, 0.6, 0.6, 0.9]))


def test_the_bootstrap_agrees_with_that_of_scipy():
    p, y = answers(400, seed=5)
    loss = row_nll(p, y)
    reference = bootstrap((loss,), np.mean, method="percentile", rng=0).confidence_interval
    interval = measure(p, y)["nll"]
    assert interval["low"] == pytest.approx(reference.low, abs=0.015)
    assert interval["high"] == pytest.approx(reference.high, abs=0.015)


def test_rows_of_one_picture_are_drawn_together():
    """Four rows that are always right or wrong together are worth one: the interval is twice as wide."""
    p, y = answers(100, seed=6)
    p, y = np.repeat(p, 4, 0), np.repeat(y, 4)
    alone, together = measure(p, y), measure(p, y, np.repeat(np.arange(100), 4))
    widths = [metrics["nll"]["high"] - metrics["nll"]["low"] for metrics in (alone, together)]
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("case", ["all right", "all wrong", "one row", "one answer", "certain", "two options"])
def test_degenerate_rows_give_numbers_or_none(case):
    p, y = answers(60, seed=7)
    if case == "all right":
        y = p.argmax(1)
    elif case == "all wrong":
        y = p.argmin(1)
    elif case == "one row":
        p, y = p[:1], y[:1]
    elif case == "one answer":
        y[:] = 0
    elif case == "certain":
        p = np.eye(4)[y]
    else:
        p = np.where(np.arange(4) < 2, p, np.nan)
        p, y = p / np.nansum(p, 1, keepdims=True), y % 2
    metrics = measure(p, y)
    for name, value in metrics.items():
        if isinstance(value, dict):
            assert all(figure is None or np.isfinite(figure) for figure in value.values()), name
    assert (metrics["auroc"]["value"] is None) == (case in ("all right", "all wrong", "one row", "certain"))


def test_the_noise_floor_equals_that_of_simulated_answers():
    p, _ = answers(400, seed=1)
    floor = noise_floor(p.max(1), np.random.default_rng(1))
    errors = [ece(p.max(1), (np.random.default_rng(seed).random(400) < p.max(1)).astype(float)) for seed in range(200)]
    assert floor["floor_mean"] == pytest.approx(np.mean(errors), abs=0.003)
    assert floor["floor_95"] == pytest.approx(np.quantile(errors, 0.95), abs=0.006)


def spread(residuals, width):
    """Sums of residuals by a Gaussian over the middles of cells and over what is reflected at 0 and 1."""
    middles = (np.arange(CELLS) + 0.5) / CELLS
    kernel = np.zeros((CELLS, CELLS))
    for shift in range(-8, 9, 2):
        for mirrored in (middles, -middles):
            kernel += np.exp(-0.5 * ((middles[:, None] - mirrored - shift) / width) ** 2)
    return (kernel / kernel.sum(0)) @ residuals


@pytest.mark.parametrize("width", [0.004, 0.03, 0.2, 0.9])
def test_smoothing_equals_a_sum_over_reflected_kernels(width):
    residuals = np.random.default_rng(0).normal(size=(2, CELLS))
    smooth = smoothed(residuals, width)
    for values, row in zip(smooth, residuals):
        assert values == pytest.approx(spread(row, width), abs=2e-5 * np.abs(spread(row, width)).max())
    assert smooth_error(residuals, width) == pytest.approx(np.abs(smooth).sum(1))


def test_the_width_is_where_the_smooth_error_meets_it():
    rng, residuals = np.random.default_rng(1), np.zeros(CELLS)
    residuals[rng.integers(100, 500, 60)] = 0.002 * rng.normal(0.5, 1, 60)
    expected = brentq(lambda width: np.abs(spread(residuals, width)).sum() - width, 0.01, 0.2, xtol=1e-6)
    assert smooth_width(residuals) == pytest.approx(expected, abs=1e-5)


def test_auroc_needs_right_and_wrong_answers():
    assert np.isnan(auroc(np.array([0.2, 0.5]), np.ones(2))) and np.isnan(auroc(np.array([0.2, 0.5]), np.zeros(2)))
    assert auroc(np.array([0.2, 0.5, 0.5]), np.array([0.0, 1, 0])) == 0.75


def test_equally_sure_rows_stay_in_their_order_along_the_curve_of_risk():
    confidence = np.tile([0.5, 0.9], 150)
    right = (np.random.default_rng(0).random(300) < 0.6).astype(float)
    wrong = 1 - np.r_[right[1::2], right[::2]]
    assert aurc(confidence, right) == pytest.approx(np.mean([wrong[: row + 1].mean() for row in range(300)]))


def test_figures_of_a_draw_are_those_of_rows_that_are_repeated_so_often():
    """Each draw by itself: rows in the order of their confidence, as often as they were drawn."""
    rng = np.random.default_rng(2)
    right, weights = (rng.random(9) < 0.6).astype(float), rng.integers(0, 4, (3, 9))
    sums = Sums(9)
    for name, values in (("one", np.ones(9)), ("nll", np.arange(9)), ("brier", np.arange(9) ** 2)):
        sums.add(name, values)
    sums.add("rank right", right, np.arange(9), 9)
    sums.add("rank wrong", 1 - right, np.arange(9), 9)
    figures = _figures(sums.of(weights.astype(np.float32)), 1.0)
    for draw, times in enumerate(weights):
        order = np.repeat(np.arange(9), times)
        hit = right[order]
        assert figures["nll"][draw] == pytest.approx(order.mean())
        assert figures["brier"][draw] == pytest.approx((order**2).mean())
        assert figures["auroc"][draw] == pytest.approx(roc_auc_score(hit, -order))
        risks = [1 - hit[order <= row].mean() for row in order]
        assert figures["aurc"][draw] == pytest.approx(np.mean(risks))
    halves = _figures(sums.of(np.ones((1, 9), np.float32)), 0.5)["aurc"][0]  # half of a cell has been seen, on average
    wrong = 1 - right
    risks = [(wrong[:row].sum() + wrong[row] / 2) / (row + 0.5) for row in range(9)]
    assert halves == pytest.approx(np.mean(risks))
    none = _figures(sums.of(right[None].astype(np.float32)), 1.0)
    assert np.isnan(none["auroc"][0]) and none["aurc"][0] == 0


def test_vectors_of_each_draw_are_as_worked_out_by_hand():
    """Bins of two rows, three letters of which one draw lacks the last, another has it once."""
    y, bins = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 2])
    right, confidence = np.array([1.0, 0, 1, 1, 0, 1]), np.array([0.3, 0.4, 0.5, 0.6, 0.8, 0.9])
    sums = Sums(6)
    sums.add("one", np.ones(6))
    for name, values in (("bin", np.ones(6)), ("bin right", right), ("bin confidence", confidence)):
        sums.add(name, values, bins, 3)
    for letter in range(3):
        sums.add(f"gap {letter}", (y == letter) - confidence, bins, 3)
    sums.add("letter", np.ones(6), y, 3)
    sums.add("letter right", right, y, 3)
    sums.add("cell", right - confidence, (confidence * CELLS).astype(int), CELLS)
    weights = np.array([[1, 1, 1, 1, 1, 1], [2, 1, 3, 1, 0, 0], [0, 3, 1, 1, 0, 1]])
    vectors = _vectors(sums.of(weights.astype(np.float32)), 3, 0.1)
    for draw, times in enumerate(weights):
        total = times.sum()
        by_bin = [times * (bins == number) for number in range(3)]
        gaps = np.array([counts @ (right - confidence) for counts in by_bin])
        sizes = np.array([counts.sum() for counts in by_bin])
        assert vectors["ece"][draw] == pytest.approx(gaps / total, abs=1e-6)
        rms = np.where(sizes > 0, gaps / np.sqrt(np.maximum(sizes, 1) * total), 0)
        assert vectors["rms_calibration_error"][draw] == pytest.approx(rms, abs=1e-6)
        classes = [counts @ ((y == letter) - confidence) / total / 3 for letter in range(3) for counts in by_bin]
        assert vectors["classwise_ece"][draw] == pytest.approx(np.array(classes), abs=1e-6)
        recall = [np.average(right[y == k], weights=times[y == k]) if times[y == k].any() else None for k in range(3)]
        known = [share for share in recall if share is not None]
        deviations = [0 if share is None else (share - np.mean(known)) / np.sqrt(len(known)) for share in recall]
        assert vectors["recall_std"][draw] == pytest.approx(np.array(deviations), abs=1e-6)
        cells = np.bincount((confidence * CELLS).astype(int), times * (right - confidence), CELLS)
        assert vectors["smooth_ece"][draw] == pytest.approx(spread(cells / total, 0.1), abs=1e-6)


def test_members_have_the_figures_that_each_would_have_alone():
    p, y = answers(300, seed=8)
    other = p**2 / (p**2).sum(1, keepdims=True)
    clusters = np.repeat(np.arange(100), 3)
    measured = measure_members(np.stack([p, other]), y, clusters)
    for metrics, alone in zip(measured, (measure(p, y, clusters), measure(other, y, clusters))):
        assert list(metrics) == ["accuracy", "nll", "brier", "ece"]
        floor = {name: metrics["ece"].pop(name) for name in ("floor_mean", "floor_95")}
        expected = {name: alone["ece"].pop(name) for name in floor}
        for name in metrics:
            assert metrics[name] == pytest.approx(alone[name], abs=1e-6), name
        assert floor == pytest.approx(expected, rel=0.12)
    assert measure_members(np.stack([p, other]), y, clusters) == measure_members(np.stack([p, other]), y, clusters, 0)
    lacking = np.where(np.arange(4) < 3, p / p[:, :3].sum(1, keepdims=True), np.nan)
    assert measure_members(lacking[None], y % 3)[0]["nll"] == pytest.approx(measure(lacking, y % 3)["nll"], abs=1e-6)


def test_members_are_measured_as_one_alone_is():
    log_p, y = members(3, 400)
    clusters = np.arange(400) // 2
    for p, metrics in zip(np.exp(log_p), measure_members(np.exp(log_p), y, clusters)):
        alone = measure(p, y, clusters)
        assert metrics["accuracy"] == alone["accuracy"]
        for name in ("nll", "brier", "ece"):
            assert metrics[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-5)
            assert metrics[name]["low"] == pytest.approx(alone[name]["low"], rel=0.05)
            assert metrics[name]["high"] == pytest.approx(alone[name]["high"], rel=0.05)
        assert metrics["ece"]["floor_95"] == pytest.approx(alone["ece"]["floor_95"], rel=0.15)


def test_rows_of_one_group_of_ranks_are_ties_in_the_auroc_of_a_draw():
    rng = np.random.default_rng(3)
    right, weights = (rng.random(12) < 0.6).astype(float), rng.integers(0, 4, (3, 12))
    group = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    sums = Sums(12)
    for name in ("one", "nll", "brier"):
        sums.add(name, np.ones(12))
    sums.add("rank right", right, group, 3)
    sums.add("rank wrong", 1 - right, group, 3)
    figures = _figures(sums.of(weights.astype(np.float32)), 1.0)
    for draw, times in enumerate(weights):
        assert figures["auroc"][draw] == pytest.approx(roc_auc_score(right, -group, sample_weight=times))


def test_intervals_of_ranks_agree_with_a_bootstrap_of_the_rows():
    p, y = answers(300, seed=9)
    confidence, right, metrics = p.max(1), (p.argmax(1) == y).astype(float), measure(p, y)
    drawn = np.random.default_rng(0).integers(0, 300, (400, 300))
    for name, metric in (("auroc", auroc), ("aurc", aurc)):
        low, high = np.quantile([metric(confidence[rows], right[rows]) for rows in drawn], [0.025, 0.975])
        assert metrics[name]["low"] == pytest.approx(low, abs=0.015), name
        assert metrics[name]["high"] == pytest.approx(high, abs=0.015), name


def test_errors_of_both_signs_do_not_cancel_in_the_smooth_error():
    """Confidence .55 where all are right and .95 where half are: +.45 and -.45, each at its own confidence."""
    confidence = np.repeat([0.55, 0.95], 40)
    y = np.r_[np.zeros(60, int), np.ones(20, int)]
    residuals = np.zeros(CELLS)
    residuals[int(0.55 * CELLS)], residuals[int(0.95 * CELLS)] = 0.45 * 40 / 80, -0.45 * 40 / 80
    expected = brentq(lambda width: np.abs(spread(residuals, width)).sum() - width, 0.05, 0.9, xtol=1e-5)
    value = measure(np.stack([confidence, 1 - confidence], 1), y)["smooth_ece"]["value"]
    assert value == pytest.approx(expected, abs=1e-4) and value > 0.2


def test_too_much_confidence_is_no_correlation_of_a_pictures_hits():
    rng = np.random.default_rng(5)
    confidence, clusters = np.repeat(rng.uniform(0.6, 0.99, 500), 4), np.repeat(np.arange(500), 4)
    right = (rng.random(2000) < confidence - 0.3).astype(float)
    together = noise_floor(confidence, np.random.default_rng(0), right=right, clusters=clusters)
    assert together == pytest.approx(noise_floor(confidence, np.random.default_rng(0)), rel=0.15)


def test_the_noise_floor_of_pictures_is_that_of_simulated_pictures():
    """Four copies of each row are right or wrong together."""
    p, y = answers(100, seed=10)
    p, y, clusters = np.repeat(p, 4, 0), np.repeat(y, 4), np.repeat(np.arange(100), 4)
    rng, confidence = np.random.default_rng(1), p.max(1)
    errors = [ece(confidence, (rng.random(100)[clusters] < confidence).astype(float)) for _ in range(400)]
    floor = measure(p, y, clusters)["ece"]  # the correlation is estimated from these hits
    assert floor["floor_mean"] == pytest.approx(np.mean(errors), rel=0.2)
    assert floor["floor_95"] == pytest.approx(np.quantile(errors, 0.95), rel=0.2)
    assert noise_floor(confidence, np.random.default_rng(1))["floor_95"] < 0.7 * floor["floor_95"]


@pytest.mark.parametrize("rows", [20, 1200])  # groups of one row, and of several
def test_where_all_are_wrong_the_risk_is_one_in_every_draw(rows):
    p, _ = answers(rows, seed=11)
    assert measure(p, p.argmin(1))["aurc"] == pytest.approx({"value": 1, "low": 1, "high": 1}, abs=1e-6)
