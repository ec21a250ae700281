"""Sets of options from a calibration: against loops over rows and options, and every refusal word by word."""

import re

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from scoring.stats.calibration import Calibration
from scoring.stats.selective import guarantee
from scoring.stats.sets import OptionSets, SetRequest, SetsError, check_sets, conformal_sets


def labelled(n, rng, folds=None, shares=None, pictures=0, selected=0):
    """A calibration that keeps n labelled rows."""
    p = rng.dirichlet(np.ones(4), n)
    y = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    answer = p[np.arange(n), y]
    up_to = np.where(p >= answer[:, None], p, 0).sum(1)
    digests = [f"row{row}" for row in range(n)]
    return Calibration(
        nonconformity=(1 - answer).tolist(),
        cumulative=up_to.tolist(),
        folds=folds or [],
        shares=shares or [],
        pictures=pictures,
        selected=selected,
        digests=digests,
    )


def new_rows(n, rng, k=4):
    return log_softmax(rng.normal(0, 1.5, (n, k)), axis=1)


@pytest.mark.parametrize("level, rank", [(0.5, 50), (0.8, 80), (0.9, 90), (0.99, 99)])
def test_sets_of_one_checkpoint_are_split_conformal_sets(level, rank):
    """The (n + 1)·level-th smallest of 99 values is the quantile."""
    rng = np.random.default_rng(0)
    calibration, log_p = labelled(99, rng), new_rows(300, rng)
    log_p[7, 3] = np.nan
    expected = sorted(calibration.nonconformity)[rank - 1]
    sets = conformal_sets(log_p, [calibration], SetRequest(level))
    assert sets.quantile == expected
    assert np.array_equal(sets.held, np.where(np.isnan(log_p), False, 1 - np.exp(log_p) <= expected))
    assert sets.promise == guarantee(level, 99)
    assert not sets.held[7, 3] and sets.held.any() and not sets.held.all()


def test_rows_too_few_for_the_level_give_every_option_that_is_there():
    log_p = np.array([[np.log(0.97), np.log(0.03), np.nan], [-600.0, 0.0, -np.inf]])
    for method, seed in (("lac", None), ("aps", None), ("aps", 5)):
        sets = conformal_sets(log_p, [labelled(20, np.random.default_rng(1))], SetRequest(0.99, method, seed))
        assert sets.held.tolist() == [[True, True, False], [True, True, True]]
        assert sets.quantile == 1.0


def test_pictures_of_labelled_rows_weigh_alike():
    """Two rows of one picture each, and 96 of one picture alone: that one weighs as much as each of the others."""
    shares = [1 / 3, 1 / 3] + [1 / 288] * 96
    calibration = Calibration(nonconformity=[0.2, 0.4] + [0.9] * 96, shares=shares, pictures=3)
    log_p = np.log([[0.82, 0.17, 0.01], [0.62, 0.35, 0.03]])
    few, many = (conformal_sets(log_p, [calibration], SetRequest(level)) for level in (0.5, 0.51))
    assert (few.quantile, many.quantile) == (0.4, 0.9)
    assert few.held.tolist() == [[True, False, False], [True, False, False]]
    assert many.held.tolist() == [[True, True, False], [True, True, False]]
    assert few.promise == guarantee(0.5, 98, 3) and "98 labelled rows of 3 pictures" in few.promise
    chosen = labelled(50, np.random.default_rng(2), selected=20)
    assert conformal_sets(log_p, [chosen], SetRequest(0.5)).promise == guarantee(0.5, 50, selected=20)


def test_aps_sets_equal_their_definition_with_and_without_random_numbers():
    rng = np.random.default_rng(3)
    calibration, log_p = labelled(99, rng), new_rows(200, rng)
    p = np.exp(log_p)
    up_to = np.where(p[:, None] >= p[:, :, None], p[:, None], 0).sum(2)
    expected = sorted(calibration.cumulative)[79]
    sets = conformal_sets(log_p, [calibration], SetRequest(0.8, "aps"))
    assert sets.quantile == expected and np.array_equal(sets.held, up_to <= expected)
    answers = 1 - np.array(calibration.nonconformity)
    values = calibration.cumulative - np.random.default_rng((5, 0)).random(99) * answers
    random = conformal_sets(log_p, [calibration], SetRequest(0.8, "aps", 5))
    assert random.quantile == pytest.approx(sorted(values)[79], abs=1e-15)
    share = np.random.default_rng((5, 1)).random((200, 1))
    assert np.array_equal(random.held, up_to - share * p <= sorted(values)[79])
    assert not np.array_equal(random.held, sets.held)


