"""What follows from a training's inputs before anything heavy is loaded."""

from dataclasses import replace

import pytest

from scoring.engine.loading import Model
from scoring.inputs.orders import OrdersError
from tests.shared.families import tiny_base
from tests.shared.trainings import PLAIN, trainer_of
from train.config import ConfigError
from train.inputs import TrainError


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


def test_rows_that_the_base_cannot_take_are_named_before_loading(base, questions, tmp_path, monkeypatch):
    folder = tiny_base("qwen3", base, tmp_path / "base")
    monkeypatch.setattr(Model, "load", None)
    words = [replace(question, pictures=(), sizes=()) for question in questions[:20]]
    trainer_of(folder, words, words, tmp_path / "ckpt", PLAIN).plan.check_lengths()
    rows = [*questions[:12], replace(words[12], question="word " * 5000), *words[13:]]
    with pytest.raises(TrainError) as caught:
        trainer_of(folder, rows, words, tmp_path / "ckpt", PLAIN).plan.check_lengths()
    message = str(caught.value)
    assert message.startswith(f"row {rows[0].id!r}: 1 picture, which a Qwen3 base does not see")
    assert "… and 3 more; expected a question in words alone; name a base that sees pictures" in message
    assert message.endswith("; expected at most 2,048; shorten the question")
