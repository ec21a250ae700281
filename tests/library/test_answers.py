"""`Answers`: what comes out of a library call."""

import doctest
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from scoring.library import answers as module
from scoring.scores.evaluation import compare_folders, evaluate_scores
from scoring.scores.folder import open_scores
from tests.shared.made_answers import N, answers_of, logits_of, table, written


def test_the_examples_of_the_docstrings_run():
    assert doctest.testmod(module) == (0, 3)


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


def test_an_evaluation_has_what_the_command_writes(tmp_path):
    metrics = json.loads((written(tmp_path / "run") / "metrics.json").read_text())
    assert json.loads(json.dumps(answers_of().evaluate())) == metrics
    colours = ["red", "blue"] * (N // 2)
    by = answers_of().evaluate(by={"colour": colours}, accuracy=0.5)
    expected = evaluate_scores(open_scores(tmp_path / "run"), {"colour": colours}, 0.5)
    assert json.loads(json.dumps(by)) == json.loads(json.dumps(expected))
    assert by["by"]["colour"]["red"]["rows"] == 30


def test_a_comparison_is_that_of_two_folders(tmp_path):
    first, second = answers_of(), answers_of(logits=logits_of(table(), seed=1))
    folders = first.save(tmp_path / "a"), second.save(tmp_path / "b")
    assert first.compare(second) == compare_folders(*map(open_scores, folders))


def test_suspects_are_those_of_the_file(tmp_path):
    answers, scores = answers_of(), open_scores(written(tmp_path / "run"))
    metrics = evaluate_scores(scores, suspects=True)["suspects"]
    header, *lines = (tmp_path / "run" / "suspects.csv").read_text().splitlines()
    suspects = answers.suspects()
    assert list(suspects[0]) == header.split(",") and len(suspects) == len(lines) >= 20
    assert [row["id"] for row in suspects[:10]] == metrics["worst"]
    assert sum(row["flagged"] for row in suspects) == metrics["flagged"]
    first = lines[0].split(",")
    assert f"{suspects[0]['p_answer']:.6f}" == first[3] and str(int(suspects[0]["flagged"])) == first[6]
    assert answers_of(table(answers=False)).suspects() == []