def sets_by_a_loop(log_p, fold_log_p, calibration, level, method="lac", seed=None):
    """CV+ by its definition: an option is out where too many labelled rows conform better by their own fold."""
    values = np.array(calibration.nonconformity if method == "lac" else calibration.cumulative)
    n, share = len(values), [None, None]
    if seed is not None:
        values = values - np.random.default_rng((seed, 0)).random(n) * (1 - np.array(calibration.nonconformity))
        share = np.random.default_rng((seed, 1)).random(len(log_p))
    weights = calibration.shares or [1 / n] * n
    pictures = calibration.pictures or n
    held = np.zeros(log_p.shape, bool)
    for row in range(len(log_p)):
        for option in range(log_p.shape[1]):
            better = 0.0
            for value, fold, weight in zip(values, calibration.folds, weights):
                p = np.exp(fold_log_p[fold][row])
                candidate = 1 - p[option]
                if method == "aps":
                    candidate = p[p >= p[option]].sum() - (share[row] * p[option] if seed is not None else 0)
                better += weight * (value < candidate - 1e-12)
            held[row, option] = np.isfinite(log_p[row, option]) and better < level * (1 + 1 / pictures) - 1e-9
    return held


@pytest.mark.parametrize(
    "level, method, seed, pictures",
    [(0.9, "lac", None, 0), (0.6, "lac", None, 20), (0.7, "aps", None, 0), (0.7, "aps", 4, 0)],
)
def test_sets_of_folds_equal_loops_over_labelled_rows(level, method, seed, pictures):
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 6, 20) if pictures else np.ones(59, int)
    shares = np.repeat(1 / sizes / 20, sizes).tolist() if pictures else None
    n = int(sizes.sum())
    calibration = labelled(n, rng, rng.integers(0, 3, n).tolist(), shares, pictures)
    log_p = new_rows(40, rng)
    fold_log_p = np.stack([log_softmax(log_p + rng.normal(0, 0.7, log_p.shape), axis=1) for _ in range(3)])
    log_p[5, 3], fold_log_p[:, 5, 3] = np.nan, np.nan
    sets = conformal_sets(log_p, [calibration] * 3, SetRequest(level, method, seed), fold_log_p)
    filled, each = (np.nan_to_num(values, nan=-np.inf) for values in (log_p, fold_log_p))
    assert np.array_equal(sets.held, sets_by_a_loop(filled, each, calibration, level, method, seed))
    assert 0.2 < sets.held.mean() < 0.9 and sets.quantile is None


def test_a_row_just_as_conforming_does_not_speak_against_an_option():
    """Nine labelled rows at .5: an option at .5 is held at any level, one a little less likely at none under .9."""
    calibration = Calibration(nonconformity=[0.5] * 9, folds=[0, 1, 0] * 3, digests=list("abcdefghi"))
    log_p = np.log([[0.5, 0.499, 0.001]])
    for level, expected in ((0.1, [True, False, False]), (0.9, [True, False, False]), (0.901, [True, True, True])):
        held = conformal_sets(log_p, [calibration] * 2, SetRequest(level), np.stack([log_p, log_p])).held
        assert held.tolist() == [expected], level


def test_the_promise_of_sets_of_folds_is_worded_exactly():
    rng = np.random.default_rng(8)
    calibration, log_p = labelled(1200, rng, [0, 1] * 600), new_rows(2, rng)
    sets = conformal_sets(log_p, [calibration] * 2, SetRequest(0.9), np.stack([log_p, log_p]))
    assert sets.promise == (
        "sets of folds (CV+): if rows to come are drawn like the 1,200 labelled rows, each scored by the fold that had "
        "not seen it, a set holds the right option with probability at least 80% (Barber et al., 2021), and in "
        "practice with about 90%. This is an average over rows."
    )


