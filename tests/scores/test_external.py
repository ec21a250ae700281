"""Calibrations of anyone's files: which rows they are fitted on, what they remember, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax, softmax

from scoring.checkpoints.calibrate import CalibrateOptions, calibrate_checkpoint
from scoring.files.reading import FileError
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION, write_rows
from scoring.scores.external import calibrate_file, open_or_import, read_calibrations, read_files
from scoring.scores.folder import RunError, open_scores
from scoring.scores.members import read_members
from scoring.scores.pooling import PoolOptions, import_file, pool_files
from scoring.stats.calibration import LabelledRows, calibrate
from scoring.stats.pools import EnsembleError
from tests.shared.demo import FOLD0
from tests.shared.number_files import write_csv, write_table
from tests.shared.predictions import members
from tests.shared.scores_folders import change_columns, change_exposure, change_settings, columns_of, write_scores


def folder_with_exposed_rows(tmp_path, flags, **settings):
    """A SCORES folder whose member has met its rows as `flags` say, four rows a picture; and its columns."""
    folder = write_scores(tmp_path / "a")
    pictures = [f"{row // 4:016x}" for row in range(200)]
    change_columns(folder, picture_digest=pictures, digest=[f"d{row}" for row in range(200)])
    change_exposure(folder, flags)
    change_settings(folder, **settings)
    return folder, columns_of(folder)


@pytest.mark.parametrize("orders", ["1", "cyclic"])
def test_a_folder_is_calibrated_on_rows_outside_of_the_training_and_pictures_stay_together(tmp_path, orders):
    flags = [TRAINING] * 60 + [VALIDATION] * 20 + [TRAINING | VALIDATION] * 10 + [0] * 110
    folder, questions = folder_with_exposed_rows(tmp_path, flags, fingerprint="fa", orders=orders)
    calibration = calibrate_file(folder, tmp_path / "c.json")["m"]
    rows = np.r_[60:80, 90:200]
    rng = np.random.default_rng(0)  # as `write_scores` draws them
    z = 2 * rng.normal(0, 2, (200, 4)).astype(np.float32)[rows]
    y = np.array(["abcd".index(questions["answer"][row]) for row in rows])
    types = [questions["task_type"][row] for row in rows]
    pictures = np.unique(rows // 4, return_inverse=True)[1]
    expected = calibrate(LabelledRows(z, y, types, pictures), one_order=orders == "1")
    assert calibration.rows == 130 and calibration.pictures == 33
    assert calibration.temperature == pytest.approx(expected.temperature, abs=1e-4) and calibration.temperature > 1.5
    assert calibration.gain == pytest.approx(expected.gain, abs=1e-4)
    assert calibration.gain_error == pytest.approx(expected.gain_error, abs=1e-4)
    assert [line.split(":")[0] for line in calibration.choice[:-1]] == [line.split(":")[0] for line in expected.choice]
    assert calibration.choice[-1] == "70 rows that the checkpoint was trained on are left out"
    assert calibration.selected == 20
    assert ("several option orders" in " ".join(calibration.choice)) == (orders != "1")
    assert calibration.digests == [f"d{row}" for row in rows]
    assert calibration.fingerprint == {"member": "m", "adapter": "fa", "letters": "abcd", "orders": orders}
    again = read_calibrations(tmp_path / "c.json")
    assert [entry.to_json() for entry in again] == [calibration.to_json()]


def test_rows_that_were_all_trained_on_calibrate_nothing(tmp_path):
    folder, _ = folder_with_exposed_rows(tmp_path, [TRAINING] * 200)
    with pytest.raises(
        EnsembleError,
        match=r"m has no scored row with an answer that it was not trained on; name a table with answers by --answers$",
    ):
        calibrate_file(folder, tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


def test_each_member_of_a_file_has_a_calibration_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (150, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (p.cumsum(1) > rng.random((150, 1))).argmax(1)
    columns = {
        "id": [*range(150)] * 2,
        "member": ["m"] * 150 + ["n"] * 150,
        "answer": ["abc"[index] for index in y] * 2,
    }
    columns |= {f"l_{letter}": np.r_[2 * z[:, index], 4 * z[:, index]] for index, letter in enumerate("abc")}
    pq.write_table(pa.table(columns), tmp_path / "file.parquet")
    calibrations = calibrate_file(tmp_path / "file.parquet", tmp_path / "c.json")
    assert list(calibrations) == ["m", "n"]
    assert calibrations["n"].temperature == pytest.approx(2 * calibrations["m"].temperature, rel=1e-4)
    written = json.loads((tmp_path / "c.json").read_text())
    assert list(written) == ["calibrations"] and len(written["calibrations"]) == 2
    again = read_calibrations(tmp_path / "c.json")
    assert [calibration.fingerprint for calibration in again] == [
        {"member": name, "adapter": None, "orders": "1"} for name in ("m", "n")
    ]
    temperatures = [calibration.temperature for calibration in calibrations.values()]
    assert [calibration.temperature for calibration in again] == temperatures
    known, read = read_files(None, [tmp_path / "c.json", tmp_path / "c.json"])
    assert known is None and [calibration.temperature for calibration in read] == 2 * temperatures


@pytest.mark.parametrize("kind", ["groups", "letters"])
def test_a_file_is_calibrated_by_its_types_of_task_or_letters_on_its_scored_rows(tmp_path, kind):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (1200, 4))
    y = (softmax(z, 1).cumsum(1) > rng.random((1200, 1))).argmax(1)
    types = np.where(np.arange(1200) < 600, "count", "color")
    z = z * np.where(types == "count", 1, 4)[:, None] if kind == "groups" else z + [2, 0, 0, 0]
    columns = {"id": [*range(1201)], "answer": [*("abcd"[index] for index in y), "a"]}
    columns["task_type"] = [*types.tolist(), "count"]
    columns |= {f"l_{letter}": [*z[:, index], None] for index, letter in enumerate("abcd")}
    pq.write_table(pa.table(columns), tmp_path / "file.parquet")
    calibration = calibrate_file(tmp_path / "file.parquet", tmp_path / "c.json")["file"]
    expected = calibrate(LabelledRows(log_softmax(z, 1), y, types.tolist()), one_order=True)
    assert calibration.rows == 1200 and len(getattr(calibration, kind)) == {"groups": 2, "letters": 4}[kind]
    assert calibration.groups == pytest.approx(expected.groups)
    assert calibration.letters == pytest.approx(expected.letters)


@pytest.mark.parametrize(
    "text, problem",
    [
        (None, "no such file; expected one that `calibrate` wrote"),
        ('{"temperature": 2}', "found no calibration; expected a file that `calibrate` wrote"),
        ('{"calibrations": {"m": {}}}', "found no calibration"),
        ('{"calibrations": [{"temperature": 2, "fingerprint": {}}, {"temperature": 2}]}', "found no calibration"),
        ('{"calibrations": [2]}', "found no calibration"),
    ],
)
def test_files_that_hold_no_calibration_are_refused(tmp_path, text, problem):
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(FileError, match=problem) as error:
        read_calibrations(tmp_path / "c.json")
    assert str(error.value).startswith(f"{tmp_path / 'c.json'}: ")


def test_a_damaged_calibration_is_named_with_its_file(tmp_path):
    (tmp_path / "c.json").write_text('{"temperature": "hot", "fingerprint": {}}')
    with pytest.raises(FileError, match=f"^{tmp_path / 'c.json'}: temperature is 'hot'"):
        read_calibrations(tmp_path / "c.json")


def test_a_folder_is_opened_in_place_and_copied_only_to_apply_a_calibration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = folder_with_exposed_rows(tmp_path, [0] * 200)
    same, notes = open_or_import(folder, None, "auto", None, ())
    assert same.folder == folder and notes == [] and not (tmp_path / "scores").exists()
    fitted = calibrate_file(folder, tmp_path / "c.json")["m"]
    copied, notes = open_or_import(folder, None, "auto", None, [tmp_path / "c.json"])
    assert copied.folder.parts[-2:] == ("scores", "a-calibrated") and notes[-1] == f"folder: {copied.folder}"
    assert np.abs(copied.log_p - fitted.apply(same.log_p, same.questions["task_type"])).max() < 1e-4
    named, _ = open_or_import(folder, tmp_path / "named", "auto", None, [tmp_path / "c.json"])
    assert named.folder == tmp_path / "named"


# ------------------------------------------------------------------ what a calibration belongs to
SETTINGS = {"base": "b0", "template": "t0", "pixels": 36864, "quantization": "nf4"}


def with_settings(folder, **entry):
    change_settings(folder, **entry)
    return folder


def test_a_calibration_of_a_folder_records_all_that_logits_depend_on(tmp_path):
    folder = with_settings(write_scores(tmp_path / "a"), **SETTINGS)
    calibration = calibrate_file(folder, tmp_path / "c.json")["m"]
    assert calibration.fingerprint == {"member": "m", "adapter": "x", **SETTINGS, "letters": "abcd", "orders": "1"}


@pytest.mark.parametrize("name, other", [*dict(base="b1", template="t1", pixels=16384, quantization="none").items()])
def test_a_calibration_is_refused_for_a_member_of_another_setting(tmp_path, name, other):
    folder = with_settings(write_scores(tmp_path / "a"), **SETTINGS)
    calibrate_file(folder, tmp_path / "c.json")
    target = with_settings(write_scores(tmp_path / "b", n=100), **SETTINGS | {name: other})
    with pytest.raises(EnsembleError, match=f"{name} is {SETTINGS[name]}, but m was scored with {name} {other};"):
        open_or_import(target, tmp_path / "out", "auto", None, [tmp_path / "c.json"])
    older = write_scores(tmp_path / "c", n=100)  # older versions recorded no settings
    opened, _ = open_or_import(older, tmp_path / "out", "auto", None, [tmp_path / "c.json"])
    assert opened.calibrations[0].temperature > 1.5


def test_a_setting_that_differs_ends_the_command_with_2(cli, tmp_path):
    folder = with_settings(write_scores(tmp_path / "a"), **SETTINGS)
    cli("calibrate", folder, "--out", tmp_path / "c.json")
    target = with_settings(write_scores(tmp_path / "b"), **SETTINGS | {"pixels": 16384})
    refused = cli("evaluate", target, "--calibration", tmp_path / "c.json", "--out", tmp_path / "out", check=2)
    assert "pixels is 36864, but m was scored with pixels 16384" in refused.stderr and not (tmp_path / "out").exists()


def test_a_calibration_for_fewer_letters_serves_no_table_with_more(tmp_path):
    a, b = write_scores(tmp_path / "a"), write_scores(tmp_path / "b", n=100)
    calibrate_file(a, tmp_path / "c.json")
    values = json.loads((tmp_path / "c.json").read_text())
    for letters, fits in (("abcde", True), ("abc", False)):
        values["fingerprint"]["letters"] = letters
        (tmp_path / "c.json").write_text(json.dumps(values))
        if fits:
            open_or_import(b, tmp_path / "out", "auto", None, [tmp_path / "c.json"])
            continue
        with pytest.raises(EnsembleError, match="letters is abc, but m was scored with letters abcd"):
            open_or_import(b, tmp_path / "out", "auto", None, [tmp_path / "c.json"])


def test_of_one_checkpoint_at_two_resolutions_each_member_gets_its_own_calibration(tmp_path):
    a = with_settings(write_scores(tmp_path / "a", temperature=3.0), **SETTINGS, member="small")
    b = with_settings(write_scores(tmp_path / "b"), **SETTINGS | {"pixels": 200704}, member="large")
    for folder, member in ((a, "small"), (b, "large")):
        questions = pq.read_table(folder / "logits" / "part-000000.parquet")
        questions = questions.set_column(questions.column_names.index("member"), "member", pa.array([member] * 200))
        if member == "large":  # another model, not the same one at another temperature
            noisy = questions["l_a"].to_numpy() + np.random.default_rng(1).normal(0, 0.5, 200).astype(np.float32)
            questions = questions.set_column(questions.column_names.index("l_a"), "l_a", pa.array(noisy))
        pq.write_table(questions, folder / "logits" / "part-000000.parquet")
    fitted = [calibrate_file(path, tmp_path / f"{path.name}.json") for path in (a, b)]
    files = [tmp_path / "b.json", tmp_path / "a.json"]
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=read_files(None, files)[1]))
    expected = [fitted[0]["small"].temperature, fitted[1]["large"].temperature]
    assert [calibration.temperature for calibration in pooled.scores.calibrations] == pytest.approx(expected)
    assert abs(expected[0] - expected[1]) > 0.5


# ------------------------------------------------------------------ rows that a calibration was fitted on
def numbers_file(path, n=150, first=0, seed=0, answers=True, sharp=2.0):
    """A file of logits with ids row0 … whose right temperature is `sharp`."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    columns = {"id": [f"row{first + row}" for row in range(n)]}
    columns |= {"answer": ["abcd"[index] for index in y]} if answers else {}
    columns |= {f"l_{letter}": sharp * z[:, index] for index, letter in enumerate("abcd")}
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values()))]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_of_a_file_that_its_calibration_was_fitted_on_are_flagged_and_reported(cli, tmp_path):
    path = numbers_file(tmp_path / "m.csv")
    cli("calibrate", path, "--out", tmp_path / "c.json")
    warning = (
        "150 of 150 rows are those that the calibration of m was fitted on; its gain on them is not what others get"
    )
    done = cli("evaluate", path, "--calibration", tmp_path / "c.json", "--out", tmp_path / "out", "--no-plot")
    assert done.stderr.count(warning) == 1 and "every labelled row was calibrated on" in done.stdout
    for name in ("run.json", "metrics.json"):
        assert json.loads((tmp_path / "out" / name).read_text())["warnings"] == [warning]
    assert pq.read_table(tmp_path / "out" / "questions.parquet")["exposed"].to_pylist() == [[CALIBRATION]] * 150
    plain = cli("evaluate", tmp_path / "out", "--no-plot")  # the folder remembers it
    assert warning in plain.stderr


