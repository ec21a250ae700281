"""The folder that a training leaves: its files, and what they record."""

import json

import numpy as np

from scoring import Scorer
from scoring.checkpoints.checkpoint import read_checkpoint


def test_the_files_of_a_checkpoint(first, base):
    out, _, results = first
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "last",
        "rows.parquet",
        "scoring.json",
        "train.jsonl",
        "train.toml",
        "validation",
        "validation.csv",
    ]
    checkpoint = read_checkpoint(str(out))
    manifest = checkpoint.manifest
    assert manifest.training["learning_rate"] == 2e-3 and manifest.quantization == "nf4" and manifest.letters == "abcd"
    assert manifest.pixels == {"min_pixels": 36864, "max_pixels": 36864} and manifest.metrics["nll"] == results[0].nll
    assert checkpoint.calibration.fingerprint["adapter"] == checkpoint.fingerprint()
    assert (
        manifest.base == json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    )
    steps = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 3] and steps[-1]["valid_nll"] > 0
    assert len((out / "validation.csv").read_text().splitlines()) == 25


def test_scoring_the_checkpoint_gives_its_validation_logits(first, questions):
    out, _, results = first
    scored = Scorer.load(str(out)).score(questions[100:124])
    assert np.abs(scored.logits[:, 0, 0] - results[0].scores.logits).max() < 1e-4


def test_the_checkpoint_records_how_validation_rows_were_held_out(cli, small_table, tmp_path):
    table, out = small_table(12), tmp_path / "ckpt"
    command = ["train", table, "--base", "demo/base", "--epochs", 1, "--batch", 8, "--valid-share", 0.2, "--out", out]
    cli(*command)
    data = json.loads((out / "scoring.json").read_text())["data"]
    assert (data["split"], data["train_rows"], data["valid_rows"], data["valid_pictures"]) == ("by picture", 9, 3, 3)
