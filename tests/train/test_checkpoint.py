"""The folder that a training leaves: its files, and what they record."""

import json

import numpy as np
import pytest
import torch

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.loading import Model
from scoring.engine.reference import reference_logits
from tests.shared.templates import THEIRS
from tests.shared.trainings import QUICK, losses, trained
from train.batches import epoch_order


def test_the_files_of_a_checkpoint(first, base):
    out, _, results = first
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "adapter_config.json",
        "adapter_model.safetensors",
        "calibration.json",
        "decision.json",
        "decision_template.jinja",
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
    assert len((out / "validation.csv").read_text().splitlines()) == 13


def test_scoring_the_checkpoint_gives_its_validation_logits(first, questions):
    out, _, results = first
    scored = BatchScorer.load(str(out)).score(questions[100:112])
    assert np.abs(scored.logits[:, 0, 0] - results[0].scores.logits).max() < 1e-4


@pytest.fixture(scope="module")
def theirs(base, questions, tmp_path_factory):
    """A training with capital letters and without a system turn: (its folder, the training, its epoch)."""
    out = tmp_path_factory.mktemp("theirs") / "ckpt"
    training, results = trained(base, questions, out, template=THEIRS, valid=12)
    return out, training, results[0]


def test_the_token_that_is_trained_is_the_letter_that_the_template_shows(theirs, base, questions):
    """The first step's loss is the base's, since an adapter begins without an effect: cross-entropy of A, B, C or D."""
    out, training, _ = theirs
    network, preparer, losses_of_rows = Model.load(base).network, training.plan.preparer, []
    for row in epoch_order(10, QUICK.batch, QUICK.seed, 1)[0]:
        log_p = torch.log_softmax(reference_logits(network, *preparer(questions[row])), 0)
        losses_of_rows.append(-float(log_p[preparer.chat.tokenizer.token_to_id(questions[row].answer.upper())]))
    assert losses(out)[0] == pytest.approx(np.mean(losses_of_rows), abs=1e-4)


def test_a_checkpoint_of_capital_letters_is_scored_without_any_option(theirs, questions):
    out, _, epoch = theirs
    manifest = read_checkpoint(str(out)).manifest
    assert manifest.prompt == THEIRS and manifest.template["letters"] == "upper" and manifest.letters == "abcd"
    scorer = BatchScorer.load(str(out))
    assert scorer.prepare.chat.decode(scorer.label_ids[:4]) == "ABCD"
    result = scorer.score(questions[100:112])
    assert np.abs(result.logits[:, 0, 0] - epoch.scores.logits).max() < 1e-4
    assert np.isin(result.top_token, scorer.label_ids).all()
    lines = (out / "validation.csv").read_text().splitlines()
    assert lines[0] == "id,gold,pred,p_a,p_b,p_c,p_d,epoch" and {line.split(",")[2] for line in lines[1:]} <= {*"abcd"}


def test_the_default_prompt_leaves_no_trace_of_the_letters_in_the_manifest(first):
    assert list(json.loads((first[0] / "scoring.json").read_text())["template"]) == ["system", "user", "option", "hint"]


def test_the_checkpoint_records_how_validation_rows_were_held_out(cli, small_table, tmp_path):
    table, out = small_table(12), tmp_path / "ckpt"
    command = ["train", table, "--base", "demo/base", "--epochs", 1, "--batch", 8, "--valid-share", 0.2, "--out", out]
    cli(*command)
    data = json.loads((out / "scoring.json").read_text())["data"]
    assert (data["split"], data["train_rows"], data["valid_rows"], data["valid_pictures"]) == ("by picture", 9, 3, 3)
