"""Weights of pools against computations written anew: steps of the fits, parts held out, figures that are written."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import log_softmax, softmax

from scoring.stats.pool_weights import (
    FOLDS,
    PENALTIES,
    PoolWeights,
    apply_weights,
    best_single,
    choices,
    convex_weights,
    equal_weights,
    fit_weights,
    greedy_weights,
    held_out_losses,
    held_out_pool,
    likeliest_weights,
)
from tests.shared.predictions import good_and_poor


def unlike(n, noise=(0.7, 0.9, 3.0), seed=0, sharp=1.6, k=4):
    """Members that are surer than they are right, each with errors of another size: (M, n, k) and (n,) answers."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, k))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return np.stack([log_softmax(sharp * (z + rng.normal(0, size, z.shape)), axis=1) for size in noise]), y


def row_loss(z, y, temperature=1.0):
    """(N,) losses of (N, K) logits; NaN where there is no option."""
    z = np.where(np.isnan(z), -np.inf, z) / temperature
    return np.log(np.exp(z - z.max(1, keepdims=True)).sum(1)) + z.max(1) - z[np.arange(len(y)), y]


def likeliest_temperature(z, y):
    """By a bounded search; 1 where it would be sharper and 2·n·ΔNLL is under the 5 % point of chi-squared, 3.841."""
    optimum = minimize_scalar(lambda log_t: row_loss(z, y, np.exp(log_t)).mean(), bounds=(-3, 3), method="bounded")
    ratio = 2 * len(y) * (row_loss(z, y).mean() - optimum.fun)
    return 1.0 if optimum.x < 0 and ratio < 3.8415 else float(np.exp(optimum.x))


def folds_of(numbers):
    """The five parts of pictures, drawn with a fixed seed."""
    fold_of = np.random.default_rng(0).permutation(numbers.max() + 1) % 5
    return [np.isin(numbers, np.flatnonzero(fold_of == number)) for number in range(5)]


def error_of_mean(values, numbers):
    """The standard error of a mean whose rows come in pictures."""
    sums = [
        sum(values[row] - values.mean() for row in np.flatnonzero(numbers == picture)) for picture in np.unique(numbers)
    ]
    count = len(sums)
    return np.sqrt(np.square(sums).sum() * count / (count - 1)) / len(values)


def test_equal_weights_have_the_likeliest_temperature_of_their_pool():
    log_p, y = unlike(80)
    fitted = equal_weights(log_p, y)
    assert fitted.weights.tolist() == [1 / 3] * 3
    assert fitted.temperature == pytest.approx(likeliest_temperature(log_p.mean(0), y), abs=1e-4)
    assert fitted.temperature > 1.05


def test_a_pool_is_the_weighted_sum_of_its_members_over_its_temperature_where_options_are():
    log_p = np.log(np.array([[[0.7, 0.2, 0.1], [0.6, 0.4, np.nan]], [[0.1, 0.1, 0.8], [0.5, 0.5, np.nan]]]))
    log_p[1, 1, 0] = np.nan  # one member without the option
    pooled = apply_weights(PoolWeights(np.array([0.25, 0.75]), 0.5), log_p)
    p = 0.7**0.5 * 0.1**1.5, 0.2**0.5 * 0.1**1.5, 0.1**0.5 * 0.8**1.5
    assert np.exp(pooled[0]) == pytest.approx(np.array(p) / sum(p), rel=1e-9)
    assert np.isnan(pooled[1]).tolist() == [True, False, True] and pooled[1, 1] == 0


def test_the_best_single_member_is_the_best_at_its_own_temperature():
    log_p, y = unlike(120, (1.5, 0.3, 1.5), sharp=1.0)
    log_p[1] = log_softmax(6 * log_p[1], axis=1)  # the best of them, and far too sure
    raw = [row_loss(member, y).mean() for member in log_p]
    assert int(np.argmin(raw)) != 1
    fitted = best_single(log_p, y)
    assert fitted.weights.tolist() == [0, 1, 0]
    assert fitted.temperature == pytest.approx(likeliest_temperature(log_p[1], y), abs=1e-3)


