"""Results that a program holds are saved, loaded, pooled and calibrated as the commands do it."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from scoring.checkpoints.calibrate import calibrate_checkpoint
from scoring.checkpoints.compatibility import MismatchError
from scoring.errors import CallError
from scoring.library.answers import Answers, pool_answers
from scoring.scores.external import calibrate_file, open_or_import
from scoring.scores.folder import RunError
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError
from scoring.stats.sets import SetRequest
from tests.shared.demo import FOLD0
from tests.shared.made_answers import N, answers_of, logits_of, run_json, table, written
from tests.shared.scores_folders import columns_of as stored_columns
from tests.shared.scores_folders import two_folders, write_scores

# ------------------------------------------------------------------ folders
RESULTS = ("probabilities.csv", "submission.csv", "metrics.json", "members/m0.csv", "members/m1.csv")


def test_a_saved_folder_has_the_bytes_of_the_command(tmp_path):
    run, saved = written(tmp_path / "run"), answers_of().save(tmp_path / "saved")
    for name in (*RESULTS, "questions.parquet", "logits/part-000000.parquet"):
        assert (saved / name).read_bytes() == (run / name).read_bytes(), name
    known, expected = (json.loads((folder / "run.json").read_text()) for folder in (saved, run))
    assert {**known, "seconds": expected["seconds"]} == expected and list(known) == list(expected)


def test_a_saved_folder_is_loaded_again_and_saved_again(tmp_path):
    answers = answers_of()
    loaded = Answers.load(answers.save(tmp_path / "saved"))
    assert np.array_equal(loaded.probabilities, answers.probabilities, equal_nan=True)
    assert loaded[0] == answers[0] and loaded[0].options == ("w", "x", "y") and loaded.warnings == answers.warnings
    again = loaded.save(tmp_path / "again")
    for name in (*RESULTS, "run.json"):
        assert (again / name).read_bytes() == (tmp_path / "saved" / name).read_bytes(), name
    assert stored_columns(again) == stored_columns(tmp_path / "saved")


def test_a_folder_with_other_files_is_replaced_only_if_asked(tmp_path):
    first = answers_of()
    first.save(tmp_path)
    unanswered = answers_of(table(3, answers=False))
    with pytest.raises(RunError, match="exists"):
        unanswered.save(tmp_path)
    assert (tmp_path / "metrics.json").exists()
    unanswered.save(tmp_path, overwrite=True)
    assert not (tmp_path / "metrics.json").exists() and Answers.load(tmp_path).ids == ["id0", "id1", "id2"]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file; expected a folder"):
        first.save(tmp_path / "file", overwrite=True)


def test_results_of_other_members_leave_no_file(tmp_path):
    answers_of().save(tmp_path)
    single = write_scores(tmp_path / "single")
    Answers.load(single).save(tmp_path, overwrite=True)
    assert not list((tmp_path / "members").iterdir()) and Answers.load(tmp_path).members == ["m"]


def test_results_without_any_score_are_saved_and_loaded(tmp_path):
    answers = Answers.load(answers_of(table(1)).save(tmp_path))
    assert answers.letters == [""] and answers.warnings[0] == "no row has a score: the picture cannot be read"
    with pytest.raises(RunError, match="no scored row has an answer"):
        answers.evaluate()


def test_a_submission_takes_the_order_of_a_sample(tmp_path):
    sample = tmp_path / "sample.csv"
    sample.write_text("ID,label\nid2,a\nid0,a\n")
    answers = answers_of()
    folder = answers.save(tmp_path / "saved", sample=sample)
    lines = ["ID,label", f"id2,{answers.letters[2]}", f"id0,{answers.letters[0]}"]
    assert (folder / "submission.csv").read_text().splitlines() == lines
    assert json.loads((folder / "run.json").read_text())["sample"]["file"] == str(sample)
    assert "sample" not in json.loads((Answers.load(folder).save(tmp_path / "b") / "run.json").read_text())


def test_a_file_of_numbers_is_loaded_as_evaluate_reads_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("mine.csv")
    path.write_text("id,p_a,p_b\nq1,0.9,0.1\nq2,0.2,0.8\nq3,,\n")
    answers = Answers.load(path, answers={"q1": "A", "q2": "a"})
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.csv"]  # nothing is written
    assert answers.letters == ["a", "b", ""] and answers.answers == ["a", "a", ""]
    assert answers[1]["b"] == pytest.approx(0.8) and answers[2].status == "no score from mine: no number in the file"
    imported, _ = open_or_import(path, Path("imported"), "auto", None, ())
    saved = answers.save("saved")
    assert (saved / "submission.csv").read_bytes() == Path("imported/submission.csv").read_bytes()
    assert Answers.load(path, answers=["a", "a", ""]).answers == ["a", "a", ""]
    with pytest.raises(CallError, match="answers=: 2 letters; expected one for each of the 3 rows"):
        Answers.load(path, answers=["a", "a"])
    calibrated = Answers.load(path, calibrations=[Calibration(2.0, fingerprint={"member": "mine"})])
    assert calibrated[0]["a"] == pytest.approx(0.75)  # 3 : 1 is the root of 9 : 1


def test_option_sets_are_kept(tmp_path):

    rows = table(answers=False)
    labelled = Calibration(1.5, nonconformity=np.linspace(0.01, 0.99, 99).tolist())
    logits = logits_of(rows).of_member(0)
    values = {"calibrations": [labelled], "exposed": None, "run_json": run_json(rows, ["m0"])}
    answers = answers_of(rows, logits, sets=SetRequest(0.8), **values)
    held = [
        "".join(letter for letter, p in zip("abcd", row) if p >= 0.2) for row in np.nan_to_num(answers.probabilities)
    ]
    assert answers.sets == held and list(answers.to_frame()["set"]) == held
    loaded = Answers.load(answers.save(tmp_path / "saved"))
    assert loaded.sets == held and Answers.load(loaded.save(tmp_path / "again")).sets == held
    assert answers_of().sets is None and "set" not in answers_of().to_frame()


def test_a_calibration_is_that_of_the_command(tmp_path, caplog):
    folder = write_scores(tmp_path / "s")
    expected = calibrate_file(folder, tmp_path / "calibration.json")["m"]
    with caplog.at_level(logging.INFO, "scoring"):
        calibration = Answers.load(folder).calibrate()
    assert calibration == expected and 1.5 < calibration.temperature < 3
    assert [record.message for record in caplog.records] == calibration.choice
    calibration.save(tmp_path / "own.json")
    assert (tmp_path / "own.json").read_bytes() == (tmp_path / "calibration.json").read_bytes()
    assert Calibration.load(tmp_path / "own.json") == calibration
    answers = answers_of()
    with pytest.raises(CallError, match="member=None: expected one of m0, m1"):
        answers.calibrate()
    assert answers.calibrate(member="m1").fingerprint["member"] == "m1"
    assert answers.calibrate(member="m0").rows == N - 2  # without the row of its training, and the one without a score


def test_a_checkpoint_gets_the_calibration_of_the_command(tmp_path):
    fold = Path(shutil.copytree(FOLD0, tmp_path / "fold0"))
    folder = write_scores(tmp_path / "s", checkpoint=fold)
    expected, path = calibrate_checkpoint(folder, str(fold))
    stored = path.read_bytes()
    path.unlink()
    assert Answers.load(folder).calibrate(ckpt=fold) == expected and path.read_bytes() == stored
    with pytest.raises(MismatchError, match="was scored by m \\(x\\), but"):
        Answers.load(write_scores(tmp_path / "other")).calibrate(ckpt=fold)


# ------------------------------------------------------------------ pools
@pytest.mark.parametrize("kind, weights", [("log", "equal"), ("linear", [3, 1]), ("vote", "equal")])
def test_a_pool_is_that_of_the_saved_folders(tmp_path, kind, weights):
    folders = two_folders(tmp_path)
    given = weights if isinstance(weights, str) else "3,1"
    expected = pool_files(folders, tmp_path / "pool", PoolOptions(kind, given, names=["a", "b"]))
    a, b = map(Answers.load, folders)
    pooled = a.pool(b, kind=kind, weights=weights, names=["a", "b"])
    assert np.abs(pooled.probabilities - np.exp(expected.scores.log_p)).max() < 1e-9
    assert pooled.members == ["a", "b"] and pooled.warnings == expected.scores.run.warnings
    saved = pooled.save(tmp_path / "saved")
    for name in ("probabilities.csv", "metrics.json", "members/a.csv", "questions.parquet", "run.json"):
        assert (saved / name).read_bytes() == (tmp_path / "pool" / name).read_bytes(), name
    assert np.array_equal(pool_answers([a, folders[1]], PoolOptions(kind, given)).probabilities, pooled.probabilities)


def test_a_pool_is_fitted_on_labelled_rows_in_memory(tmp_path):
    folders = two_folders(tmp_path)
    expected = pool_files(folders, tmp_path / "pool", PoolOptions(weights="fit", fit=_both(folders, tmp_path)))
    a, b = map(Answers.load, folders)
    labelled = Answers.load(tmp_path / "both")
    pooled = a.pool(b, weights="fit", fit=labelled)
    assert np.abs(pooled.probabilities - np.exp(expected.scores.log_p)).max() < 1e-9
    assert pooled.warnings == expected.scores.run.warnings


def _both(folders, tmp_path):
    """The labelled rows of both members."""
    pool_files(folders, tmp_path / "both")
    return tmp_path / "both"


def test_answers_that_were_never_saved_are_told_apart_in_a_pool():
    first, second = answers_of(), answers_of(logits=logits_of(table(), seed=1))
    pooled = first.pool(second)
    assert pooled.members == ["1-m0", "2-m1", "3-m0", "4-m1"] and len(pooled) == N
    assert pooled[N - 1].status == "no score from 1-m0: the picture cannot be read"
    with pytest.raises(EnsembleError, match="have the same numbers in every row"):
        first.pool(answers_of())


def test_a_report_is_a_page(tmp_path):
    page = answers_of().report(tmp_path / "mine.html", rows=20)
    text = page.read_text()
    assert page == tmp_path / "mine.html" and "<title>mine" in text and list(tmp_path.iterdir()) == [page]
