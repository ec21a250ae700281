"""The batched forward against the oracle, and the oracle against generation."""

import numpy as np
import pytest
import torch

from scoring.engine.forward import answer_states, collate, project
from scoring.engine.generate import generate_text
from scoring.engine.reference import model_inputs, reference_logits
from scoring.engine.run import plan_batches


@pytest.fixture(scope="session")
def prepared(scorer, test_rows):
    return [scorer.prepare(question) for question in test_rows]


@pytest.fixture(scope="session")
def reference(scorer, prepared):
    """(N, V) logits of all demo rows, one at a time by transformers' own forward."""
    scorer.model.use(scorer.adapters[0])
    return torch.stack([reference_logits(scorer.model.network, *row) for row in prepared])


def batched(scorer, rows):
    with torch.no_grad():
        states = answer_states(scorer.model.network, collate(*map(list, zip(*rows))))
        return project(states, scorer.model.head, scorer.label_ids[:4])


def test_batches_equal_the_reference_on_every_demo_row(scorer, prepared, reference):
    for rows in plan_batches([len(sequence.ids) for sequence, _ in prepared], 2_560):
        found = batched(scorer, [prepared[row] for row in rows])
        assert (found.labels - reference[rows][:, scorer.label_ids[:4]]).abs().max() < 1e-4
        assert (found.log_total - reference[rows].logsumexp(1)).abs().max() < 1e-4
        assert (found.top == reference[rows].argmax(1)).all()


@pytest.mark.parametrize("size", [1, 7])
def test_the_batch_does_not_matter(scorer, prepared, reference, size):
    order = np.random.default_rng(0).permutation(len(prepared))[:42]
    for start in range(0, 42, size):
        rows = order[start : start + size].tolist()
        found = batched(scorer, [prepared[row] for row in rows])
        assert (found.labels - reference[rows][:, scorer.label_ids[:4]]).abs().max() < 1e-4


def test_generation_starts_with_the_references_argmax_on_every_row(scorer, prepared, reference):
    for row, top in zip(prepared, reference.argmax(1).tolist()):
        assert generate_text(scorer.model.network, scorer.prepare.chat, *row, new_tokens=1)[1] == top


def test_the_library_finds_the_same_positions(scorer, prepared, reference):
    """Positions given by us or counted by the model: the same logits."""
    sequence, patches = prepared[0]
    inputs = model_inputs(sequence, patches, "cpu", scorer.model.network.config.image_token_id)
    with torch.no_grad():
        given = scorer.model.network(**inputs, position_ids=torch.from_numpy(sequence.positions())[:, None]).logits[
            0, -1
        ]
    assert (given - reference[0]).abs().max() < 1e-5


def test_the_head_in_pieces_equals_the_head_at_once(monkeypatch):
    torch.manual_seed(0)
    states, head = torch.randn(5, 16), torch.randn(1000, 16)
    whole = states @ head.T
    monkeypatch.setattr("scoring.engine.forward.VOCABULARY_CHUNK", 64)
    found = project(states.bfloat16(), head.bfloat16(), [3, 999, 0])
    exact = states.bfloat16().float() @ head.bfloat16().float().T
    assert torch.allclose(found.labels, exact[:, [3, 999, 0]], atol=1e-5)
    assert torch.allclose(found.log_total, exact.logsumexp(1), atol=1e-5) and (found.top == exact.argmax(1)).all()
    assert found.labels.dtype == torch.float32 and (found.labels - whole[:, [3, 999, 0]]).abs().max() < 0.2


def test_batches_are_planned_within_the_budget():
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 400, 300).tolist() + [5_000]
    batches = plan_batches(lengths, 2_000)
    assert sorted(row for batch in batches for row in batch) == list(range(301))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 2_000
    assert plan_batches(lengths, 2_000) == batches and plan_batches([], 10) == []


def test_asking_one_question(scorer, test_rows):
    from PIL import Image

    question = test_rows[1]
    by_path = scorer.ask(question.picture, question.question, question.options, question.task_hint)
    with Image.open(question.picture) as picture:
        assert scorer.ask(picture, question.question, question.options, question.task_hint) == by_path
    assert list(by_path) == list("abcd") and sum(by_path.values()) == pytest.approx(1)
    assert max(by_path, key=by_path.get) == question.answer
    assert len(scorer.ask(question.picture, question.question, question.options[:2])) == 2


def test_rows_with_fewer_options_and_broken_pictures(scorer, test_rows, tmp_path):
    from dataclasses import replace

    broken = tmp_path / "x.jpg"
    broken.write_bytes(test_rows[0].picture.read_bytes()[:500])
    rows = [
        test_rows[0],
        replace(test_rows[1], options=test_rows[1].options[:3]),
        replace(test_rows[2], picture=broken),
    ]
    found = scorer.score(rows)
    assert found.status[:2] == ["ok", "ok"] and found.status[2].startswith("picture: ")
    assert (
        np.isnan(found.logits[1, 0, 3])
        and np.isfinite(found.logits[1, 0, :3]).all()
        and np.isnan(found.logits[2]).all()
    )
    assert found.label_mass[0, 0] > 0.9


def test_non_finite_logits_are_marked(scorer, test_rows, monkeypatch):
    import scoring.engine.scorer as module

    def poisoned(*arguments):
        found = project(*arguments)
        found.labels[1] = float("nan")
        return found

    monkeypatch.setattr(module, "project", poisoned)
    found = scorer.score(test_rows[:3])
    assert found.status == ["ok", "the model gave no finite logits", "ok"] and np.isnan(found.logits[1]).all()
