"""A training from its rows to its folder."""

import shutil
from pathlib import Path

from scoring.checkpoints.checkpoint import folds_of, read_checkpoint
from scoring.scores.folder import open_scores
from tests.shared.trainings import QUICK, train_in_folds


def test_overwriting_leaves_no_fold_behind(base, questions, folded, tmp_path):
    out = shutil.copytree(folded, tmp_path / "folds")
    for name in ("notes", "fold9"):  # of somebody else
        (out / name).mkdir()
        (out / name / "read.me").write_text("mine")
    train_in_folds(base, questions[:12], out, QUICK, 2, overwrite=True)
    assert [Path(name).name for name in folds_of(str(out))] == ["fold0", "fold1"]
    assert read_checkpoint(str(out / "fold0")).manifest.data["train_rows"] == 6
    assert (out / "notes" / "read.me").exists() and (out / "fold9" / "read.me").exists()
    assert open_scores(out / "out-of-fold").logits.scored.all()
