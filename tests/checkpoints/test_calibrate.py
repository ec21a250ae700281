"""A calibration for a checkpoint, from rows that it scored and was not trained on."""

import json

import pytest

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.scores.exposure import write_rows
from scoring.scores.folder import RunError, open_scores
from tests.shared.scores_folders import write_scores


def test_a_calibration_belongs_to_its_checkpoint(cli, tmp_path, fold):
    other = write_scores(tmp_path / "a")
    refused = cli("calibrate", other, "--ckpt", fold, check=2)
    assert "was scored by m (x), but" in refused.stderr and read_checkpoint(str(fold)).fingerprint() in refused.stderr
    pixels = write_scores(tmp_path / "b", checkpoint=fold, identity={"letters": "abcd", "orders": "1", "pixels": 4096})
    assert "pixels 4096, but" in cli("calibrate", pixels, "--ckpt", fold, check=2).stderr
    (fold / "rows.parquet").unlink()  # a checkpoint of before, which is known by its table alone
    (fold / "validation.csv").write_text("id,gold\n")
    none = write_scores(
        tmp_path / "c", checkpoint=fold, data={"sha256": read_checkpoint(str(fold)).manifest.data["sha256"]}
    )
    assert "was not trained on" in cli("calibrate", none, "--ckpt", fold, check=2).stderr


def test_rows_are_left_out_that_were_trained_on_under_whatever_id(tmp_path, fold):
    from scoring.checkpoints.calibrate import calibrate_checkpoint

    out = write_scores(tmp_path / "a", checkpoint=fold)
    digests = open_scores(out).questions["digest"]
    write_rows(fold, digests[:120], digests[120:150])
    found, path = calibrate_checkpoint(out, str(fold))
    assert found.rows == 80 and path == fold / "calibration.json" and found.selected == 30
    assert found.digests == digests[120:] and "120 rows that the checkpoint was trained on" in found.choice[-1]
    write_rows(fold, digests, [])
    with pytest.raises(RunError, match="was not trained on"):
        calibrate_checkpoint(out, str(fold))


def test_of_a_table_that_was_trained_on_an_older_checkpoint_may_use_its_validation_rows(tmp_path, fold):
    from scoring.checkpoints.calibrate import CalibrateOptions, calibrate_checkpoint

    (fold / "rows.parquet").unlink()
    digest = read_checkpoint(str(fold)).manifest.data["sha256"]
    out = write_scores(tmp_path / "a", checkpoint=fold, data={"sha256": digest})
    (fold / "validation.csv").write_text("id,gold\n" + "".join(f"row{at},a\n" for at in range(40)))
    found, path = calibrate_checkpoint(out, str(fold))
    assert found.rows == 40 and path == fold / "calibration.json"
    found, path = calibrate_checkpoint(out, str(fold), CalibrateOptions(tmp_path / "mine.json"))
    assert path == tmp_path / "mine.json" and path.exists()


def test_the_pipelines_temperature_is_renewed_and_what_keeps_it_is_told(tmp_path, fold, preparer):
    from scoring.checkpoints.calibrate import CalibrateOptions, calibrate_checkpoint
    from scoring.checkpoints.decision_files import DECISION_CONFIG, DECISION_TEMPLATE, write_decision_files

    def temperature():
        return json.loads((fold / DECISION_CONFIG).read_text())["temperature"]["choice"]

    out, said = write_scores(tmp_path / "a", checkpoint=fold), []
    write_decision_files(fold, preparer.chat, preparer.template, None)
    calibrate_checkpoint(out, str(fold), CalibrateOptions(tmp_path / "mine.json", say=said.append))
    assert temperature() == 1
    found, _ = calibrate_checkpoint(out, str(fold), CalibrateOptions(say=said.append))
    assert temperature() == found.temperature != 1 and not said
    (fold / DECISION_TEMPLATE).write_text("{{ state }}")
    calibrate_checkpoint(out, str(fold), CalibrateOptions(say=said.append))
    assert len(said) == 1 and "keeps its temperature" in said[0]
