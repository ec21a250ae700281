"""`Answers`: what comes out of a library call, and the folders that they become."""

import json
import logging
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scoring.inputs.questions import Question
from scoring.library.answers import Answers, pool_answers
from scoring.scores.evaluation import compare_folders, evaluate_scores, exposure_warnings
from scoring.scores.external import calibrate_file, open_or_import
from scoring.scores.finalize import ScoredRun, write_run
from scoring.scores.folder import RunError, columns_of, open_scores
from scoring.scores.logits import write_part
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError
from scoring.tables.table import Table
from tests.shared.scores_folders import columns_of as stored_columns
from tests.shared.scores_folders import random_logits, two_folders, write_scores

N = 60
MEMBERS = ("m0", "m1")
CALIBRATIONS = [Calibration(1.5), Calibration(0.8)]


def table(n=N, answers=True):
    """Every fourth row has three options, the last row a fault."""
    questions = [
        Question(
            f"id{row}",
            row + 1,
            (Path(f"{row // 2}.jpg"),),
            f"q{row}",
            ("w", "x", "y", "z")[: 3 if row % 4 == 0 else 4],
            "abc"[row % 3] if answers else "",
            "count" if row % 2 else "object",
        )
        for row in range(n)
    ]
    return Table(Path("table.csv"), "5a", questions)


def logits_of(rows, seed=0):
    logits = random_logits(len(rows.questions), MEMBERS, 4, seed)
    logits.logits[::4, ..., 3] = np.nan
    logits.status[-1] = "the picture cannot be read"
    logits.logits[-1], logits.label_mass[-1], logits.top_token[-1] = np.nan, np.nan, -1
    return logits


def run_json(rows, members=MEMBERS):
    return {
        "command": ["a program"],
        "data": rows.about(),
        "checkpoints": [
            {"member": name, "fingerprint": f"f-{name}", "temperature": calibration.temperature}
            for name, calibration in zip(members, CALIBRATIONS)
        ],
        "identity": {"letters": "abcd", "orders": "1"},
        "notes": [],
        "warnings": [],
        "counts": {"rows": len(rows.questions), "scored": 0},
        "seconds": {"scoring": 1.0},
    }


def in_training(columns, digest):
    """The first row was in the training of the first member."""
    assert digest == "5a"
    flags = np.zeros((len(columns["id"]), 2), np.uint8)
    flags[0, 0] = 1
    return flags


def answers_of(rows=None, logits=None, **values):
    rows = rows or table()
    logits = logits or logits_of(rows)
    known = {"calibrations": CALIBRATIONS, "run_json": run_json(rows), "exposed": in_training} | values
    return Answers.of(table=rows, logits=logits, **known)


def test_answers_import_no_torch():
    code = "import sys; from scoring.library.answers import Answers; assert not {'torch', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------ all rows
def test_answers_have_the_arrays_of_the_pool():
    logits = logits_of(table())
    answers = answers_of(logits=logits)
    scaled = logits.logits[1, :, 0].astype(float) / [[1.5], [0.8]]
    log_p = (scaled - np.log(np.exp(scaled).sum(1, keepdims=True))).mean(0)
    p = np.exp(log_p) / np.exp(log_p).sum()
    assert answers.probabilities[1] == pytest.approx(p) and np.exp(answers.log_probabilities[1]) == pytest.approx(p)
    assert answers.letters[1] == "abcd"[p.argmax()] and answers.margins[1] == pytest.approx(np.diff(np.sort(p))[-1])
    assert np.isnan(answers.probabilities[0, 3]) and np.nansum(answers.probabilities[0]) == pytest.approx(1)
    assert np.isnan(answers.probabilities[-1]).all() and answers.letters[-1] == "" and np.isnan(answers.margins[-1])
    assert answers.ids[:2] == ["id0", "id1"] and answers.members == ["m0", "m1"] and answers.orders == "1"
    assert answers.logits.shape == (N, 2, 1, 4) and answers.label_mass.shape == answers.top_token.shape == (N, 2, 1)
    assert answers.status[-1] == "the picture cannot be read" and answers.answers[:4] == ["a", "b", "c", "a"]


def test_answers_are_a_sequence_of_rows():
    answers = answers_of()
    assert len(answers) == N == len(list(answers)) and [answer.id for answer in answers] == answers.ids
    first, last = answers[0], answers[-1]
    assert list(first) == ["a", "b", "c"] and first.letter == answers.letters[0] and first.options == ("w", "x", "y")
    assert first.label_mass == pytest.approx(answers.label_mass[0].mean())
    assert not last.scored and last.status == "the picture cannot be read" and not last.probabilities
    assert [answer.id for answer in answers[1:3]] == ["id1", "id2"]
    assert repr(answers) == "Answers(60 rows, 59 scored, by m0, m1)"
    again = pickle.loads(pickle.dumps(answers_of()))
    assert again[0] == first and again.warnings == answers.warnings


def test_rows_none_of_which_has_a_score_are_answers_too():
    rows = table(1)
    logits = logits_of(rows)
    (answer,) = answers_of(rows, logits)
    assert not answer.scored and answer.status == "the picture cannot be read"
    nothing = replace(logits, logits=logits.logits[..., :0])  # a row without any option
    assert answers_of(rows, nothing).letters == [""] and answers_of(rows, nothing).probabilities.shape == (1, 0)


