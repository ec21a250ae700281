"""Temperatures: right on simulated data, safe on degenerate data."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize, minimize_scalar, root
from scipy.special import log_softmax, softmax

from scoring.files.reading import FileError
from scoring.stats.calibration import (
    BOUNDS,
    Calibration,
    LabelledRows,
    _gain_text,
    calibrate,
    efficient_scores,
    fit_groups,
    fit_letters,
    fit_temperature,
    groups_of,
    log_probabilities,
    nll,
    read_calibration,
    standard_error,
)


def simulated(n, temperature, seed=0, k=4):
    """Logits whose right temperature is known: labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, k)).astype(np.float32)
    p = softmax(logits / temperature, axis=1)
    return logits, np.array([rng.choice(k, p=row) for row in p])


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_is_recovered_within_four_standard_errors(true, seed):
    logits, y = simulated(1000, true, seed)
    fitted = fit_temperature(logits, y)
    assert abs(np.log(fitted.temperature / true)) <= 4 * fitted.standard_error
    new_logits, new_y = simulated(5000, true, seed + 100)
    assert nll(new_logits, new_y, fitted.temperature) - nll(new_logits, new_y, true) <= 0.005


def test_the_temperature_equals_scikit_learns():
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    logits, y = simulated(600, 1.8)

    class Given(ClassifierMixin, BaseEstimator):
        classes_ = np.arange(4)

        def __sklearn_is_fitted__(self):
            return True

        def fit(self, x, y):
            return self

        def predict(self, x):
            return x.argmax(1)

        def decision_function(self, x):
            return x

    reference = CalibratedClassifierCV(FrozenEstimator(Given()), method="temperature").fit(logits.astype(float), y)
    p = np.exp(log_probabilities(logits, fit_temperature(logits, y).temperature))
    assert np.abs(reference.predict_proba(logits.astype(float)) - p).max() < 2e-3


@pytest.mark.parametrize("case", ["perfect", "wrong", "one class", "constant"])
def test_degenerate_data_gives_a_finite_temperature(case):
    logits, y = simulated(200, 1.0)
    if case == "perfect":
        y = logits.argmax(1)
    elif case == "wrong":
        y = logits.argmin(1)
    elif case == "one class":
        y[:] = 0
    else:
        logits[:] = 1
    fitted = fit_temperature(logits, y)
    assert BOUNDS[0] <= fitted.temperature <= BOUNDS[1] and np.isfinite(fitted.nll_after)
    assert fitted.nll_after <= fitted.nll_before + 1e-12
    assert fitted.note or case in ("one class", "constant")


def test_too_few_rows_keep_temperature_1_and_are_noted():
    logits, y = simulated(19, 2.0)
    fitted = fit_temperature(logits, y)
    assert fitted.temperature == 1 and "19" in fitted.note


def test_missing_options_have_no_probability():
    logits = np.array([[1.0, 2.0, np.nan], [0.0, 0.0, 0.0], [np.nan] * 3], np.float32)
    log_p = log_probabilities(logits, 2.0)
    assert np.exp(log_p[0, :2]).sum() == pytest.approx(1) and np.isnan(log_p[0, 2]) and np.isnan(log_p[2]).all()
    assert np.allclose(log_p[1], np.log(1 / 3))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(-100, 100),
    st.floats(0.05, 20),
)
def test_log_probabilities_are_the_softmax_of_divided_logits(rows, shift, temperature):
    logits = np.array(rows)
    log_p = log_probabilities(logits, temperature)
    assert np.abs(np.exp(log_p).sum(1) - 1).max() < 1e-6
    assert np.allclose(log_p, log_probabilities(logits + shift, temperature), atol=1e-6)
    assert np.allclose(log_p[:, ::-1], log_probabilities(logits[:, ::-1], temperature), atol=1e-9)
    assert np.allclose(log_p, log_softmax(logits / temperature, axis=1), atol=1e-9)
    assert (log_p[np.arange(len(logits)), logits.argmax(1)] >= log_p.max(1) - 1e-12).all()


def test_rows_that_are_all_right_keep_temperature_1():
    logits, _ = simulated(200, 1.0)
    fitted = fit_temperature(logits, logits.argmax(1))
    assert fitted.temperature == 1 and "all 200 rows are right" in fitted.note


def draw_answers(z, rng):
    return (softmax(z, axis=1).cumsum(1) > rng.random((len(z), 1))).argmax(1)