@pytest.mark.parametrize("penalty", [0.0, 0.03, 1.0])
def test_convex_weights_are_the_minimum_of_the_loss_and_the_penalty_together(penalty):
    """By another solver, with slopes by differences; some rows have three options."""
    log_p, y = unlike(90)
    log_p[:, np.flatnonzero(y < 3)[:20], 3] = np.nan
    start = np.full(3, 1 / 3) / likeliest_temperature(log_p.mean(0), y)

    def loss(weights):
        return row_loss(np.tensordot(weights, log_p, 1), y).mean() + penalty * ((weights - start) ** 2).sum()

    best = minimize(loss, start, method="SLSQP", bounds=[(0, None)] * 3, options={"ftol": 1e-12})
    fitted = convex_weights(log_p, y, penalty)
    assert fitted.weights == pytest.approx(best.x / best.x.sum(), abs=2e-3)
    assert fitted.temperature == pytest.approx(1 / best.x.sum(), rel=2e-3)
    assert fitted.weights.sum() == pytest.approx(1, abs=1e-12) and fitted.temperature > 1.05
    assert np.ptp(fitted.weights) > 0.02


def test_a_member_that_says_the_opposite_has_no_weight_at_all():
    log_p, y = unlike(150, (0.5, 0.5, 0.5))
    log_p[2] = log_softmax(-log_p[2], axis=1)
    fitted = convex_weights(log_p, y, 0.001)
    assert fitted.weights[2] == 0 and fitted.weights[:2].min() > 0.2


@pytest.mark.parametrize("case", ["the opposite", "hardly anything"])
def test_members_that_say_nothing_about_the_rows_have_equal_weights(case):
    log_p, y = unlike(60)
    if case == "the opposite":
        y = log_p.sum(0).argmin(1)
    else:
        log_p = log_softmax(log_p / 1000, axis=1)
    fitted, equal = convex_weights(log_p, y, 0.0), equal_weights(log_p, y)
    assert fitted.weights.tolist() == [1 / 3] * 3 and fitted.temperature == equal.temperature


@pytest.mark.parametrize("total, taken", [(0.07, True), (0.045, False), (15.0, True), (30.0, False)])
def test_pools_whose_temperature_is_out_of_bounds_have_equal_weights(total, taken):
    """From 1/20 to 20: members are made surer or less sure, so that the weights sum to another total."""
    log_p, y = unlike(90, (0.7, 1.0, 1.5))
    plain = convex_weights(log_p, y, 0.0)
    scaled = log_p / (total * plain.temperature)
    fitted = convex_weights(scaled, y, 0.0)
    if taken:
        assert fitted.weights == pytest.approx(plain.weights, abs=0.02) and np.ptp(plain.weights) > 0.1
        assert fitted.temperature == pytest.approx(1 / total, rel=0.02)
    else:
        assert fitted.weights.tolist() == [1 / 3] * 3


@pytest.mark.parametrize("share, taken", [(0.0006, False), (0.0013, True)])
def test_a_weight_under_a_thousandth_is_none(share, taken):
    """The penalty that leaves the weakest member such a share is searched by another solver."""
    log_p, y = unlike(90, (0.5, 0.5, 3.0), sharp=1.6)
    log_p[2] = log_softmax(-log_p[0] + log_p[2], axis=1)
    start = np.full(3, 1 / 3) / likeliest_temperature(log_p.mean(0), y)

    def weakest(penalty):
        def loss(weights):
            return row_loss(np.tensordot(weights, log_p, 1), y).mean() + penalty * ((weights - start) ** 2).sum()

        best = minimize(loss, start, method="SLSQP", bounds=[(0, None)] * 3, options={"ftol": 1e-14}).x
        return best[2] / best.sum()

    penalty = np.exp(
        brentq(lambda log_penalty: weakest(np.exp(log_penalty)) - share, np.log(1e-5), np.log(100), xtol=1e-5)
    )
    fitted = convex_weights(log_p, y, penalty)
    assert (fitted.weights[2] > 0.001) if taken else fitted.weights[2] == 0