def test_rows_of_a_file_are_known_by_id_and_numbers_together(tmp_path):
    fitted = numbers_file(tmp_path / "a" / "m.csv")
    calibrate_file(fitted, tmp_path / "c.json")
    others = {
        "ids alone": (numbers_file(tmp_path / "b" / "m.csv", seed=1), 0),
        "numbers alone": (numbers_file(tmp_path / "d" / "m.csv", first=1000), 0),
        "fewer rows": (tmp_path / "e" / "m.csv", 40),
    }
    others["fewer rows"][0].parent.mkdir()
    others["fewer rows"][0].write_text("\n".join(fitted.read_text().splitlines()[:41]) + "\n")
    for name, (path, count) in others.items():
        opened, notes = open_or_import(path, tmp_path / name, "auto", None, [tmp_path / "c.json"])
        assert (opened.exposed == CALIBRATION).sum() == count, name
        assert any("calibration of m was fitted on" in note for note in notes) == bool(count)
    imported, _ = open_or_import(fitted, tmp_path / "imported", "auto", None, ())  # rounded to 32 bits
    again, _ = open_or_import(imported.folder, tmp_path / "again", "auto", None, [tmp_path / "c.json"])
    assert (again.exposed == CALIBRATION).all()


def test_rows_of_a_folder_are_known_by_their_content(tmp_path):
    folder, questions = folder_with_exposed_rows(tmp_path, [TRAINING] * 60 + [0] * 140)
    fitted = calibrate_file(folder, tmp_path / "c.json")["m"]
    assert fitted.numbers == [] and len(fitted.digests) == 140
    opened, notes = open_or_import(folder, tmp_path / "out", "auto", None, [tmp_path / "c.json"])
    assert opened.exposed[:, 0].tolist() == [TRAINING] * 60 + [CALIBRATION] * 140
    assert "warning: 140 of 200 rows are those that the calibration of m was fitted on" in " ".join(notes)


