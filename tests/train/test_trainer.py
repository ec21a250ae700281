"""Training on a handful of demo rows: repeatable to the bit; rows and pictures that cannot be trained on."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.inputs.pictures import PictureError
from tests.shared.trainings import QUICK, trained, trainer_of
from train.folder import check_out, finished
from train.state import StateError


def test_seeds_repeat_the_training_bit_for_bit(first, base, questions, tmp_path):
    out, _, results = first
    _, again = trained(base, questions, tmp_path / "again", valid=12)
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        out / "adapter_model.safetensors"
    ).read_bytes()
    assert np.array_equal(again[0].scores.logits, results[0].scores.logits)
    assert (tmp_path / "again" / "adapter_config.json").read_bytes() == (out / "adapter_config.json").read_bytes()
    trained(base, questions, tmp_path / "other", replace(QUICK, seed=1))
    assert (tmp_path / "other" / "adapter_model.safetensors").read_bytes() != (
        out / "adapter_model.safetensors"
    ).read_bytes()


# ------------------------------------------------------------------ pictures that break
def test_a_picture_that_breaks_in_training_does_not_block_the_next_start(base, questions, tmp_path):
    """In the second epoch, when there is an adapter: without its row the training starts anew."""
    picture = tmp_path / "breaks.jpg"
    shutil.copy(questions[3].picture, picture)
    rows = [replace(row, pictures=(picture,)) if row is questions[3] else row for row in questions[:4]]
    out, config = tmp_path / "ckpt", replace(QUICK, epochs=2, batch=2, save_every=1)

    def say(text):
        if text.startswith("epoch 1:"):
            picture.write_bytes(picture.read_bytes()[:600])

    with pytest.raises(PictureError, match=f"row '{questions[3].id}'"):
        trainer_of(base, rows, questions[100:102], out, config, say).run()
    assert (out / "adapter_model.safetensors").exists() and not finished(out)
    check_out(out, None)
    with pytest.raises(StateError, match="rank was 16, now 8"):  # another choice is not what mends a picture
        trainer_of(base, rows, questions[100:102], out, replace(config, rank=8), say).run()
    lines: list[str] = []
    good = [row for row in rows if row.picture != picture]
    trainer_of(base, good, questions[100:102], out, config, lines.append).run()
    assert any(
        f"starting anew without the row that stopped the training before: row '{questions[3].id}'" in line
        for line in lines
    )
    assert finished(out) and not (out / "training_fault.json").exists()
    trainer_of(base, good, questions[100:102], tmp_path / "fresh", config, lines.append).run()
    adapters = [(folder / "adapter_model.safetensors").read_bytes() for folder in (out, tmp_path / "fresh")]
    assert adapters[0] == adapters[1]


def test_a_picture_that_is_mended_lets_the_training_go_on(base, questions, tmp_path):
    picture = tmp_path / "breaks.jpg"
    shutil.copy(questions[3].picture, picture)
    rows = [replace(row, pictures=(picture,)) if row is questions[3] else row for row in questions[:6]]
    out, config = tmp_path / "ckpt", replace(QUICK, epochs=2, batch=2, save_every=1)
    broken = trainer_of(base, rows, questions[100:102], out, config)
    picture.unlink()
    with pytest.raises(PictureError):
        broken.run()
    shutil.copy(questions[3].picture, picture)
    lines: list[str] = []
    trainer_of(base, rows, questions[100:102], out, config, lines.append).run()
    assert any(line.startswith("going on: ") for line in lines) and finished(out)


def broken_table(small_table):
    """Eight rows; the second one's picture has its header and half of its pixels."""
    table = small_table(8)
    picture = table.parent / table.read_text("utf-8").splitlines()[2].split(",")[1]
    picture.write_bytes(picture.read_bytes()[: picture.stat().st_size // 2])
    return table


def test_a_cut_picture_is_found_before_the_base_is_loaded(cli, small_table, tmp_path):
    table, out = broken_table(small_table), tmp_path / "ckpt"
    command = ["train", table, "--base", "demo/base", "--epochs", 1, "--batch", 4, "--out", out]
    refused = cli(*command, check=2).stderr
    assert "row 2 (line 3, id 'test_0001'), column path" in refused and "broken pixels" in refused
    assert "loading" not in refused and not out.exists()
    done = cli(*command, "--skip-bad-rows", check=3).stderr
    assert "broken pixels" in done and "going on without 1 of 8 rows" in done and finished(out)
    assert read_checkpoint(str(out)).manifest.data["train_rows"] == 6


# ------------------------------------------------------------------ tables that do not do


def test_validating_on_trained_rows_is_refused_before_the_base_is_loaded(cli, small_table, tmp_path):
    table, out = small_table(12), tmp_path / "ckpt"
    done = cli("train", table, "--valid", table, "--base", "demo/base", "--out", out, check=2)
    assert "12 of 12 rows are also in training: 'test_0000'" in done.stderr
    assert "loading" not in done.stderr and not out.exists()


@pytest.mark.parametrize("further", [[], ["--folds", 2]])
def test_one_row_is_too_few_to_train(cli, small_table, tmp_path, further):
    done = cli("train", small_table(1), "--base", "demo/base", "--out", tmp_path / "ckpt", *further, check=2)
    assert "1 picture cannot be" in done.stderr and "expected" in done.stderr and "Traceback" not in done.stderr


def test_two_rows_are_enough_to_train(cli, small_table, tmp_path):
    cli("train", small_table(2), "--base", "demo/base", "--epochs", 1, "--out", tmp_path / "ckpt")
    assert finished(tmp_path / "ckpt")
