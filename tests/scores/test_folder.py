"""Logits on disk, pooling, and the files that people take away."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scoring.files.reading import FileError
from scoring.files.writing import write_text, write_whole
from scoring.inputs.digests import picture_digest
from scoring.inputs.questions import Question
from scoring.scores.evaluation import evaluate_scores, warnings_of
from scoring.scores.folder import RunError, columns_of, open_scores, typed_columns, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.probabilities import pooled_log_probabilities
from scoring.stats.calibration import Calibration
from scoring.stats.pools import PoolSettings
from tests.shared.scores_folders import random_logits


def write_folder(out, questions, logits, **values):
    """A SCORES folder as a run leaves it."""
    (out / "logits").mkdir(exist_ok=True)
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()] * len(logits.members))
    checkpoints = [{"member": name, "fingerprint": name * 2, "temperature": 1.0} for name in logits.members]
    letters = "abcdefgh"[: logits.logits.shape[3]]
    values = {"checkpoints": checkpoints, "identity": {"letters": letters, "orders": logits.orders}} | values
    write_text(out / "run.json", json.dumps(values))


def test_pictures_in_memory_have_a_digest_and_no_name(tmp_path):
    (tmp_path / "p.png").write_bytes(b"red")
    given = [(tmp_path / "p.png", b"red"), (Image.new("L", (2, 2)),), (b"red",), ()]
    questions = [Question(str(row), row, pictures, "q", ("x", "y")) for row, pictures in enumerate(given, 1)]
    columns = columns_of(questions)
    assert columns["picture"] == [str(tmp_path / "p.png"), "", "", ""]
    assert columns["more_pictures"] == [[""], [], [], []]
    assert len(set(columns["picture_digest"])) == 4 and columns["picture_digest"][3] == ""
    assert columns["picture_digest"][2] == picture_digest(tmp_path / "p.png")
    assert pa.table(typed_columns(columns)).num_rows == 4


def test_equal_members_give_the_single_models_probabilities():
    one = random_logits(members=("m",))
    three = OptionLogits(
        one.ids, ["a", "b", "c"], np.repeat(one.logits, 3, axis=1), one.label_mass, one.top_token, one.status
    )
    assert np.allclose(
        np.exp(pooled_log_probabilities(three, [Calibration(1.7)] * 3)),
        np.exp(pooled_log_probabilities(one, [Calibration(1.7)])),
        atol=1e-9,
    )


def test_the_pool_is_the_mean_of_log_probabilities():
    logits = random_logits()
    p = np.exp(pooled_log_probabilities(logits, [Calibration(2.0), Calibration(0.5)]))
    from scipy.special import softmax

    product = softmax(logits.logits[:, 0, 0] / 2.0, 1) ** 0.5 * softmax(logits.logits[:, 1, 0] / 0.5, 1) ** 0.5
    assert np.allclose(p, product / product.sum(1, keepdims=True), atol=1e-6)


def test_probabilities_submission_and_metrics_are_as_computed_by_hand(tmp_path):
    logits = random_logits(4, ("m",))
    logits.logits[2, ..., 2:] = np.nan
    logits.status[3], logits.logits[3] = "picture: an empty file", np.nan
    questions = [
        Question(name, row + 1, (), "q", ("w", "x", "y", "z")[: 2 if row == 2 else 4], answer="a")
        for row, name in enumerate(logits.ids)
    ]
    write_folder(tmp_path, questions, logits)
    metrics = evaluate_scores(open_scores(tmp_path))
    rows = list(csv.DictReader((tmp_path / "probabilities.csv").read_text().splitlines()))
    assert list(rows[0]) == [
        "id",
        "pred",
        "p_a",
        "p_b",
        "p_c",
        "p_d",
        "margin",
        "label_mass",
        "status",
        "answer",
        "correct",
    ]
    assert (
        [row["id"] for row in rows] == logits.ids
        and rows[2]["p_c"] == ""
        and rows[3]["pred"] == rows[3]["p_a"] == rows[3]["correct"] == ""
    )
    assert rows[3]["status"] == "picture: an empty file" and rows[0]["status"] == "ok"
    for row in rows[:3]:
        p = [float(row[f"p_{letter}"]) for letter in "abcd" if row[f"p_{letter}"]]
        assert sum(p) == pytest.approx(1, abs=1e-5) and row["pred"] == "abcd"[int(np.argmax(p))]
        assert float(row["margin"]) == pytest.approx(sorted(p)[-1] - sorted(p)[-2], abs=2e-6) and len(row["p_a"]) == 8
        assert row["correct"] == str(int(row["pred"] == row["answer"]))
    submission = list(csv.DictReader((tmp_path / "submission.csv").read_text().splitlines()))
    assert [row["answer"] for row in submission] == [row["pred"] for row in rows] and list(submission[0]) == [
        "id",
        "answer",
    ]
    assert metrics["overall"]["rows"] == 3 and (tmp_path / "metrics.json").exists()


def test_without_answers_there_are_no_metrics(tmp_path):
    logits = random_logits(2, ("m",))
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    write_folder(tmp_path, questions, logits)
    assert evaluate_scores(open_scores(tmp_path)) is None
    assert not (tmp_path / "metrics.json").exists()
    assert "answer" not in (tmp_path / "probabilities.csv").read_text().splitlines()[0]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x", "old")

    def broken(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError):
        write_whole(tmp_path / "x", broken)
    assert (tmp_path / "x").read_text() == "old"


def test_warnings_name_a_cause():
    logits = random_logits(40, ("m",))
    logits.label_mass[:] = 0.99
    logits.top_token[:] = 1
    assert warnings_of(logits, [1, 2, 3, 4], [Calibration()]) == []
    logits.label_mass[:5] = 0.3
    warning = warnings_of(logits, [1, 2, 3, 4], [Calibration()])[0]
    assert "low label mass" in warning and "template" in warning and "`bench` shows what" in warning
    logits.status[7] = "picture: an empty file"
    assert "'id7' (picture: an empty file)" in warnings_of(logits, [1, 2, 3, 4], [Calibration()])[1]


def test_run_json_is_read_as_a_record(tmp_path):
    logits = random_logits(4)
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    pool = {"kind": "linear", "weights": [0.75, 0.25], "temperature": 1.5, "told": ["a note"]}
    write_folder(tmp_path, questions, logits, pool=pool, sets={"level": 0.9}, sources=["a", "b"])
    run = open_scores(tmp_path).run
    assert run.pool == PoolSettings("linear", [0.75, 0.25], 1.5) and run.sources == ["a", "b"]
    assert (run.sets.level, run.sets.method) == (0.9, "lac") and run.data.file == ""
    assert [entry.fingerprint for entry in run.checkpoints] == ["m0m0", "m1m1"]


def test_a_value_of_another_type_in_run_json_is_named(tmp_path):
    logits = random_logits(4)
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    write_folder(tmp_path, questions, logits, pool={"kind": 3})
    with pytest.raises(FileError, match="run.json: pool.kind is 3; expected a valid string"):
        open_scores(tmp_path)


def test_questions_are_told_apart_by_picture_text_and_options_in_any_order(tmp_path):
    def digest(picture="x", question="q", options=("w", "x")):
        path = tmp_path / f"{picture}.png"
        path.write_text(picture)
        return columns_of([Question("1", 1, (path,), question, options)])["digest"][0]

    assert digest() == digest(options=("x", "w"))
    assert len({digest(), digest(picture="y"), digest(question="r"), digest(options=("w", "y"))}) == 4


def test_the_types_of_the_columns_of_questions_do_not_depend_on_their_values(tmp_path):
    logits, options = random_logits(2, ("m",)), ("w", "x", "y", "z")
    questions = [Question(name, 1, (), "q", options) for name in logits.ids]
    columns = columns_of(questions) | {"fold": [0, 1]}
    write_folder(tmp_path, columns, logits)
    path = tmp_path / "questions.parquet"
    schema = pq.read_schema(path)
    types = {name: str(schema.field(name).type) for name in ("options", "choices", "exposed", "fold")}
    expected = {"options": "int32", "choices": "list<element: string>", "exposed": "list<element: uint8>"}
    assert types == expected | {"fold": "int32"}
    write_folder(tmp_path, columns | {"choices": [[], []], "exposed": [[3], [0]]}, logits)
    assert pq.read_schema(path).equals(schema)


def test_results_of_members_are_replaced(tmp_path):
    logits = random_logits(4)
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    write_folder(tmp_path, questions, logits)
    first = (tmp_path / "members" / "m1.csv").read_text()
    logits.logits = logits.logits[::-1]
    write_folder(tmp_path, questions, logits)
    second = (tmp_path / "members" / "m1.csv").read_text()
    assert [line.split(",")[2:6] for line in second.splitlines()[1:]] == [
        line.split(",")[2:6] for line in reversed(first.splitlines()[1:])
    ]


def test_a_questions_file_that_cannot_be_read_is_named_with_its_fault(tmp_path):
    logits = random_logits(2, ("m",))
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    write_folder(tmp_path, questions, logits)
    path = tmp_path / "questions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["options", "answer"]), path)
    with pytest.raises(RunError) as error:
        open_scores(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: questions.parquet cannot be read ('answer, options'); expected what `score` wrote"
    )


def test_sets_are_read_from_a_long_file_with_line_ends_in_its_cells(tmp_path):
    """A cell of two megabytes, more than the reader takes at a time."""
    logits = random_logits(3, ("m",))
    questions = [Question(name, 1, (), "q", ("w", "x", "y", "z")) for name in logits.ids]
    write_folder(tmp_path, questions, logits)
    rows = [["id", "status", "set"], ["id0", "ok", "bd"], ["id1", "a, b\n" * 400_000, ""], ["id2", "ok", "a"]]
    with open(tmp_path / "probabilities.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    held = open_scores(tmp_path).option_sets()
    assert held.tolist() == [[False, True, False, True], [False] * 4, [True, False, False, False]]