# ------------------------------------------------------------------ with and without a checkpoint
def test_a_folder_has_the_same_calibration_with_and_without_a_checkpoint(tmp_path):
    fold = Path(shutil.copytree(FOLD0, tmp_path / "fold0"))
    out = write_scores(tmp_path / "a", checkpoint=fold)
    digests = columns_of(out)["digest"]
    write_rows(fold, digests[:120], digests[120:150])
    change_exposure(out, [TRAINING] * 120 + [VALIDATION] * 30 + [0] * 50)
    with_checkpoint, _ = calibrate_checkpoint(out, str(fold))
    alone = calibrate_file(out, tmp_path / "c.json")["m"]
    assert alone.selected == 30 and "120 rows that the checkpoint was trained on are left out" in alone.choice
    assert alone.to_json() | {"fingerprint": {}} == with_checkpoint.to_json() | {"fingerprint": {}}


def test_answers_of_a_table_serve_a_calibration_of_a_checkpoint_too(tmp_path):
    fold = Path(shutil.copytree(FOLD0, tmp_path / "fold0"))
    out = write_scores(tmp_path / "a", checkpoint=fold)
    expected, _ = calibrate_checkpoint(out, str(fold), CalibrateOptions(tmp_path / "c.json"))
    columns = columns_of(out)
    table = key(tmp_path / "key.csv", zip(columns["id"], columns["answer"]))
    change_columns(out, answer=[""] * 200)
    messages = []
    calibration, _ = calibrate_checkpoint(out, str(fold), CalibrateOptions(tmp_path / "d.json", table, messages.append))
    assert calibration.to_json() == expected.to_json()
    assert messages == [f"{table}: has 200 of the 200 ids of {out}, fills in 200 answers"]


