"""What a pool writes, records and says, by values that are worked out by hand or by code written anew."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax

import scoring
from scoring.inputs.answers import AnswerTable
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.fitting import describe_choices
from scoring.scores.folder import RunError, open_scores
from scoring.scores.logits import write_part
from scoring.scores.pooling import PoolOptions, check_replaceable, import_file, pool_files
from scoring.stats.calibration import Calibration, LabelledRows, calibrate
from scoring.stats.pool_weights import (
    choices,
    convex_fit,
    fit_weights,
    greedy_weights,
    held_out_pool,
    likeliest_weights,
)
from scoring.stats.pools import EnsembleError, PoolSettings, leave_one_out, nll_weights, pool
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import set_quantile
from scoring.stats.sets import SetRequest, SetsError
from tests.shared.number_files import long_file, table, write_csv
from tests.shared.predictions import drawn, likeliest_temperature
from tests.shared.scores_folders import expose, scores, settings, two_folders


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
    assert about["notes"] == notes and about["warnings"] == [] and found.notes == notes
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
    found = pool_files([*files], tmp_path / "out", PoolOptions(names=["m", "n"]), about, ["careful", "careful"])
    written = run_json(tmp_path / "out")
    assert written["command"] == ["me"] and written["data"] == {"file": "t"}
    assert written["notes"][0] == "first" and len(written["notes"]) == 3
    assert written["warnings"] == ["careful"] and found.notes[-1] == "warning: careful" and len(found.notes) == 3
    assert [entry["member"] for entry in written["checkpoints"]] == ["m", "n"] == found.scores.logits.members


def test_label_mass_of_a_member_is_that_of_its_own_rows(tmp_path):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
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
    letters = {f"row{row}": letter for row, letter in enumerate(truth["answer"])}
    answers = AnswerTable(Path("answers.csv"), letters, {"row1": "never"})
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
    assert [f"warning: {text}" for text in warnings] == found.notes[-2:]


def test_a_warning_that_members_share_is_said_once_and_a_missing_row_is_named(tmp_path):
    first = table(tmp_path / "a.csv", "id,p_a,p_b\nx,0.6,0.4\ny,,\n")
    second = table(tmp_path / "b.csv", "id,p_a,p_b\nx,0.7,0.3\ny,0.2,0.8\n")
    found = pool_files([first, second], tmp_path / "out")
    assert run_json(tmp_path / "out")["warnings"] == [
        "1 row has no score: 'y' (no score from a: no number in the file)"
    ]
    assert found.notes[-1] == "warning: 1 row has no score: 'y' (no score from a: no number in the file)"


# ------------------------------------------------------------------ names, weights and sources of members
@pytest.mark.parametrize(
    "paths, names",
    [
        (["a.csv", "b.csv"], ["a", "b"]),
        (["one/m.csv", "two/n.csv"], ["m", "n"]),
        (["one/m.csv", "two/m.csv"], ["1-m", "2-m"]),
    ],
)
def test_members_of_files_have_distinct_names(tmp_path, paths, names):
    for path, text in zip(paths, (A, B)):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        table(tmp_path / path, text)
    found = pool_files([tmp_path / path for path in paths], tmp_path / "out").scores
    assert found.logits.members == names


def test_members_of_one_name_in_folders_are_named_by_their_folders(tmp_path):
    a, b = two_folders(tmp_path)
    assert open_scores(a).logits.members == open_scores(b).logits.members == ["m"]
    assert pool_files([a, b], tmp_path / "out").scores.logits.members == ["a", "b"]


@pytest.mark.parametrize(
    "text, weights",
    [("equal", [0.5, 0.5]), ("1,3", [0.25, 0.75]), ("0,2", [0.0, 1.0]), ("0.2,0.3", [0.4, 0.6]), ("1,0", [1.0, 0.0])],
)
def test_given_weights_are_shares_in_the_order_of_the_members(tmp_path, text, weights):
    found = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(weights=text)).scores
    assert found.pool.weights == pytest.approx(weights) and found.pool.temperature == 1.0


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "0,0", "nan,1", "EQUAL"])
def test_weights_that_are_none_are_refused_with_what_is_expected(tmp_path, text):
    with pytest.raises(EnsembleError) as error:
        pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(weights=text))
    assert str(error.value) == (
        f"weights {text!r}: expected equal, nll, fit, greedy, or 2 numbers from 0 on, separated by commas, in the "
        "order of the members: a, b"
    )


@pytest.mark.parametrize(
    "kind, weights, refused",
    [("linear", "fit", True), ("vote", "nll", True), ("linear", "1,2", False), ("vote", "equal", False)],
)
def test_fitted_weights_are_of_the_log_pool_alone(kind, weights, refused):
    if not refused:
        assert (PoolOptions(kind, weights).kind, PoolOptions(kind, weights).weights) == (kind, weights)
        return
    with pytest.raises(EnsembleError) as error:
        PoolOptions(kind, weights)
    assert str(error.value) == (
        f"--pool {kind} with --weights {weights}: nll, fit, greedy fit weights of the log pool; others suit a {kind} "
        "pool; use --pool log, or --weights equal or a number for each member"
    )


@pytest.mark.parametrize("weights", ["nll", "fit", "greedy"])
def test_weights_to_be_fitted_need_labelled_rows(tmp_path, weights):
    with pytest.raises(EnsembleError) as error:
        pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(weights=weights))
    assert str(error.value) == (
        f"--weights {weights} needs labelled rows that no member was trained on: name them with --fit"
    )


def test_sets_need_labelled_rows(tmp_path):
    with pytest.raises(SetsError) as error:
        pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(sets=SetRequest(0.8)))
    assert str(error.value) == (
        "--sets of a pool need labelled rows that no member was trained on: name them with --fit"
    )


@pytest.mark.parametrize("weights, shares", [("equal", (67, 33)), ("2,1,1", (75, 25)), ("1,2,7", (30, 70))])
def test_a_source_weighs_what_its_members_weigh_together(tmp_path, weights, shares):
    log_p, y, ids = drawn(30, 1)
    two = long_file(tmp_path / "two.parquet", log_p[:2], y, ids)
    one = write_csv(tmp_path / "one.csv", ids, np.exp(log_p[2]))
    notes = pool_files([two, one], tmp_path / "out", PoolOptions(weights=weights)).scores.run_json["pool"]["told"]
    assert notes[2] == (
        f"every member has its own weight, so that the sources weigh: {two} {shares[0]}% (u, v); {one} {shares[1]}% "
        "(one). Others: --weights"
    )


def test_nothing_is_said_of_sources_with_one_member_each_or_of_a_single_source(tmp_path):
    log_p, y, ids = drawn(30, 1)
    rows = long_file(tmp_path / "rows.parquet", log_p, y, ids)
    for number, paths in enumerate(([rows], two_files(tmp_path))):
        about = pool_files([*paths], tmp_path / f"{number}").scores.run_json
        assert not [note for note in about["notes"] if "weigh" in note]
        assert len(about["sources"]) == len(paths)


def test_a_member_alone_is_no_pool(tmp_path):
    with pytest.raises(EnsembleError) as error:
        pool_files([two_files(tmp_path)[0]], tmp_path / "out")
    assert str(error.value) == "1 member; expected two or more to pool"


def test_a_member_that_is_there_twice_is_refused_with_both_files(tmp_path):
    a, b = two_files(tmp_path)
    again = table(tmp_path / "c.csv", A)
    with pytest.raises(EnsembleError) as error:
        pool_files([b, a, again], tmp_path / "out")
    assert str(error.value) == (
        f"a of {a} and c of {again} have the same numbers in every row: one member would count twice. Leave one of "
        "them out, or give it more weight with --weights"
    )


def test_members_that_become_one_by_their_calibrations_are_refused(tmp_path):
    log_p, _, ids = drawn(50, 2)
    bias = np.array([0.0, 0.5, -0.5, 0.2])
    a = write_csv(tmp_path / "a.csv", ids, log_p[1], "l_{}")
    b = write_csv(tmp_path / "b.csv", ids, log_p[1] + bias, "l_{}")
    assert pool_files([a, b], tmp_path / "out").scores.logits.members == ["a", "b"]
    made = Calibration(1.0, bias.tolist(), fingerprint={"member": "a"})
    with pytest.raises(EnsembleError, match="a of .* and b of .* have the same numbers in every row"):
        pool_files([a, b], tmp_path / "x", PoolOptions(calibrations=[made]))


# ------------------------------------------------------------------ calibrations of members
def test_a_calibration_is_applied_to_the_member_that_it_is_made_for(tmp_path):
    made = Calibration(2.0, fingerprint={"member": "b"})
    found = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(calibrations=[made])).scores
    b = np.array([[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]]) ** 0.5
    b /= b.sum(1, keepdims=True)
    expected = np.sqrt(np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]) * b)
    assert np.exp(found.log_p) == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-6)
    assert [entry["temperature"] for entry in found.run_json["checkpoints"]] == [1.0, 2.0]
    assert [entry["calibration"]["temperature"] for entry in found.run_json["checkpoints"]] == [1.0, 2.0]


def test_a_checkpoint_is_known_by_its_fingerprint_and_a_file_by_its_name(tmp_path):
    a, b = two_folders(tmp_path)
    made = [
        Calibration(3.0, fingerprint={"adapter": "fb", "member": "a"}),
        Calibration(2.0, fingerprint={"adapter": "", "member": "a"}),
    ]
    found = pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=made)).scores
    assert [part.temperature for part in found.calibrations] == [2.0, 3.0]


@pytest.mark.parametrize(
    "fingerprints, unused",
    [
        ([{"adapter": "fz"}], "fz"),
        ([{"member": "z"}], "z"),
        ([{"adapter": "fa"}, {"member": "y", "adapter": "fy"}, {"adapter": "fz"}], "y, fz"),
    ],
)
def test_a_calibration_of_no_member_is_refused(tmp_path, fingerprints, unused):
    a, b = two_folders(tmp_path)
    file = write_csv(tmp_path / "c.csv", open_scores(a).logits.ids, np.exp(drawn(200, 1)[0][0]))
    made = [Calibration(2.0, fingerprint=fingerprint) for fingerprint in fingerprints]
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b, file], tmp_path / "out", PoolOptions(calibrations=made))
    assert str(error.value) == (f"--calibration: made for {unused}; expected one of the members: a (fa), b (fb), c")


@pytest.mark.parametrize("made_in, scored_in", [("1", "cyclic"), (None, "cyclic"), ("cyclic", "1"), ("cyclic", None)])
def test_a_calibration_of_other_orders_is_refused(tmp_path, made_in, scored_in):
    a, b = two_folders(tmp_path)
    if scored_in:
        settings(b, orders=scored_in)
    made = Calibration(2.0, fingerprint={"adapter": "fb"} | ({"orders": made_in} if made_in else {}))
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=[made]))
    assert str(error.value) == (
        f"--calibration: orders is {made_in or '1'}, but b was scored in orders {scored_in or '1'}; calibrate rows "
        "scored in these"
    )


# ------------------------------------------------------------------ anyone's file
def test_a_file_is_imported_with_its_values_columns_and_answers(tmp_path):
    path = table(tmp_path / "mine.csv", "id,p_a,p_b,answer,task_type\nx,0.6,0.4,A,count\ny,0.1,0.9,(a),\n")
    found = import_file(path, tmp_path / "out")
    assert np.exp(found.scores.log_p) == pytest.approx(np.array([[0.6, 0.4], [0.1, 0.9]]), abs=1e-6)
    assert found.notes == [f"{path}: p_a … p_b read as probabilities, by their names"]
    columns, about = columns_of(tmp_path / "out"), run_json(tmp_path / "out")
    assert (columns["id"], columns["answer"], columns["task_type"]) == (["x", "y"], ["a", "a"], ["count", ""])
    assert columns["options"] == [2, 2] and columns["choices"] == [[], []] and all(columns["digest"])
    assert "pool" not in about and about["counts"] == {"rows": 2, "scored": 2, "members": 1}
    assert about["data"] == {"file": str(path)} and about["checkpoints"][0]["file"] == str(path)
    assert found.metrics["overall"]["accuracy"]["value"] == 0.5 and not (tmp_path / "out" / "members").exists()
    assert [row["correct"] for row in cells(tmp_path / "out" / "probabilities.csv")] == ["1", "0"]


def test_a_calibration_is_applied_to_an_imported_file(tmp_path):
    path = table(tmp_path / "mine.csv", "id,p_a,p_b\nx,0.9,0.1\ny,0.2,0.8\n")
    made = Calibration(2.0, [0.0, float(np.log(2))], fingerprint={"member": "mine", "orders": "1"})
    found = import_file(path, tmp_path / "out", PoolOptions(calibrations=[made]))
    expected = np.array([[3, 2], [1, 4]]) / 5  # √9 : 2·√1, and √1 : 2·√4
    assert np.exp(found.scores.log_p) == pytest.approx(expected, abs=1e-6)
    entry = run_json(tmp_path / "out")["checkpoints"][0]
    assert entry["temperature"] == 2.0 and entry["calibration"]["letters"] == [0.0, pytest.approx(np.log(2))]


def test_a_file_of_several_members_is_imported_as_their_pool(tmp_path):
    text = "id,p_a,p_b,member\nx,0.9,0.1,u\nx,0.5,0.5,v\n"
    found = import_file(table(tmp_path / "both.csv", text), tmp_path / "out")
    assert np.exp(found.scores.log_p) == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-6)
    assert found.scores.logits.members == ["u", "v"] and run_json(tmp_path / "out")["pool"]["kind"] == "log"


def test_the_form_and_the_answers_that_are_given_are_used(tmp_path):
    path = table(tmp_path / "votes.csv", "id,a,b\nx,30,70\n")
    options = PoolOptions(form="shares", answers=AnswerTable(Path("t.csv"), {"x": "b"}, {"x": "count"}))
    found = import_file(path, tmp_path / "out", options)
    assert np.exp(found.scores.log_p) == pytest.approx(np.array([[0.3, 0.7]]), abs=1e-6)
    assert columns_of(tmp_path / "out")["answer"] == ["b"] and columns_of(tmp_path / "out")["task_type"] == ["count"]


def test_an_import_replaces_an_earlier_one_of_the_same_file_and_nothing_else(tmp_path):
    path, out = table(tmp_path / "mine.csv", A), tmp_path / "out"
    out.mkdir()  # empty: nothing to replace
    import_file(path, out)
    (out / "logits" / "part-000001.parquet").write_bytes((out / "logits" / "part-000000.parquet").read_bytes())
    table(path, B)
    found = import_file(path, out).scores
    assert found.logits.ids == ["y", "x"] and [part.name for part in (out / "logits").iterdir()] == [
        "part-000000.parquet"
    ]
    other = table(tmp_path / "other.csv", A)
    with pytest.raises(RunError) as error:
        import_file(other, out)
    assert str(error.value) == f"{out} holds other results; choose another --out"
    assert open_scores(out).logits.ids == ["y", "x"]


@pytest.mark.parametrize("state, overwrite", [("missing", False), ("empty", False), ("full", True)])
def test_a_free_folder_may_be_written_and_a_full_one_with_overwrite(tmp_path, state, overwrite):
    out = tmp_path / "out"
    if state != "missing":
        out.mkdir()
    if state == "full":
        (out / "file").write_text("")
    assert check_replaceable(out, overwrite) is None


def test_a_full_folder_is_refused_and_how_to_replace_it_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as error:
        check_replaceable(tmp_path, False)
    assert str(error.value) == f"{tmp_path} exists; choose another --out, or replace it with --overwrite"


# ------------------------------------------------------------------ fitted on labelled rows
def as_pool(log_p):
    """(M, N, K) logits of members as probabilities of the log pool of equal weights, normalised."""
    return log_softmax(log_p.mean(0), axis=1)


def notes_of(folder):
    return run_json(folder)["notes"]


def files_of(tmp_path, rows=120, fewer=()):
    """Labelled rows and other rows of three members; `fewer`: labelled rows without a number of the second."""
    log_p, y, ids = drawn(rows, 3)
    log_p[1, list(fewer)] = np.nan
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    far, truth, others = drawn(50, 4, rows)
    return labelled, long_file(tmp_path / "rows.parquet", far, truth, others), log_p, y, far


@pytest.mark.parametrize("kind, weights", [("log", "5,1,1"), ("linear", "5,1,1"), ("vote", "5,1,2"), ("log", "equal")])
def test_the_temperature_of_a_pool_is_that_of_its_kind_and_weights(tmp_path, kind, weights):
    labelled, rows, log_p, y, far = files_of(tmp_path)
    found = pool_files([rows], tmp_path / "out", PoolOptions(kind, weights, fit=labelled)).scores
    shares = None if weights == "equal" else [float(part) for part in weights.split(",")]
    temperature = likeliest_temperature(pool(log_p, kind, shares), y)
    assert found.pool.temperature == pytest.approx(temperature, abs=1e-3) and abs(temperature - 1) > 0.05
    assert np.exp(found.log_p) == pytest.approx(np.exp(pool(far, kind, shares, temperature)), abs=1e-3)
    said = next(note for note in found.run_json["notes"] if note.startswith("temperature of the pool"))
    assert said.startswith(
        f"temperature of the pool {temperature:.3f}, on 120 rows: temperature {temperature:.3f}: rows held out of the "
        "fit "
    )


@pytest.mark.parametrize("kind, weights, said", [("log", "equal", 1), ("log", "5,1,1", 0), ("vote", "equal", 0)])
def test_other_weights_are_proposed_by_labelled_rows_for_the_equal_log_pool_alone(tmp_path, kind, weights, said):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    pool_files([rows], tmp_path / "out", PoolOptions(kind, weights, fit=labelled))
    expected = describe_choices(choices(log_p, y, np.arange(120)))
    assert notes_of(tmp_path / "out")[2:] == (expected if said else [])


def test_rows_without_a_number_or_an_answer_are_not_fitted_on(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path, fewer=[0, 7])
    columns = pq.read_table(labelled).to_pydict()
    columns["answer"] = ["" if row % 120 in (5, 6, 7) else letter for row, letter in enumerate(columns["answer"])]
    pq.write_table(pa.table(columns), labelled)
    found = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled)).scores
    used = [row for row in range(120) if row not in (0, 5, 6, 7)]
    expected = likeliest_temperature(as_pool(log_p[:, used]), y[used])
    assert found.pool.temperature == pytest.approx(expected, abs=1e-4)
    assert f"temperature of the pool {expected:.3f}, on 116 rows: " in " ".join(found.run_json["notes"])


def test_labelled_rows_without_answers_are_refused(tmp_path):
    labelled, rows, *_ = files_of(tmp_path)
    columns = pq.read_table(labelled).to_pydict()
    pq.write_table(pa.table(columns | {"answer": [""] * 360}), labelled)
    with pytest.raises(EnsembleError) as error:
        pool_files([rows], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: no scored row has an answer, so that nothing can be fitted on it"
    key = {f"r{row}": "a" for row in range(120)}
    answers = AnswerTable(Path("answers.csv"), key, {})
    found = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled, answers=answers)).scores
    assert "on 120 rows" in " ".join(found.run_json["notes"])


@pytest.mark.parametrize("weights", ["fit", "greedy"])
def test_fitted_weights_and_their_temperature_are_those_of_the_labelled_rows(tmp_path, weights):
    log_p, y, ids = drawn(300, 6)
    other_letters = np.clip(3 * np.roll(log_p[0], 1, axis=1), -15, 0)  # mostly wrong
    log_p[2] = log_softmax(other_letters + np.random.default_rng(1).normal(0, 1, (300, 4)), axis=1)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    rows = long_file(tmp_path / "rows.parquet", *drawn(50, 4, 300))
    options = PoolOptions("log", weights, fit=labelled, sets=SetRequest(0.8))
    found = pool_files([rows], tmp_path / "out", options).scores
    expected = fit_weights(log_p, y, weights, np.arange(300))
    assert found.pool.weights == pytest.approx(expected.weights.tolist(), abs=1e-4)
    assert found.pool.temperature == pytest.approx(expected.temperature, abs=1e-4)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in zip("uvw", expected.weights))
    notes = [f"{expected.why}: {listed}"]
    if none := [name for name, weight in zip("uvw", expected.weights) if weight == 0]:
        notes.append(f"weight 0, so that the pool does without: {', '.join(none)}")
    assert found.run_json["notes"][1:] == notes and expected.why.startswith("fitted weights")
    assert none == ["w"]
    fit = greedy_weights if weights == "greedy" else convex_fit(expected.penalty)
    wrong = np.sort(1 - np.exp(held_out_pool(fit, log_p, y, np.arange(300)))[np.arange(300), y])
    assert found.run_json["sets"]["quantile"] == pytest.approx(wrong[int(np.ceil(301 * 0.8)) - 1], abs=1e-4)


def test_weights_of_lowest_loss_come_with_a_temperature_of_their_pool(tmp_path):
    log_p, y, ids = drawn(1000, 6)
    log_p[2] = log_softmax(np.random.default_rng(1).normal(0, 5, (1000, 4)), axis=1)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    rows = long_file(tmp_path / "rows.parquet", *drawn(50, 4, 1000))
    options = PoolOptions("log", "nll", fit=labelled, sets=SetRequest(0.8, "aps"))
    found = pool_files([rows], tmp_path / "out", options).scores
    weights, why = nll_weights(log_p, y, np.arange(1000))
    temperature = likeliest_temperature(pool(log_p, "log", weights), y)
    assert found.pool.weights == pytest.approx(weights.tolist(), abs=1e-4)
    assert found.pool.temperature == pytest.approx(temperature, abs=1e-3)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in zip("uvw", weights))
    assert why.startswith("fitted weights") and found.run_json["notes"][1] == f"{why}: {listed}"
    assert found.run_json["notes"][2].startswith(f"temperature of the pool {temperature:.3f}, on 1,000 rows: ")
    p = np.exp(held_out_pool(likeliest_weights, log_p, y, np.arange(1000)))
    right = p[np.arange(1000), y]
    up_to = np.sort(np.where(p >= right[:, None], p, 0).sum(1))
    assert found.run_json["sets"]["quantile"] == pytest.approx(up_to[int(np.ceil(1001 * 0.8)) - 1], abs=1e-4)


def test_few_labelled_rows_leave_weights_of_lowest_loss_equal(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    options = PoolOptions("log", "nll", fit=labelled, sets=SetRequest(0.8))
    found = pool_files([rows], tmp_path / "out", options).scores
    assert found.pool.weights == pytest.approx([1 / 3] * 3)
    assert found.run_json["notes"][1] == ("equal weights: 120 labelled rows are under 1,000: u 0.33, v 0.33, w 0.33")
    assert len(found.run_json["notes"]) == 3 and found.run_json["notes"][2].startswith("temperature of the pool")


def test_rows_of_one_picture_stay_together_in_what_is_said_of_weights(tmp_path):
    a, b = two_folders(tmp_path)
    digests = ["" if row >= 150 else f"{row // 3:016x}" for row in range(200)]
    for folder in (a, b):
        change_columns(folder, picture_digest=digests)
    pool_files([a, b], tmp_path / "labelled")
    change_columns(tmp_path / "labelled", digest=[f"{row:016x}" for row in range(200)])
    found = pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    opened = open_scores(tmp_path / "labelled")
    clusters = clusters_of([digest or f"row {row}" for row, digest in enumerate(digests)])
    y = opened.answers(np.arange(200))
    expected = describe_choices(choices(opened.members, y, clusters))
    assert len(set(clusters)) == 100
    assert notes_of(tmp_path / "out")[-len(expected) :] == expected
    assert not found.scores.exposed.any()


@pytest.mark.parametrize("weights, n", [("fit", 60), ("greedy", 60), ("nll", 1000)])
def test_rows_of_one_picture_stay_together_in_the_fit_of_weights_and_of_sets(tmp_path, weights, n):
    a, b = scores(tmp_path / "a", n), scores(tmp_path / "b", n)
    logits = open_scores(b).logits
    logits.logits += np.random.default_rng(1).normal(0, 9, logits.logits.shape).astype(np.float32)  # says little
    write_part(b / "logits", 0, logits)
    pictures = [f"{row // 4:016x}" for row in range(n)]
    for folder in (a, b):
        settings(folder, fingerprint=folder.name)
        change_columns(folder, picture_digest=pictures)
    labelled = tmp_path / "labelled"
    labelled_folder(a, b, labelled, digest=[f"{row:016x}" for row in range(n)])
    options = PoolOptions("log", weights, fit=labelled, sets=SetRequest(0.8))
    found = pool_files([a, b], tmp_path / "out", options).scores
    opened, clusters = open_scores(labelled), clusters_of(pictures)
    y = opened.answers(np.arange(n))
    if weights == "nll":
        (values, why), fit = nll_weights(opened.members, y, clusters), likeliest_weights
    else:
        fitted = fit_weights(opened.members, y, weights, clusters)
        values, why, fit = (
            fitted.weights,
            fitted.why,
            greedy_weights if weights == "greedy" else convex_fit(fitted.penalty),
        )
    assert why.startswith("fitted weights")
    assert found.run_json["notes"][0] == f"{why}: a {values[0]:.2f}, b {values[1]:.2f}"
    unseen = np.exp(held_out_pool(fit, opened.members, y, clusters))
    quantile = set_quantile(1 - unseen[np.arange(n), y], 0.8, None, n // 4)
    assert found.run_json["sets"]["quantile"] == pytest.approx(quantile, abs=1e-5)


def test_rows_of_one_picture_stay_together_in_the_fit_of_a_temperature(tmp_path):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture_digest=[f"{row // 4:016x}" for row in range(200)])
    pool_files([a, b], tmp_path / "out", labelled_folder(a, b, tmp_path / "labelled"))
    opened = open_scores(tmp_path / "labelled")
    clusters = clusters_of([f"{row // 4:016x}" for row in range(200)])
    own = calibrate(
        LabelledRows(as_pool(opened.members), opened.answers(np.arange(200)), None, clusters), False, more=False
    )
    assert notes_of(tmp_path / "out") == [
        f"temperature of the pool {own.temperature:.3f}, on 200 rows: {own.choice[0]}"
    ]


def test_task_types_and_letters_of_calibrations_count_in_the_fit_of_the_pool(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    bias = np.array([0.0, 1.0, -1.0, 0.5])
    made = [
        Calibration(1.0, groups={"count": 4.0, "object": 0.5}, fingerprint={"adapter": "fa"}),
        Calibration(1.0, bias.tolist(), fingerprint={"adapter": "fb"}),
    ]
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled", calibrations=made)
    found = pool_files([a, b], tmp_path / "out", options).scores
    first, second = (open_scores(folder).members[0] for folder in (a, b))
    divisor = np.array([4.0 if row % 3 else 0.5 for row in range(200)])[:, None]
    pooled = (log_softmax(first / divisor, axis=1) + log_softmax(second + bias, axis=1)) / 2
    y = open_scores(a).answers(np.arange(200))
    assert found.pool.temperature == pytest.approx(likeliest_temperature(pooled, y), abs=1e-3)


def test_a_bias_of_letters_does_not_count_where_options_stood_at_several_letters(tmp_path):
    a, b = two_folders(tmp_path, orders="cyclic")
    pool_files([a, b], tmp_path / "labelled")
    made = Calibration(1.0, [0.0, 2.0, -2.0, 1.0], fingerprint={"adapter": "fb", "orders": "cyclic"})
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled", calibrations=[made])
    found = pool_files([a, b], tmp_path / "out", options).scores
    pooled = np.mean([open_scores(folder).members[0] for folder in (a, b)], axis=0)
    y = open_scores(a).answers(np.arange(200))
    assert found.pool.temperature == pytest.approx(likeliest_temperature(pooled, y), abs=1e-3)


# ------------------------------------------------------------------ which labelled rows count
def test_labelled_rows_of_a_training_are_left_out_of_the_fit(tmp_path):
    a, b = two_folders(tmp_path)
    expose(a, [TRAINING] * 60 + [VALIDATION] * 20 + [0] * 120)
    expose(b, [0] * 50 + [TRAINING] * 20 + [0] * 130)
    labelled = tmp_path / "labelled"
    pool_files([a, b], labelled)
    found = pool_files([a, b], tmp_path / "out", PoolOptions("log", "1,1", fit=labelled)).scores
    opened = open_scores(labelled)
    rows = np.arange(70, 200)
    expected = likeliest_temperature(as_pool(opened.members[:, rows]), opened.answers(rows))
    assert found.pool.temperature == pytest.approx(expected, abs=1e-3)
    notes = found.run_json["notes"]
    assert notes[0] == f"70 rows of {labelled} that a member was trained on are left out"
    assert notes[1] == "on 10 of the labelled rows the epoch of a member was chosen: it looks better there"
    assert f"on {len(rows)} rows: " in notes[2]
    assert [flags[0] & CALIBRATION > 0 for flags in found.exposed] == [False] * 70 + [True] * 130


@pytest.mark.parametrize("exposed, names", [((0, 1), "b"), ((1, 0), "a"), ((1, 1), "a, b")])
def test_the_members_that_were_trained_on_all_labelled_rows_are_named(tmp_path, exposed, names):
    a, b = two_folders(tmp_path)
    for folder, flag in zip((a, b), exposed):
        expose(folder, [TRAINING * flag] * 200)
    pool_files([a, b], tmp_path / "labelled")
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value) == (
        f"{tmp_path / 'labelled'}: {names} was trained on these rows; a pool fitted on them would be far too "
        "confident. Use other labelled rows, or the out-of-fold scores of a training with --folds"
    )


@pytest.mark.parametrize("trained_on, exposed, left", [("t", 0, 0), ("u", 0, 200), ("t", 5, 195)])
def test_a_checkpoint_without_a_record_of_rows_is_known_by_its_table(tmp_path, trained_on, exposed, left):
    a, b = two_folders(tmp_path)
    settings(b, trained_on=trained_on, data={"sha256": "t"})
    expose(b, [TRAINING] * exposed + [0] * (200 - exposed))
    pool_files([a, b], tmp_path / "labelled")
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled")
    if not left:
        with pytest.raises(EnsembleError, match="labelled: a member was trained on these rows; a pool fitted on"):
            pool_files([a, b], tmp_path / "out", options)
        return
    notes = " ".join(pool_files([a, b], tmp_path / "out", options).scores.run_json["notes"])
    assert f"on {left} rows: " in notes


def test_a_table_that_nobody_knows_is_nobodys_training(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled")
    assert "on 200 rows: " in " ".join(pool_files([a, b], tmp_path / "out", options).notes)


def test_members_are_matched_to_labelled_rows_whatever_their_order(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    turned = long_file(tmp_path / "turned.parquet", log_p, y, [f"r{row}" for row in range(120)])
    columns = pq.read_table(turned).to_pydict()
    columns["member"] = [{"u": "w", "v": "u", "w": "v"}[name] for name in columns["member"]]
    pq.write_table(pa.table(columns), turned)
    options = PoolOptions("log", "7,2,1", fit=turned)
    found = pool_files([rows], tmp_path / "out", options).scores
    expected = likeliest_temperature(pool(log_p[[1, 2, 0]], "log", [7, 2, 1]), y)
    assert found.pool.temperature == pytest.approx(expected, abs=1e-3)


def test_two_members_of_one_checkpoint_are_told_apart_by_their_names(tmp_path):
    a, b = two_folders(tmp_path)
    settings(b, fingerprint="fa")
    pool_files([b, a], tmp_path / "labelled", PoolOptions(names=["b", "a"]))
    options = PoolOptions("log", "9,1", fit=tmp_path / "labelled")
    found = pool_files([a, b], tmp_path / "out", options).scores
    log_p = np.stack([open_scores(folder).members[0] for folder in (a, b)])
    y = open_scores(a).answers(np.arange(200))
    expected, other = (likeliest_temperature(pool(log_p, "log", shares), y) for shares in ([9, 1], [1, 9]))
    assert found.pool.temperature == pytest.approx(expected, abs=1e-3) and abs(expected - other) > 0.1


def test_members_that_the_labelled_rows_lack_are_named(tmp_path):
    a, b = two_folders(tmp_path)
    other = write_csv(tmp_path / "c.csv", open_scores(a).logits.ids, np.exp(drawn(200, 1)[0][0]))
    third = write_csv(tmp_path / "d.csv", open_scores(a).logits.ids, np.exp(drawn(200, 1)[0][1]))
    pool_files([a, third], tmp_path / "labelled")
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b, other], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value) == (
        f"{tmp_path / 'labelled'}: expected the members that are pooled; b (fb) is missing; c (of a file) is "
        "missing. It has m (fa), d (of a file). --fit takes one folder or file that holds all members: of several, "
        "make one by `ensemble` of the labelled rows of each"
    )


def test_settings_in_which_labelled_rows_differ_are_named(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    settings(b, orders="cyclic", template="t", pixels=4)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value).startswith(
        f"{tmp_path / 'labelled'}: expected the members that are pooled; b was scored with other settings: template "
        "None there, t here, pixels None there, 4 here, orders 1 there, cyclic here. It has a (fa), b (fb). --fit takes"
    )


# ------------------------------------------------------------------ rows of the pool that are labelled rows too
def labelled_folder(a, b, folder, **columns):
    pool_files([a, b], folder)
    change_columns(folder, **columns)
    return PoolOptions("log", "1,1", fit=folder)


def fitted_rows(found):
    return [bool(row.all()) for row in found.scores.exposed & CALIBRATION > 0]


@pytest.mark.parametrize("ours, theirs, known", [("x.jpg", "x.jpg", True), ("x.jpg", "y.jpg", False)])
def test_a_question_about_a_picture_that_only_has_a_name_is_another_with_another_picture(tmp_path, ours, theirs, known):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture=[f"{row}-{ours}" for row in range(200)], picture_digest=[""] * 200)
    options = labelled_folder(a, b, tmp_path / "labelled", picture=[f"{row}-{theirs}" for row in range(200)])
    found = pool_files([a, b], tmp_path / "out", options)
    assert fitted_rows(found) == [known] * 200


def test_the_name_of_a_picture_does_not_matter_where_its_content_is_known(tmp_path):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture_digest=[f"{row:016x}" for row in range(100)] + [""] * 100)
    options = labelled_folder(a, b, tmp_path / "labelled", picture=["other.jpg"] * 200)
    assert fitted_rows(pool_files([a, b], tmp_path / "out", options)) == [True] * 100 + [False] * 100


def test_a_row_of_a_file_is_a_labelled_row_by_its_id_and_the_numbers_of_every_member(tmp_path):
    log_p, y, ids = drawn(40, 3)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    far = log_p.copy()
    far[:, 0:5] = drawn(40, 8)[0][:, 0:5]  # one id, other numbers
    far[1, 5:10] = drawn(40, 8)[0][1, 5:10]  # of one member alone
    far[:, 10:15] += 2e-4 * np.array([1, -1, 1, -1])  # another way to write the same
    others = [*ids[:30], *(f"n{row}" for row in range(30, 40))]  # other ids, the same numbers
    rows = long_file(tmp_path / "rows.parquet", far, y, others)
    found = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(found) == [False] * 10 + [True] * 20 + [False] * 10
    warning = run_json(tmp_path / "out")["warnings"][0]
    first = ", ".join(f"'r{row}'" for row in range(10, 20))
    assert warning == (
        f"20 of 40 rows are also labelled rows of --fit {labelled}, on which the pool is fitted ({first} … and 10 "
        "more): what is measured on them flatters it"
    )


@pytest.mark.parametrize("wide", ["labelled", "rows"])
def test_labelled_rows_may_have_another_greatest_number_of_options(tmp_path, wide):
    log_p, y, ids = drawn(40, 3)
    narrow = log_softmax(log_p[:, :, :3], axis=2)
    both = log_p.copy()
    both[:, :30, :3], both[:, :30, 3] = narrow[:, :30], np.nan  # 30 rows with three options, 10 with four
    few = long_file(tmp_path / "few.parquet", np.pad(narrow, [(0, 0), (0, 0), (0, 1)]), np.minimum(y, 2), ids)
    pq.write_table(pq.read_table(few).drop_columns(["p_d"]), few)
    many = long_file(tmp_path / "many.parquet", both, np.where(np.arange(40) < 30, np.minimum(y, 2), y), ids)
    labelled, rows = (many, few) if wide == "labelled" else (few, many)
    found = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(found) == [True] * 30 + [False] * 10
    assert found.scores.logits.logits.shape[-1] == (3 if wide == "labelled" else 4)


def test_a_labelled_row_that_is_not_fitted_on_is_not_met(tmp_path):
    log_p, y, ids = drawn(40, 3)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    columns = pq.read_table(labelled).to_pydict()
    columns["answer"] = ["" if row % 40 < 10 else letter for row, letter in enumerate(columns["answer"])]
    pq.write_table(pa.table(columns), labelled)
    rows = long_file(tmp_path / "rows.parquet", log_p, y, ids)
    found = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(found) == [False] * 10 + [True] * 30


def test_rows_are_known_by_the_first_member_that_knows_their_questions(tmp_path):
    a = scores(tmp_path / "a")
    settings(a, fingerprint="fa")
    ids = open_scores(a).logits.ids
    file = write_csv(tmp_path / "c.csv", ids, np.exp(drawn(200, 1)[0][0]))
    labelled = tmp_path / "labelled"
    pool_files([a, file], labelled)
    renamed = [f"new {id}" for id in ids]
    change_columns(labelled, id=renamed)
    opened = open_scores(a).logits
    for path in (labelled / "logits").iterdir():
        columns = pq.read_table(path).to_pydict()
        pq.write_table(pa.table(columns | {"id": [f"new {id}" for id in columns["id"]]}), path)
    found = pool_files([file, a], tmp_path / "out", PoolOptions("log", "1,1", fit=labelled))
    assert opened.ids == ids and fitted_rows(found) == [True] * 200


def test_sets_of_labelled_rows_are_refused_with_the_way_out(tmp_path):
    log_p, y, ids = drawn(40, 3)
    rows = long_file(tmp_path / "rows.parquet", log_p, y, ids)
    other = long_file(tmp_path / "other.parquet", log_p[:, :3], y[:3], ids[:3])
    with pytest.raises(SetsError) as error:
        pool_files([other], tmp_path / "out", PoolOptions("log", "1,1,1", fit=rows, sets=SetRequest(0.8)))
    assert str(error.value) == (
        f"--sets: 3 of 3 rows are also labelled rows of --fit {rows}, on which the pool is fitted ('r0', 'r1', 'r2'), "
        "so that sets of these promise nothing; leave them out of the rows to be pooled, or name other labelled rows "
        "with --fit"
    )


# ------------------------------------------------------------------ folds
def folds_of(tmp_path, adapters=("fa", "fb"), fold=(0, 1), fresh=True):
    """Two checkpoints of folds, and out-of-fold rows of them with the temperature 2."""
    a, b = two_folders(tmp_path)
    labelled = scores(tmp_path / "out-of-fold", seed=5)
    settings(labelled, adapters=list(adapters))
    columns = {"fold": [fold[row % len(fold)] for row in range(200)]}
    if fresh:
        columns["digest"] = [f"{row:016x}" for row in range(200)]
    change_columns(labelled, **columns)
    return a, b, labelled


def test_folds_have_one_temperature_and_their_pool_has_none(tmp_path):
    a, b, labelled = folds_of(tmp_path)
    found = pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled)).scores
    opened = open_scores(labelled)
    temperature = likeliest_temperature(opened.members[0], opened.answers(np.arange(200)))
    assert temperature > 1.5 and found.pool == PoolSettings("log", [0.5, 0.5], 1.0)
    assert [part.temperature for part in found.calibrations] == pytest.approx([temperature] * 2, abs=1e-3)
    assert found.run_json["notes"] == [
        f"one temperature for all folds, {temperature:.3f}, on 200 rows each scored by the fold that had not seen it; "
        "the pool has none of its own: no row was left unseen by all folds"
    ]
    log_p = np.stack([open_scores(folder).members[0] for folder in (a, b)])
    assert np.exp(found.log_p) == pytest.approx(np.exp(pool(log_p, temperature=temperature)), abs=1e-3)
    assert not found.exposed.any()


@pytest.mark.parametrize(
    "order, adapters, fold",
    [
        ("ab", ("fa", "fb"), (0, 1)),
        ("ba", ("fa", "fb"), (0, 0, 1)),
        ("ba", ("fb", "fc", "fa"), (0, 1, 2, 2)),
    ],
)
def test_sets_of_folds_compare_each_labelled_row_with_the_fold_that_had_not_seen_it(tmp_path, order, adapters, fold):
    a, b, labelled = folds_of(tmp_path, adapters, fold)
    folders = {"a": a, "b": b}
    options = PoolOptions(fit=labelled, sets=SetRequest(0.8))
    found = pool_files([folders[name] for name in order], tmp_path / "out", options).scores
    opened = open_scores(labelled)
    temperature = found.calibrations[0].temperature
    y, rows = opened.answers(np.arange(200)), np.arange(200)
    wrong = 1 - np.exp(log_softmax(opened.members[0] / temperature, axis=1))[rows, y]
    below = np.zeros((200, 4))
    for name in order:
        p = np.exp(log_softmax(open_scores(folders[name]).members[0] / temperature, axis=1))
        theirs = wrong[[adapters[number] == f"f{name}" for number in columns_of(labelled)["fold"]]]
        below += (theirs < (1 - p)[:, :, None]).sum(2) / 200
    pictures = found.calibrations[0].pictures
    held = below < 0.8 * (1 + 1 / pictures)
    assert (found.option_sets() == held).mean() > 0.99  # the labelled rows' numbers are of fits without them
    assert found.run_json["sets"]["quantile"] is None and "sets of folds (CV+)" in found.run_json["sets"]["guarantee"]


def test_rows_of_other_folds_are_refused(tmp_path):
    a, b, labelled = folds_of(tmp_path, ("fx", "fb"))
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: not the out-of-fold rows of a"
    settings(labelled, adapters=["fx", "fy"])
    with pytest.raises(EnsembleError, match="not the out-of-fold rows of a, b$"):
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))


@pytest.mark.parametrize(
    "labelled_orders, run_orders, member_orders",
    [
        ("cyclic", "1", None),
        (None, "cyclic", "1"),
        (None, "1", "cyclic"),
        ("cyclic", "1", "reverse"),
        (None, None, "cyclic"),
    ],
)
def test_rows_of_folds_in_other_orders_are_refused(tmp_path, labelled_orders, run_orders, member_orders):
    a, b, labelled = folds_of(tmp_path)
    orders = labelled_orders or run_orders or "1"
    if labelled_orders:
        settings(labelled, orders=labelled_orders)
    change_run(labelled, identity={"letters": "abcd"} | ({"orders": run_orders} if run_orders else {}))
    settings(a, orders=orders)
    if member_orders:
        settings(b, orders=member_orders)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == (
        f"{labelled}: scored in orders {orders}, but b in orders {member_orders or '1'}; make out-of-fold rows in "
        "these: score the training table with --out-of-fold --orders …"
    )
    settings(b, orders=orders)
    assert pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled)).scores.calibrations[0].rows == 200


@pytest.mark.parametrize("weights", ["nll", "fit", "greedy"])
def test_folds_have_no_fitted_weights(tmp_path, weights):
    a, b, labelled = folds_of(tmp_path)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(weights=weights, fit=labelled))
    assert str(error.value) == (
        f"--weights {weights} needs rows that no member was trained on; folds have none, since all folds but one were "
        "trained on each row"
    )
    given = pool_files([a, b], tmp_path / "out", PoolOptions(weights="3,1", fit=labelled)).scores
    assert given.pool.weights == [0.75, 0.25]


def test_rows_of_folds_without_answers_are_refused(tmp_path):
    a, b, labelled = folds_of(tmp_path)
    change_columns(labelled, answer=[""] * 200)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: no scored row has an answer, so that nothing can be fitted on it"


def test_rows_that_folds_were_fitted_on_are_those_with_answers(tmp_path):
    a, b, labelled = folds_of(tmp_path, fresh=False)
    for name in ("question", "choices", "digest"):
        change_columns(labelled, **{name: columns_of(a)[name]})
    answers = columns_of(labelled)["answer"]
    change_columns(labelled, answer=["" if row < 30 else letter for row, letter in enumerate(answers)])
    found = pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert fitted_rows(found) == [False] * 30 + [True] * 170
    assert "on 170 rows each" in found.notes[0]


# ------------------------------------------------------------------ what is said of weights
def choice(name, gain=0.0, error=0.01, accuracy=0.5, nll=0.7):
    return {"weights": name, "accuracy": accuracy, "nll": nll, "gain": gain, "error": error}


@pytest.mark.parametrize(
    "found, preferred",
    [
        ([choice("best single", 0.02), choice("fit", 0.015), choice("equal")], "the best member alone"),
        ([choice("best single", 0.01), choice("fit", 0.005), choice("equal")], None),
        ([choice("best single", 0.005), choice("fit", 0.02), choice("equal")], "fitted weights: --weights fit"),
        ([choice("greedy", 0.02), choice("fit", 0.015), choice("equal")], "fitted weights: --weights greedy"),
        ([choice("equal"), choice("fit", -0.02), choice("best single", 0.3)], None),
        ([choice("fit", 0.01), choice("equal")], None),
        ([choice("equal")], None),
    ],
)
def test_weights_are_preferred_where_they_gain_more_than_its_error(found, preferred):
    said = describe_choices(found)
    how = " --fit LABELLED" if preferred and "--weights" in preferred else ""
    assert said[1:] == ([f"these rows prefer {preferred}{how}"] if preferred else [])


def test_what_each_choice_of_weights_gives_is_said_in_one_line():
    found = [choice("fit", 0.0123, 0.0045, 0.81, 0.512), choice("equal", nll=0.524), choice("best single", -0.2, nll=1)]
    assert describe_choices(found)[0] == (
        "weights, on rows held out of their fit: fit: accuracy 0.810, NLL 0.512 (gains 0.0123 ± 0.0045); equal: "
        "accuracy 0.500, NLL 0.524; best single: accuracy 0.500, NLL 1.000 (loses 0.2000 ± 0.0100)"
    )


@pytest.mark.parametrize("rows, said", [(39, False), (40, True)])
def test_from_forty_labelled_rows_on_a_pool_says_what_other_weights_would_give(tmp_path, rows, said):
    log_p, y, ids = drawn(rows, 3)
    path = long_file(tmp_path / "rows.parquet", log_p, y, ids)
    found = pool_files([path], tmp_path / "out")
    expected = describe_choices(choices(log_p, y, np.arange(rows), greedy=False)) if said else []
    assert found.notes[1:] == expected and notes_of(tmp_path / "out")[1:] == []


@pytest.mark.parametrize("kind", ["linear", "vote"])
def test_other_pools_say_nothing_of_weights_of_the_log_pool(tmp_path, kind):
    path = long_file(tmp_path / "rows.parquet", *drawn(60, 3))
    assert len(pool_files([path], tmp_path / "out", PoolOptions(kind)).notes) == 1


def test_a_pool_that_a_run_makes_says_nothing_of_other_weights(tmp_path):
    path = long_file(tmp_path / "rows.parquet", *drawn(60, 3))
    assert len(pool_files([path], tmp_path / "out", run_json={"command": []}).notes) == 1


def test_weights_are_proposed_by_rows_of_no_training_and_pictures_together(tmp_path):
    a, b = two_folders(tmp_path)
    expose(a, [TRAINING] * 50 + [VALIDATION] * 50 + [0] * 100)
    expose(b, [0] * 40 + [TRAINING] * 20 + [0] * 140)
    found = pool_files([a, b], tmp_path / "out")
    rows = np.arange(60, 200)
    clusters = clusters_of(found.scores.pictures(rows))
    assert len(set(clusters)) == 70
    expected = describe_choices(
        choices(found.scores.members[:, rows], found.scores.answers(rows), clusters, greedy=False)
    )
    assert found.notes[: len(expected)] == expected


# ------------------------------------------------------------------ what a member adds
def test_what_a_member_adds_is_measured_with_the_weights_of_the_pool(tmp_path):
    log_p, y, ids = drawn(60, 3)
    path = long_file(tmp_path / "rows.parquet", log_p, y, ids)
    found = pool_files([path], tmp_path / "out", PoolOptions("linear", "2,1,1")).metrics["ensemble"]
    p, rows = np.exp(log_p), np.arange(60)
    whole = -np.log((p[0] / 2 + p[1] / 4 + p[2] / 4)[rows, y])
    without = {
        "u": -np.log((p[1] / 2 + p[2] / 2)[rows, y]),
        "v": -np.log((p[0] * 2 / 3 + p[2] / 3)[rows, y]),
        "w": -np.log((p[0] * 2 / 3 + p[1] / 3)[rows, y]),
    }
    for part in found["members"]:
        assert part["adds"]["nll"] == pytest.approx((without[part["member"]] - whole).mean(), abs=1e-5)
    assert [part["weight"] for part in found["members"]] == [0.5, 0.25, 0.25]
    alone = leave_one_out(log_p, y, PoolSettings("linear", [0.5, 0.25, 0.25]), np.arange(60))
    for part, other in zip(found["members"], alone):
        assert part["adds"] == pytest.approx(other, abs=1e-5)


def test_answers_that_members_do_not_agree_on_are_listed(tmp_path):
    first = table(tmp_path / "a.csv", "id,p_a,p_b,answer\nx,0.6,0.4,a\ny,0.1,0.9,\nz,0.3,0.7,b\n")
    second = table(tmp_path / "b.csv", "id,p_a,p_b,answer\nz,0.2,0.8,a\nx,0.7,0.3,b\ny,0.5,0.5,a\n")
    with pytest.raises(EnsembleError) as error:
        pool_files([first, second], tmp_path / "out")
    assert str(error.value) == (
        "answers of members differ: 'x' (a and b of b), 'z' (b and a of b); expected one right answer for each id"
    )
