"""Members with different settings in one call: as many runs as settings, pooled as their files would be."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from scoring import read_questions
from scoring.checkpoints.compatibility import MismatchError
from scoring.errors import InputError
from scoring.inputs.orders import OrdersError
from scoring.messages import silent
from scoring.run.groups import plan_groups, run_groups
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.folder import RunError, open_scores
from scoring.scores.pooling import pool_files
from scoring.tables.sample import read_sample
from scoring.tables.table import Table

pytestmark = pytest.mark.usefixtures("known_models")
QUIET = RunContext(say=silent)
FOLDS = ["demo/checkpoints/fold0", "demo/checkpoints/fold1"]


@pytest.fixture
def table(demo):
    questions = read_questions(demo / "test.csv")[:5]
    return Table(demo / "test.csv", "digest", questions)


@pytest.fixture
def stranger(demo, tmp_path):
    """A checkpoint over another base, trained with another prompt."""
    base = shutil.copytree(demo / "base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"note": "another base"}))
    other = shutil.copytree(demo / "checkpoints" / "fold1", tmp_path / "fold1")
    (other / "calibration.json").unlink()
    manifest = json.loads((other / "scoring.json").read_text())
    manifest |= {"base": str(base), "base_fingerprint": None}
    manifest["template"]["system"] = "그림을 보고 {letters} 중 하나로 답하세요."
    (other / "scoring.json").write_text(json.dumps(manifest))
    return str(other)


def p_of(folder):
    return np.exp(open_scores(folder).log_p)


def test_one_setting_is_one_run_as_ever(table, tmp_path):
    groups = plan_groups(FOLDS)
    assert [group.labels for group in groups] == [["fold0", "fold1"]]
    run_groups(table, groups, tmp_path / "out", RunOptions(), QUIET)
    assert (tmp_path / "out" / "plan.json").exists() and not (tmp_path / "out" / "runs").exists()


def test_orders_that_questions_do_not_allow_are_refused_before_the_first_run(table, tmp_path):
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("abcd", table.questions[4].options))
    table.questions[4] = replace(table.questions[4], question=listed)
    groups = plan_groups(FOLDS[:1], orders=["1", "cyclic"])
    with pytest.raises(OrdersError, match="--orders cyclic: .* \\(first: row 5\\)"):
        run_groups(table, groups, tmp_path / "out", RunOptions(), QUIET)
    assert not (tmp_path / "out").exists()


def test_every_checkpoint_at_every_budget_and_order(table, tmp_path):
    said = []
    groups = plan_groups(FOLDS[:1], pixels=[192 * 192, 160 * 160], orders=["1", "cyclic"])
    assert [group.labels[0] for group in groups] == [
        "fold0-192-1",
        "fold0-192-cyclic",
        "fold0-160-1",
        "fold0-160-cyclic",
    ]
    assert any("pixels is 36864, but this run has 25600" in note for group in groups for note in group.plan.notes)
    finished = run_groups(table, groups, tmp_path / "out", RunOptions(), RunContext(say=said.append))
    assert finished.scored_now == 4 * 5 and finished.metrics["ensemble"]["members"][2]["member"] == "fold0-160-1"
    assert sum("loading" in text for text in said) <= 1
    apart = []
    for number, group in enumerate(plan_groups(FOLDS[:1], pixels=[192 * 192, 160 * 160], orders=["1", "cyclic"])):
        apart.append(tmp_path / str(number))
        run(table, group.plan, apart[-1], RunOptions(group.orders), QUIET)
    pool_files(apart, tmp_path / "files")
    assert np.abs(p_of(tmp_path / "out") - p_of(tmp_path / "files")).max() < 1e-6
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["data"]["sha256"] == "digest" and len(about["checkpoints"]) == 4


def test_other_bases_and_prompts_are_scored_with_their_own(table, tmp_path, stranger):
    groups = plan_groups([FOLDS[0], stranger, FOLDS[1]])
    assert [group.labels for group in groups] == [["1-fold0", "1-fold1"], ["2-fold1"]]
    finished = run_groups(table, groups, tmp_path / "out", RunOptions(), QUIET)
    assert len(finished.logits.members) == 3 and (tmp_path / "out" / "members" / "2-fold1.csv").exists()
    alone = plan_groups([stranger])[0].plan
    run(table, alone, tmp_path / "alone", RunOptions(), QUIET)
    found = open_scores(tmp_path / "out")
    assert np.abs(np.exp(found.members[2]) - p_of(tmp_path / "alone")).max() < 1e-6
    weighted = np.exp(found.members.mean(0))
    assert np.abs(np.exp(found.log_p) - weighted / weighted.sum(1, keepdims=True)).max() < 1e-6

    again = run_groups(table, plan_groups([FOLDS[0], stranger, FOLDS[1]]), tmp_path / "out", RunOptions(), QUIET)
    assert again.scored_now == 0
    with pytest.raises(RunError, match="another run"):
        run_groups(table, plan_groups([stranger, FOLDS[1]]), tmp_path / "out", RunOptions(), QUIET)


def test_what_cannot_be_meant_is_refused(table, tmp_path, stranger):
    with pytest.raises(MismatchError, match="has 2; leave it"):
        plan_groups([FOLDS[0], stranger], calibration=f"{FOLDS[0]}/calibration.json")
    run(table, plan_groups(FOLDS[:1])[0].plan, tmp_path / "out", RunOptions(), QUIET)
    with pytest.raises(RunError, match="holds other results"):
        run_groups(table, plan_groups([FOLDS[0], stranger]), tmp_path / "out", RunOptions(), QUIET)


def test_the_pool_of_several_runs_has_the_sample_and_the_runs_have_their_own_ids(table, tmp_path):
    ids = [question.id for question in table.questions]
    (tmp_path / "sample.csv").write_text(f"nr,answer\n{ids[3]},\n{ids[1]},\n")
    options = RunOptions(sample=read_sample(tmp_path / "sample.csv"))
    groups = plan_groups(FOLDS[:1], orders=["1", "2"])
    run_groups(table, groups, tmp_path / "out", options, QUIET)
    lines = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert lines[0] == "nr,answer" and [line.split(",")[0] for line in lines[1:]] == [ids[3], ids[1]]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["sample"]["rows"] == 2
    for number in ("1", "2"):
        each = tmp_path / "out" / "runs" / number
        assert (each / "submission.csv").read_text().splitlines()[0] == "id,answer"
        assert "sample" not in json.loads((each / "run.json").read_text())
    (tmp_path / "sample.csv").write_text("nr,answer\nstranger,\n")
    options = RunOptions(sample=read_sample(tmp_path / "sample.csv"))
    with pytest.raises(InputError, match="stranger"):
        run_groups(table, groups, tmp_path / "other", options, QUIET)
    assert not (tmp_path / "other").exists()


def test_through_the_command_line(quick_cli, small_table, tmp_path):
    arguments = ["score", small_table(4), "--ckpt", FOLDS[0], "--out", tmp_path / "out"]
    done = quick_cli(*arguments, "--pixels", "192,160")
    assert "run 2 of 2: fold0-160" in done.stderr and "4 of 4 rows scored" in done.stdout
    assert "expected the side of a square" in quick_cli(*arguments, "--pixels", "192x192", check=2).stderr
    assert "pooled" in quick_cli(*arguments, "--pixels", "192,160", "--sets", "0.9", check=2).stderr
