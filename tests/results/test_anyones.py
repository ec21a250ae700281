"""Calibrations of anyone's files: which rows they are fitted on, what they remember, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.inputs.objects import FileError
from scoring.results.anyones import calibrate_file, opened, read_calibrations, read_files
from scoring.results.calibration import calibrate
from scoring.results.ensemble import EnsembleError
from scoring.results.exposure import TRAINING, VALIDATION
from tests.results.test_judging import scores


def folder_with_exposed_rows(tmp_path, flags, **settings):
    folder = scores(tmp_path / "a")
    questions = pq.read_table(folder / "questions.parquet").to_pydict()
    questions["picture_digest"] = [f"{row // 4:016x}" for row in range(200)]
    questions["digest"] = [f"d{row}" for row in range(200)]
    questions["exposed"] = [[flag] for flag in flags]
    pq.write_table(pa.table(questions), folder / "questions.parquet")
    about = json.loads((folder / "run.json").read_text())
    about["checkpoints"][0] |= settings
    (folder / "run.json").write_text(json.dumps(about))
    return folder, questions


@pytest.mark.parametrize("orders", ["1", "cyclic"])
def test_a_folder_is_calibrated_on_its_rows_outside_of_the_training_with_pictures_whole(tmp_path, orders):
    flags = [TRAINING] * 60 + [VALIDATION] * 20 + [TRAINING | VALIDATION] * 10 + [0] * 110
    folder, questions = folder_with_exposed_rows(tmp_path, flags, fingerprint="fa", orders=orders)
    found = calibrate_file(folder, tmp_path / "c.json")["m"]
    rows = np.r_[60:80, 90:200]
    rng = np.random.default_rng(0)  # as `scores` draws them
    z = 2 * rng.normal(0, 2, (200, 4)).astype(np.float32)[rows]
    y = np.array(["abcd".index(questions["answer"][row]) for row in rows])
    types = [questions["task_type"][row] for row in rows]
    pictures = np.unique(rows // 4, return_inverse=True)[1]
    expected = calibrate(z, y, types, pictures, one_order=orders == "1")
    assert found.rows == 130 and found.pictures == 33
    assert found.temperature == pytest.approx(expected.temperature, abs=1e-4) and found.temperature > 1.5
    assert found.gain == pytest.approx(expected.gain, abs=1e-4)
    assert found.gain_error == pytest.approx(expected.gain_error, abs=1e-4)
    assert [line.split(":")[0] for line in found.choice] == [line.split(":")[0] for line in expected.choice]
    assert ("several option orders" in " ".join(found.choice)) == (orders != "1")
    assert found.digests == [f"d{row}" for row in rows]
    assert found.fingerprint == {"member": "m", "adapter": "fa", "orders": orders}
    again = read_calibrations(tmp_path / "c.json")
    assert [part.to_json() for part in again] == [found.to_json()]


def test_rows_that_were_all_trained_on_calibrate_nothing(tmp_path):
    folder, _ = folder_with_exposed_rows(tmp_path, [TRAINING] * 200)
    with pytest.raises(EnsembleError, match="m has no scored row with an answer that it was not trained on; name a"):
        calibrate_file(folder, tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


def test_each_member_of_a_file_has_a_calibration_of_its_own(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, (150, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = (p.cumsum(1) > rng.random((150, 1))).argmax(1)
    columns = {"id": [*range(150)] * 2, "member": ["m"] * 150 + ["n"] * 150, "answer": ["abc"[at] for at in y] * 2}
    columns |= {f"l_{letter}": np.r_[2 * z[:, at], 4 * z[:, at]] for at, letter in enumerate("abc")}
    pq.write_table(pa.table(columns), tmp_path / "file.parquet")
    found = calibrate_file(tmp_path / "file.parquet", tmp_path / "c.json")
    assert list(found) == ["m", "n"]
    assert found["n"].temperature == pytest.approx(2 * found["m"].temperature, rel=1e-4)
    written = json.loads((tmp_path / "c.json").read_text())
    assert list(written) == ["calibrations"] and len(written["calibrations"]) == 2
    again = read_calibrations(tmp_path / "c.json")
    assert [part.fingerprint for part in again] == [
        {"member": name, "adapter": None, "orders": "1"} for name in ("m", "n")
    ]
    assert [part.temperature for part in again] == [part.temperature for part in found.values()]
    known, read = read_files(None, [tmp_path / "c.json", tmp_path / "c.json"])
    assert known is None and [part.temperature for part in read] == 2 * [part.temperature for part in found.values()]


@pytest.mark.parametrize(
    "text, told",
    [
        (None, "no such file; expected one that `calibrate` wrote"),
        ('{"temperature": 2}', "found no calibration; expected a file that `calibrate` wrote"),
        ('{"calibrations": {"m": {}}}', "found no calibration"),
        ('{"calibrations": [{"temperature": 2, "fingerprint": {}}, {"temperature": 2}]}', "found no calibration"),
        ('{"calibrations": [2]}', "found no calibration"),
    ],
)
def test_files_that_hold_no_calibration_are_refused(tmp_path, text, told):
    if text is not None:
        (tmp_path / "c.json").write_text(text)
    with pytest.raises(FileError, match=told) as error:
        read_calibrations(tmp_path / "c.json")
    assert str(error.value).startswith(f"{tmp_path / 'c.json'}: ")


def test_a_folder_is_opened_as_it_is_and_made_anew_only_with_something_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = folder_with_exposed_rows(tmp_path, [0] * 200)
    same, notes = opened(folder, None, "auto", None, ())
    assert same.folder == folder and notes == [] and not (tmp_path / "scores").exists()
    fitted = calibrate_file(folder, tmp_path / "c.json")["m"]
    made, notes = opened(folder, None, "auto", None, [tmp_path / "c.json"])
    assert made.folder.parts[-2:] == ("scores", "a-calibrated") and notes[-1] == f"folder: {made.folder}"
    assert np.abs(made.log_p - fitted.apply(same.log_p, same.questions["task_type"])).max() < 1e-4
    named, _ = opened(folder, tmp_path / "named", "auto", None, [tmp_path / "c.json"])
    assert named.folder == tmp_path / "named"
