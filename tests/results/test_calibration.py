"""Temperatures: right on simulated data, safe on degenerate data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from scoring.results.calibration import BOUNDS, fit_temperature, log_probabilities, nll


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