def test_letters_equal_a_conditional_logit_of_statsmodels():
    from statsmodels.discrete.conditional_models import ConditionalLogit

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (800, 4))
    y = draw_answers(logits / 1.6 + [0, 0.8, -0.5, 0.2], rng)
    calibration = fit_letters(logits, y)
    chosen = np.zeros((800, 4))
    chosen[np.arange(800), y] = 1
    letters = np.tile(np.eye(4)[:, 1:], (800, 1))
    columns = np.c_[logits.ravel(), letters]
    model = ConditionalLogit(chosen.ravel(), columns, groups=np.repeat(np.arange(800), 4))
    reference = model.fit(disp=False).params
    fitted = np.array([1 / calibration.temperature, *calibration.letters[1:]])
    assert np.abs(fitted - reference).max() < 1e-3 and calibration.letters[0] == 0
    exact = root(model.score, reference, tol=1e-12).x  # statsmodels' own equations, to the end
    assert np.abs(fitted - exact).max() < 1e-6


def test_the_temperature_is_the_root_of_its_equation():
    """Where the mean logit of the answers is what the probabilities expect."""
    for seed, true in ((0, 0.6), (1, 1.7), (2, 6.0)):
        logits, y = simulated(700, true, seed)
        z = logits.astype(float)

        def slope(log_t, z=z, y=y):
            return ((softmax(z / np.exp(log_t), axis=1) * z).sum(1) - z[np.arange(len(y)), y]).sum()

        exact = brentq(slope, -2, 3, xtol=1e-14)
        assert abs(np.log(fit_temperature(logits, y).temperature) - exact) < 1e-6


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.2, 6), st.integers(20, 80), st.integers(2, 6))
def test_a_fit_never_raises_the_loss_nor_changes_an_answer(seed, temperature, rows, letters):
    logits, y = simulated(rows, temperature, seed, letters)
    fitted = calibrate(LabelledRows(logits, y), temperature_only=True)
    assert fitted.nll_after <= fitted.nll_before + 1e-9
    log_p = fitted.apply(logits)
    assert (log_p[np.arange(rows), logits.argmax(1)] >= log_p.max(1) - 1e-12).all()
    assert np.abs(np.exp(log_p).sum(1) - 1).max() < 1e-6


def test_few_rows_that_happen_to_be_right_make_nothing_surer():
    notes = []
    for seed in range(20):
        fitted = fit_temperature(*simulated(60, 0.85, seed))
        notes.append(fitted.note)
        assert fitted.temperature >= 1 or 2 * 60 * (fitted.nll_before - fitted.nll_after) > 3.84
    assert sum("not significantly" in note for note in notes) > 5
    logits, y = simulated(4000, 0.7, seed=3)
    assert fit_temperature(logits, y).temperature == pytest.approx(0.7, rel=0.1)


def test_a_letter_bias_is_taken_only_where_the_rows_show_one():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (600, 4))
    biased = calibrate(LabelledRows(logits, draw_answers(logits / 1.5 + [0, 0, 0, 1.0], rng), ["t"] * 600))
    assert (
        biased.letters and biased.letters[3] == pytest.approx(1, abs=0.4) and "letter bias: earned" in biased.choice[1]
    )
    false_alarms = sum(
        bool(calibrate(LabelledRows(logits, draw_answers(logits / 1.5, rng), ["t"] * 600)).letters) for _ in range(40)
    )
    assert false_alarms <= 6  # a 5 % test
    assert not calibrate(
        LabelledRows(logits, draw_answers(logits / 1.5 + [0, 0, 0, 1.0], rng), ["t"] * 600), one_order=False
    ).letters
    assert (
        "no answer of these rows is d"
        in calibrate(LabelledRows(logits, draw_answers(logits[:, :3], rng), ["t"] * 600)).choice[1]
    )


def test_task_types_get_their_own_temperature_where_they_differ():
    rng = np.random.default_rng(2)
    logits, types = rng.normal(0, 3, (900, 4)), np.repeat(["x", "y", "z"], 300)
    y = draw_answers(logits / np.repeat([0.7, 1.5, 4.0], 300)[:, None], rng)
    fitted = calibrate(LabelledRows(logits, y, types.tolist()))
    assert fitted.groups["x"] < 1 < fitted.groups["y"] < fitted.groups["z"]
    assert "by task type: earned" in fitted.choice[2]
    assert nll(logits, y, np.array([fitted.groups[name] for name in types])[:, None]) == pytest.approx(fitted.nll_after)
    p = fitted.apply(logits, types.tolist())
    assert np.allclose(p[0], log_probabilities(logits[:1], fitted.groups["x"])[0])
    assert np.allclose(fitted.apply(logits[:1], ["new"])[0], log_probabilities(logits[:1], fitted.temperature)[0])
    same = fit_groups(LabelledRows(logits, draw_answers(logits / 1.5, rng), types.tolist()))
    assert max(same.groups.values()) / min(same.groups.values()) < 1.25  # shrunk together
    few = calibrate(LabelledRows(logits[:150], y[:150], ["x"] * 75 + ["y"] * 75))
    assert not few.groups and "too few task types with 100 rows" in few.choice[2]


