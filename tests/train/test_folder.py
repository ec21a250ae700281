"""The folder of a training: what is refused there, and what overwriting removes."""

import shutil
from dataclasses import replace

import pytest

from tests.shared.trainings import QUICK
from train.folder import FolderError, check_out, discard


def test_folds_of_a_training_with_more_of_them_are_refused_and_named(folded):
    check_out(folded, 3)
    check_out(folded, 4)  # the rows of the folds show it later
    with pytest.raises(FolderError, match="holds fold2 of a training in more folds than 2; .*--overwrite"):
        check_out(folded, 2)
    with pytest.raises(FolderError, match=r"holds folds \(fold0, fold1, fold2\); .*--overwrite"):
        check_out(folded, None)


def test_overwriting_one_checkpoint_with_folds_leaves_folds_alone(first, base, questions, tmp_path):
    out = shutil.copytree(first[0], tmp_path / "ckpt")
    with pytest.raises(FolderError, match="holds a checkpoint"):
        check_out(out, 2)
    discard(out)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "train.toml", "validation.csv"]
    check_out(out, 2)


def test_folds_are_refused_where_a_training_without_them_is_not_finished(base, questions, stopped, tmp_path):
    stopped(tmp_path, replace(QUICK, save_every=1))
    with pytest.raises(FolderError, match="holds an unfinished training without folds"):
        check_out(tmp_path, 2)