def drawn_one_by_one(log_p, y, steps=15):
    """Greedy selection by the definition: every member is tried for every draw."""
    chosen, best = [], (np.inf, [], 1.0)
    for _ in range(steps):
        trials = []
        for member in range(len(log_p)):
            mean = np.mean([log_p[index] for index in [*chosen, member]], axis=0)
            temperature = likeliest_temperature(mean, y)
            trials.append((row_loss(mean, y, temperature).mean(), member, temperature))
        loss, member, temperature = min(trials)
        chosen.append(member)
        if loss < best[0] - 1e-9:
            best = loss, list(chosen), temperature
    return np.bincount(best[1], minlength=len(log_p)) / len(best[1]), best[2], len(best[1])


@pytest.mark.parametrize("seed, draws", [(4, 6), (8, 1), (13, 15)])
def test_greedy_weights_are_those_of_a_draw_by_draw_search(seed, draws):
    log_p, y = unlike(40, (0.8, 1.2, 1.6), seed)
    weights, temperature, count = drawn_one_by_one(log_p, y)
    assert count == draws
    fitted = greedy_weights(log_p, y)
    assert fitted.weights == pytest.approx(weights, abs=1e-12)
    assert fitted.temperature == pytest.approx(temperature, abs=2e-4)


def test_pictures_are_held_out_whole_in_five_parts_and_every_row_once():
    rng = np.random.default_rng(3)
    numbers = rng.integers(0, 40, 200)
    log_p, y = unlike(200)
    log_p[0, :, 0] = np.arange(200)  # which row it is
    fitted_rows = []

    def fit(values, answers, clusters):
        rows = values[0, :, 0].astype(int)
        assert (answers == y[rows]).all()
        fitted_rows.append(rows)
        return PoolWeights(np.array([0.0, 0.0, 1.0]), float(len(fitted_rows)))

    log_q = held_out_pool(fit, log_p, y, numbers)
    assert len(fitted_rows) == FOLDS == 5
    held = [np.setdiff1d(np.arange(200), rows) for rows in fitted_rows]
    assert sorted(np.concatenate(held).tolist()) == list(range(200))
    for call, rows in enumerate(held, 1):
        assert not set(numbers[rows]) & set(numbers[fitted_rows[call - 1]])
        assert 7 <= len(set(numbers[rows])) <= 9
        assert log_q[rows] == pytest.approx(log_softmax(log_p[2, rows] / call, axis=1))
    fitted_rows.clear()
    losses = held_out_losses(fit, log_p, y)  # each row is its own picture
    assert [len(rows) for rows in fitted_rows] == [160] * 5
    for call, rows in enumerate(fitted_rows, 1):
        out = np.setdiff1d(np.arange(200), rows)
        assert losses[out] == pytest.approx(row_loss(log_p[2, out], y[out], call))


def held_out_by_a_loop(fit, log_p, y, numbers):
    losses = np.full(len(y), np.nan)
    for held in folds_of(numbers):
        fitted = fit(log_p[:, ~held], y[~held])
        losses[held] = row_loss(np.tensordot(fitted.weights, log_p[:, held], 1), y[held], fitted.temperature)
    return losses


def penalty_by_the_rule(log_p, y, numbers):
    """The strongest penalty whose loss is within a tenth of a standard error of the lowest, and its held-out losses."""
    equal = held_out_by_a_loop(equal_weights, log_p, y, numbers)
    tried = {
        penalty: held_out_by_a_loop(
            lambda values, answers, penalty=penalty: convex_weights(values, answers, penalty), log_p, y, numbers
        )
        for penalty in (10, 1, 0.1, 0.01, 0.001)
    }
    lowest = min(losses.mean() for losses in tried.values())
    for penalty in sorted(tried, reverse=True):
        if tried[penalty].mean() - lowest <= 0.1 * error_of_mean(tried[penalty] - equal, numbers):
            return penalty, tried[penalty], equal
    raise AssertionError("the penalty with the lowest loss is always near")


