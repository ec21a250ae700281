"""Letters and option orders: the prior is recovered, relabelled options give relabelled answers."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from scoring.inputs.orders import option_orders
from scoring.inputs.questions import Question
from scoring.scores.evaluation import calibrate_folder
from scoring.scores.folder import open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.position import (
    agreement,
    in_all_orders,
    in_one_order,
    letter_log_probabilities,
    letter_share,
    prior,
    without_prior,
)
from scoring.scores.probabilities import member_log_probabilities, member_logits, pooled_log_probabilities
from scoring.stats.calibration import Calibration


def cyclic(n=50, bias=(0.4, 0.0, -0.3, 1.2), seed=0, orders="cyclic") -> OptionLogits:
    """Rows whose logits are what the options deserve plus a bias of the letter at which they stand."""
    rng, k = np.random.default_rng(seed), len(bias)
    deserved = rng.normal(0, 2, (n, k))
    names = option_orders(k, orders)
    logits = np.empty((n, 1, len(names), k), np.float64)
    for index, name in enumerate(names):
        for letter, option in enumerate(name):
            logits[:, 0, index, "abcdefgh".index(option)] = deserved[:, "abcdefgh".index(option)] + bias[letter]
    shape = logits.shape[:3]
    result = OptionLogits(
        [str(row) for row in range(n)], ["m"], logits, np.ones(shape), np.zeros(shape), ["ok"] * n, orders
    )
    result.deserved = deserved
    return result


def test_the_prior_of_an_additive_bias_is_recovered_exactly():
    bias = np.array([0.4, 0.0, -0.3, 1.2])
    log_prior = prior(cyclic(), 0)
    assert np.abs(log_prior - log_softmax(bias)).max() < 1e-12


def test_averaging_cyclic_orders_takes_additive_bias_off():
    logits = cyclic()
    p = pooled_log_probabilities(logits, [Calibration()])
    assert np.allclose(p, log_softmax(logits.deserved, axis=1), atol=1e-9)


def noisy(n=60, k=4, orders="cyclic", seed=0):
    """Rows whose letters are preferred to another degree each, with noise of each order: no average is exact."""
    logits, rng = cyclic(n, tuple(np.linspace(-1, 1.5, k)), seed, orders), np.random.default_rng(seed + 1)
    logits.logits += rng.normal(0, 0.7, logits.logits.shape)
    return logits


def by_letter(logits, row, member=0):
    """(O, K) probabilities by letter of one row, by what each cyclic order is called."""
    names = option_orders(logits.logits.shape[3], logits.orders)
    p = softmax(logits.logits[row, member], axis=1)
    by_order = {name: [p[index]["abcdefgh".index(option)] for option in name] for index, name in enumerate(names)}
    return np.array([by_order[name] for name in option_orders(len(names[0]), "cyclic")])


def priors(logits, rows, member=0):
    """The geometric mean over orders, normalised for each row; then the mean over rows."""
    each = [np.exp(np.log(by_letter(logits, row, member)).mean(0)) for row in rows]
    return np.mean([row / row.sum() for row in each], axis=0)


@pytest.mark.parametrize("k, orders", [(4, "cyclic"), (4, "all"), (3, "all"), (2, "2"), (4, "pride"), (5, "adaptive")])
def test_prior_and_shares_of_letters_equal_loops_over_orders(k, orders):
    logits = noisy(50, k, orders)
    logits.logits = np.concatenate([logits.logits, noisy(50, k, orders, seed=7).logits], 1)
    logits.logits[3, :, :, k - 1] = np.nan  # one option fewer: its letters are others
    last = option_orders(k, orders).index(option_orders(k, "cyclic")[-1])
    logits.logits[4, 1, last] = np.nan  # the second member has not seen it in every cyclic order
    for member, left_out in ((0, {3}), (1, {3, 4})):
        rows = [row for row in range(50) if row not in left_out]
        assert np.exp(prior(logits, member)) == pytest.approx(priors(logits, rows, member), rel=1e-9)
        shares = np.mean([by_letter(logits, row, member) for row in rows], axis=(0, 1))
        assert letter_share(logits, member) == pytest.approx(shares, rel=1e-9)
        assert np.abs(priors(logits, rows, member) - shares).max() > 0.005  # the two are not the same


def test_letters_that_no_row_shows_in_every_order_have_no_prior():
    for orders in ("1", "2", "3"):
        logits = noisy(9, 4, orders)
        assert prior(logits, 0) is None and letter_share(logits, 0) is None, orders
        rows, log_p = letter_log_probabilities(logits, 0)
        assert rows.shape == (0,) and log_p.shape == (0, 4, 4) and rows.dtype.kind == "i"
        assert np.array_equal(without_prior(logits, 0), logits.logits[:, 0])
        assert np.array_equal(in_one_order(logits, 0), logits.logits[:, 0, 0])
    logits = noisy(9)
    logits.logits[:, 0, 2] = np.nan
    assert prior(logits, 0) is None and letter_share(logits, 0) is None


def test_pride_takes_the_prior_of_the_sampled_rows_off_the_others():
    logits = noisy(orders="pride")
    raw = logits.logits.copy()
    logits.logits[20:, :, 1:] = np.nan
    letters = np.log(priors(logits, range(20)))
    corrected = without_prior(logits, 0)
    assert np.array_equal(corrected[:20], raw[:20, 0])  # rows seen in all orders need none
    assert corrected[20:, 0] == pytest.approx(raw[20:, 0, 0] - letters, abs=1e-6) and np.isnan(corrected[20:, 1:]).all()
    assert in_one_order(logits, 0) == pytest.approx(raw[:, 0, 0] - letters, abs=1e-6)
    p = pooled_log_probabilities(logits, [Calibration()])
    mean = log_softmax(raw[:20, 0], axis=2).mean(1)
    assert p[:20] == pytest.approx(log_softmax(mean, axis=1), abs=1e-9)
    assert p[20:] == pytest.approx(log_softmax(raw[20:, 0, 0] - letters, axis=1), abs=1e-6)
    logits.orders = "cyclic"  # a run in other orders has no prior to take off
    assert member_logits(logits, 0)[20:] == pytest.approx(log_softmax(raw[20:, 0, 0], axis=1), abs=1e-9)


def test_agreement_is_as_worked_out_by_hand():
    """Five rows: all alike, two of three others changed, one order missing, one order alone, two options."""
    answers = [[0, 0, 0, 0], [1, 1, 2, 3], [2, 2, 0, None], [3, None, None, None], [1, 0, None, None]]
    logits = noisy(5)
    for row, chosen in enumerate(answers):
        for order, letter in enumerate(chosen):
            logits.logits[row, 0, order] = np.nan if letter is None else np.where(np.arange(4) == letter, 2.0, -1.0)
    logits.logits[4, 0, :, 2:] = np.nan
    assert asdict(agreement(logits, 0)) == pytest.approx({"rows": 4, "all_agree": 0.25, "changed_by_another": 4 / 9})
    assert agreement(cyclic(orders="1"), 0) is None
    assert in_all_orders(logits).tolist() == [True, True, True, False, True]


def test_the_least_logits_are_still_answers_and_missing_options_are_not():
    logits = cyclic(2)
    logits.logits[:] = [-900.0, -800.0, -1000.0, np.nan]
    logits.logits[1, 0, 3] = [-800.0, -900.0, -1000.0, np.nan]
    assert asdict(agreement(logits, 0)) == pytest.approx({"rows": 2, "all_agree": 0.5, "changed_by_another": 1 / 6})


def test_a_row_was_seen_in_several_orders_if_any_member_saw_it_so():
    logits = cyclic(4)
    logits.logits = logits.logits.repeat(2, 1)
    logits.logits[0, :, 1:], logits.logits[1, 0, 1:], logits.logits[2, :, 2:] = np.nan, np.nan, np.nan
    logits.logits[3, :, :2] = np.nan
    assert in_all_orders(logits).tolist() == [False, True, True, True]


def test_relabelled_options_give_relabelled_probabilities():
    logits, order = cyclic(), [2, 0, 3, 1]
    p = pooled_log_probabilities(logits, [Calibration(1.7)])
    relabelled = OptionLogits(
        logits.ids, ["m"], logits.logits[..., order], logits.label_mass, logits.top_token, logits.status, "cyclic"
    )
    assert np.allclose(pooled_log_probabilities(relabelled, [Calibration(1.7)]), p[:, order])


def biased(n, seed=0, bias=(1.5, 0.0, -0.5, -0.5), sharp=1.6, noise=0.8, orders="cyclic"):
    """(logits, answers) of a model that prefers some letters, has new noise in each order, and is overconfident."""
    rng = np.random.default_rng(seed)
    logits = cyclic(n, bias, seed, orders)
    y = (softmax(logits.deserved, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    logits.logits = sharp * (logits.logits + rng.normal(0, noise, logits.logits.shape))
    return logits, y


def loss_and_accuracy(log_p, y):
    return -log_p[np.arange(len(y)), y].mean(), (log_p.argmax(1) == y).mean()


def test_a_letter_bias_serves_options_at_one_letter_alone():
    """20,000 rows in cyclic orders: the letters' bias of one order, added to options, made .620 to .546."""
    logits, y = biased(20_000)
    fitted = Calibration(1.6, [0.0, 1.5, 2.0, 2.0], fingerprint={"orders": "1"})
    with_bias = member_log_probabilities(logits, [fitted])[0]
    alone = member_log_probabilities(logits, [Calibration(1.6)])[0]
    assert np.array_equal(with_bias, alone)
    wrong = fitted.apply(logits.logits[:, 0].mean(1))
    assert loss_and_accuracy(wrong, y)[0] > loss_and_accuracy(with_bias, y)[0] + 0.1
    assert loss_and_accuracy(wrong, y)[1] < loss_and_accuracy(with_bias, y)[1] - 0.03
    one, y = biased(2_000, orders="1")
    with_letters = member_log_probabilities(one, [fitted])[0]  # where they belong, they are used
    assert (
        loss_and_accuracy(with_letters, y)[0]
        < loss_and_accuracy(member_log_probabilities(one, [Calibration(1.6)])[0], y)[0]
    )


