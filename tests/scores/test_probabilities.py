"""From label logits to the files that people take away: every cell by hand."""

import numpy as np
import pytest
from scipy.special import log_softmax

from scoring.errors import InputError
from scoring.scores.logits import OptionLogits
from scoring.scores.probabilities import (
    PoolSettings,
    margins,
    member_log_probabilities,
    member_logits,
    pooled_log_probabilities,
    predictions,
    write_probabilities,
    write_submission,
)
from scoring.stats.calibration import Calibration
from scoring.tables.sample import read_sample

NAN = float("nan")


def rows(n, members=1, orders=1, k=4, name="1", seed=0):
    rng = np.random.default_rng(seed)
    shape = (n, members, orders)
    return OptionLogits(
        [f"id{row}" for row in range(n)],
        [f"m{member}" for member in range(members)],
        rng.normal(0, 2, (*shape, k)),
        rng.uniform(0.5, 1, shape),
        np.zeros(shape, int),
        ["ok"] * n,
        name,
    )


def by_hand():
    """Four rows by two members in two orders: sure, with an option and an order fewer, without a score, and a tie."""
    logits = rows(4, 2, 2, 3, "2")
    logits.ids = ["x,1", "é", "z", '"q"']
    logits.label_mass = np.array(
        [[[0.9, 0.8], [0.5, 0.4]], [[1.0, NAN], [0.25, NAN]], [[NAN, NAN], [NAN, NAN]], [[1, 1], [0, 0.0]]]
    )
    logits.status = ["ok", "ok", "picture: an empty file", "ok"]
    logits.logits[2] = NAN
    with np.errstate(divide="ignore"):
        return logits, np.log([[0.9999996, 0.0000004, 0], [0.25, 0.75, NAN], [NAN] * 3, [0.4, 0.2, 0.4]])


HEAD = "id,pred,p_a,p_b,p_c,margin,label_mass,status"


def test_every_cell_of_the_files_is_as_worked_out_by_hand(tmp_path):
    logits, log_p = by_hand()
    held = np.array([[True, False, False], [True, True, False], [False] * 3, [True, False, True]])
    write_probabilities(tmp_path / "p.csv", logits, log_p, ["a", "a", "b", ""], held)
    assert (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines() == [
        f"{HEAD},set,answer,correct",
        '"x,1",a,1.000000,0.000000,0.000000,0.999999,0.650000,ok,a,a,1',
        "é,b,0.250000,0.750000,,0.500000,0.625000,ok,ab,a,0",
        "z,,,,,,,picture: an empty file,,b,",
        '"""q""",a,0.400000,0.200000,0.400000,0.000000,0.500000,ok,ac,,',
    ]
    write_probabilities(tmp_path / "bare.csv", logits, log_p, None)
    assert (tmp_path / "bare.csv").read_text(encoding="utf-8").splitlines()[:2] == [
        HEAD,
        '"x,1",a,1.000000,0.000000,0.000000,0.999999,0.650000,ok',
    ]
    write_submission(tmp_path / "s.csv", logits, log_p)
    assert (tmp_path / "s.csv").read_text(encoding="utf-8").splitlines() == [
        "id,answer", '"x,1",a', "é,b", "z,", '"""q""",a',
    ]  # fmt: skip


def test_a_submission_has_the_header_ids_and_order_of_the_sample(tmp_path):
    logits, log_p = by_hand()  # of the ids x,1 é z "q": a, b, no score, a
    (tmp_path / "sample.csv").write_text('"Id, or name",Réponse\n"""q""",d\nz,d\n"x,1",d\n', "utf-8")
    sample = read_sample(tmp_path / "sample.csv")
    write_submission(tmp_path / "s.csv", logits, log_p, sample)
    written = (tmp_path / "s.csv").read_text("utf-8")
    assert written == '"Id, or name",Réponse\n"""q""",a\nz,\n"x,1",a\n'
    (tmp_path / "sample.csv").write_text("nr;wahl\né;\nz;\nx,1;\n", "utf-8")
    write_submission(tmp_path / "s.csv", logits, log_p, read_sample(tmp_path / "sample.csv"))
    assert (tmp_path / "s.csv").read_text("utf-8") == "nr;wahl\né;b\nz;\nx,1;a\n"


def test_a_sample_with_other_ids_leaves_the_submission_as_it_was(tmp_path):
    logits, log_p = by_hand()
    write_submission(tmp_path / "s.csv", logits, log_p)
    before = (tmp_path / "s.csv").read_bytes()
    (tmp_path / "sample.csv").write_text("id,answer\nz,a\nw,a\n")
    with pytest.raises(InputError, match="1 of 2 ids that no row of the table has: 'w'"):
        write_submission(tmp_path / "s.csv", logits, log_p, read_sample(tmp_path / "sample.csv"))
    assert (tmp_path / "s.csv").read_bytes() == before


@pytest.mark.parametrize(
    "member, masses",
    [(None, ["0.650000", "0.625000", "", "0.500000"]), (0, ["0.850000", "1.000000", "", "1.000000"]),
     (1, ["0.450000", "0.250000", "", "0.000000"])],
)  # fmt: skip
def test_label_mass_is_that_of_the_member_or_the_mean_of_all(tmp_path, member, masses):
    logits, log_p = by_hand()
    of_member = logits if member is None else logits.of_member(member)
    write_probabilities(tmp_path / "p.csv", of_member, log_p, None)
    lines = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[-2] for line in lines[1:]] == masses