@pytest.mark.parametrize("case", ["none", "few", "perfect", "wrong", "one class", "constant", "nan"])
def test_degenerate_rows_give_a_valid_calibration(case):
    logits, y = simulated(200, 1.0)
    if case == "none":
        logits, y = logits[:0], y[:0]
    elif case == "few":
        logits, y = logits[:12], y[:12]
    elif case == "perfect":
        y = logits.argmax(1)
    elif case == "wrong":
        y = logits.argmin(1)
    elif case == "one class":
        y[:] = 0
    elif case == "constant":
        logits[:] = 1
    else:
        logits[np.arange(200), (y + 1) % 4] = np.nan
    fitted = calibrate(LabelledRows(logits, y, ["t"] * len(y)))
    assert BOUNDS[0] <= fitted.temperature <= BOUNDS[1] and fitted.choice
    assert not len(y) or fitted.nll_after <= fitted.nll_before + 1e-9
    assert len(fitted.nonconformity) == len(y)
    again = Calibration.from_json(fitted.to_json(), "a test")
    assert again.temperature == fitted.temperature and again.choice == fitted.choice


def test_the_gain_is_that_of_held_out_rows():
    logits, y = simulated(500, 2.5, seed=9)
    fitted = calibrate(LabelledRows(logits, y))
    assert 0 < fitted.gain < fitted.nll_before and fitted.gain_error > 0
    assert fitted.gain == pytest.approx(fitted.nll_before - fitted.nll_after, abs=0.02)
    clean, y = simulated(500, 1.0, seed=9)
    assert abs(calibrate(LabelledRows(clean, y)).gain) < 0.01


def losses_of(z, y, temperature=1.0):
    z = np.where(np.isnan(z), -np.inf, z.astype(float)) / temperature
    return -log_softmax(z, axis=1)[np.arange(len(y)), y]


def likeliest_temperature(z, y):
    """By a bounded search over log T."""
    optimum = minimize_scalar(
        lambda log_t: losses_of(z, y, np.exp(log_t)).mean(), bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(optimum.x))


def held_out_by_a_loop(z, y, pictures, temperature_of=likeliest_temperature):
    """(N, K) probabilities of rows by a temperature fitted on other pictures; from 100 on, on four parts of five."""
    fold_of = np.arange(pictures.max() + 1)
    if len(np.unique(pictures)) >= 100:
        fold_of = np.random.default_rng(0).permutation(pictures.max() + 1) % 5
    p = np.full(z.shape, np.nan)
    for fold in np.unique(fold_of[pictures]):
        held = np.array([fold_of[picture] == fold for picture in pictures])
        assert not set(pictures[held]) & set(pictures[~held])
        p[held] = softmax(z[held].astype(float) / temperature_of(z[~held], y[~held]), axis=1)
    return p


def error_of_mean(values, pictures):
    sums = [(values[pictures == picture] - values.mean()).sum() for picture in np.unique(pictures)]
    return np.sqrt(np.square(sums).sum() * len(sums) / (len(sums) - 1)) / len(values)


@pytest.mark.parametrize("count, picture_count", [(120, 30), (500, 160)])  # each by itself, and in five parts
def test_rows_of_one_picture_are_held_out_together(count, picture_count):
    """Gain, its error, and each row's values for sets, by a loop over parts that never split a picture."""
    logits, y = simulated(count, 2.0)
    pictures = np.random.default_rng(1).integers(0, picture_count, count)
    fitted = calibrate(LabelledRows(logits, y, clusters=pictures))
    p = held_out_by_a_loop(logits, y, pictures)
    rows = np.arange(count)
    saved = losses_of(logits, y) + np.log(p[rows, y])
    assert fitted.gain == pytest.approx(saved.mean(), abs=1e-6)
    assert fitted.gain_error == pytest.approx(error_of_mean(saved, pictures), abs=1e-6)
    assert fitted.choice[0] == (
        f"temperature {likeliest_temperature(logits, y):.3f}: rows held out of the fit gain {saved.mean():.4f} ± "
        f"{error_of_mean(saved, pictures):.4f} NLL"
    )
    assert fitted.nonconformity == pytest.approx(1 - p[rows, y], abs=2e-6)
    up_to = [row[row >= row[answer]].sum() for row, answer in zip(p, y)]
    assert fitted.cumulative == pytest.approx(up_to, abs=2e-6)
    sizes = np.bincount(pictures)
    present = (sizes > 0).sum()
    assert fitted.pictures == present and fitted.rows == count
    assert fitted.shares == pytest.approx([1 / sizes[picture] / present for picture in pictures])
    apart = held_out_by_a_loop(logits, y, rows)  # as if each row had a picture of its own
    assert np.abs(np.array(fitted.nonconformity) - (1 - apart[rows, y])).max() > 1e-3


