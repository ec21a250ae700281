"""What a pool writes, records and says, by values that are worked out by hand or by code written anew."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax

import scoring
from scoring.errors import InputError
from scoring.scores.exposure import TRAINING, VALIDATION
from scoring.scores.folder import RunError, check_replaceable, open_scores
from scoring.scores.logits import write_part
from scoring.scores.pooling import PoolOptions, import_file, pool_files
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError, PoolSettings, leave_one_out, pool
from scoring.stats.sets import SetRequest, SetsError
from scoring.tables.answers import AnswerTable
from scoring.tables.sample import read_sample
from tests.shared.number_files import write_csv, write_long_file, write_table
from tests.shared.predictions import draw_rows, likeliest_temperature, losses_of, members
from tests.shared.scores_folders import (
    change_columns,
    change_exposure,
    change_run,
    change_settings,
    columns_of,
    run_json,
    two_folders,
    write_other_member,
    write_scores,
)


def cells(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


A = "id,p_a,p_b,p_c\nx,0.6,0.3,0.1\ny,0.1,0.2,0.7\n"
B = "id,p_a,p_b,p_c\ny,0.5,0.4,0.1\nx,0.2,0.7,0.1\n"
C = "id,p_a,p_b,p_c\nx,0.5,0.1,0.4\ny,0.2,0.2,0.6\n"


def two_files(tmp_path):
    return write_table(tmp_path / "a.csv", A), write_table(tmp_path / "b.csv", B)


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
    pooled = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(kind, weights))
    expected = np.array(BY_HAND[kind, weights])
    expected /= expected.sum(1, keepdims=True)
    assert np.exp(pooled.scores.log_p) == pytest.approx(expected, abs=1e-6)
    rows = cells(tmp_path / "out" / "probabilities.csv")
    written = [[float(row[f"p_{letter}"]) for letter in "abc"] for row in rows]
    assert [row["id"] for row in rows] == ["x", "y"] and np.array(written) == pytest.approx(expected, abs=2e-6)


def test_a_vote_of_three_is_two_thirds_and_a_tie_goes_to_the_log_pool(tmp_path):
    files = [*two_files(tmp_path), write_table(tmp_path / "c.csv", C)]
    p = np.exp(pool_files(files, tmp_path / "out", PoolOptions("vote")).scores.log_p)
    assert p == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [1 / 3, 0, 2 / 3]]), abs=1e-3)
    tie = np.exp(pool_files(files[:2], tmp_path / "tie", PoolOptions("vote")).scores.log_p)
    assert tie == pytest.approx(np.array([[0.5, 0.5, 0], [0.5, 0, 0.5]]), abs=1e-3)
    assert tie.argmax(1).tolist() == [1, 2]  # 0.21 > 0.12, and 0.07 > 0.05


def test_each_member_has_its_own_numbers_beside_the_pool(tmp_path):
    pool_files([*two_files(tmp_path)], tmp_path / "out")
    for name, expected in (("a", [[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]), ("b", [[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]])):
        rows = cells(tmp_path / "out" / "members" / f"{name}.csv")
        assert [[float(row[f"p_{letter}"]) for letter in "abc"] for row in rows] == expected


def test_a_row_that_a_member_has_no_number_for_is_not_pooled(tmp_path):
    first = write_table(tmp_path / "a.csv", "id,p_a,p_b\nx,0.6,0.4\ny,,\nz,,\n")
    second = write_table(tmp_path / "b.csv", "id,p_a,p_b\nz,,\nx,,\ny,0.3,0.7\n")
    pooled = pool_files([first, second], tmp_path / "out")
    assert pooled.scores.logits.status == [f"no score from {name}: no number in the file" for name in "baa"]
    assert np.isnan(pooled.scores.log_p).all() and not pooled.scores.logits.scored.any()
    assert run_json(tmp_path / "out")["counts"] == {"rows": 3, "scored": 0, "members": 2}
    assert pooled.metrics is None
    third = write_table(tmp_path / "c.csv", "id,p_a,p_b\nx,0.5,0.5\ny,0.9,0.1\nz,0.4,0.6\n")
    partial = pool_files([first, third], tmp_path / "part").scores
    assert partial.logits.scored.tolist() == [True, False, False]
    assert run_json(tmp_path / "part")["counts"] == {"rows": 3, "scored": 1, "members": 2}
    assert np.isnan(partial.logits.logits[1:]).all()


# ------------------------------------------------------------------ what run.json records
def test_run_json_of_files_records_each_part(tmp_path):
    files = two_files(tmp_path)
    pooled = pool_files([*files], tmp_path / "out", PoolOptions("linear", "3,1"))
    record = run_json(tmp_path / "out")
    assert list(record) == ["checkpoints", "pool", "sources", "identity", "versions", "notes", "warnings", "counts"]
    notes = [f"{path}: p_a … p_c read as probabilities, by their names" for path in files]
    assert record["pool"] == {"kind": "linear", "temperature": 1.0, "weights": [0.75, 0.25], "told": notes}
    assert record["notes"] == notes and record["warnings"] == [] and pooled.notes == notes
    assert record["sources"] == [str(path) for path in files]
    assert record["identity"] == {"letters": "abc", "orders": "1"}
    assert record["versions"] == json.loads(json.dumps(scoring.versions()))
    assert record["counts"] == {"rows": 2, "scored": 2, "members": 2}
    for entry, name, path in zip(record["checkpoints"], "ab", files):
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
    calibration = Calibration(
        2.5, [0.0, 0.1, -0.2, 0.3], rows=60, nonconformity=[0.1] * 60, digests=["d"] * 60
    ).to_json()
    change_settings(
        a, temperature=2.5, calibration=calibration, data={"file": "a.csv", "sha256": "1"}, trained_on="t", pixels=9
    )
    change_run(b, data={"file": "b.csv", "sha256": "2"}, identity={"letters": "abcd", "orders": "cyclic", "base": "B"})
    turned = open_scores(a).logits
    assert turned.orders == "1"
    change_run(b, identity={"letters": "abcd", "orders": "1", "base": "B", "template": "T", "pixels": 4})
    pool_files([a, b], tmp_path / "out")
    record = run_json(tmp_path / "out")
    first, second = record["checkpoints"]
    assert "data" not in record
    assert (first["data"], second["data"]) == (
        {"file": "a.csv", "sha256": "1"},
        {"file": "b.csv", "sha256": "2"},
    )
    assert (first["temperature"], first["trained_on"], first["pixels"], first["fingerprint"]) == (2.5, "t", 9, "fa")
    assert (second["base"], second["template"], second["pixels"], second["fingerprint"]) == ("B", "T", 4, "fb")
    assert first["calibration"] == calibration | {"nonconformity": [], "digests": []}
    assert (second["temperature"], second["calibration"]["temperature"]) == (1.0, 1.0)
    again = open_scores(tmp_path / "out")
    assert again.calibrations[0].letters == [0.0, 0.1, -0.2, 0.3] and again.calibrations[0].rows == 60


def test_data_of_the_run_is_recorded_once_where_all_that_is_known_is_alike(tmp_path):
    a, b = two_folders(tmp_path)
    change_run(a, data={"file": "x.csv", "sha256": "s"})
    pool_files([a, b], tmp_path / "out")  # b says nothing
    record = run_json(tmp_path / "out")
    assert record["data"] == {"file": "x.csv", "sha256": "s"} and record["checkpoints"][1]["data"] == {}


def test_what_the_caller_records_stands_beside_what_the_pool_does(tmp_path):
    files, record = two_files(tmp_path), {"command": ["me"], "data": {"file": "t"}, "notes": ["first"]}
    pooled = pool_files([*files], tmp_path / "out", PoolOptions(names=["m", "n"]), record, ["careful", "careful"])
    written = run_json(tmp_path / "out")
    assert written["command"] == ["me"] and written["data"] == {"file": "t"}
    assert written["notes"][0] == "first" and len(written["notes"]) == 3
    assert written["warnings"] == ["careful"] and pooled.notes[-1] == "warning: careful" and len(pooled.notes) == 3
    assert [entry["member"] for entry in written["checkpoints"]] == ["m", "n"] == pooled.scores.logits.members


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
    folder = write_scores(tmp_path / "a", n=3)
    values = np.array([[0.1, 0.2, 0.3, 0.4], [0.25, 0.25, 0.4, 0.1], [0.7, 0.1, 0.1, 0.1]])
    other = write_csv(tmp_path / "b.csv", ["row2", "row0", "row1"], values)
    truth = columns_of(folder)
    change_columns(folder, answer=["", "", ""])
    letters = {f"row{row}": letter for row, letter in enumerate(truth["answer"])}
    answers = AnswerTable(Path("answers.csv"), letters, {"row1": "never"})
    pool_files([other, folder], tmp_path / "out", PoolOptions(answers=answers))
    columns, order = columns_of(tmp_path / "out"), [2, 0, 1]
    assert columns["id"] == ["row2", "row0", "row1"] and columns["options"] == [4, 4, 4]
    for name in ("answer", "task_type", "picture", "picture_digest", "digest", "question", "choices"):
        assert columns[name] == [truth[name][row] for row in order], name
    assert columns["exposed"] == [[0, 0]] * 3


def test_exposure_of_a_member_follows_its_rows_into_the_order_of_the_first(tmp_path):
    a, b = two_folders(tmp_path)
    change_exposure(b, [TRAINING, VALIDATION] + [0] * 198)
    opened = open_scores(b)
    logits = opened.logits
    logits.logits, logits.ids = logits.logits[::-1], logits.ids[::-1]
    write_part(b / "logits", 0, logits)
    change_columns(b, **{name: column[::-1] for name, column in opened.questions.items()})
    pooled = pool_files([a, b], tmp_path / "out")
    assert pooled.scores.exposed.tolist() == [[0, TRAINING], [0, VALIDATION]] + [[0, 0]] * 198
    warnings = run_json(tmp_path / "out")["warnings"]
    assert warnings == [
        "1 of 200 rows were in the training of b: metrics of these rows say nothing about new ones",
        "1 of 200 rows are validation rows of b: its epoch was chosen on them, so metrics of these rows flatter it",
    ]
    assert [f"warning: {text}" for text in warnings] == pooled.notes[-2:]


def test_a_letter_that_the_pool_prefers_is_warned_of(tmp_path):
    """Each member answers b in half of 60 rows, and the pool answers a in all of them; a is right in half."""
    paths = []
    for name, odd in (("a", 0), ("b", 1)):
        p_a = [0.9 if row % 2 == odd else 0.4 for row in range(60)]
        lines = [f"r{row},{p},{1 - p:.1f},{'ab'[row // 30]}\n" for row, p in enumerate(p_a)]
        paths.append(write_table(tmp_path / f"{name}.csv", "id,p_a,p_b,answer\n" + "".join(lines)))
    pool_files(paths, tmp_path / "out")
    (warning,) = run_json(tmp_path / "out")["warnings"]
    preferred = "one letter preferred: a is answered in 100% of rows, more often than it is right (50%). "
    assert warning.startswith(preferred)


def test_a_missing_row_is_named_in_one_warning(tmp_path):
    first = write_table(tmp_path / "a.csv", "id,p_a,p_b\nx,0.6,0.4\ny,,\n")
    second = write_table(tmp_path / "b.csv", "id,p_a,p_b\nx,0.7,0.3\ny,0.2,0.8\n")
    pooled = pool_files([first, second], tmp_path / "out")
    assert run_json(tmp_path / "out")["warnings"] == [
        "1 row has no score: 'y' (no score from a: no number in the file)"
    ]
    assert pooled.notes[-1] == "warning: 1 row has no score: 'y' (no score from a: no number in the file)"


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
        write_table(tmp_path / path, text)
    pooled = pool_files([tmp_path / path for path in paths], tmp_path / "out").scores
    assert pooled.logits.members == names


def test_members_of_one_name_in_folders_are_named_by_their_folders(tmp_path):
    a, b = two_folders(tmp_path)
    assert open_scores(a).logits.members == open_scores(b).logits.members == ["m"]
    assert pool_files([a, b], tmp_path / "out").scores.logits.members == ["a", "b"]


@pytest.mark.parametrize(
    "text, weights",
    [("equal", [0.5, 0.5]), ("1,3", [0.25, 0.75]), ("0,2", [0.0, 1.0]), ("0.2,0.3", [0.4, 0.6]), ("1,0", [1.0, 0.0])],
)
def test_given_weights_are_shares_in_the_order_of_the_members(tmp_path, text, weights):
    pooled = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(weights=text)).scores
    assert pooled.pool.weights == pytest.approx(weights) and pooled.pool.temperature == 1.0


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
    log_p, y, ids = draw_rows(30, 1)
    two = write_long_file(tmp_path / "two.parquet", log_p[:2], y, ids)
    one = write_csv(tmp_path / "one.csv", ids, np.exp(log_p[2]))
    notes = pool_files([two, one], tmp_path / "out", PoolOptions(weights=weights)).scores.run_json["pool"]["told"]
    assert notes[2] == (
        f"every member has its own weight, so that the sources weigh: {two} {shares[0]}% (u, v); {one} {shares[1]}% "
        "(one). Others: --weights"
    )


def test_nothing_is_said_of_sources_with_one_member_each_or_of_a_single_source(tmp_path):
    log_p, y, ids = draw_rows(30, 1)
    rows = write_long_file(tmp_path / "rows.parquet", log_p, y, ids)
    for number, paths in enumerate(([rows], two_files(tmp_path))):
        record = pool_files([*paths], tmp_path / f"{number}").scores.run_json
        assert not [note for note in record["notes"] if "weigh" in note]
        assert len(record["sources"]) == len(paths)


def test_one_member_alone_is_refused(tmp_path):
    with pytest.raises(EnsembleError) as error:
        pool_files([two_files(tmp_path)[0]], tmp_path / "out")
    assert str(error.value) == "1 member; expected two or more to pool"


def test_a_member_that_is_there_twice_is_refused_with_both_files(tmp_path):
    a, b = two_files(tmp_path)
    again = write_table(tmp_path / "c.csv", A)
    with pytest.raises(EnsembleError) as error:
        pool_files([b, a, again], tmp_path / "out")
    assert str(error.value) == (
        f"a of {a} and c of {again} have the same numbers in every row: one member would count twice. Leave one of "
        "them out, or give it more weight with --weights"
    )


def test_members_that_become_one_by_their_calibrations_are_refused(tmp_path):
    log_p, _, ids = draw_rows(50, 2)
    bias = np.array([0.0, 0.5, -0.5, 0.2])
    a = write_csv(tmp_path / "a.csv", ids, log_p[1], "l_{}")
    b = write_csv(tmp_path / "b.csv", ids, log_p[1] + bias, "l_{}")
    assert pool_files([a, b], tmp_path / "out").scores.logits.members == ["a", "b"]
    calibration = Calibration(1.0, bias.tolist(), fingerprint={"member": "a"})
    with pytest.raises(EnsembleError, match="a of .* and b of .* have the same numbers in every row"):
        pool_files([a, b], tmp_path / "x", PoolOptions(calibrations=[calibration]))


# ------------------------------------------------------------------ calibrations of members
def test_a_calibration_is_applied_to_the_member_that_it_is_made_for(tmp_path):
    calibration = Calibration(2.0, fingerprint={"member": "b"})
    pooled = pool_files([*two_files(tmp_path)], tmp_path / "out", PoolOptions(calibrations=[calibration])).scores
    b = np.array([[0.2, 0.7, 0.1], [0.5, 0.4, 0.1]]) ** 0.5
    b /= b.sum(1, keepdims=True)
    expected = np.sqrt(np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]]) * b)
    assert np.exp(pooled.log_p) == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-6)
    assert [entry["temperature"] for entry in pooled.run_json["checkpoints"]] == [1.0, 2.0]
    assert [entry["calibration"]["temperature"] for entry in pooled.run_json["checkpoints"]] == [1.0, 2.0]


def test_a_checkpoint_is_known_by_its_fingerprint_and_a_file_by_its_name(tmp_path):
    a, b = two_folders(tmp_path)
    calibrations = [
        Calibration(3.0, fingerprint={"adapter": "fb", "member": "a"}),
        Calibration(2.0, fingerprint={"adapter": "", "member": "a"}),
    ]
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=calibrations)).scores
    assert [calibration.temperature for calibration in pooled.calibrations] == [2.0, 3.0]


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
    file = write_csv(tmp_path / "c.csv", open_scores(a).logits.ids, np.exp(draw_rows(200, 1)[0][0]))
    calibrations = [Calibration(2.0, fingerprint=fingerprint) for fingerprint in fingerprints]
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b, file], tmp_path / "out", PoolOptions(calibrations=calibrations))
    assert str(error.value) == (f"--calibration: made for {unused}; expected one of the members: a (fa), b (fb), c")


@pytest.mark.parametrize("made_in, scored_in", [("1", "cyclic"), (None, "cyclic"), ("cyclic", "1"), ("cyclic", None)])
def test_a_calibration_of_other_orders_is_refused(tmp_path, made_in, scored_in):
    a, b = two_folders(tmp_path)
    if scored_in:
        change_settings(b, orders=scored_in)
    calibration = Calibration(2.0, fingerprint={"adapter": "fb"} | ({"orders": made_in} if made_in else {}))
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=[calibration]))
    assert str(error.value) == (
        f"--calibration: orders is {made_in or '1'}, but b was scored in orders {scored_in or '1'}; calibrate rows "
        "scored in these"
    )


# ------------------------------------------------------------------ anyone's file
def test_a_file_is_imported_with_its_values_columns_and_answers(tmp_path):
    path = write_table(tmp_path / "mine.csv", "id,p_a,p_b,answer,task_type\nx,0.6,0.4,A,count\ny,0.1,0.9,(a),\n")
    imported = import_file(path, tmp_path / "out")
    assert np.exp(imported.scores.log_p) == pytest.approx(np.array([[0.6, 0.4], [0.1, 0.9]]), abs=1e-6)
    assert imported.notes == [f"{path}: p_a … p_b read as probabilities, by their names"]
    columns, record = columns_of(tmp_path / "out"), run_json(tmp_path / "out")
    assert (columns["id"], columns["answer"], columns["task_type"]) == (["x", "y"], ["a", "a"], ["count", ""])
    assert columns["options"] == [2, 2] and columns["choices"] == [[], []] and all(columns["digest"])
    assert "pool" not in record and record["counts"] == {"rows": 2, "scored": 2, "members": 1}
    assert record["data"] == {"file": str(path)} and record["checkpoints"][0]["file"] == str(path)
    assert imported.metrics["overall"]["accuracy"]["value"] == 0.5 and not (tmp_path / "out" / "members").exists()
    assert [row["correct"] for row in cells(tmp_path / "out" / "probabilities.csv")] == ["1", "0"]


def test_a_calibration_is_applied_to_an_imported_file(tmp_path):
    path = write_table(tmp_path / "mine.csv", "id,p_a,p_b\nx,0.9,0.1\ny,0.2,0.8\n")
    calibration = Calibration(2.0, [0.0, float(np.log(2))], fingerprint={"member": "mine", "orders": "1"})
    imported = import_file(path, tmp_path / "out", PoolOptions(calibrations=[calibration]))
    expected = np.array([[3, 2], [1, 4]]) / 5  # √9 : 2·√1, and √1 : 2·√4
    assert np.exp(imported.scores.log_p) == pytest.approx(expected, abs=1e-6)
    entry = run_json(tmp_path / "out")["checkpoints"][0]
    assert entry["temperature"] == 2.0 and entry["calibration"]["letters"] == [0.0, pytest.approx(np.log(2))]


def test_a_file_of_several_members_is_imported_as_their_pool(tmp_path):
    text = "id,p_a,p_b,member\nx,0.9,0.1,u\nx,0.5,0.5,v\n"
    imported = import_file(write_table(tmp_path / "both.csv", text), tmp_path / "out")
    assert np.exp(imported.scores.log_p) == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-6)
    assert imported.scores.logits.members == ["u", "v"] and run_json(tmp_path / "out")["pool"]["kind"] == "log"


def test_the_form_and_the_answers_that_are_given_are_used(tmp_path):
    path = write_table(tmp_path / "votes.csv", "id,a,b\nx,30,70\n")
    options = PoolOptions(form="shares", answers=AnswerTable(Path("t.csv"), {"x": "b"}, {"x": "count"}))
    imported = import_file(path, tmp_path / "out", options)
    assert np.exp(imported.scores.log_p) == pytest.approx(np.array([[0.3, 0.7]]), abs=1e-6)
    assert columns_of(tmp_path / "out")["answer"] == ["b"] and columns_of(tmp_path / "out")["task_type"] == ["count"]


def test_an_import_replaces_an_earlier_one_of_the_same_file_and_nothing_else(tmp_path):
    path, out = write_table(tmp_path / "mine.csv", A), tmp_path / "out"
    out.mkdir()  # empty: nothing to replace
    import_file(path, out)
    (out / "logits" / "part-000001.parquet").write_bytes((out / "logits" / "part-000000.parquet").read_bytes())
    write_table(path, B)
    imported = import_file(path, out).scores
    assert imported.logits.ids == ["y", "x"] and [file.name for file in (out / "logits").iterdir()] == [
        "part-000000.parquet"
    ]
    other = write_table(tmp_path / "other.csv", A)
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


def test_a_full_folder_is_refused_with_the_option_that_replaces_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError) as error:
        check_replaceable(tmp_path, False)
    assert str(error.value) == f"{tmp_path} exists; choose another --out, or replace it with --overwrite"


# ------------------------------------------------------------------ what a member adds
def test_what_a_member_adds_is_measured_with_the_weights_of_the_pool(tmp_path):
    log_p, y, ids = draw_rows(60, 3)
    path = write_long_file(tmp_path / "rows.parquet", log_p, y, ids)
    ensemble = pool_files([path], tmp_path / "out", PoolOptions("linear", "2,1,1")).metrics["ensemble"]
    p, rows = np.exp(log_p), np.arange(60)
    full = -np.log((p[0] / 2 + p[1] / 4 + p[2] / 4)[rows, y])
    without = {
        "u": -np.log((p[1] / 2 + p[2] / 2)[rows, y]),
        "v": -np.log((p[0] * 2 / 3 + p[2] / 3)[rows, y]),
        "w": -np.log((p[0] * 2 / 3 + p[1] / 3)[rows, y]),
    }
    for member in ensemble["members"]:
        assert member["adds"]["nll"] == pytest.approx((without[member["member"]] - full).mean(), abs=1e-5)
    assert [member["weight"] for member in ensemble["members"]] == [0.5, 0.25, 0.25]
    alone = leave_one_out(log_p, y, PoolSettings("linear", [0.5, 0.25, 0.25]), np.arange(60))
    for member, other in zip(ensemble["members"], alone):
        assert member["adds"] == pytest.approx(other, abs=1e-5)


def test_answers_that_members_do_not_agree_on_are_listed(tmp_path):
    first = write_table(tmp_path / "a.csv", "id,p_a,p_b,answer\nx,0.6,0.4,a\ny,0.1,0.9,\nz,0.3,0.7,b\n")
    second = write_table(tmp_path / "b.csv", "id,p_a,p_b,answer\nz,0.2,0.8,a\nx,0.7,0.3,b\ny,0.5,0.5,a\n")
    with pytest.raises(EnsembleError) as error:
        pool_files([first, second], tmp_path / "out")
    assert str(error.value) == (
        "answers of members differ: 'x' (a and b of b), 'z' (b and a of b); expected one right answer for each id"
    )


def test_what_a_folder_of_several_members_weighs_is_noted(tmp_path):
    log_p, _ = members(3, 30)
    ids = [f"r{row}" for row in range(30)]
    one, two = (write_csv(tmp_path / f"{name}.csv", ids, np.exp(values)) for name, values in zip("ab", log_p))
    pool_files([one, two], tmp_path / "pair")
    three = write_csv(tmp_path / "c.csv", ids, np.exp(log_p[2]))
    notes = " ".join(pool_files([tmp_path / "pair", three], tmp_path / "out").notes)
    assert "67% (a, b)" in notes and "33% (c)" in notes
    with pytest.raises(
        EnsembleError, match="3 numbers from 0 on, separated by commas, in the order of the members: a, b, c"
    ):
        pool_files([tmp_path / "pair", three], tmp_path / "x", PoolOptions(weights="1,2"))
    for weights in ("nan,1,1", "inf,1,1", "-1,1,1", "0,0,0"):
        with pytest.raises(EnsembleError, match="3 numbers from 0 on"):
            pool_files([tmp_path / "pair", three], tmp_path / "x", PoolOptions(weights=weights))


def test_a_pool_says_in_which_settings_its_members_saw_which_rows(tmp_path):
    a, b = two_folders(tmp_path, orders="cyclic", pixels=1024, template="t", trained_on="d")
    for folder in (a, b):
        change_run(folder, data={"file": "x.csv", "sha256": "s"})
    change_exposure(a, [TRAINING] * 10 + [0] * 190)
    pool_files([a, b], tmp_path / "out")
    record = run_json(tmp_path / "out")
    assert record["data"] == {"file": "x.csv", "sha256": "s"}
    for entry in record["checkpoints"]:
        assert (entry["orders"], entry["pixels"], entry["template"], entry["trained_on"]) == ("cyclic", 1024, "t", "d")
    exposed = open_scores(tmp_path / "out").exposed
    assert exposed[:, 0].tolist() == [TRAINING] * 10 + [0] * 190 and not exposed[:, 1].any()


@pytest.mark.parametrize("kind", ["linear", "vote"])
@pytest.mark.parametrize("weights", ["fit", "greedy", "nll"])
def test_weights_fitted_for_the_log_pool_are_refused_for_other_pools(kind, weights):
    with pytest.raises(EnsembleError, match=f"--pool {kind} with --weights {weights}: .*use --pool log, or --weights"):
        PoolOptions(kind, weights)
    assert PoolOptions(kind, "equal").kind == PoolOptions(kind, "0.5,0.5").kind == kind


def test_a_refused_pool_writes_nothing_and_removes_nothing(cli, tmp_path):
    rows, out = write_long_file(tmp_path / "rows.parquet", *draw_rows(60, 1)), tmp_path / "out"
    pool_files([rows], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for refused, reason in (
        (["--pool", "linear", "--weights", "fit", "--sets", 0.9], "--pool linear with --weights fit"),
        (["--sets", 0.9], "60 of 60 rows are also labelled rows"),
    ):
        assert reason in cli("ensemble", rows, "--fit", rows, *refused, "--out", out, "--overwrite", check=2).stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("pattern, make", [("p_{}", np.exp), ("{}", np.array), ("l_{}", lambda log_p: log_p * 3 + 7)])
def test_csv_files_of_other_tools_are_pooled_by_id(tmp_path, pattern, make):
    log_p, _ = members(2, 30)
    ids = [f"r{row}" for row in range(30)]
    first = write_csv(tmp_path / "a.csv", ids, make(log_p[0]), pattern)
    reversed_file = write_csv(tmp_path / "b.csv", ids[::-1], make(log_p[1])[::-1], pattern)
    pooled = pool_files([first, reversed_file], tmp_path / "out").scores
    expected = pool(np.stack([log_softmax(make(values) if pattern == "l_{}" else values, axis=1) for values in log_p]))
    assert np.abs(np.exp(pooled.log_p) - np.exp(expected)).max() < 1e-6
    assert pooled.logits.members == ["a", "b"] and (tmp_path / "out" / "members" / "b.csv").exists()
    assert (tmp_path / "out" / "submission.csv").read_text().splitlines()[0] == "id,answer"
    with pytest.raises(RunError, match="exists"):
        check_replaceable(tmp_path / "out", False)


def test_folders_are_pooled_evaluated_and_fitted(tmp_path):
    a, b = write_scores(tmp_path / "a"), write_other_member(tmp_path / "b")
    equal = pool_files([a, b], tmp_path / "out")
    assert equal.metrics["ensemble"]["best"] == "b" and (tmp_path / "out" / "metrics.json").exists()
    again = open_scores(tmp_path / "out")
    assert np.array_equal(again.log_p, equal.scores.log_p, equal_nan=True)
    fitted = pool_files([a, b], tmp_path / "fitted", PoolOptions(fit=tmp_path / "out"))
    folders = [open_scores(path) for path in (a, b)]
    mean = np.mean([log_softmax(folder.logits.logits[:, 0, 0].astype(float), axis=1) for folder in folders], axis=0)
    y = np.array(["abcd".index(letter) for letter in folders[0].questions["answer"]])
    temperature = likeliest_temperature(mean, y)
    assert fitted.scores.pool.temperature == pytest.approx(temperature, abs=1e-3) and temperature > 1.1
    assert f"temperature of the pool {fitted.scores.pool.temperature:.3f}," in fitted.notes[0]
    for result, t in ((equal, 1.0), (fitted, temperature)):
        assert np.abs(np.exp(result.scores.log_p) - np.exp(log_softmax(mean / t, axis=1))).max() < 1e-3
        nll = result.metrics["overall"]["nll"]["value"]
        assert nll == pytest.approx(losses_of(mean, y, t).mean(), abs=1e-4)
    assert np.abs(np.exp(fitted.scores.log_p) - np.exp(equal.scores.log_p)).max() > 0.02
    assert run_json(tmp_path / "fitted")["pool"]["kind"] == "log"
    with pytest.raises(EnsembleError, match="nll needs labelled rows"):
        pool_files([a, b], tmp_path / "x", PoolOptions(weights="nll"))
    with pytest.raises(
        EnsembleError,
        match="expected the members that are pooled; b .x. is missing.*one folder or file that holds all members",
    ):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=a))
    change_run(tmp_path / "out", data={"sha256": "t"})
    change_settings(tmp_path / "out", 1, trained_on="t")
    with pytest.raises(EnsembleError, match="was trained on these rows"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "out"))


# ------------------------------------------------------------------ the submission
def test_a_pool_has_the_submission_of_the_sample(tmp_path):
    files = two_files(tmp_path)
    pool_files(files, tmp_path / "plain")
    header, *lines = (tmp_path / "plain" / "submission.csv").read_text().splitlines()
    (tmp_path / "sample.csv").write_text("\n".join(["nr,label", *(f"{line[:-1]}d" for line in reversed(lines)), ""]))
    sample = read_sample(tmp_path / "sample.csv")
    pool_files(files, tmp_path / "out", PoolOptions(sample=sample))
    written = (tmp_path / "out" / "submission.csv").read_text().splitlines()
    assert header == "id,answer" and written == ["nr,label", *reversed(lines)]
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["sample"] == {"file": str(sample.file), "sha256": sample.digest, "rows": len(lines)}
    assert "sample" not in json.loads((tmp_path / "plain" / "run.json").read_text())
    for name in ("probabilities.csv", "questions.parquet"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_pool_without_an_id_of_the_sample_is_not_written(tmp_path):
    (tmp_path / "sample.csv").write_text("id,answer\nstranger,a\n")
    options = PoolOptions(sample=read_sample(tmp_path / "sample.csv"))
    with pytest.raises(InputError, match="1 of 1 ids that no row of the table has: 'stranger'"):
        pool_files(two_files(tmp_path), tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
