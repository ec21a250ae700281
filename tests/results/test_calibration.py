"""Temperatures: right on simulated data, safe on degenerate data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, root
from scipy.special import log_softmax, softmax

from scoring.results.calibration import (
    BOUNDS,
    Calibration,
    calibrate,
    fit_groups,
    fit_letters,
    fit_temperature,
    log_probabilities,
    nll,
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
    found = fit_temperature(logits, y)
    assert abs(np.log(found.temperature / true)) <= 4 * found.standard_error
    far, truth = simulated(5000, true, seed + 100)
    assert nll(far, truth, found.temperature) - nll(far, truth, true) <= 0.005


def test_it_equals_scikit_learns_temperature():
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

    theirs = CalibratedClassifierCV(FrozenEstimator(Given()), method="temperature").fit(logits.astype(float), y)
    ours = np.exp(log_probabilities(logits, fit_temperature(logits, y).temperature))
    assert np.abs(theirs.predict_proba(logits.astype(float)) - ours).max() < 2e-3


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
    found = fit_temperature(logits, y)
    assert BOUNDS[0] <= found.temperature <= BOUNDS[1] and np.isfinite(found.nll_after)
    assert found.nll_after <= found.nll_before + 1e-12
    assert found.note or case in ("one class", "constant")


def test_too_few_rows_are_told():
    logits, y = simulated(19, 2.0)
    found = fit_temperature(logits, y)
    assert found.temperature == 1 and "19" in found.note


def test_missing_options_have_no_probability():
    logits = np.array([[1.0, 2.0, np.nan], [0.0, 0.0, 0.0], [np.nan] * 3], np.float32)
    found = log_probabilities(logits, 2.0)
    assert np.exp(found[0, :2]).sum() == pytest.approx(1) and np.isnan(found[0, 2]) and np.isnan(found[2]).all()
    assert np.allclose(found[1], np.log(1 / 3))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=5),
    st.floats(-100, 100),
    st.floats(0.05, 20),
)
def test_properties_of_the_softmax(rows, shift, temperature):
    logits = np.array(rows)
    found = log_probabilities(logits, temperature)
    assert np.abs(np.exp(found).sum(1) - 1).max() < 1e-6
    assert np.allclose(found, log_probabilities(logits + shift, temperature), atol=1e-6)
    assert np.allclose(found[:, ::-1], log_probabilities(logits[:, ::-1], temperature), atol=1e-9)
    assert np.allclose(found, log_softmax(logits / temperature, axis=1), atol=1e-9)
    assert (found[np.arange(len(logits)), logits.argmax(1)] >= found.max(1) - 1e-12).all()


def test_rows_that_are_all_right_do_not_make_it_certain():
    logits, _ = simulated(200, 1.0)
    found = fit_temperature(logits, logits.argmax(1))
    assert found.temperature == 1 and "all 200 rows are right" in found.note


def drawn(z, rng):
    return (softmax(z, axis=1).cumsum(1) > rng.random((len(z), 1))).argmax(1)


def test_letters_equal_a_conditional_logit_of_statsmodels():
    from statsmodels.discrete.conditional_models import ConditionalLogit

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (800, 4))
    y = drawn(logits / 1.6 + [0, 0.8, -0.5, 0.2], rng)
    found = fit_letters(logits, y)
    chosen = np.zeros((800, 4))
    chosen[np.arange(800), y] = 1
    letters = np.tile(np.eye(4)[:, 1:], (800, 1))
    columns = np.c_[logits.ravel(), letters]
    model = ConditionalLogit(chosen.ravel(), columns, groups=np.repeat(np.arange(800), 4))
    theirs = model.fit(disp=False).params
    ours = np.array([1 / found.temperature, *found.letters[1:]])
    assert np.abs(ours - theirs).max() < 1e-3 and found.letters[0] == 0
    exact = root(model.score, theirs, tol=1e-12).x  # statsmodels' own equations, to the end
    assert np.abs(ours - exact).max() < 1e-6


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
    found = calibrate(logits, y, more=False)
    assert found.nll_after <= found.nll_before + 1e-9
    log_p = found.apply(logits)
    assert (log_p[np.arange(rows), logits.argmax(1)] >= log_p.max(1) - 1e-12).all()
    assert np.abs(np.exp(log_p).sum(1) - 1).max() < 1e-6


def test_few_rows_that_happen_to_be_right_make_nothing_surer():
    notes = []
    for seed in range(20):
        found = fit_temperature(*simulated(60, 0.85, seed))
        notes.append(found.note)
        assert found.temperature >= 1 or 2 * 60 * (found.nll_before - found.nll_after) > 3.84
    assert sum("not significantly" in note for note in notes) > 5
    logits, y = simulated(4000, 0.7, seed=3)
    assert fit_temperature(logits, y).temperature == pytest.approx(0.7, rel=0.1)


def test_letters_are_taken_where_they_are_earned_and_only_there():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (600, 4))
    biased = calibrate(logits, drawn(logits / 1.5 + [0, 0, 0, 1.0], rng), ["t"] * 600)
    assert (
        biased.letters and biased.letters[3] == pytest.approx(1, abs=0.4) and "letter bias: earned" in biased.choice[1]
    )
    taken = sum(bool(calibrate(logits, drawn(logits / 1.5, rng), ["t"] * 600).letters) for _ in range(40))
    assert taken <= 6  # a 5 % test
    assert not calibrate(logits, drawn(logits / 1.5 + [0, 0, 0, 1.0], rng), ["t"] * 600, one_order=False).letters
    assert "no answer of these rows is d" in calibrate(logits, drawn(logits[:, :3], rng), ["t"] * 600).choice[1]


def test_task_types_get_their_own_temperature_where_they_differ():
    rng = np.random.default_rng(2)
    logits, types = rng.normal(0, 3, (900, 4)), np.repeat(["x", "y", "z"], 300)
    y = drawn(logits / np.repeat([0.7, 1.5, 4.0], 300)[:, None], rng)
    found = calibrate(logits, y, types.tolist())
    assert found.groups["x"] < 1 < found.groups["y"] < found.groups["z"] and "by task type: earned" in found.choice[2]
    assert nll(logits, y, np.array([found.groups[name] for name in types])[:, None]) == pytest.approx(found.nll_after)
    p = found.apply(logits, types.tolist())
    assert np.allclose(p[0], log_probabilities(logits[:1], found.groups["x"])[0])
    assert np.allclose(found.apply(logits[:1], ["new"])[0], log_probabilities(logits[:1], found.temperature)[0])
    same = fit_groups(logits, drawn(logits / 1.5, rng), types)
    assert max(same.groups.values()) / min(same.groups.values()) < 1.25  # shrunk together
    few = calibrate(logits[:150], y[:150], (["x"] * 75 + ["y"] * 75))
    assert not few.groups and "too few task types with 100 rows" in few.choice[2]


@pytest.mark.parametrize("case", ["none", "few", "perfect", "wrong", "one class", "constant", "nan"])
def test_degenerate_rows_are_told(case):
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
    found = calibrate(logits, y, ["t"] * len(y))
    assert BOUNDS[0] <= found.temperature <= BOUNDS[1] and found.choice
    assert not len(y) or found.nll_after <= found.nll_before + 1e-9
    assert len(found.nonconformity) == len(y)
    again = Calibration.from_json(found.to_json(), "a test")
    assert again.temperature == found.temperature and again.choice == found.choice


def test_the_gain_is_that_of_rows_held_out():
    logits, y = simulated(500, 2.5, seed=9)
    found = calibrate(logits, y)
    assert 0 < found.gain < found.nll_before and found.gain_error > 0
    assert found.gain == pytest.approx(found.nll_before - found.nll_after, abs=0.02)
    clean, y = simulated(500, 1.0, seed=9)
    assert abs(calibrate(clean, y).gain) < 0.01


def test_rows_of_one_picture_are_held_out_together():
    logits, y = simulated(100, 2.0)
    clusters = np.repeat(np.arange(25), 4)
    assert np.isfinite(calibrate(logits, y, clusters=clusters).gain)
