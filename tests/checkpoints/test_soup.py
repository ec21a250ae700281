"""An average of adapters is one adapter that answers as PEFT's exact average does; the rest is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import Qwen3VLForConditionalGeneration

from scoring.checkpoints.soup import given_weights, soup
from scoring.checkpoints.weights import CheckpointError
from scoring.engine.batch_scorer import BatchScorer
from scoring.scores.exposure import TRAINING, VALIDATION, read_rows

FOLDS = ["demo/checkpoints/fold0", "demo/checkpoints/fold1"]


def test_it_equals_pefts_weighted_adapter(demo, base, tmp_path):
    assert "rank 32" in soup(FOLDS, tmp_path / "soup", [0.3, 0.7])[0]
    network = Qwen3VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(network, FOLDS[0], adapter_name="a")
    model.load_adapter(FOLDS[1], "b")
    model.add_weighted_adapter(["a", "b"], [0.3, 0.7], "cat", combination_type="cat")
    model.load_adapter(tmp_path / "soup", "soup")
    checked = 0
    for module in model.modules():
        if hasattr(module, "lora_A") and "cat" in module.lora_A:
            expected, delta = (module.get_delta_weight(name) for name in ("cat", "soup"))
            assert torch.allclose(expected, delta, atol=1e-6), (expected - delta).abs().max()
            checked += 1
    assert checked > 10


def test_it_has_met_the_rows_of_all_its_adapters(tmp_path):
    soup(FOLDS, tmp_path / "soup")
    average, first, second = (read_rows(Path(folder)) for folder in (tmp_path / "soup", *FOLDS))
    trained = {digest for rows in (first, second) for digest, flag in rows.items() if flag & TRAINING}
    assert {digest for digest, flag in average.items() if flag == TRAINING} == trained
    assert set(average) == {*first, *second}
    assert {digest for digest, flag in average.items() if flag == VALIDATION} == {*first, *second} - trained != set()


def test_one_checkpoint_averaged_with_itself_answers_the_same(tmp_path, test_rows):
    soup([FOLDS[0], FOLDS[0]], tmp_path / "soup")
    logits = BatchScorer.load(tmp_path / "soup").score(test_rows[:8]).logits
    assert np.abs(logits - BatchScorer.load(FOLDS[0]).score(test_rows[:8]).logits).max() < 1e-4


def test_what_cannot_be_averaged_is_refused(tmp_path, demo):
    other = shutil.copytree(demo / "checkpoints" / "fold1", tmp_path / "other")
    manifest = json.loads((other / "scoring.json").read_text())
    manifest["base"] = str(demo / "base")
    manifest["letters"] = "abcde"
    (other / "scoring.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="letters is abcde, but demo/checkpoints/fold0 has abcd"):
        soup([FOLDS[0], str(other)], tmp_path / "soup")
    with pytest.raises(CheckpointError, match="a whole model"):
        soup([FOLDS[0], "demo/base"], tmp_path / "soup")
    with pytest.raises(CheckpointError, match="expected two or more"):
        soup(FOLDS[:1], tmp_path / "soup")
    with pytest.raises(CheckpointError, match="expected 2 numbers"):
        given_weights("1", 2)
    assert not (tmp_path / "soup").exists()


def test_through_the_command_line(quick_cli, small_table, tmp_path):
    table = small_table(8)
    assert "no calibration" in quick_cli("soup", *FOLDS, "--out", tmp_path / "soup").stdout
    for name, checkpoint in (("soup of both", tmp_path / "soup"), ("one0", FOLDS[0]), ("one1", FOLDS[1])):
        quick_cli("score", table, "--ckpt", checkpoint, "--out", tmp_path / name)
    done = quick_cli("ensemble", tmp_path / "soup of both", tmp_path / "one0", "--out", tmp_path / "both")
    assert "adds to the pool" in done.stdout and "Fleiss' kappa" in done.stdout
    quick_cli("score", table, "--ckpt", FOLDS[0], "--ckpt", FOLDS[1], "--out", tmp_path / "call")
    quick_cli("ensemble", tmp_path / "one0", tmp_path / "one1", "--out", tmp_path / "runs")
    quick_cli(
        "ensemble", *(tmp_path / "call" / "members" / f"fold{fold}.csv" for fold in (0, 1)), "--out", tmp_path / "files"
    )

    def table(name):
        lines = (tmp_path / name / "probabilities.csv").read_text().splitlines()[1:]
        return np.array([[float(cell) for cell in line.split(",")[2:6]] for line in lines])

    assert np.abs(table("call") - table("files")).max() < 5e-6  # of numbers with 6 decimals
    assert np.abs(table("call") - table("runs")).max() < 5e-6  # processes of their own


def test_a_folder_of_folds_is_averaged_whole(tmp_path, demo):
    for name in ("fold0", "fold1"):
        shutil.copytree(demo / "checkpoints" / name, tmp_path / "folds" / name)
    notes = soup([str(tmp_path / "folds")], tmp_path / "all", base=str(demo / "base"))
    soup(FOLDS, tmp_path / "two")
    assert "0.50 × fold0, 0.50 × fold1" in notes[0]
    first, second = (tmp_path / name / "adapter_model.safetensors" for name in ("all", "two"))
    assert first.read_bytes() == second.read_bytes()