def test_a_flatter_temperature_is_kept_and_its_held_out_gain_or_loss_is_reported():
    """Of 40 small sets of rows some gain and some lose on their held-out rows; where T = 1, nothing is gained."""
    outcomes = {"gain": 0, "lose": 0, "sharper": 0}
    for seed in range(40):
        logits, y = simulated(60, 1.15, seed)
        best, before = likeliest_temperature(logits, y), losses_of(logits, y)
        fitted = calibrate(LabelledRows(logits, y))
        if best <= 1:
            outcomes["sharper"] += 1
            assert fitted.temperature == 1 and (fitted.gain, fitted.gain_error) == (0, 0)
            assert fitted.nll_after == fitted.nll_before == pytest.approx(before.mean())
            assert fitted.nonconformity == pytest.approx(1 - np.exp(-before), abs=2e-6)
            assert fitted.choice[0].startswith("temperature 1.000: ") and "not significantly" in fitted.note
            continue

        def as_fitted(z, y):  # a sharper one is T = 1, unless it is significantly likelier
            best = likeliest_temperature(z, y)
            ratio = 2 * (losses_of(z, y) - losses_of(z, y, best)).sum()
            return 1.0 if best < 1 and ratio < 3.8415 else best

        p = held_out_by_a_loop(logits, y, np.arange(60), as_fitted)
        saved = before + np.log(p[np.arange(60), y])
        moved = "gain" if saved.mean() > 0 else "lose"
        outcomes[moved] += 1
        figures = f"{abs(saved.mean()):.4f} ± {error_of_mean(saved, np.arange(60)):.4f} NLL"
        assert fitted.temperature == pytest.approx(best, abs=1e-5) and fitted.note == ""
        assert fitted.gain == pytest.approx(saved.mean(), abs=1e-6) and fitted.nll_after < fitted.nll_before
        why = "; kept all the same: a flatter temperature saves more where it is needed than it costs elsewhere"
        line = f"temperature {best:.3f}: rows held out of the fit {moved} {figures}"
        assert fitted.choice[0] == line + why * (moved == "lose")
    assert min(outcomes.values()) >= 3, outcomes


def test_where_the_temperature_is_one_nothing_is_gained():
    """Too few rows, all rows right, and a sharper temperature that is not significant."""
    sharper = next(
        (logits, y)
        for logits, y in (simulated(60, 0.9, seed) for seed in range(50))
        if "not significantly" in fit_temperature(logits, y).note
    )
    fitted = calibrate(LabelledRows(*sharper))
    assert fitted.temperature == 1 and fitted.gain == 0 and fitted.gain_error == 0
    assert "not significantly" in fitted.note
    assert fitted.nll_after == fitted.nll_before == pytest.approx(losses_of(*sharper).mean())
    logits, _ = simulated(60, 1.0)
    for rows in (slice(60), slice(19)):
        y = logits[rows].argmax(1)
        fitted = calibrate(LabelledRows(logits[rows], y))
        assert fitted.temperature == 1 and np.isnan(fitted.gain) and fitted.nll_after == fitted.nll_before
        assert fitted.nonconformity == pytest.approx(1 - np.exp(-losses_of(logits[rows], y)), abs=2e-6)


def error_of_log_temperature(z, t):
    """1 / √ of the expected second derivative of the summed loss by log T, by differences."""
    p, step = softmax(z / t, axis=1), 1e-3

    def expected(log_t):
        return -(p * log_softmax(z / np.exp(log_t), axis=1)).sum()

    middle = np.log(t)
    curve = (expected(middle + step) - 2 * expected(middle) + expected(middle - step)) / step**2
    return 1 / np.sqrt(curve)


