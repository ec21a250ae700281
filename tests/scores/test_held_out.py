"""The folder of held-out rows: what is written of each row, what run.json records, and the metrics."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax

import scoring
from scoring.inputs.questions import Question
from scoring.scores import held_out
from scoring.scores.exposure import VALIDATION
from scoring.scores.folder import columns_of, open_scores
from scoring.scores.held_out import MEMBER, write_held_out
from scoring.scores.logits import OptionLogits, part_path

NOTE = "held-out rows of a training, each scored by an adapter that was not trained on it; not calibrated"
VALUES = np.array([[2.0, 0.5, -1.0], [0.0, 1.0, 3.0], [1.0, 1.5, 0.0], [-2.0, 4.0, 1.0], [0.0, 0.0, 0.0]])
UNREADABLE = "the picture cannot be read"


def held_out_logits(orders="1"):
    """Five rows of three options; the last one has no score."""
    order_count = {"1": 1, "cyclic": 3}[orders]
    logits = OptionLogits.empty([f"r{row}" for row in range(5)], [MEMBER], 3, orders)
    logits.logits[:4] = VALUES[:4, None, None]
    logits.label_mass[:4], logits.top_token[:4] = 0.75, 32
    logits.status = ["ok"] * 4 + [UNREADABLE]
    assert logits.logits.shape == (5, 1, order_count, 3)
    return logits


def held_out_columns(answers="acbba", exposed=None):
    """The table's columns; the options' texts and the answers are those of the five rows."""
    questions = [
        Question(f"r{row}", row + 1, (), f"q{row}", ("x", "y", "z"), answers[row] if answers else "", "count")
        for row in range(5)
    ]
    return columns_of(questions, exposed)


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


# ------------------------------------------------------------------ run.json
@pytest.mark.parametrize("orders", ["1", "cyclic"])
def test_run_json_says_who_scored_the_rows_and_how(tmp_path, orders):
    entry = {"folder": "fold0", "adapters": ["f0"], "base": "b", "pixels": 1024}
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(orders), entry)
    assert run_json(tmp_path / "out") == {
        "checkpoints": [
            {"member": "held-out", "fingerprint": "f0", "temperature": 1.0, "orders": orders}
            | {"folder": "fold0", "adapters": ["f0"], "base": "b", "pixels": 1024}
        ],
        "identity": {"letters": "abc", "orders": orders},
        "versions": scoring.versions(),
        "notes": [NOTE],
        "counts": {"rows": 5, "scored": 4},
    }


def test_rows_of_several_adapters_have_no_single_fingerprint(tmp_path):
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0", "f1"]})
    entry = run_json(tmp_path / "out")["checkpoints"][0]
    assert entry["fingerprint"] == "" and entry["adapters"] == ["f0", "f1"]


def test_details_of_the_run_stand_in_run_json_and_their_notes_come_last(tmp_path):
    about = {"data": {"file": "x.csv", "sha256": "s"}, "seconds": {"scoring": 2.5}, "notes": ["fold 1 stopped early"]}
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]}, about)
    written = run_json(tmp_path / "out")
    assert written["data"] == {"file": "x.csv", "sha256": "s"} and written["seconds"] == {"scoring": 2.5}
    assert written["notes"] == [NOTE, "fold 1 stopped early"]
    assert about["notes"] == ["fold 1 stopped early"]


def test_details_of_the_run_change_none_of_the_counts(tmp_path):
    about = {"counts": {"rows": 99}, "identity": {"letters": "z"}, "checkpoints": []}
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]}, about)
    written = run_json(tmp_path / "out")
    assert written["counts"] == {"rows": 5, "scored": 4} and written["identity"] == {"letters": "abc", "orders": "1"}
    assert [entry["member"] for entry in written["checkpoints"]] == [MEMBER] and written["notes"] == [NOTE]


# ------------------------------------------------------------------ the rows
@pytest.mark.parametrize("before", [None, np.ones((5, 1), np.uint8)])
def test_every_row_is_a_validation_row_whatever_it_was_before(tmp_path, before):
    columns = held_out_columns(exposed=before)
    flags_before = [list(flags) for flags in columns["exposed"]]
    write_held_out(tmp_path / "out", columns, held_out_logits(), {"adapters": ["f0"]})
    read = open_scores(tmp_path / "out")
    assert read.questions["exposed"] == [[VALIDATION]] * 5 and read.exposed.tolist() == [[VALIDATION]] * 5
    assert columns["exposed"] == flags_before


def test_the_columns_of_the_table_and_the_folds_are_read_again(tmp_path):
    columns = held_out_columns() | {"fold": [0, 1, 0, 1, 1]}
    write_held_out(tmp_path / "out", columns, held_out_logits(), {"adapters": ["f0", "f1"]})
    read = open_scores(tmp_path / "out").questions
    assert read == columns | {"exposed": [[VALIDATION]] * 5}
    assert pq.read_schema(tmp_path / "out" / "questions.parquet").field("fold").type == "int32"


@pytest.mark.parametrize("orders", ["1", "cyclic"])
def test_the_logits_are_read_again_and_a_row_without_a_score_stays_with_its_reason(tmp_path, orders):
    logits = held_out_logits(orders)
    write_held_out(tmp_path / "out", held_out_columns(), logits, {"adapters": ["f0"]})
    read = open_scores(tmp_path / "out").logits
    assert read.ids == logits.ids and read.members == [MEMBER] and read.orders == orders
    assert np.array_equal(read.logits, logits.logits, equal_nan=True)
    assert np.array_equal(read.label_mass, logits.label_mass, equal_nan=True)
    assert np.array_equal(read.top_token, logits.top_token)
    assert read.status == ["ok"] * 4 + [UNREADABLE]


def test_the_probabilities_are_those_of_the_raw_logits(tmp_path):
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]})
    read = open_scores(tmp_path / "out")
    assert read.calibrations[0].temperature == 1.0 and read.calibrations[0].letters == []
    assert np.allclose(read.log_p[:4], log_softmax(VALUES[:4], axis=1), atol=1e-7) and np.isnan(read.log_p[4]).all()
    lines = (tmp_path / "out" / "probabilities.csv").read_text().splitlines()
    assert lines[1] == "r0,a,0.785597,0.175290,0.039113,0.610307,0.750000,ok,a,1"
    assert lines[5] == f"r4,,,,,,,{UNREADABLE},a,"
    assert (tmp_path / "out" / "submission.csv").read_text() == "id,answer\nr0,a\nr1,c\nr2,b\nr3,b\nr4,\n"


# ------------------------------------------------------------------ metrics
@pytest.mark.parametrize("answers, right", [("acbba", 1.0), ("abbba", 0.75), ("baaab", 0.0)])
def test_the_metrics_are_of_the_scored_rows_and_are_written_too(tmp_path, answers, right):
    metrics = write_held_out(tmp_path / "out", held_out_columns(answers), held_out_logits(), {"adapters": ["f0"]})
    y = ["abc".index(letter) for letter in answers[:4]]
    assert metrics["overall"]["rows"] == 4 and metrics["overall"]["accuracy"]["value"] == right
    loss = -log_softmax(VALUES[:4], axis=1)[np.arange(4), y].mean()
    assert metrics["overall"]["nll"]["value"] == pytest.approx(loss, abs=1e-6)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["overall"]["nll"]["value"] == metrics["overall"]["nll"]["value"]


def test_rows_without_answers_have_a_folder_and_no_metrics(tmp_path):
    assert write_held_out(tmp_path / "out", held_out_columns(None), held_out_logits(), {"adapters": ["f0"]}) is None
    assert not (tmp_path / "out" / "metrics.json").exists() and run_json(tmp_path / "out")["counts"]["scored"] == 4


# ------------------------------------------------------------------ the folder
def test_the_folder_is_made_with_those_above_it_and_may_be_there_already(tmp_path):
    out = tmp_path / "training" / "held-out"
    for _ in range(2):
        write_held_out(out, held_out_columns(), held_out_logits(), {"adapters": ["f0"]})
    assert sorted(path.name for path in out.iterdir()) == [
        "logits", "metrics.json", "probabilities.csv", "questions.parquet", "run.json", "submission.csv",
    ]  # fmt: skip


def test_parts_of_an_earlier_run_are_deleted_and_nothing_else(tmp_path):
    folder = tmp_path / "out" / "logits"
    folder.mkdir(parents=True)
    for number in (0, 1, 7):
        part_path(folder, number).write_text("of an earlier run")
    (folder / "notes.txt").write_text("mine")
    (tmp_path / "out" / "part-000003.parquet").write_text("mine")
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]})
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "part-000000.parquet"]
    assert (tmp_path / "out" / "part-000003.parquet").exists()
    assert open_scores(tmp_path / "out").logits.scored.tolist() == [True] * 4 + [False]


def test_the_earlier_logits_stay_until_new_ones_are_written(tmp_path, monkeypatch):
    write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]})
    before = part_path(tmp_path / "out" / "logits", 0).read_bytes()

    def full_disk(*_):
        raise OSError("no space left on the device")

    monkeypatch.setattr(held_out, "write_part", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_held_out(tmp_path / "out", held_out_columns(), held_out_logits(), {"adapters": ["f0"]})
    assert part_path(tmp_path / "out" / "logits", 0).read_bytes() == before
