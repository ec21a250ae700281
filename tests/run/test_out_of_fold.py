"""Folds: each training row by the fold that had not seen it, in any orders; the pool's calibration and sets of it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from scoring import read_questions
from scoring.checkpoints.calibrate import calibrate_folds
from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.plan import plan_members
from scoring.inputs.orders import OrdersError
from scoring.run.options import ModelOptions, RunOptions
from scoring.run.out_of_fold import Folds, score_out_of_fold
from scoring.scores.exposure import VALIDATION
from scoring.scores.folder import RunError, open_scores
from scoring.scores.probabilities import member_logits
from scoring.tables.sample import read_sample
from scoring.tables.table import Table
from tests.shared.folds import make_folds

ROWS = 20


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    return make_folds(tmp_path_factory.mktemp("folds"), ROWS)


@pytest.fixture(scope="module")
def scored(folds, demo, tmp_path_factory):
    """The first rows of test.csv in two orders: out of fold, and by both folds."""
    from benchmarks import command_line

    work = tmp_path_factory.mktemp("scored")
    for name, more in (("oof", ["--out-of-fold"]), ("both", ["--calibration", "none"])):
        call = [
            "score",
            demo / "test.csv",
            "--ckpt",
            folds,
            "--orders",
            "2",
            "--limit",
            ROWS,
            "--out",
            work / name,
            *more,
        ]
        done = command_line.run(*call)
        assert done.returncode == 0, done.stderr
    return work


def test_each_row_is_scored_by_the_fold_that_had_not_seen_it(folds, scored):
    oof, both = open_scores(scored / "oof"), open_scores(scored / "both")
    assert oof.logits.scored.all() and oof.logits.orders == "2" and oof.questions["fold"] == [0, 1] * (ROWS // 2)
    for row in range(ROWS):
        theirs = both.logits.logits[row, row % 2]
        assert np.allclose(oof.logits.logits[row, 0], theirs, atol=1e-4)
        assert not np.allclose(oof.logits.logits[row, 0], both.logits.logits[row, 1 - row % 2], atol=1e-2)
    entry = oof.run_json["checkpoints"][0]
    assert entry["orders"] == "2" and len(entry["adapters"]) == 2 and entry["pixels"] == 36864
    assert (oof.exposed == VALIDATION).all() and "metrics.json" in {path.name for path in (scored / "oof").iterdir()}
    warnings = " ".join(json.loads((scored / "both" / "run.json").read_text())["warnings"])
    assert "10 of 20 rows were in the training of fold0" in warnings and "10 of 20 rows are validation rows" in warnings


def test_a_killed_or_repeated_call_goes_on(folds, scored, demo, quick_cli, tmp_path):
    out = shutil.copytree(scored / "oof", tmp_path / "oof")
    shutil.rmtree(out / "logits")
    shutil.rmtree(out / "runs" / "fold1")
    before = (scored / "oof" / "probabilities.csv").read_bytes()
    done = quick_cli(
        "score", demo / "test.csv", "--ckpt", folds, "--orders", 2, "--limit", ROWS, "--out", out, "--out-of-fold"
    )
    assert "10 of 10 rows have their scores" in done.stderr and (out / "probabilities.csv").read_bytes() == before


def test_orders_that_questions_do_not_allow_are_refused_before_the_first_fold(folds, demo, tmp_path):
    rows = read_questions(demo / "test.csv")[:ROWS]
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("abcd", rows[-1].options))
    table = Table(demo / "test.csv", "digest", [*rows[:-1], replace(rows[-1], question=listed)])
    with pytest.raises(OrdersError, match=f"first: row {ROWS}"):
        score_out_of_fold(table, Folds(str(folds), ModelOptions()), tmp_path / "out", RunOptions("2"))
    assert not (tmp_path / "out").exists()


def test_the_pool_of_folds_is_calibrated_for_the_orders_it_is_used_in(folds, scored, demo, quick_cli, tmp_path):
    own = shutil.copytree(folds, tmp_path / "folds")
    found, path = calibrate_folds(scored / "oof", own)
    assert path.name == "calibration.2.json" and found.rows == ROWS and found.folds == [0, 1] * (ROWS // 2)
    oof = open_scores(scored / "oof")
    assert found.nonconformity == pytest.approx(
        1 - np.exp(found.apply(member_logits(oof.logits, 0)))[np.arange(ROWS), oof.answers(np.arange(ROWS))], abs=0.2
    )
    plan = plan_members([str(own)], orders="2")
    assert [part.temperature for part in plan.calibrations] == [found.temperature] * 2
    assert not any("no calibration for orders" in note for note in plan.notes)
    other = plan_members([str(own)], orders="cyclic")
    assert any("it has no calibration for orders cyclic" in note for note in other.notes)
    assert not other.calibrations[0].nonconformity
    asked = ["--orders", 2, "--sets", 0.8, "--out", tmp_path / "x"]
    refused = quick_cli("score", demo / "test.csv", "--ckpt", own, "--limit", ROWS, *asked, check=2)
    assert f"--sets: on {ROWS} of {ROWS} rows" in refused.stderr and not (tmp_path / "x").exists()
    rest = tmp_path / "rest.csv"
    lines = (demo / "test.csv").read_text("utf-8").splitlines()
    rest.write_text("\n".join([lines[0], *lines[ROWS + 1 : ROWS + 21]]), "utf-8")
    arguments = ["score", rest, "--images", demo, "--ckpt", own, "--orders", 2, "--sets", 0.8]
    quick_cli(*arguments, "--out", tmp_path / "sets")
    sets = json.loads((tmp_path / "sets" / "run.json").read_text())["sets"]
    assert sets["quantile"] is None and "CV+" in sets["guarantee"] and "at least 60%" in sets["guarantee"]
    metrics = json.loads((tmp_path / "sets" / "metrics.json").read_text())
    assert 0.6 <= metrics["sets"]["covered"] <= 1 and 0.6 <= metrics["sets"]["mean_size"] <= 4


def test_a_sample_submission_is_not_for_rows_of_the_training(folds, demo, tmp_path):
    (tmp_path / "sample.csv").write_text("id,answer\ntest_0000,a\n")
    table = Table(demo / "test.csv", "digest", read_questions(demo / "test.csv")[:ROWS])
    options = RunOptions(sample=read_sample(tmp_path / "sample.csv"))
    with pytest.raises(RunError, match="--out-of-fold with --sample: .* leave out --sample"):
        score_out_of_fold(table, Folds(str(folds), ModelOptions()), tmp_path / "x", options)
    assert not (tmp_path / "x").exists()


def test_what_is_no_fold_or_no_row_of_them_is_refused(folds, scored, demo, quick_cli, tmp_path):
    arguments = ["score", demo / "test.csv", "--out", tmp_path / "x", "--out-of-fold"]
    done = quick_cli(*arguments, "--ckpt", folds, "--limit", ROWS + 2, check=2)
    assert f"2 of {ROWS + 2} rows are held out by no fold" in done.stderr and "'test_0020'" in done.stderr
    assert "has no folds" in quick_cli(*arguments, "--ckpt", folds / "fold0", "--base", demo / "base", check=2).stderr
    assert "takes a single --orders" in quick_cli(*arguments, "--ckpt", folds, "--orders", "1,cyclic", check=2).stderr
    assert "takes a single --ckpt" in quick_cli(*arguments, "--ckpt", folds, "--ckpt", folds, check=2).stderr
    both = quick_cli("calibrate", scored / "both", "--ckpt", folds, check=2)
    assert "not out-of-fold rows" in both.stderr
    other = shutil.copytree(folds, tmp_path / "other")
    shutil.copy(folds / "fold0" / "adapter_model.safetensors", other / "fold1" / "adapter_model.safetensors")
    with pytest.raises(MismatchError, match="was scored by"):
        calibrate_folds(scored / "oof", other)