@pytest.mark.parametrize("temperatures", [(1.3, 1.6, 2.2), (1.6, 1.6, 1.6)])
def test_temperatures_of_task_types_are_shrunk_as_in_a_meta_analysis(temperatures):
    """By statsmodels' DerSimonian and Laird; unlike sizes, an empty type, and a type under 100 rows."""
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng(6)
    sizes = {"x": 100, "y": 180, "z": 300, "": 150, "few": 99}
    types = np.repeat(list(sizes), list(sizes.values()))
    of = dict(zip(sizes, [*temperatures, 3.0, 1.6]))
    logits = rng.normal(0, 3, (len(types), 4))
    y = draw_answers(logits / np.array([of[name] for name in types])[:, None], rng)
    common = likeliest_temperature(logits, y)
    separate = np.array([likeliest_temperature(logits[types == name], y[types == name]) for name in "xyz"])
    errors = np.array([error_of_log_temperature(logits[types == name], t) for name, t in zip("xyz", separate)])
    deviations = np.log(separate / common)
    with np.errstate(invalid="ignore"):
        between = max(0.0, combine_effects(deviations, errors**2, method_re="dl").tau2)
    fitted = fit_groups(LabelledRows(logits, y, types.tolist()))
    assert list(fitted.groups) == ["x", "y", "z"] and fitted.temperature == pytest.approx(common, abs=1e-5)
    shrunk = common * np.exp(deviations * between / (between + errors**2))
    assert list(fitted.groups.values()) == pytest.approx(shrunk, abs=1e-3)
    assert (np.abs(np.log(shrunk / common)) < 0.95 * np.abs(deviations)).all()
    assert (between > 0) == (temperatures[0] != temperatures[1])
    alone = fit_groups(LabelledRows(logits, y, types.tolist()), shrunk=False)
    assert list(alone.groups.values()) == pytest.approx(separate, abs=1e-5)


def test_rows_without_a_task_type_are_no_group():
    """They have the common temperature, in the figures that are given as in what is applied."""
    rng = np.random.default_rng(8)
    types = np.repeat(["", "x", "y"], 250)
    logits = rng.normal(0, 3, (750, 4))
    y = draw_answers(logits / np.repeat([4.0, 0.8, 1.5], 250)[:, None], rng)
    fitted = calibrate(LabelledRows(logits, y, types.tolist()))
    assert set(fitted.groups) == {"x", "y"} and groups_of(types) == ["x", "y"] and groups_of(types[:250]) == []
    t = np.array([fitted.groups.get(name, fitted.temperature) for name in types])[:, None]
    assert fitted.nll_after == pytest.approx(losses_of(logits, y, t).mean(), abs=1e-9)
    delivered = fitted.apply(logits, types.tolist())
    assert delivered[:250] == pytest.approx(log_softmax(logits[:250] / fitted.temperature, axis=1))
    assert -delivered[np.arange(750), y].mean() == pytest.approx(fitted.nll_after, abs=1e-9)


def test_groups_have_at_least_a_hundred_rows():
    types = np.array(["a"] * 99 + ["b"] * 100 + ["c"] * 101 + [""] * 500)
    assert groups_of(types) == ["b", "c"]


def test_the_standard_error_is_by_the_expected_curvature():
    logits, y = simulated(150, 1.7)
    fitted = fit_temperature(logits, y)
    assert fitted.standard_error == pytest.approx(
        error_of_log_temperature(logits.astype(float), fitted.temperature), rel=1e-4
    )
    assert calibrate(LabelledRows(logits, y)).standard_error == pytest.approx(fitted.standard_error)


def test_scores_of_further_parameters_are_their_slopes_less_what_fitted_ones_explain():
    """By differences of each row's loss, and a regression by the Fisher information written as a loop."""
    rng = np.random.default_rng(4)
    z = rng.normal(0, 2, (30, 4))
    y = rng.integers(0, 4, 30)
    z[np.arange(30), (y + 1) % 4] = np.where(np.arange(30) < 6, np.nan, z[np.arange(30), (y + 1) % 4])
    nuisance, further = [z], [np.tile(np.arange(4) == 1, (30, 1)), rng.normal(size=(30, 4))]
    known = [np.nan_to_num(np.array(values, float)) for values in (*nuisance, *further)]
    base, step = z / 1.7, 1e-5
    slopes = np.stack(
        [(losses_of(base - step * values, y) - losses_of(base + step * values, y)) / 2 / step for values in known]
    )
    information = np.zeros((3, 3))
    for row in range(30):
        p = np.nan_to_num(np.exp(log_softmax(np.where(np.isnan(base[row]), -np.inf, base[row]))))
        features = np.stack([values[row] for values in known])
        information += (features * p) @ features.T - np.outer(features @ p, features @ p)
    expected = slopes[1:] - np.outer(information[1:, 0] / information[0, 0], slopes[0])
    assert efficient_scores(z, y, 1.7, nuisance, further) == pytest.approx(expected.T, abs=1e-6)
    assert efficient_scores(z, y, 1.7, [], further) == pytest.approx(slopes[1:].T, abs=1e-6)


