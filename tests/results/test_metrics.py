"""Metrics against other people's implementations and against brute force."""

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, recall_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import proportion_confint

from scoring.results.compare import mcnemar
from scoring.results.metrics import accuracy, ece, evaluate, measure, noise_floor, row_brier, row_nll, wilson


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
    assert measure(p, y)["ece"]["value"] == pytest.approx(total / 203, abs=1e-7)


def test_the_noise_floor_is_that_of_a_perfect_model():
    """Not 0, and falling with the square root of the rows; a perfectly calibrated model lies within it."""
    floors = {}
    for rows in (400, 2000):
        p, y = answers(rows, seed=1)
        found = measure(p, y)["ece"]
        assert found["value"] < found["floor_95"] * 1.2
        floors[rows] = found["floor_mean"]
    assert 0.03 < floors[400] < 0.08 and floors[400] / floors[2000] == pytest.approx(5**0.5, rel=0.1)


def test_over_confidence_stands_out_of_the_floor():
    p, y = answers(400, seed=2)
    sharp = p**4 / (p**4).sum(1, keepdims=True)
    found = measure(sharp, y)["ece"]
    assert found["value"] > 2 * found["floor_95"]


def test_groups_and_single_rows():
    p, y = answers(30)
    found = evaluate(p, y, {"task_type": ["x"] * 29 + ["y"]})
    assert found["by"]["task_type"]["y"]["rows"] == 1 and found["overall"]["rows"] == 30
    assert evaluate(p, y, {"task_type": ["x"] * 30})["by"] == {}
    assert evaluate(p, y) == evaluate(p, y)  # the same seed each time


def test_rows_with_fewer_options():
    p = np.array([[0.6, 0.4, np.nan], [0.2, 0.3, 0.5]])
    assert accuracy(p, np.array([0, 2]))["value"] == 1
    assert row_brier(p, np.array([0, 2])) == pytest.approx([0.32, 0.38])


def by_hand(p, y):
    """The figures that no library has, in loops."""
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    order = np.argsort(confidence, kind="stable")
    squared = 0.0
    for part in np.array_split(order, 15):
        share, sure = right[part].mean(), confidence[part].mean()
        squared += len(part) * ((share - sure) ** 2 - share * (1 - share) / (len(part) - 1)) / len(y)
    classes = []
    for letter in range(p.shape[1]):
        parts = np.array_split(np.argsort(p[:, letter], kind="stable"), 15)
        gaps = [len(part) * abs((y[part] == letter).mean() - p[part, letter].mean()) for part in parts]
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
    found = measure(p, y)
    for name, value in by_hand(p, y).items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-6), name
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(p.argmax(1) == y, p.max(1)), abs=1e-9)
    assert found["recall_std"]["value"] == pytest.approx(np.std(recall_score(y, p.argmax(1), average=None)), abs=1e-6)
    assert [part["recall"] for part in found["letters"]] == pytest.approx(recall_score(y, p.argmax(1), average=None))
    for name in ("nll", "brier", "ece", "smooth_ece", "auroc", "aurc"):
        assert found[name]["low"] < found[name]["high"]


def test_the_smooth_calibration_error_is_that_of_its_definition():
    """The width that equals the integral of the smoothed residuals, by a sum over a fine grid."""
    p, y = answers(300, seed=4)
    p = p**3 / (p**3).sum(1, keepdims=True)
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    width = measure(p, y)["smooth_ece"]["value"]
    grid = (np.arange(4000) + 0.5) / 4000
    total = np.zeros_like(grid)
    for shift, sign in ((-2, 1), (0, 1), (2, 1), (0, -1), (2, -1)):  # the kernel, reflected at 0 and 1
        at = sign * confidence + shift
        total += (right - confidence) @ np.exp(-((grid - at[:, None]) ** 2) / (2 * width**2))
    integral = np.abs(total).mean() / (width * np.sqrt(2 * np.pi)) / len(y)
    assert integral == pytest.approx(width, abs=2e-4)


def test_ties_count_half():
    p = np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4], [0.9, 0.1]])
    found = measure(p, np.array([0, 1, 0, 0]))
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score([1, 0, 1, 1], [0.6, 0.6, 0.6, 0.9]))


def test_the_bootstrap_agrees_with_scipys():
    p, y = answers(400, seed=5)
    loss = row_nll(p, y)
    theirs = bootstrap((loss,), np.mean, method="percentile", rng=0).confidence_interval
    ours = measure(p, y)["nll"]
    assert ours["low"] == pytest.approx(theirs.low, abs=0.015) and ours["high"] == pytest.approx(theirs.high, abs=0.015)


def test_rows_of_one_picture_are_drawn_together():
    """Four rows that are always right or wrong together are worth one: the interval is twice as wide."""
    p, y = answers(100, seed=6)
    p, y = np.repeat(p, 4, 0), np.repeat(y, 4)
    alone, together = measure(p, y), measure(p, y, np.repeat(np.arange(100), 4))
    widths = [found["nll"]["high"] - found["nll"]["low"] for found in (alone, together)]
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
    found = measure(p, y)
    for name, value in found.items():
        if isinstance(value, dict):
            assert all(part is None or np.isfinite(part) for part in value.values()), name
    assert (found["auroc"]["value"] is None) == (case in ("all right", "all wrong", "one row", "certain"))


def test_the_noise_floor_by_itself():
    p, _ = answers(400, seed=1)
    floor = noise_floor(p.max(1), np.random.default_rng(1))
    drawn = [ece(p.max(1), (np.random.default_rng(seed).random(400) < p.max(1)).astype(float)) for seed in range(200)]
    assert floor["floor_mean"] == pytest.approx(np.mean(drawn), abs=0.003)
    assert floor["floor_95"] == pytest.approx(np.quantile(drawn, 0.95), abs=0.006)