def test_rows_without_label_mass_have_an_empty_cell(tmp_path, recwarn):
    logits, log_p = by_hand()
    logits.label_mass[:] = NAN  # of numbers from files
    write_probabilities(tmp_path / "p.csv", logits, log_p, None)
    lines = (tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()
    assert lines[2] == "é,b,0.250000,0.750000,,0.500000,,ok" and not recwarn.list


def test_margins_and_predictions_where_options_are_missing():
    with np.errstate(divide="ignore"):
        log_p = np.log([[0.1, 0.6, 0.3], [NAN, 0.2, 0.8], [NAN, 1.0, NAN], [0.0, 0.5, 0.5]])
    assert margins(log_p) == pytest.approx([0.3, 0.6, 1.0, 0.0])
    logits = rows(4, k=3)
    assert predictions(logits, log_p) == ["b", "c", "b", "b"]
    logits.status[1] = "picture: an empty file"
    assert predictions(logits, log_p) == ["b", "", "b", "b"]


def test_a_members_log_probabilities_are_averaged_over_the_orders_that_a_row_has():
    logits = rows(5, 2, 4, 4, "cyclic")
    logits.logits[1, :, 3], logits.logits[1, :, :, 3] = NAN, NAN  # three options in three orders
    logits.logits[2, :, 1:] = NAN
    logits.logits[3] = NAN
    for member in range(2):
        averaged = member_logits(logits, member)
        for row, (orders, options) in enumerate([(4, 4), (3, 3), (1, 4), None, (4, 4)][:3]):
            mean = log_softmax(logits.logits[row, member, :orders, :options], axis=1).mean(0)
            assert averaged[row, :options] == pytest.approx(log_softmax(mean), abs=1e-12)
            assert np.isnan(averaged[row, options:]).all()
        assert np.isnan(averaged[3]).all()


def test_letters_are_shifted_in_runs_of_one_order_and_task_types_have_their_temperature():
    fitted = Calibration(2.0, [0.0, 0.5, -0.5, 1.0], {"count": 4.0})
    types = ["count", "object", "", "count"]
    one, four = rows(4), rows(4, 1, 4, 4, "cyclic")
    temperatures = np.array([4.0, 2, 2, 4])[:, None]
    expected = log_softmax(log_softmax(one.logits[:, 0, 0], axis=1) / temperatures + fitted.letters, axis=1)
    assert member_log_probabilities(one, [fitted], types)[0] == pytest.approx(expected, abs=1e-9)
    mean = log_softmax(four.logits[:, 0], axis=2).mean(1)
    expected = log_softmax(mean / temperatures, axis=1)
    assert member_log_probabilities(four, [fitted], types)[0] == pytest.approx(expected, abs=1e-9)
    assert pooled_log_probabilities(four, [fitted], types) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["cyclic", "pride"])
def test_rows_in_all_orders_have_their_own_temperature_in_pride_runs_alone(name):
    logits = rows(6, 2, 4, 4, name)
    logits.logits[3:, :, 1:] = NAN
    fitted = [Calibration(3.0, all_orders=0.5), Calibration(3.0)]
    log_p = member_log_probabilities(logits, fitted)
    assert log_p.shape == (2, 6, 4)
    for member, temperature in ((0, 0.5 if name == "pride" else 3.0), (1, 3.0)):
        mean = log_softmax(logits.logits[:3, member], axis=2).mean(1)
        assert log_p[member, :3] == pytest.approx(log_softmax(mean / temperature, axis=1), abs=1e-9)
        rest = member_logits(logits, member)[3:]
        assert log_p[member, 3:] == pytest.approx(log_softmax(rest / 3.0, axis=1), abs=1e-9)


def test_a_pool_of_members_by_their_kind_weights_and_temperature():
    logits, fitted = rows(5, 2), [Calibration(2.0), Calibration(0.5)]
    first, second = (log_softmax(logits.logits[:, member, 0] / t, axis=1) for member, t in enumerate((2.0, 0.5)))
    assert pooled_log_probabilities(logits, fitted) == pytest.approx(
        log_softmax((first + second) / 2, axis=1), abs=1e-9
    )
    settings = PoolSettings("linear", [0.2, 0.8], 1.5)
    mixed = np.log(0.2 * np.exp(first) + 0.8 * np.exp(second))
    assert pooled_log_probabilities(logits, fitted, None, settings) == pytest.approx(
        log_softmax(mixed / 1.5, axis=1), abs=1e-9
    )
    alone = rows(5)
    settings = PoolSettings("log", [1.0], 2.5)
    expected = log_softmax(alone.logits[:, 0, 0] / 2.5, axis=1)
    assert pooled_log_probabilities(alone, [Calibration()], None, settings) == pytest.approx(expected, abs=1e-9)