def test_letters_are_the_minimum_of_the_loss_where_rows_have_fewer_options_too():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (150, 4))
    logits[:60, 3] = np.nan
    z = np.where(np.isnan(logits), -np.inf, logits)
    y = draw_answers(z / 1.6 + [0, 0.8, -0.5, 0.4], rng)

    def loss(free):
        return losses_of(z * np.exp(-free[0]) + np.r_[0, free[1:]], y).mean()

    best = minimize(loss, np.zeros(4), method="Powell", options={"xtol": 1e-8, "ftol": 1e-12})
    fitted = fit_letters(logits, y)
    assert [np.log(fitted.temperature), *fitted.letters[1:]] == pytest.approx(best.x, abs=1e-3)
    assert fitted.letters[0] == 0 and fitted.rows == 150
    wide = np.where(np.isnan(logits), np.nan, logits / fitted.temperature + np.array(fitted.letters))
    assert fitted.apply(logits)[60:] == pytest.approx(log_softmax(wide[60:], axis=1))
    three = log_softmax(logits[:60, :3] / fitted.temperature + np.array(fitted.letters[:3]), axis=1)
    assert fitted.apply(logits[:60, :3]) == pytest.approx(three) and np.isnan(fitted.apply(logits)[:60, 3]).all()
    assert fitted.apply(logits)[:60, :3] == pytest.approx(three)


def test_notes_say_why_a_temperature_is_what_it_is():
    logits, y = simulated(200, 1.0)
    few = fit_temperature(logits[:19], y[:19])
    assert few.note == "19 labelled rows are too few to fit a temperature (20 at least): T = 1" and few.rows == 19
    assert np.isnan(few.nll_before) and "too few" not in fit_temperature(logits[:20], y[:20]).note
    wrong = fit_temperature(logits, logits.argmin(1))
    assert wrong.temperature == 20 and wrong.note == (
        "the logits say nothing about these labels, or the opposite: T stays at its bound 20; are the answers of these "
        "rows right?"
    )
    assert wrong.nll_after == pytest.approx(losses_of(logits, logits.argmin(1), 20).mean())
    right = fit_temperature(logits, logits.argmax(1))
    assert right.temperature == 1 and right.note == (
        "all 200 rows are right by far: any sharper would be likelier, so they do not say how sure to be: T = 1"
    )
    assert right.nll_after == right.nll_before == pytest.approx(losses_of(logits, logits.argmax(1)).mean())
    alike = np.ones((30, 4)), np.zeros(30, int)
    assert fit_temperature(*alike).temperature == 1 and fit_temperature(*alike).note == ""


def test_a_sharper_temperature_must_be_significant_by_a_likelihood_ratio_or_by_pictures():
    outcomes = set()
    for seed in range(12):
        logits, y = simulated(150, 0.8, seed)
        best = likeliest_temperature(logits, y)
        if best >= 1:
            continue
        ratio = 2 * (losses_of(logits, y) - losses_of(logits, y, best)).sum()
        fitted = fit_temperature(logits, y)
        outcomes.add(ratio > 3.8415)
        if ratio > 3.8415:
            assert fitted.temperature == pytest.approx(best, abs=1e-5) and fitted.note == ""
        else:
            figures = f"2·n·ΔNLL {ratio:.1f} against 3.8"
            assert fitted.temperature == 1
            assert fitted.note == f"{best:.2f} would be sharper, not significantly ({figures}): T = 1"
    assert outcomes == {True, False}
    twelve = (simulated(12, 0.7, seed) for seed in range(40))
    logits, y = next(rows for rows in twelve if 0.4 < likeliest_temperature(*rows) < 0.8)
    copies, answers = np.repeat(logits, 12, axis=0), np.repeat(y, 12)
    one = fit_temperature(copies, answers, np.repeat(np.arange(12), 12))
    assert fit_temperature(copies, answers).temperature < 0.8  # as if they were 144 pictures
    assert one.temperature == 1 and "not significantly (p = 0." in one.note and "over 12 pictures" in one.note


