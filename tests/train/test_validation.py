"""Validation: the logits of an epoch as a SCORES folder, and answers that are generated."""

import json
from dataclasses import replace

import numpy as np
import pytest

from scoring.scores.evaluation import evaluate_scores
from scoring.scores.folder import open_scores
from tests.shared.trainings import QUICK, trained


def test_validation_rows_are_a_scores_folder(first, questions):
    out, _, results = first
    scores = open_scores(out / "validation")
    logits = scores.logits
    assert np.array_equal(logits.logits[:, 0, 0], results[0].scores.logits) and logits.scored.all()
    assert evaluate_scores(scores)["overall"]["nll"]["value"] == pytest.approx(results[0].nll, abs=1e-6)


def test_generating_gives_its_accuracy_too(base, questions, tmp_path):
    _, results = trained(base, questions, tmp_path / "ckpt", replace(QUICK, generate=True), rows=4)
    last = json.loads((tmp_path / "ckpt" / "train.jsonl").read_text().splitlines()[-1])
    assert 0 <= results[0].generated <= 1 and last["valid_accuracy_generated"] == round(results[0].generated, 6)
