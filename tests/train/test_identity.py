"""The identity of a training: which choices and rows make it another one than the folder holds."""

import json
import shutil
from dataclasses import replace

import pytest

from tests.shared.trainings import QUICK, contents, train_in_folds, trainer_of
from train.folder import FolderError
from train.state import SavedState, StateError, write_state


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"config": replace(QUICK, epochs=3)},
            "fold0 holds a finished training with other choices: epochs was 1, now 3",
        ),
        ({"config": replace(QUICK, targets=("q_proj",))}, "targets was .*, now .'q_proj'."),
        ({"rows": 9}, "training rows was 8, now 6; validation rows was 4, now 3"),
        ({"rows": 12, "answer": "other"}, "content of training rows was [0-9a-f]{16}, now [0-9a-f]{16}"),
        ({"folds": 4}, "training rows was 8, now 9; validation rows was 4, now 3"),
        ({"base": "other"}, "base was [0-9a-f]{16}, now [0-9a-f]{16}"),
    ],
)
def test_finished_folds_of_other_choices_are_refused(base, questions, folded, tmp_path, unloaded, change, message):
    rows = questions[: change.get("rows", 12)]
    if "answer" in change:
        rows = [replace(row, answer="a" if row.answer != "a" else "b") for row in rows]
    if "base" in change:
        base = shutil.copytree(base, tmp_path / "base")
        (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    out = shutil.copytree(folded, tmp_path / "folds")
    with pytest.raises(FolderError, match=message) as error:
        train_in_folds(base, rows, out, change.get("config", QUICK), change.get("folds", 3))
    assert "Choose another --out, or start anew with --overwrite" in str(error.value)
    assert contents(out) == contents(folded)


def test_a_finished_fold_beside_others_that_are_not_is_refused_before_those_are_trained(
    base, questions, folded, tmp_path, unloaded
):
    out = shutil.copytree(folded, tmp_path / "folds")
    shutil.rmtree(out / "fold0")
    before = contents(out)
    with pytest.raises(FolderError, match="fold1 holds a finished training with other choices: epochs was 1, now 3"):
        train_in_folds(base, questions[:12], out, replace(QUICK, epochs=3), 3)
    assert contents(out) == before


def test_an_unfinished_fold_of_other_choices_is_refused_before_others_are_trained(
    base, questions, folded, tmp_path, unloaded
):
    out = shutil.copytree(folded, tmp_path / "folds")
    shutil.rmtree(out / "fold0")
    trainer = trainer_of(base, questions[:1], questions[1:2], out / "fold2", replace(QUICK, epochs=3))
    write_state(out / "fold2", SavedState({}, {"identity": trainer.plan.identity}))
    with pytest.raises(
        StateError, match="fold2 holds an unfinished training with other choices: .*epochs was 3, now 1"
    ):
        train_in_folds(base, questions[:12], out, QUICK, 3)
    assert not (out / "fold0").exists()


def test_finished_folds_of_older_versions_are_known_by_what_they_record(base, questions, folded, tmp_path, unloaded):
    out = shutil.copytree(folded, tmp_path / "folds")
    for path in out.glob("fold*/scoring.json"):
        about = json.loads(path.read_text())
        del about["data"]["train_digest"], about["data"]["valid_digest"], about["training"]["ema"]
        path.write_text(json.dumps(about))
    assert "fold 2: already finished" in train_in_folds(base, questions[:12], out, QUICK, 3)
    with pytest.raises(FolderError, match="training rows was 8, now 6"):
        train_in_folds(base, questions[:9], out, QUICK, 3)
