"""Gradients: the tree's are those of the libraries, a row at a time, however memory is spent and dropout is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scoring.checkpoints.compatibility import MismatchError
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.forward import TreeBatch
from scoring.engine.reference import reference_logits
from scoring.engine.stand_in import put_back, unwrap
from scoring.engine.tree import Tree
from scoring.tables.reading import read_table
from tests.shared.families import tiny_base
from tests.shared.trainings import PLAIN, trainer_of
from train.config import SEVEN_PROJECTIONS, ConfigError
from train.model import answer_loss, average, seeded


@pytest.fixture(scope="module")
def questions(demo):
    return read_table(demo / "train.csv").questions[:4]


def learner(base, questions, folder, config=PLAIN):
    """A training with a random adapter, ready to learn."""
    training = trainer_of(base, questions, questions, folder, config).load()
    training.close()
    generator = torch.Generator().manual_seed(0)
    for weight in training.model.weights:
        weight.data.normal_(0, 0.02, generator=generator)
    training.model.network.train()
    return training


def gradients(training, questions, share=True):
    model, preparer = training.model, training.plan.preparer
    ready = with_tensors(prepare_batch(preparer, questions, "1"), "cpu")
    if not share:
        tree = Tree.build(ready.sequences, ready.picture_numbers, share=False)
        ready = replace(ready, tensors=TreeBatch.of(tree, ready.pictures, ready.grids, "cpu"))
    for weight in model.weights:
        weight.grad = None
    loss = model.loss_backward(ready, (1, 2, 3), len(questions))
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.weights])


def distance(values, expected):
    return ((values - expected).norm() / expected.norm()).item()


def libraries_gradients(training, questions):
    """Of transformers and PEFT, a row at a time: only the answer's token counts, and every row once."""
    model = training.model
    for weight in model.weights:
        weight.grad = None
    taken, loss = unwrap(model.network), 0
    for question in questions:
        logits = reference_logits.__wrapped__(model.network, *training.plan.preparer(question))
        target = torch.tensor(model.label_ids["abcd".index(question.answer)])
        loss += F.cross_entropy(logits, target) / len(questions)
    loss.backward()
    put_back(taken)
    return loss.item(), torch.cat([weight.grad.flatten() for weight in model.weights])


@pytest.mark.parametrize(
    "quantization, targets",
    [
        ("nf4", SEVEN_PROJECTIONS),
        ("none", SEVEN_PROJECTIONS),
        ("nf4", ("v_proj",)),  # queries without a gradient
        ("nf4", ("linear_fc1", "q_proj")),  # the vision tower's too
        ("nf4", ("lm_head", "q_proj")),
        ("none", ("lm_head",)),
    ],
)
def test_gradients_are_those_of_the_libraries_a_row_at_a_time(base, questions, tmp_path, quantization, targets):
    training = learner(base, questions, tmp_path, replace(PLAIN, quantization=quantization, targets=targets))
    loss, actual = gradients(training, questions)
    expected_loss, expected = libraries_gradients(training, questions)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert expected.norm() > 0 and distance(actual, expected) < 1e-5


def test_pictures_between_texts_and_rows_in_words_alone_learn_as_by_the_libraries(base, questions, tmp_path):
    """Also in the vision tower, which the rows in words do not reach."""
    pictures, sizes = (sum((getattr(row, name) for row in questions[:3]), ()) for name in ("pictures", "sizes"))
    mixed = [
        replace(questions[0], pictures=pictures[:2], sizes=sizes[:2], question="<image 2> or <image 1>?"),
        replace(questions[1], pictures=(), sizes=()),
        replace(questions[2], pictures=pictures, sizes=sizes, options=("<image 3>", "<image 1>"), answer="b"),
        questions[3],
    ]
    training = learner(base, questions, tmp_path, replace(PLAIN, targets=("linear_fc1", "q_proj")))
    loss, actual = gradients(training, mixed)
    expected_loss, expected = libraries_gradients(training, mixed)
    assert loss == pytest.approx(expected_loss, rel=1e-5) and distance(actual, expected) < 1e-5


def test_a_table_in_words_alone_can_be_trained_on(base, questions, tmp_path):
    words = [replace(question, pictures=(), sizes=()) for question in questions[:4]]
    config = replace(PLAIN, epochs=1, batch=2, targets=("linear_fc1", "q_proj"))
    trainer_of(base, words, words, tmp_path / "ckpt", config).run()
    assert np.isfinite(BatchScorer.load(str(tmp_path / "ckpt")).score(words).logits).all()