def test_a_note_says_how_many_rows_were_trained_on_where_too_few_are_left(tmp_path):
    folder, _ = folder_with_exposed_rows(tmp_path, [TRAINING] * 192 + [0] * 8)
    line = (
        "8 labelled rows are too few to fit a temperature (20 at least): T = 1; 192 rows that the checkpoint was "
        "trained on are left out"
    )
    calibration = calibrate_file(folder, tmp_path / "c.json")["m"]
    assert calibration.note == line and calibration.choice == [f"temperature 1.000: {line}"]


# ------------------------------------------------------------------ --answers
def key(path, pairs):
    path.write_text("id,answer\n" + "".join(f"{name},{letter}\n" for name, letter in pairs))
    return path


def test_answers_of_a_table_fill_the_blanks_of_a_file_and_the_number_of_ids_is_reported(tmp_path):
    path = numbers_file(tmp_path / "m.csv", n=10)
    letters = read_members(path)[0].questions["answer"]
    lines = path.read_text().splitlines()
    for row in (3, 5):
        cells = lines[row + 1].split(",")
        lines[row + 1] = ",".join([cells[0], "", *cells[2:]])
    path.write_text("\n".join(lines) + "\n")
    table = key(tmp_path / "key.csv", [("row3", letters[3]), ("row7", letters[7]), ("other", "a")])
    opened, notes = open_or_import(path, tmp_path / "out", "auto", table, ())
    assert opened.questions["answer"] == letters[:5] + [""] + letters[6:]
    assert f"{table}: has 2 of the 10 ids of {path}, fills in 1 answer" in notes
    blank = numbers_file(tmp_path / "n.csv", n=30, answers=False)
    folder, messages = open_or_import(blank, tmp_path / "blank", "auto", None, ())[0].folder, []
    full = key(tmp_path / "full.csv", [(f"row{row}", "abcd"[row % 4]) for row in range(30)])
    calibrate_file(folder, tmp_path / "c.json", answers=full, say=messages.append)
    assert messages[-1] == f"{full}: has 30 of the 30 ids of {folder}, fills in 30 answers"
    filled, _ = open_or_import(folder, tmp_path / "filled", "auto", full, ())
    assert filled.questions["answer"] == ["abcd"[row % 4] for row in range(30)]


