"""Folds: each row is held out once, pictures stay whole, and what is finished is not trained again."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from scoring.checkpoints.checkpoint import folds_of
from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.scores.folder import open_scores
from tests.shared.questions import rows_about
from tests.shared.trainings import QUICK, contents, train_in_folds
from train.folder import FolderError
from train.folds import FoldError, assign_folds, train_folds
from train.inputs import TrainContext, TrainingInputs


def test_folds_of_rows_with_a_picture_each_are_those_of_their_names(tmp_path):
    types = ["x"] * 30 + ["y"] * 25 + ["rare"]
    questions = rows_about(tmp_path, range(56), types)
    names, labels = [str(row.picture) for row in questions], types[:55] + ["unknown"]
    expected = StratifiedGroupKFold(4, shuffle=True, random_state=42).split(names, labels, names)
    assert [rows.tolist() for rows in assign_folds(questions, 4, 42)] == [sorted(valid) for _, valid in expected]


@pytest.mark.parametrize("types", ["xxyyzz", "xyzuvw", "xxxxyz"])
def test_types_with_fewer_rows_than_folds_are_split_too(tmp_path, types):
    folds = assign_folds(rows_about(tmp_path, range(6), types), 3, 42)
    assert sorted(np.concatenate(folds).tolist()) == list(range(6)) and all(len(rows) for rows in folds)


def test_one_row_has_no_folds(tmp_path):
    with pytest.raises(FoldError, match="1 picture cannot be split into 2 folds"):
        assign_folds(rows_about(tmp_path, [1]), 2, 42)


def test_folds_hold_every_row_out_once_and_keep_pictures_whole(tmp_path):
    """Two rows a picture, each under a name of its own."""
    types = ["x"] * 30 + ["y"] * 25 + ["rare"]
    questions = rows_about(tmp_path, [number // 2 for number in range(56)], types)
    folds = assign_folds(questions, 4, 42)
    assert sorted(np.concatenate(folds).tolist()) == list(range(56))
    for valid_rows in folds:
        held = {row // 2 for row in valid_rows.tolist()}
        rest = {row // 2 for row in set(range(56)) - set(valid_rows.tolist())}
        assert not held & rest
        assert 5 <= sum(questions[row].task_type == "x" for row in valid_rows) <= 10
    assert all(np.array_equal(a, b) for a, b in zip(folds, assign_folds(questions, 4, 42)))
    with pytest.raises(FoldError, match="28 pictures cannot be split into 30 folds"):
        assign_folds(questions, 30, 42)


def test_finished_folds_are_not_trained_again(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    lines = train_in_folds(base, questions[:12], out, QUICK, 3)
    assert [line for line in lines if "already finished" in line] == [f"fold {n}: already finished" for n in range(3)]
    assert contents(out).keys() == contents(folded).keys()
    longer = replace(QUICK, memory="low", batch_tokens=300, save_every=7)  # what does not change an adapter
    train_in_folds(base, questions[:12], out, longer, 3)


def test_an_adapter_from_elsewhere_is_no_finished_fold(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    (out / "fold1" / "scoring.json").unlink()
    with pytest.raises(FolderError, match="fold1 holds an adapter without scoring.json"):
        train_in_folds(base, questions[:12], out, QUICK, 3)


def test_folds_leave_out_of_fold_logits_and_are_scored_together(base, questions, tmp_path):
    out, lines = tmp_path / "folds", []
    inputs = TrainingInputs(str(base), questions[:16], [], out, replace(QUICK, seed=0))
    train_folds(inputs, 2, TrainContext(say=lines.append))
    logits = open_scores(out / "out-of-fold").logits
    assert logits.scored.all() and logits.ids == [row.id for row in questions[:16]]
    assert [Path(name).name for name in folds_of(str(out))] == ["fold0", "fold1"]
    valid_rows = assign_folds(questions[:16], 2, 0)[1]
    scored = BatchScorer.load(str(out / "fold1")).score([questions[row] for row in valid_rows])
    assert np.abs(scored.logits - logits.logits[valid_rows]).max() < 1e-4
    assert plan_members([str(out)]).members == ["fold0", "fold1"]
    before = (out / "out-of-fold" / "probabilities.csv").read_bytes()
    train_folds(inputs, 2, TrainContext(say=lines.append))  # nothing is trained again
    assert "fold 1: already finished" in lines
    assert (out / "out-of-fold" / "probabilities.csv").read_bytes() == before
