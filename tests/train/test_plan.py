"""What follows from a training's inputs before anything heavy is loaded."""

from dataclasses import replace

import pytest

from scoring.engine.loading import Model
from scoring.inputs.orders import OrdersError
from tests.shared.trainings import PLAIN, trainer_of
from train.config import ConfigError


@pytest.mark.parametrize(
    "choices, message",
    [
        (
            {"targets": ("embed_tokens",)},
            "embed_tokens means model.language_model.embed_tokens, which is no linear",
        ),
        ({"targets": ("q_proj", "proj")}, "proj means model.visual.patch_embed.proj, which is no linear layer"),
        ({"targets": ("q_proj", "qproj")}, "qproj is no layer of"),
        ({"quantization": "none"}, "are in 4 bits \\(nf4\\) already"),
    ],
)
def test_choices_that_could_not_be_scored_are_refused_before_loading(
    base_in_4_bits, questions, tmp_path, monkeypatch, choices, message
):
    monkeypatch.setattr(Model, "load", None)
    rows = questions[:8]
    with pytest.raises(ConfigError, match=message):
        trainer_of(base_in_4_bits, rows, rows, tmp_path / "ckpt", replace(PLAIN, **choices))


def test_options_that_questions_list_too_are_not_shuffled(base_in_4_bits, questions, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "load", None)
    rows = [replace(questions[0], question="Which? (A) cat (B) dog", options=("cat", "dog"), answer="a")]
    with pytest.raises(OrdersError, match="^--shuffle-options: the questions of 1 row list their options too"):
        trainer_of(base_in_4_bits, rows, rows, tmp_path / "ckpt", replace(PLAIN, shuffle_options=True))