def test_other_answers_than_a_files_own_are_refused_with_count_and_ids(tmp_path):
    path = numbers_file(tmp_path / "m.csv", n=30)
    letters = read_members(path)[0].questions["answer"]
    other = ["b" if letter == "a" else "a" for letter in letters]
    table = key(tmp_path / "key.csv", [("row2", other[2]), ("row4", letters[4]), ("row9", other[9])])
    with pytest.raises(EnsembleError) as refused:
        open_or_import(path, tmp_path / "out", "auto", table, ())
    assert (
        f"{path}: 2 rows have another answer in {table}: 'row2' ({letters[2]}, and {other[2]} in the table), 'row9'"
        in str(refused.value)
    )
    with pytest.raises(EnsembleError, match="2 rows have another answer"):
        calibrate_file(path, tmp_path / "c.json", answers=table)


def test_a_table_without_any_of_the_ids_is_refused_with_an_id_of_each_side(tmp_path):
    path, table = numbers_file(tmp_path / "m.csv", n=30), key(tmp_path / "key.csv", [("z1", "a")])
    with pytest.raises(EnsembleError) as refused:
        open_or_import(path, tmp_path / "out", "auto", table, ())
    assert f"{table}: none of its ids, such as 'z1', is an id of {path}, such as 'row0'" in str(refused.value)