def test_what_is_trained_on_a_base_in_4_bits_is_scored_as_peft_would(base_in_4_bits, base, questions, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    config = replace(PLAIN, epochs=1, batch=4, learning_rate=1e-2, targets=("q_proj", "up_proj", "lm_head"))
    trainer_of(base_in_4_bits, questions, questions, tmp_path / "ckpt", config).run()
    scorer = BatchScorer.load(str(tmp_path / "ckpt"))
    logits = scorer.score(questions[:4]).logits[:, 0, 0]
    network = AutoModelForImageTextToText.from_pretrained(base_in_4_bits, dtype=torch.float32)
    for layer in network.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    PeftModel.from_pretrained(network, tmp_path / "ckpt").eval()
    for row, question in enumerate(questions[:4]):
        expected = reference_logits(network, *scorer.prepare(question))[scorer.label_ids[:4]]
        assert np.abs(expected.numpy() - logits[row]).max() < 1e-4
    manifest = json.loads((tmp_path / "ckpt" / "scoring.json").read_text())
    assert (manifest["quantization"], manifest["base_stored"]) == ("nf4", "nf4")
    on_16_bits = BatchScorer.load(str(tmp_path / "ckpt"), base=str(base))  # the same model, which a note says
    assert any("the same model at another precision" in note for note in on_16_bits.plan.notes)
    assert np.abs(on_16_bits.score(questions[:4]).logits[:, 0, 0] - logits).max() < 0.05
    with pytest.raises(MismatchError, match="in 4 bits \\(nf4\\) already"):
        BatchScorer.load(str(tmp_path / "ckpt"), quantization="none")


def test_a_mixture_of_experts_learns_by_its_attention(mixture, questions, tmp_path):
    training = learner(mixture, questions[:3], tmp_path / "ckpt")
    note = "no adapter on down_proj, gate_proj, up_proj: the experts of this base have none"
    assert note in training.model.model.notes
    loss, actual = gradients(training, questions[:3])
    expected_loss, expected = libraries_gradients(training, questions[:3])
    assert loss == pytest.approx(expected_loss, rel=1e-5) and distance(actual, expected) < 1e-5
    trainer_of(mixture, questions[:3], questions[:3], tmp_path / "ckpt", PLAIN).run()
    config = json.loads((tmp_path / "ckpt" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]
    assert np.isfinite(BatchScorer.load(str(tmp_path / "ckpt")).score(questions[:3]).logits).all()


LINEAR_ATTENTION = ("in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b", "out_proj")


@pytest.mark.parametrize(
    "model_type, targets",
    [
        ("qwen3_5", SEVEN_PROJECTIONS),
        ("qwen3_5", (*LINEAR_ATTENTION, "q_proj")),
        ("qwen3_5_moe", SEVEN_PROJECTIONS),  # of the feed-forward the shared expert alone
    ],
)
def test_linear_attention_learns_as_by_the_libraries(base, questions, tmp_path, model_type, targets):
    """Also where its layers are recomputed in the backward pass."""
    folder = tiny_base(model_type, base, tmp_path / "base")
    training = learner(folder, questions, tmp_path / "ckpt", replace(PLAIN, quantization="none", targets=targets))
    loss, actual = gradients(training, questions)
    expected_loss, expected = libraries_gradients(training, questions)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert expected.norm() > 0 and distance(actual, expected) < 1e-5
    training.model.recompute(True)
    assert distance(gradients(training, questions)[1], actual) < 1e-6
    training.model.recompute(False)


def test_the_trees_gradients_are_the_flat_batchs(base, questions, tmp_path):
    training = learner(base, questions, tmp_path)
    shared = [replace(question, pictures=questions[0].pictures, sizes=questions[0].sizes) for question in questions]
    loss, tree = gradients(training, shared)
    flat_loss, flat = gradients(training, shared, share=False)
    assert loss == pytest.approx(flat_loss, rel=1e-5) and distance(tree, flat) < 1e-5


@pytest.mark.parametrize("targets", [SEVEN_PROJECTIONS, ("v_proj",), ("linear_fc1", "q_proj")])
def test_recomputing_gives_the_same_gradients_with_dropout(base, questions, tmp_path, targets):
    """The same bits, also of the vision tower and of a first layer that learns less."""
    training = learner(base, questions, tmp_path, replace(PLAIN, dropout=0.2, targets=targets))
    kept = gradients(training, questions)
    training.model.recompute(True)
    again = gradients(training, questions)
    assert kept[0] == again[0] and torch.equal(kept[1], again[1])
    training.model.dropout.share = 0.0
    assert distance(gradients(training, questions)[1], kept[1]) > 0.01


def test_the_loss_is_cross_entropy_over_all_tokens_or_over_the_letters():
    torch.manual_seed(0)
    logits, answers = torch.randn(5, 30, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    labels, options = [3, 7, 11, 20], torch.tensor([4, 4, 3, 2, 4])
    whole = answer_loss(logits, labels, answers, options, 1.0)
    targets = torch.tensor(labels)[answers]
    assert torch.allclose(whole, F.cross_entropy(logits, targets, reduction="none"))
    letters = answer_loss(logits, labels, answers, options, 0.0)
    for row in range(5):
        options_of_row = logits[row, labels[: options[row]]]
        assert torch.allclose(letters[row], F.cross_entropy(options_of_row[None], answers[row : row + 1]))


def test_a_fused_layer_keeps_less_of_a_token(base, questions, tmp_path, monkeypatch):
    """The demo's: width 256, 4 + 2 heads of 64, a feed-forward of 512; in 32 bits."""
    model = learner(base, questions, tmp_path).model
    assert model._layer_bytes() == 4 * (16 * 256 + 4 * 512)
    monkeypatch.setattr("train.model.device_has_kernels", lambda device, dtype: True)
    assert model._layer_bytes() == 4 * (4 * 256 + 3 * (4 + 2) * 64 + 3 * 512)


# ------------------------------------------------------------------ the choices


@pytest.mark.parametrize("targets", [("nowhere",), ("q_proj", "nowhere")])
def test_a_target_that_no_layer_has_is_named(base, questions, tmp_path, targets):
    with pytest.raises(ConfigError, match="targets: nowhere is no layer of .*; expected names of linear"):
        learner(base, questions, tmp_path, replace(PLAIN, targets=targets))


def test_averages_forget_the_beginning():
    weights, means = [torch.ones(3)], [torch.zeros(3)]
    for step in range(50):  # with the decay alone the mean would be 0.05
        average(means, weights, 0.999, step)
    assert torch.allclose(means[0], torch.ones(3), atol=1e-6)
    weights = [torch.zeros(3)]
    average(means, weights, 0.5, 50)
    assert torch.allclose(means[0], torch.full((3,), 0.5), atol=1e-6)  # of many steps, by the decay itself


def test_the_seed_of_a_training_leaves_a_programs_own_numbers_as_they_were():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    first = torch.rand(2)
    with seeded(7):
        assert torch.equal(torch.rand(3), drawn)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