def test_a_calibration_is_written_read_and_reduced_without_loss(tmp_path):
    calibration = Calibration(
        1.5, [0.0, 0.2], {"x": 2.0}, None, 3, 2, 1, 0.9, 0.8, float("nan"), 0.1, float("nan"), ["c"], "n",
        [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.25, 0.25, 0.5], [0, 1, 2], ["d"], {"orders": "1"},
        [[-0.1, -2.3], [], [-0.7]],
    )  # fmt: skip
    values = calibration.to_json()
    assert values["gain_error"] is None and values["standard_error"] is None and values["gain"] == 0.1
    (tmp_path / "calibration.json").write_text(json.dumps(values, allow_nan=False))
    again = read_calibration(tmp_path / "calibration.json")
    assert again.to_json() == values and np.isnan(again.gain_error) and again.all_orders is None
    stripped = calibration.stripped()
    for name in ("nonconformity", "cumulative", "shares", "folds", "digests", "numbers"):
        assert stripped[name] == [] and values[name]
    assert {name for name in values if stripped[name] != values[name]} == {
        "nonconformity", "cumulative", "shares", "folds", "digests", "numbers",
    }  # fmt: skip
    temperature_alone = calibration.temperature_alone().to_json()
    expected = Calibration(1.5, rows=3, selected=1, note="n", digests=["d"]).to_json()
    assert temperature_alone == expected
    assert calibration.without_letters().to_json() == values | {"letters": []}
    assert read_calibration(tmp_path / "none.json") is None
    (tmp_path / "calibration.json").write_text('{"temperature": 2, "fingerprint": {}}')
    with pytest.raises(FileError, match="found no calibration; expected a file that `calibrate` wrote"):
        read_calibration(tmp_path / "calibration.json")
    for bad, message in (
        ({"temperature": 0.0}, "temperature is 0.0; expected a temperature above 0"),
        ({"groups": {"x": -1.0}}, "x is -1.0"),
        ({"all_orders": float("inf")}, "all_orders is inf"),
        ({"shares": [1.0], "nonconformity": [0.1, 0.2]}, "1 shares of 2 rows; expected one each"),
    ):
        with pytest.raises(ValueError, match=message):
            Calibration(**bad)


def test_a_file_whose_values_are_wrong_is_named(tmp_path):
    path = tmp_path / "calibration.json"
    path.write_text('{"temperature": -1.0, "fingerprint": {"orders": "1"}}')
    with pytest.raises(FileError, match=re.escape(f"{path}: temperature is -1.0; expected a temperature above 0")):
        read_calibration(path)


def test_rows_that_are_selected_keep_their_types_and_pictures():
    rows = LabelledRows(np.eye(3), np.array([0, 1, 2]), ["x", "y", "z"], np.array([4, 4, 7]))
    for selection in (np.array([True, False, True]), np.array([0, 2])):
        some = rows.select(selection)
        assert some.logits.tolist() == [[1, 0, 0], [0, 0, 1]] and some.answers.tolist() == [0, 2]
        assert some.task_types == ["x", "z"] and some.clusters.tolist() == [4, 7] and some.pictures == 2
    assert LabelledRows(np.eye(3), np.array([0, 1, 2])).select(np.array([0])).clusters is None


def test_a_fit_says_how_many_rows_it_is_from():
    assert fit_temperature(*simulated(150, 1.7)).rows == 150


def test_the_standard_error_of_one_row_is_as_worked_out_by_hand():
    """Probabilities 1/5 and 4/5 of logits that differ by ln 4: the variance of the logit is 4/25 · (ln 4)²."""
    assert standard_error(np.array([[0.0, np.log(4)]]), 1.0) == pytest.approx(2.5 / np.log(4))
    assert standard_error(np.array([[0.0, 2 * np.log(4), np.nan]]), 2.0) == pytest.approx(2.5 / np.log(4))


def test_a_mean_gain_is_a_gain_or_a_loss():
    rows = LabelledRows(np.zeros((2, 2)), np.zeros(2, int))
    assert _gain_text(np.array([0.1, 0.3]), rows) == "gain 0.2000 ± 0.1000 NLL"
    assert _gain_text(np.array([-0.1, -0.3]), rows) == "lose 0.2000 ± 0.1000 NLL"


@pytest.mark.filterwarnings("error")  # scipy warns of options that it does not know
def test_a_letter_that_is_never_right_has_the_lowest_bias_there_is():
    logits, y = simulated(200, 1.0)
    letters = fit_letters(logits, np.where(y == 3, 0, y)).letters
    assert letters[3] == pytest.approx(-5) and np.abs(letters[:3]).max() < 4