@pytest.mark.parametrize("noise, seed, taken", [((0.7, 0.9, 1.2), 0, 0.1), ((0.5, 2.0, 4.0), 1, 0.01)])
def test_fitted_weights_are_those_of_the_penalty_that_the_rule_takes(noise, seed, taken):
    log_p, y = unlike(200, noise, seed)
    numbers = np.arange(200) // 2
    penalty, losses, equal = penalty_by_the_rule(log_p, y, numbers)
    assert penalty == taken
    saved = equal - losses
    fitted, expected = fit_weights(log_p, y, "fit", numbers), convex_weights(log_p, y, penalty)
    figures = f"gain {saved.mean():.4f} ± {error_of_mean(saved, numbers):.4f} NLL"
    assert fitted.why == f"fitted weights (fit): on rows held out of the fit they {figures}"
    assert fitted.weights.tolist() == expected.weights.tolist() and fitted.temperature == expected.temperature


def test_how_near_a_penalty_is_to_the_best_is_measured_over_pictures():
    """Four copies of each row: as rows of their own they would take a weaker penalty."""
    log_p, y = unlike(50, (0.6, 0.8, 1.1), 16)
    log_p, y, numbers = np.repeat(log_p, 4, axis=1), np.repeat(y, 4), np.arange(200) // 4
    assert penalty_by_the_rule(log_p, y, numbers)[0] == 0.1
    fitted, expected = fit_weights(log_p, y, clusters=numbers), convex_weights(log_p, y, 0.1)
    assert fitted.why.startswith("fitted weights (fit): ") and fitted.weights.tolist() == expected.weights.tolist()


def test_fits_that_are_equal_in_every_part_gain_nothing_and_are_not_taken():
    log_p, _ = unlike(60)
    fitted = fit_weights(log_p, log_p.sum(0).argmin(1))
    assert fitted.weights.tolist() == [1 / 3] * 3 and fitted.why == (
        "equal weights: rows held out of the fit prefer them to any others (fit)"
    )


def test_rows_that_take_the_strongest_penalty_are_said_to_prefer_equal_weights():
    """Members that are alike: the strongest penalty is as good as any, and its figures would say nothing."""
    for seed in (1, 2, 3):
        log_p, y = unlike(150, (0.8, 0.8, 0.8), seed)
        penalty, losses, equal = penalty_by_the_rule(log_p, y, np.arange(150))
        if penalty == max(PENALTIES) and (equal - losses).mean() <= error_of_mean(equal - losses, np.arange(150)):
            break
    fitted = fit_weights(log_p, y, "fit", np.arange(150))
    assert penalty == 10 and fitted.weights.tolist() == [1 / 3] * 3
    assert fitted.why == "equal weights: rows held out of the fit prefer them to any others (fit)"


def test_likeliest_weights_have_the_lowest_loss_and_then_the_likeliest_temperature():
    log_p, y = unlike(300)

    def loss(free):
        weights = np.exp(free) / np.exp(free).sum()
        return row_loss(np.tensordot(weights, log_p, 1), y).mean()

    best = minimize(loss, np.zeros(3), method="SLSQP", options={"ftol": 1e-12}).x
    fitted, weights = likeliest_weights(log_p, y), np.exp(best) / np.exp(best).sum()
    assert fitted.weights == pytest.approx(weights, abs=2e-3)
    expected = likeliest_temperature(np.tensordot(fitted.weights, log_p, 1), y)
    assert fitted.temperature == pytest.approx(expected, abs=1e-3)