def test_warnings_are_those_of_the_run():
    answers = answers_of()
    assert any(text == "1 of 60 rows were in the training of m0: metrics of these rows say nothing about new ones"
               for text in answers.warnings)  # fmt: skip
    assert any("no score: 'id59' (the picture cannot be read)" in text for text in answers.warnings)


def test_a_frame_has_the_columns_of_the_probabilities(tmp_path):
    frame = answers_of().to_frame()
    run = written(tmp_path / "run")
    header = (run / "probabilities.csv").read_text().splitlines()[0]
    assert list(frame) == header.split(",") and len(frame) == N
    assert frame["p_b"].dtype == float and np.isnan(frame["p_d"][0]) and np.isnan(frame["margin"][N - 1])
    assert frame["pred"][N - 1] == "" and np.isnan(frame["correct"][N - 1])
    assert frame["correct"].sum() == sum(p == a for p, a in zip(frame["pred"], frame["answer"]))


def written(out, rows=None, logits=None):
    """The folder of a run, written as `score` does."""
    rows = rows or table()
    logits = logits or logits_of(rows)
    columns = columns_of(rows.questions)
    exposed = in_training(columns, "5a")
    columns["exposed"], warnings = exposed.tolist(), exposure_warnings(MEMBERS, exposed)
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_run(ScoredRun(out, run_json(rows), columns, logits, CALIBRATIONS, [], warnings=warnings))
    return out


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
    with pytest.raises(EnsembleError, match="answers=: 2 letters; expected one for each of the 3 rows"):
        Answers.load(path, answers=["a", "a"])
    calibrated = Answers.load(path, calibrations=[Calibration(2.0, fingerprint={"member": "mine"})])
    assert calibrated[0]["a"] == pytest.approx(0.75)  # 3 : 1 is the root of 9 : 1


def test_option_sets_are_kept(tmp_path):
    from scoring.stats.sets import SetRequest

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


# ------------------------------------------------------------------ figures
def test_an_evaluation_has_what_the_command_writes(tmp_path):
    metrics = json.loads((written(tmp_path / "run") / "metrics.json").read_text())
    assert json.loads(json.dumps(answers_of().evaluate())) == metrics
    colours = ["red", "blue"] * (N // 2)
    by = answers_of().evaluate(by={"colour": colours}, accuracy=0.5)
    expected = evaluate_scores(open_scores(tmp_path / "run"), {"colour": colours}, 0.5)
    assert json.loads(json.dumps(by)) == json.loads(json.dumps(expected))
    assert by["by"]["colour"]["red"]["rows"] == 30


def test_an_evaluation_takes_right_letters_for_rows_without(tmp_path):
    rows = table(answers=False)
    answers, right = answers_of(rows), [question.answer for question in table().questions]
    expected = answers_of().evaluate()["overall"]
    assert answers.evaluate(answers=right)["overall"] == expected
    assert answers.evaluate(answers=dict(zip(answers.ids, right)))["overall"] == expected
    path = tmp_path / "right.csv"
    path.write_text("id,answer\n" + "".join(f"{id},{letter}\n" for id, letter in zip(answers.ids, right)))
    assert answers.evaluate(answers=path)["overall"] == expected
    with pytest.raises(RunError, match="no scored row has an answer"):
        answers.evaluate()
    with pytest.raises(EnsembleError, match="'id0' \\('d'\\)"):  # which has three options
        answers.evaluate(answers=["d"] * N)
    with pytest.raises(EnsembleError, match="another answer in answers="):
        answers_of().evaluate(answers=["a"] * N)
    with pytest.raises(RunError, match="colour \\(2\\); expected a value for each of the 60 rows"):
        answers_of().evaluate(by={"colour": ["red", "blue"]})
    with pytest.raises(RunError, match="come from no table"):
        answers_of().evaluate(by="colour")
    with pytest.raises(RunError, match="accuracy=1.5"):
        answers_of().evaluate(accuracy=1.5)


def test_an_evaluation_is_grouped_by_columns_of_the_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,colour\n" + "".join(f"id{row},{('red', 'blue')[row % 2]}\n" for row in range(N)))
    answers = answers_of(replace(table(), file=path))
    assert answers.evaluate(by=["colour"]) == answers_of().evaluate(by={"colour": ["red", "blue"] * (N // 2)})


def test_a_comparison_is_that_of_two_folders(tmp_path):
    first, second = answers_of(), answers_of(logits=logits_of(table(), seed=1))
    folders = first.save(tmp_path / "a"), second.save(tmp_path / "b")
    assert first.compare(second) == compare_folders(*map(open_scores, folders))


def test_a_calibration_is_that_of_the_command(tmp_path, caplog):
    folder = write_scores(tmp_path / "s")
    expected = calibrate_file(folder, tmp_path / "calibration.json")["m"]
    with caplog.at_level(logging.INFO, "scoring"):
        calibration = Answers.load(folder).calibrate()
    assert calibration == expected and 1.5 < calibration.temperature < 3
    assert [record.message for record in caplog.records] == calibration.choice
    answers = answers_of()
    with pytest.raises(RunError, match="member=None: expected one of m0, m1"):
        answers.calibrate()
    assert answers.calibrate(member="m1").fingerprint["member"] == "m1"
    assert answers.calibrate(member="m0").rows == N - 2  # without the row of its training, and the one without a score


def test_a_calibration_is_fitted_on_letters_that_are_given():
    answers, right = answers_of(table(answers=False)), [question.answer for question in table().questions]
    assert answers.calibrate(answers=right, member="m1").temperature == answers_of().calibrate(member="m1").temperature


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
