"""`Answer` and `Answers`: what comes out of a library call, and the folders that they become."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scoring.inputs.questions import Question
from scoring.library.answers import Answer, Answers
from scoring.scores.finalize import ScoredRun, write_run
from scoring.scores.folder import columns_of
from scoring.scores.logits import write_part
from scoring.stats.calibration import Calibration
from scoring.tables.table import Table
from tests.shared.scores_folders import random_logits

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
        "checkpoints": [{"member": name, "fingerprint": f"f-{name}", "temperature": 1.0} for name in members],
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


# ------------------------------------------------------------------ one row
def test_an_answer_is_a_mapping_from_letters_to_probabilities():
    answer = Answer("q1", "b", {"a": 0.25, "b": 0.75}, 0.5, 0.99, options=("a dog", "a cat"))
    assert answer["b"] == 0.75 and dict(answer) == {"a": 0.25, "b": 0.75} == answer and len(answer) == 2
    assert max(answer, key=answer.get) == answer.letter == "b" and answer.option == "a cat" and answer.scored
    assert repr(answer) == "Answer('q1', 'b': a 0.250, b 0.750)"
    assert pickle.loads(pickle.dumps(answer)) == answer
    with pytest.raises(AttributeError):
        answer.letter = "a"


def test_an_answer_without_a_score_has_no_probability_that_could_be_taken_for_one():
    answer = Answer("q1", status="no options", options=("a dog", "a cat"))
    assert not answer.scored and answer.letter == answer.option == "" and not answer and np.isnan(answer.margin)
    assert repr(answer) == "Answer('q1', no score: no options)"
    with pytest.raises(KeyError):
        answer["a"]
    with pytest.raises(ValueError):
        max(answer, key=answer.get)


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
    columns["exposed"] = in_training(columns, "5a").tolist()
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_run(ScoredRun(out, run_json(rows), columns, logits, CALIBRATIONS, []))
    return out