def test_answers_may_be_those_of_the_labelled_rows_alone(tmp_path):
    rows = [
        numbers_file(tmp_path / "test" / f"{name}.csv", seed=seed, answers=False) for name, seed in (("a", 0), ("b", 1))
    ]
    labelled = tmp_path / "labelled.csv"
    header, *first = numbers_file(tmp_path / "x.csv", first=500, seed=2, answers=False).read_text().splitlines()
    second = numbers_file(tmp_path / "y.csv", first=500, seed=3, answers=False).read_text().splitlines()[1:]
    lines = [f"{header},member", *(f"{line},a" for line in first), *(f"{line},b" for line in second)]
    labelled.write_text("\n".join(lines) + "\n")
    table = key(tmp_path / "key.csv", [(f"row{500 + row}", "abcd"[row % 4]) for row in range(150)])
    answers, _ = read_files(table, ())
    pooled = pool_files(rows, tmp_path / "out", PoolOptions(fit=labelled, answers=answers))
    assert "on 150 rows" in " ".join(pooled.notes)


# ------------------------------------------------------------------ everything under --out
def test_results_of_files_go_under_the_folder_that_out_names(cli, tmp_path, monkeypatch):
    first, second = numbers_file(tmp_path / "a" / "m.csv"), numbers_file(tmp_path / "b" / "m.csv", seed=1)
    header, *lines = second.read_text().splitlines()
    right = [line.split(",")[1] for line in first.read_text().splitlines()[1:]]
    lines = [
        ",".join([cells[0], letter, *cells[2:]]) for cells, letter in zip((line.split(",") for line in lines), right)
    ]
    second.write_text("\n".join([header, *lines]) + "\n")  # other numbers of the same questions
    folder = tmp_path / "here"
    folder.mkdir()
    cli("evaluate", first, second, "--out", "X", cwd=folder)
    assert [path.name for path in folder.iterdir()] == ["X"] and (folder / "X" / "comparison.json").exists()
    assert open_scores(folder / "X" / "other" / "m").run_json["sources"] == [str(second)]
    cli("evaluate", second, "--out", "Y", "--no-plot", cwd=folder)
    cli("report", first, "--out", "p.html", cwd=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["X", "Y", "p.html"]
    assert "<title>m: scores" in (folder / "p.html").read_text("utf-8")


def test_a_file_is_evaluated_calibrated_and_its_calibration_applied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_p, y = members(1, 400, sharp=3.0)
    ids = [f"r{row}" for row in range(400)]
    write_csv(tmp_path / "mine.csv", ids, np.exp(log_p[0]))
    answers = write_table(
        tmp_path / "key.csv", "id,answer\n" + "".join(f"{id},{'abcd'[index]}\n" for id, index in zip(ids, y))
    )
    opened, notes = open_or_import(tmp_path / "mine.csv", None, "auto", answers, ())
    assert opened.folder.name == "mine" and (opened.folder / "metrics.json").exists()
    assert "read as probabilities" in notes[0]
    raw = json.loads((opened.folder / "metrics.json").read_text())["overall"]["nll"]["value"]
    assert raw == pytest.approx(-log_p[0][np.arange(400), y].mean(), abs=1e-6)
    fitted = calibrate_file(tmp_path / "mine.csv", tmp_path / "c.json", answers=answers)["mine"]
    assert fitted.temperature > 1.5 and read_calibrations(tmp_path / "c.json")[0].temperature == fitted.temperature
    again, notes = open_or_import(tmp_path / "mine.csv", None, "auto", answers, [tmp_path / "c.json"])
    after = json.loads((again.folder / "metrics.json").read_text())["overall"]["nll"]["value"]
    assert after == pytest.approx(fitted.nll_after, abs=1e-6) and after < raw - 0.1
    other = write_table(tmp_path / "other.csv", (tmp_path / "mine.csv").read_text())
    with pytest.raises(EnsembleError, match="--calibration: made for mine; expected one of the members: other"):
        open_or_import(other, None, "auto", answers, [tmp_path / "c.json"])
    with pytest.raises(EnsembleError, match="no scored row with an answer"):
        calibrate_file(tmp_path / "mine.csv", tmp_path / "d.json")
    with pytest.raises(RunError, match="holds other results"):
        import_file(other, tmp_path / "scores" / "mine")
