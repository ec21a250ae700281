"""The steps of an epoch: their rows, their rates, their gradients, and a loss that is no number."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.shared.trainings import QUICK, trained
from train.inputs import TrainError
from train.model import LearningModel


def test_the_last_step_takes_the_rows_that_are_left_and_the_schedule_ends_with_it(first):
    """10 rows in steps of 4: three steps, the last of 2 rows; the rate falls in a line to 0 after them."""
    steps = [json.loads(line) for line in (first[0] / "train.jsonl").read_text().splitlines()][:3]
    assert np.allclose([entry["learning_rate"] for entry in steps], [2e-3, 2e-3 * 2 / 3, 2e-3 / 3], atol=1e-6)
    assert first[1].state.rows_done == 10


def test_gradients_are_clipped(base, questions, tmp_path):
    """AdamW hides how long a gradient is, unless it is as short as its epsilon."""
    training, _ = trained(base, questions, tmp_path, replace(QUICK, clip=1e-13), rows=4)
    moved = max(weight.abs().max().item() for weight in training.model.weights if not weight.abs().max() > 1e-2)
    assert moved < 2e-3 * 1e-3


def test_a_loss_that_is_no_number_stops_with_the_rows(base, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(LearningModel, "loss_backward", lambda *arguments: torch.tensor(float("nan")))
    with pytest.raises(TrainError, match=questions[0].id[:5]):
        trained(base, questions, tmp_path / "nan")


def test_a_constant_rate_is_warmed_up_to(base, questions, tmp_path):
    config = replace(QUICK, schedule="constant", warmup=0.5, batch=1)
    trained(base, questions, tmp_path, config)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "train.jsonl").read_text().splitlines()[:-1]]
    assert rates == pytest.approx([0, 4e-4, 8e-4, 1.2e-3, 1.6e-3, *[2e-3] * 5], abs=1e-6)