def test_run_json_records_the_request_the_quantile_and_the_promise():
    sets = OptionSets(np.ones((1, 2), bool), 0.75, "as told")
    assert sets.about(SetRequest(0.9, "aps", 3)) == {
        "level": 0.9,
        "method": "aps",
        "seed": 3,
        "quantile": 0.75,
        "guarantee": "as told",
    }
    assert SetRequest(0.9) == SetRequest(0.9, "lac", None)


def test_six_decimals_of_labelled_rows_take_no_option_from_rows_that_are_surer_than_that():
    """Rows like the labelled ones, all at 1 − p = 4e-7: the calibration keeps 0 of it."""
    log_p = np.log1p(-np.array([[4e-7, 1 - 4e-7]] * 50))
    p = np.exp(log_p)
    nothing = np.round(1 - p[:, 0], 6).tolist()
    assert set(nothing) == {0.0}
    one = Calibration(nonconformity=nothing, cumulative=np.round(p[:, 0], 6).tolist())
    folds = Calibration(nonconformity=nothing, folds=[0, 1] * 25, digests=list(map(str, range(50))))
    for sets in (
        conformal_sets(log_p, [one], SetRequest(0.9)),
        conformal_sets(log_p, [folds] * 2, SetRequest(0.9), np.stack([log_p, log_p])),
    ):
        assert sets.held.tolist() == [[True, False]] * 50


@pytest.mark.parametrize("level", [0.0, 1.0, -0.05, 1.5, float("nan")])
def test_a_level_that_is_no_share_is_refused(level):
    message = f"--sets {level}: expected how often sets must hold the right option, between 0 and 1, such as 0.9"
    with pytest.raises(SetsError, match=f"^{re.escape(message)}$"):
        SetRequest(level)


def test_a_seed_is_for_sets_that_depend_on_chance():
    message = "--sets-seed: sets of method lac do not depend on chance; use --sets-method aps"
    with pytest.raises(SetsError, match=f"^{re.escape(message)}$"):
        SetRequest(0.9, "lac", 0)
    assert SetRequest(0.9, "aps", 0).draw(1).random() == np.random.default_rng((0, 1)).random()
    assert SetRequest(0.9, "aps").draw(0) is None


KEPT = Calibration(nonconformity=[0.1], cumulative=[0.9], folds=[0], digests=["x"])
POOLED = (
    "--sets: 2 checkpoints are pooled, and each has a calibration of its own; sets need labelled rows scored by "
    "this very pool: the out-of-fold rows of a training with --folds (`score --out-of-fold`, then `calibrate`), or "
    "`ensemble … --fit LABELLED --sets`"
)
NONE_KEPT = (
    "--sets: the checkpoint has no calibration for these orders that keeps its labelled rows; score labelled rows in "
    "these orders, and make one with `calibrate SCORES --ckpt CKPT`"
)


@pytest.mark.parametrize(
    "calibrations, method, orders, message",
    [
        ([KEPT], "lac", "pride", "--sets with --orders pride: some rows are shown in all orders and the others in one, "
         "so that they are not exchangeable; use --orders adaptive or cyclic"),
        ([Calibration(nonconformity=[0.1], digests=["x"])] * 2, "lac", "1", POOLED),
        ([KEPT, Calibration(nonconformity=[0.1], folds=[0], digests=["y"])], "lac", "1", POOLED),
        ([Calibration()], "lac", "1", NONE_KEPT),
        ([Calibration()], "aps", "cyclic", NONE_KEPT),
        ([Calibration(nonconformity=[0.1])], "aps", "1",
         "--sets-method aps: the calibration was made by an earlier version, without what aps needs; make it anew "
         "with `calibrate`"),
    ],
)  # fmt: skip
def test_sets_that_could_not_keep_their_promise_are_refused(calibrations, method, orders, message):
    with pytest.raises(SetsError, match=f"^{re.escape(message)}$"):
        check_sets(calibrations, SetRequest(0.9, method), orders)


def test_folds_of_one_training_and_one_checkpoint_are_accepted():
    for calibrations, method in (([KEPT] * 3, "aps"), ([Calibration(nonconformity=[0.1])], "lac")):
        for orders in ("1", "cyclic", "adaptive"):
            check_sets(calibrations, SetRequest(0.9, method), orders)
    with pytest.raises(SetsError, match="2 checkpoints are pooled"):
        conformal_sets(np.log(softmax(np.ones((1, 2)), axis=1)), [Calibration(), Calibration()], SetRequest(0.9))