def test_greedy_weights_are_taken_by_the_same_rule():
    log_p, y = unlike(60, (0.5, 2.5))
    losses, equal = (held_out_by_a_loop(fit, log_p, y, np.arange(60)) for fit in (greedy_weights, equal_weights))
    saved = equal - losses
    fitted, expected = fit_weights(log_p, y, "greedy"), greedy_weights(log_p, y)
    figures = f"gain {saved.mean():.4f} ± {error_of_mean(saved, np.arange(60)):.4f} NLL"
    assert saved.mean() > error_of_mean(saved, np.arange(60))
    assert fitted.why == f"fitted weights (greedy): on rows held out of the fit they {figures}"
    assert fitted.weights.tolist() == expected.weights.tolist() and fitted.temperature == expected.temperature


@pytest.mark.parametrize("kind", ["fit", "greedy"])
def test_weights_that_gain_no_more_than_their_error_are_not_taken(kind):
    """Convex ones gain here, though less than the error; greedy ones lose."""
    log_p, y = unlike(200, (0.8, 0.9, 1.0)) if kind == "fit" else unlike(50, (0.8, 0.8, 0.8), seed=4)
    numbers = np.arange(len(y)) // 2
    if kind == "fit":
        _, losses, before = penalty_by_the_rule(log_p, y, numbers)
    else:
        losses, before = (held_out_by_a_loop(fit, log_p, y, numbers) for fit in (greedy_weights, equal_weights))
    saved = before - losses
    assert (0 < saved.mean() < error_of_mean(saved, numbers)) if kind == "fit" else saved.mean() < 0
    fitted, equal = fit_weights(log_p, y, kind, numbers), equal_weights(log_p, y)
    assert fitted.weights.tolist() == [1 / 3] * 3 and fitted.temperature == equal.temperature > 1
    assert fitted.why == (
        f"equal weights: fitted ones ({kind}) do not earn it, on rows held out of the fit they "
        f"{'gain' if kind == 'fit' else 'lose'} {abs(saved.mean()):.4f} ± {error_of_mean(saved, numbers):.4f} NLL"
    )


def test_under_ten_rows_nothing_is_fitted():
    log_p, y = unlike(10)
    few = fit_weights(log_p[:, :9], y[:9])
    assert few.weights.tolist() == [1 / 3] * 3 and few.temperature == 1
    assert few.why == "equal weights: 9 labelled rows are too few to fit any"
    assert fit_weights(log_p[:, :9], y[:9], "fit", np.zeros(9, int)).why == few.why
    assert "too few" not in fit_weights(log_p, y).why


def test_choices_are_compared_by_their_losses_on_rows_held_out():
    log_p, y = unlike(100)
    numbers = np.arange(100) // 2
    by_name = {choice["weights"]: choice for choice in choices(log_p, y, numbers)}
    ways = {
        "equal": equal_weights,
        "fit": lambda values, answers: convex_weights(values, answers, PENALTIES[-2]),
        "greedy": greedy_weights,
        "best single": best_single,
    }
    assert set(by_name) == set(ways) and PENALTIES[-2] == 0.01
    equal = held_out_by_a_loop(equal_weights, log_p, y, numbers)
    for name, fit in ways.items():
        losses, right = held_out_by_a_loop(fit, log_p, y, numbers), 0
        for held in folds_of(numbers):
            fitted = fit(log_p[:, ~held], y[~held])
            right += (np.tensordot(fitted.weights, log_p[:, held], 1).argmax(1) == y[held]).sum()
        assert by_name[name]["nll"] == pytest.approx(losses.mean()) and by_name[name]["accuracy"] == right / 100
        assert by_name[name]["gain"] == pytest.approx((equal - losses).mean(), abs=1e-12)
        assert by_name[name]["error"] == pytest.approx(error_of_mean(equal - losses, numbers), abs=1e-12)
    ordered = [choice["nll"] for choice in choices(log_p, y, numbers)]
    assert ordered == sorted(ordered) and len(set(ordered)) == 4


