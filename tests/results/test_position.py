"""Letters and option orders: the prior comes back, relabelled options give relabelled answers."""

import numpy as np
import pytest
from scipy.special import log_softmax

from scoring.inputs.orders import option_orders, orders_of
from scoring.inputs.questions import Question
from scoring.results.calibration import Calibration
from scoring.results.logits import OptionLogits
from scoring.results.position import agreement, letter_share, prior, without_prior
from scoring.results.probabilities import pooled_log_probabilities


def cyclic(n=50, bias=(0.4, 0.0, -0.3, 1.2), seed=0, orders="cyclic") -> OptionLogits:
    """Rows whose logits are what the options deserve plus a bias of the letter at which they stand."""
    rng, k = np.random.default_rng(seed), len(bias)
    deserved = rng.normal(0, 2, (n, k))
    names = option_orders(k, orders)
    logits = np.empty((n, 1, len(names), k), np.float64)
    for at, name in enumerate(names):
        for letter, option in enumerate(name):
            logits[:, 0, at, "abcdefgh".index(option)] = deserved[:, "abcdefgh".index(option)] + bias[letter]
    shape = logits.shape[:3]
    found = OptionLogits(
        [str(row) for row in range(n)], ["m"], logits, np.ones(shape), np.zeros(shape), ["ok"] * n, orders
    )
    found.deserved = deserved
    return found


def test_the_prior_of_additive_bias_comes_back_exactly():
    bias = np.array([0.4, 0.0, -0.3, 1.2])
    found = prior(cyclic(), 0)
    assert np.abs(found - log_softmax(bias)).max() < 1e-12


def test_averaging_cyclic_orders_takes_additive_bias_off():
    found = cyclic()
    p = pooled_log_probabilities(found, [Calibration()])
    assert np.allclose(p, log_softmax(found.deserved, axis=1), atol=1e-9)


def test_pride_takes_the_prior_off_rows_of_one_order():
    found = cyclic(orders="pride")
    found.logits[20:, :, 1:] = np.nan
    p = pooled_log_probabilities(found, [Calibration()])
    assert np.allclose(p, log_softmax(found.deserved, axis=1), atol=1e-6)
    assert np.array_equal(without_prior(found, 0)[:20], found.logits[:20, 0])


def test_shares_and_agreement():
    found = cyclic(400, bias=(0, 0, 0, 3.0))
    share = letter_share(found, 0)
    assert share.sum() == pytest.approx(1) and share[3] > 0.5
    best = found.logits[:, 0].argmax(2)
    told = agreement(found, 0)
    assert told["all_agree"] == pytest.approx((best == best[:, :1]).all(1).mean())
    assert told["changed_by_another"] == pytest.approx((best[:, 1:] != best[:, :1]).mean())
    assert agreement(cyclic(orders="1"), 0) is None and prior(cyclic(orders="1"), 0) is None


def test_rows_with_fewer_options_and_orders():
    found = cyclic(10)
    found.logits[3, :, :, 3] = np.nan
    found.logits[3, :, 3] = np.nan
    assert agreement(found, 0)["rows"] == 10 and prior(found, 0) is not None


def test_relabelled_options_give_relabelled_probabilities():
    found, turn = cyclic(), [2, 0, 3, 1]
    p = pooled_log_probabilities(found, [Calibration(1.7)])
    turned = OptionLogits(
        found.ids, ["m"], found.logits[..., turn], found.label_mass, found.top_token, found.status, "cyclic"
    )
    assert np.allclose(pooled_log_probabilities(turned, [Calibration(1.7)]), p[:, turn])


def test_half_and_rest_make_the_cyclic_orders():
    row = Question("1", 1, None, "q", ("w", "x", "y", "z"))
    assert orders_of(row, "half") == ["abcd", "cdab"] and orders_of(row, "rest") == ["bcda", "dabc"]
    referring = Question("1", 1, None, "q", ("w", "x", "both a and b"))
    assert orders_of(referring, "half") == ["abc"] and orders_of(referring, "rest") == []
    assert orders_of(Question("1", 1, None, "q", ("w", "x")), "rest") == []