def pride_folder(out, n, sampled, seed=0):
    """A SCORES folder of a pride run in which `sampled` rows were shown in all orders; its answers too."""
    logits, y = biased(n, seed, orders="pride")
    logits.logits[sampled:, :, 1:] = np.nan
    logits.label_mass[sampled:, :, 1:] = np.nan
    logits.logits = logits.logits.astype(np.float32)
    questions = [Question(str(row), row + 1, (), f"q{row}", ("w", "x", "y", "z"), "abcd"[y[row]]) for row in range(n)]
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()])
    record = {
        "checkpoints": [{"member": "m", "fingerprint": "f", "temperature": 1.0, "orders": "pride"}],
        "identity": {"letters": "abcd", "orders": "pride"},
    }
    (out / "run.json").write_text(json.dumps(record))
    return open_scores(out), y


def test_pride_is_calibrated_on_rows_in_one_order_as_it_is_used(tmp_path):
    """All labelled rows were among those shown in all orders: T fitted averages, and was used on single orders."""
    labelled, _ = pride_folder(tmp_path / "labelled", 1500, 1500)
    fitted = calibrate_folder(labelled, 0, np.zeros(1500, np.uint8), {"orders": "pride"}, "pride")
    test, y = pride_folder(tmp_path / "test", 4000, 64, seed=1)
    log_p = member_log_probabilities(test.logits, [fitted])[0]
    one = ~in_all_orders(test.logits)
    assert one.sum() == 4000 - 64
    raw = in_one_order(test.logits, 0)
    best = min(loss_and_accuracy(log_softmax(raw[one] / t, axis=1), y[one])[0] for t in np.linspace(0.8, 4, 129))
    assert loss_and_accuracy(log_p[one], y[one])[0] == pytest.approx(best, abs=0.004)
    averaged = calibrate_folder(labelled, 0, np.zeros(1500, np.uint8), {"orders": "pride"}, "pride").all_orders
    assert averaged < fitted.temperature - 0.2  # a mean over orders is less sure of itself
    assert "rows shown in all orders" in fitted.choice[-1] and not fitted.letters
    mean = log_softmax(test.logits.logits[:64, 0], axis=2).mean(1)
    assert np.allclose(log_p[:64], log_softmax(mean / averaged, axis=1), atol=1e-5)


def test_numbers_of_32_bits_stay_so_without_the_letters_prior():
    logits = noisy(orders="pride")
    logits.logits = logits.logits.astype(np.float32)
    logits.logits[20:, :, 1:] = np.nan
    assert prior(logits, 0) is not None
    assert without_prior(logits, 0).dtype == in_one_order(logits, 0).dtype == np.float32