def test_rows_of_one_picture_choose_no_weights():
    rng = np.random.default_rng(0)
    log_p = log_softmax(rng.normal(size=(2, 40, 4)), 2)
    answers, one_picture = rng.integers(0, 4, 40), np.zeros(40, int)
    assert choices(log_p, answers, one_picture) == []
    fitted = fit_weights(log_p, answers, "fit", one_picture)
    assert fitted.weights.tolist() == [0.5, 0.5] and fitted.temperature == 1
    assert fitted.why == "equal weights: labelled rows of one picture are too few to fit any"


def test_fitted_weights_are_the_minimum_of_their_loss():
    """By scipy's general solver on the normalised weights and the temperature."""
    from scipy.optimize import minimize

    log_p, y = good_and_poor(400)
    fitted = convex_weights(log_p, y, 0.0)

    def loss(free):
        weights = np.exp(free)
        return -log_softmax(np.tensordot(weights, log_p, 1), axis=1)[np.arange(400), y].mean()

    best = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 8000, "fatol": 1e-10, "xatol": 1e-8})
    log_q = apply_weights(fitted, log_p)
    assert -log_q[np.arange(400), y].mean() == pytest.approx(best.fun, abs=1e-5)
    assert fitted.weights.sum() == pytest.approx(1) and (fitted.weights >= 0).all()
    strong = convex_weights(log_p, y, 1e6)
    assert strong.weights == pytest.approx(np.full(4, 0.25), abs=1e-3)


@pytest.mark.parametrize("kind", ["fit", "greedy"])
def test_fitted_weights_beat_equal_ones_where_members_are_unlike(kind):
    log_p, y = good_and_poor(600)
    new_log_p, new_y = good_and_poor(4000, seed=1)
    fitted = fit_weights(log_p, y, kind)
    loss, equal = (
        -apply_weights(weights, new_log_p)[np.arange(4000), new_y].mean()
        for weights in (fitted, PoolWeights(np.full(4, 0.25), 1.0))
    )
    assert fitted.why.startswith(f"fitted weights ({kind})") and loss < equal - 0.02
    assert fitted.weights[:2].sum() > 0.75


@pytest.mark.parametrize("kind", ["fit", "greedy"])
def test_like_members_keep_equal_weights(kind):
    rng = np.random.default_rng(2)
    z = rng.normal(0, 2, (200, 4))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((200, 1))).argmax(1)
    log_p = np.stack([log_softmax(z + rng.normal(0, 0.5, z.shape), axis=1) for _ in range(4)])
    fitted = fit_weights(log_p, y, kind)
    assert fitted.why.startswith("equal weights: ") and fitted.weights.tolist() == [0.25] * 4


def test_greedy_weights_count_draws():
    log_p, y = good_and_poor(500)
    fitted = greedy_weights(log_p, y)
    draws = fitted.weights * np.arange(1, 16)[:, None]
    assert np.isclose(draws, np.rint(draws)).all(1).any() and fitted.weights[:2].sum() > 0.6


def test_a_fit_is_told_which_of_its_rows_share_pictures():
    log_p, y = unlike(40)
    log_p[0, :, 0] = np.arange(40)  # which row it is
    given = []

    def fit(values, answers, clusters):
        given.append(clusters.tolist() == (values[0, :, 0] // 4).tolist())
        return PoolWeights(np.eye(3)[2], 1.0)

    held_out_pool(fit, log_p, y, np.arange(40) // 4)
    assert given == [True] * 5


def test_a_sharper_pool_of_likeliest_weights_is_tested_over_pictures():
    """12 pictures of 12 copies, 10 of them right, with probabilities .7 and .3: T = ln(7/3) / ln(5) by chance."""
    log_p = np.tile(np.log([0.7, 0.3]), (2, 144, 1))
    y, pictures = np.repeat([0] * 10 + [1] * 2, 12), np.repeat(np.arange(12), 12)
    assert likeliest_weights(log_p, y).temperature == pytest.approx(np.log(7 / 3) / np.log(5), abs=1e-6)
    assert likeliest_weights(log_p, y, pictures).temperature == 1