@pytest.mark.parametrize("bias, seed, word", [(0.8, 7, "gain"), (0.0, 9, "lose")])
def test_what_a_letter_bias_gains_over_the_temperature_is_that_of_held_out_rows(bias, seed, word):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (200, 4))
    y = draw_answers(logits / 1.5 + [0, 0, 0, bias], rng)
    fold_of, saved = np.random.default_rng(0).permutation(200) % 5, np.zeros(200)
    for fold in range(5):
        held = fold_of == fold
        biased = fit_letters(logits[~held], y[~held]).apply(logits[held])
        temperature = likeliest_temperature(logits[~held], y[~held])
        saved[held] = losses_of(logits[held], y[held], temperature) - losses_of(biased, y[held])
    figures = f"{abs(saved.mean()):.4f} ± {error_of_mean(saved, np.arange(200)):.4f} NLL"
    line = calibrate(LabelledRows(logits, y)).choice[1]
    assert line.startswith("letter bias: earned, " if bias else "letter bias: not earned, ")
    assert line.endswith(f"; rows held out of the fit {word} {figures} over the temperature")


def test_task_types_that_differ_are_told_apart_over_pictures():
    rng = np.random.default_rng(3)
    logits, types = rng.normal(0, 3, (300, 4)), ["x"] * 150 + ["y"] * 150
    y = draw_answers(logits / np.repeat([0.5, 4.0], 150)[:, None], rng)
    shown = calibrate(LabelledRows(logits, y, types, np.arange(300) // 2))
    assert shown.groups["x"] < 1 < shown.groups["y"]
    assert re.match(r"temperature by task type: earned, p = 0\.00\d+ over 150 pictures; ", shown.choice[2])


def sharper_by_chance():
    """12 pictures of 12 copies, 10 of them right, with probabilities .7 and .3.

    T = ln(7/3) / ln(5) is the likeliest: significant over 144 rows, not over 12 pictures.
    """
    logits = np.tile(np.log([0.7, 0.3]), (144, 1))
    return logits, np.repeat([0] * 10 + [1] * 2, 12), np.repeat(np.arange(12), 12)


def test_the_common_temperature_of_task_types_is_tested_over_pictures():
    logits, y, pictures = sharper_by_chance()
    expected = np.log(7 / 3) / np.log(5)
    assert fit_groups(LabelledRows(logits, y)).temperature == pytest.approx(expected, abs=1e-6)
    assert fit_groups(LabelledRows(logits, y, clusters=pictures)).temperature == 1


def test_a_task_type_that_says_next_to_nothing_is_shrunk_as_in_a_meta_analysis():
    """Answers of small logits that are all wrong: a temperature at its bound, with a large standard error."""
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng(6)
    types = np.repeat(["x", "y"], 120)
    logits = rng.normal(0, 3, (240, 4))
    logits[120:] = rng.normal(0, 0.8, (120, 4))
    y = draw_answers(logits / 1.5, rng)
    y[120:] = logits[120:].argmin(1)
    common = likeliest_temperature(logits, y)
    separate = np.array([likeliest_temperature(logits[:120], y[:120]), 20.0])
    errors = np.array([error_of_log_temperature(logits[types == name], t) for name, t in zip("xy", separate)])
    weights, deviations = errors**-2, np.log(separate / common)
    assert weights.sum() - (weights**2).sum() / weights.sum() < 0.5
    between = combine_effects(deviations, errors**2, method_re="dl").tau2
    fitted = fit_groups(LabelledRows(logits, y, types.tolist()))
    expected = common * np.exp(deviations * between / (between + errors**2))
    assert between > 0 and list(fitted.groups.values()) == pytest.approx(expected, rel=1e-3)


def test_a_calibration_is_saved_and_loaded_and_other_files_are_named(tmp_path):
    path = tmp_path / "calibration.json"
    calibration = Calibration(1.5, [0.1, -0.1], rows=40, fingerprint={"member": "m"}, numbers=[[-0.7, -0.7]])
    calibration.save(path)
    loaded = Calibration.load(path)
    assert loaded.to_json() == calibration.to_json() and np.isnan(loaded.gain)
    with pytest.raises(FileError, match="other.json: no such file; expected a file that `calibrate` wrote"):
        Calibration.load(tmp_path / "other.json")
    path.write_text('{"calibrations": []}')
    with pytest.raises(FileError, match="found no calibration of one member"):
        Calibration.load(path)
