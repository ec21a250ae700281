"""What a pool writes, records and says, by values that are worked out by hand or by code written anew."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax

import scoring
from scoring.results.calibration import Calibration
from scoring.results.ensemble import EnsembleError, leave_one_out, nll_weights, pool
from scoring.results.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.results.folder import RunError, Scores, open_scores
from scoring.results.logits import write_part
from scoring.results.pooling import Pooled, PoolOptions, claim, describe_choices, import_file, pool_files
from scoring.results.resampling import clusters_of
from scoring.results.sets import SetRequest, SetsError
from scoring.results.sources import read_sources
from scoring.results.weights import choices, fit_weights, greedy_weights, held_out_pool, likeliest_weights, pulled
from tests.results.test_ensemble import another, likeliest_temperature, members, write_csv
from tests.results.test_judging import scores
from tests.results.test_pools import drawn, expose, long_file, settings, table, two_folders


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def change_run(folder, **values):
    (folder / "run.json").write_text(json.dumps(run_json(folder) | values))


def columns_of(folder):
    return pq.read_table(folder / "questions.parquet").to_pydict()


def change_columns(folder, **values):
    pq.write_table(pa.table(columns_of(folder) | values), folder / "questions.parquet")


def cells(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


A = "id,p_a,p_b,p_c\nx,0.6,0.3,0.1\ny,0.1,0.2,0.7\n"
B = "id,p_a,p_b,p_c\ny,0.5,0.4,0.1\nx,0.2,0.7,0.1\n"
C = "id,p_a,p_b,p_c\nx,0.5,0.1,0.4\ny,0.2,0.2,0.6\n"


def two_files(tmp_path):
    return table(tmp_path / "a.csv", A), table(tmp_path / "b.csv", B)


# ------------------------------------------------------------------ values of two rows, by hand
BY_HAND = {
    ("log", "equal"): ([0.12**0.5, 0.21**0.5, 0.1], [0.05**0.5, 0.08**0.5, 0.07**0.5]),
    ("log", "3,1"): (
        [0.6**0.75 * 0.2**0.25, 0.3**0.75 * 0.7**0.25, 0.1],
        [0.1**0.75 * 0.5**0.25, 0.2**0.75 * 0.4**0.25, 0.7**0.75 * 0.1**0.25],
    ),
    ("linear", "equal"): ([0.4, 0.5, 0.1], [0.3, 0.3, 0.4]),
    ("linear", "3,1"): ([0.5, 0.4, 0.1], [0.2, 0.25, 0.55]),
}


@pytest.mark.parametrize("kind, weights", BY_HAND)
def test_pools_of_two_rows_are_as_worked_out_by_hand(tmp_path, kind, weights):
    found = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(kind, weights))
    expected = np.array(BY_HAND[kind, weights])
    expected /= expected.sum(1, keepdims=True)
    assert np.exp(found.scores.log_p) == pytest.approx(expected, abs=1e-6)
    rows = cells(tmp_path / "out" / "probabilities.csv")
    written = [[float(row[f"p_{letter}"]) for letter in "abc"] for row in rows]
    assert [row["id"] for row in rows] == ["x", "y"] and np.array(written) == pytest.approx(expected, abs=2e-6)


def test_a_vote_of_three_is_two_thirds_and_a_tie_goes_to_the_log_pool(tmp_path):
    files = [*two_files(tmp_path), table(tmp_path / "c.csv", C)]
    found = np.exp(pool_files(files, tmp_path / "out", PoolOptions("vote")).scores.log_p)
    assert found == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [1 / 3, 0, 2 / 3]]), abs=1e-3)
    tie = np.exp(pool_files(files[:2], tmp_path / "tie", PoolOptions("vote")).scores.log_p)
    assert tie == pytest.approx(np.array([[0.5, 0.5, 0], [0.5, 0, 0.5]]), abs=1e-3)
    assert tie.argmax(1).tolist() == [1, 2]  # 0.21 > 0.12, and 0.07 > 0.05


def test_each_member_has_its_own_numbers_beside_the_pool(tmp_path):
    pool_files([*two_files(tmp_path)], tmp_path / "out")
    for name, expected in (("a", [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]), ("b", [[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])):
        rows = cells(tmp_path / "out" / "members" / f"{name}.csv")
        assert [[float(row[f"p_{letter}"]) for letter in "abc"] for row in rows] == expected


def test_a_row_that_a_member_has_no_number_for_is_not_pooled(tmp_path):
    first = table(tmp_path / "a.csv", "id,p_a,p_b\nx,0.6,0.4\ny,,\nz,,\n")
    second = table(tmp_path / "b.csv", "id,p_a,p_b\nz,,\nx,,\ny,0.3,0.7\n")
    found = pool_files([first, second], tmp_path / "out")
    assert found.scores.logits.status == [f"no score from {name}: no number in the file" for name in "baa"]
    assert np.isnan(found.scores.log_p).all() and not found.scores.logits.scored.any()
    assert run_json(tmp_path / "out")["counts"] == {"rows": 3, "scored": 0, "members": 2}
    assert found.metrics is None
    third = table(tmp_path / "c.csv", "id,p_a,p_b\nx,0.5,0.5\ny,0.9,0.1\nz,0.4,0.6\n")
    part = pool_files([first, third], tmp_path / "part").scores
    assert part.logits.scored.tolist() == [True, False, False]
    assert run_json(tmp_path / "part")["counts"] == {"rows": 3, "scored": 1, "members": 2}
    assert np.isnan(part.logits.logits[1:]).all()


# ------------------------------------------------------------------ what run.json records
def test_run_json_of_files_records_each_part(tmp_path):
    files = two_files(tmp_path)
    found = pool_files([*files], tmp_path / "out", PoolOptions("linear", "3,1"))
    about = run_json(tmp_path / "out")
    assert list(about) == ["checkpoints", "pool", "sources", "identity", "versions", "notes", "warnings", "counts"]
    notes = [f"{path}: p_a … p_c read as probabilities, by their names" for path in files]
    assert about["pool"] == {"kind": "linear", "temperature": 1.0, "weights": [0.75, 0.25], "told": notes}
    assert about["notes"] == notes and about["warnings"] == [] and found.told == notes
    assert about["sources"] == [str(path) for path in files]
    assert about["identity"] == {"letters": "abc", "orders": "1"}
    assert about["versions"] == json.loads(json.dumps(scoring.versions()))
    assert about["counts"] == {"rows": 2, "scored": 2, "members": 2}
    for entry, name, path in zip(about["checkpoints"], "ab", files):
        assert entry == {
            "orders": "1",
            "file": str(path),
            "member": name,
            "fingerprint": "",
            "temperature": 1.0,
            "calibration": json.loads(json.dumps(Calibration().stripped())),
            "data": {"file": str(path)},
        }


def test_run_json_of_folders_records_their_settings_calibrations_and_data(tmp_path):
    a, b = two_folders(tmp_path)
    own = Calibration(2.5, [0.0, 0.1, -0.2, 0.3], rows=60, nonconformity=[0.1] * 60, digests=["d"] * 60).to_json()
    settings(a, temperature=2.5, calibration=own, data={"file": "a.csv", "sha256": "1"}, trained_on="t", pixels=9)
    change_run(b, data={"file": "b.csv", "sha256": "2"}, identity={"letters": "abcd", "orders": "cyclic", "base": "B"})
    turned = open_scores(a).logits
    assert turned.orders == "1"
    change_run(b, identity={"letters": "abcd", "orders": "1", "base": "B", "template": "T", "pixels": 4})
    pool_files([a, b], tmp_path / "out")
    about = run_json(tmp_path / "out")
    first, second = about["checkpoints"]
    assert "data" not in about
    assert (first["data"], second["data"]) == (
        {"file": "a.csv", "sha256": "1"},
        {"file": "b.csv", "sha256": "2"},
    )
    assert (first["temperature"], first["trained_on"], first["pixels"], first["fingerprint"]) == (2.5, "t", 9, "fa")
    assert (second["base"], second["template"], second["pixels"], second["fingerprint"]) == ("B", "T", 4, "fb")
    assert first["calibration"] == own | {"nonconformity": [], "digests": []}
    assert (second["temperature"], second["calibration"]["temperature"]) == (1.0, 1.0)
    again = open_scores(tmp_path / "out")
    assert again.calibrations[0].letters == [0.0, 0.1, -0.2, 0.3] and again.calibrations[0].rows == 60


def test_data_of_the_run_is_recorded_once_where_all_that_is_known_is_alike(tmp_path):
    a, b = two_folders(tmp_path)
    change_run(a, data={"file": "x.csv", "sha256": "s"})
    pool_files([a, b], tmp_path / "out")  # b says nothing
    about = run_json(tmp_path / "out")
    assert about["data"] == {"file": "x.csv", "sha256": "s"} and about["checkpoints"][1]["data"] == {}


def test_what_the_caller_records_stands_beside_what_the_pool_does(tmp_path):
    files, about = two_files(tmp_path), {"command": ["me"], "data": {"file": "t"}, "notes": ["first"]}
    found = pool_files([*files], tmp_path / "out", None, ["m", "n"], about, ["careful", "careful"])
    written = run_json(tmp_path / "out")
    assert written["command"] == ["me"] and written["data"] == {"file": "t"}
    assert written["notes"][0] == "first" and len(written["notes"]) == 3
    assert written["warnings"] == ["careful"] and found.told[-1] == "warning: careful" and len(found.told) == 3
    assert [entry["member"] for entry in written["checkpoints"]] == ["m", "n"] == found.scores.logits.members


def test_label_mass_of_a_member_is_that_of_its_own_rows(tmp_path):
    a, b = two_folders(tmp_path)
    for folder, sign in ((a, 1), (b, -1)):
        opened = open_scores(folder)
        logits = opened.logits
        logits.label_mass = (np.arange(200)[:, None, None] / 1000 + 0.5).astype(np.float32)
        if folder == b:
            for name in ("logits", "label_mass", "top_token"):
                setattr(logits, name, getattr(logits, name)[::-1])
            logits.ids = logits.ids[::-1]
            change_columns(b, **{name: column[::-1] for name, column in opened.questions.items()})
        write_part(folder / "logits", 0, logits)
    mass = pool_files([a, b], tmp_path / "out").scores.logits.label_mass[:, :, 0]
    assert mass == pytest.approx(np.repeat(np.arange(200)[:, None] / 1000 + 0.5, 2, 1), abs=1e-6)
    files = pool_files([*two_files(tmp_path)], tmp_path / "files").scores.logits.label_mass
    assert np.isnan(files).all()


def test_each_column_of_the_questions_comes_from_the_first_member_that_knows_it(tmp_path):
    folder = scores(tmp_path / "a", n=3)
    values = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1], [0.7, 0.1, 0.1, 0.1]])
    other = write_csv(tmp_path / "b.csv", ["row2", "row0", "row1"], values)
    truth = columns_of(folder)
    change_columns(folder, answer=["", "", ""])
    answers = {
        "answer": {f"row{row}": letter for row, letter in enumerate(truth["answer"])},
        "task_type": {"row1": "never"},
    }
    pool_files([other, folder], tmp_path / "out", PoolOptions(answers=answers))
    found, turn = columns_of(tmp_path / "out"), [2, 0, 1]
    assert found["id"] == ["row2", "row0", "row1"] and found["options"] == [4, 4, 4]
    for name in ("answer", "task_type", "picture", "picture_digest", "digest", "question", "choices"):
        assert found[name] == [truth[name][row] for row in turn], name
    assert found["exposed"] == [[0, 0]] * 3


def test_exposure_of_a_member_follows_its_rows_into_the_order_of_the_first(tmp_path):
    a, b = two_folders(tmp_path)
    expose(b, [TRAINING, VALIDATION] + [0] * 198)
    opened = open_scores(b)
    logits = opened.logits
    logits.logits, logits.ids = logits.logits[::-1], logits.ids[::-1]
    write_part(b / "logits", 0, logits)
    change_columns(b, **{name: column[::-1] for name, column in opened.questions.items()})
    found = pool_files([a, b], tmp_path / "out")
    assert found.scores.exposed.tolist() == [[0, TRAINING], [0, VALIDATION]] + [[0, 0]] * 198
    warnings = run_json(tmp_path / "out")["warnings"]
    assert warnings == [
        "1 of 200 rows were in the training of b: metrics of these rows say nothing about new ones",
        "1 of 200 rows are validation rows of b: its epoch was chosen on them, so metrics of these rows flatter it",
    ]
    assert [f"warning: {text}" for text in warnings] == found.told[-2:]


def test_a_warning_that_members_share_is_said_once_and_a_missing_row_is_named(tmp_path):
    first = table(tmp_path / "a.csv", "id,p_a,p_b\nx,0.6,0.4\ny,,\n")
    second = table(tmp_path / "b.csv", "id,p_a,p_b\nx,0.7,0.3\ny,0.2,0.8\n")
    found = pool_files([first, second], tmp_path / "out")
    assert run_json(tmp_path / "out")["warnings"] == [
        "1 rows have no score: 'y' (no score from a: no number in the file)"
    ]
    assert found.told[-1] == "warning: 1 rows have no score: 'y' (no score from a: no number in the file)"
