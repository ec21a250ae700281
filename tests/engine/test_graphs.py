"""Which batches go by a graph; filled-up ones have the answers of others. tests/test_gpu.py records real ones."""

from copy import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from scoring.checkpoints.plan import plan_members
from scoring.engine import graphs as module
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch, with_tensors
from scoring.engine.buckets import filled_up
from scoring.engine.forward import TreeBatch
from scoring.engine.graphs import Graphs, Recorded, shape_of, why_no_graphs
from scoring.engine.tree import Tree
from tests.shared.demo import BOTH
from tests.shared.families import tiny_base

LEAVES = 16


@pytest.fixture(scope="module")
def text_scorer(base, tmp_path_factory):
    folder = tiny_base("qwen3", base, tmp_path_factory.mktemp("text") / "base")
    return BatchScorer(plan_members([str(folder)], quantization="none"))


def in_words(questions):
    return [replace(question, pictures=(), sizes=()) for question in questions]


def equal_answers(scorer, questions, orders):
    """A batch and the same one filled up: label logits, sums and likeliest tokens."""
    batch = prepare_batch(scorer.prepare, questions, orders)
    tree = Tree.build(batch.sequences, batch.picture_numbers)
    filled = TreeBatch.of(filled_up(tree, LEAVES), batch.pictures, batch.grids, "cpu")
    plain, padded = (
        scorer.packed.answer(tensors, scorer.label_ids[:4]) for tensors in (with_tensors(batch, "cpu").tensors, filled)
    )
    assert filled.count == LEAVES and len(plain) == len(padded)
    for found, expected in zip(module.first(padded, len(tree.leaves)), plain):
        assert (found.labels - expected.labels).abs().max() < 1e-5
        assert (found.log_total - expected.log_total).abs().max() < 1e-5
        assert torch.equal(found.top, expected.top)


@pytest.mark.parametrize("count, orders", [(1, "1"), (5, "1"), (2, "cyclic")])
def test_a_filled_up_batch_has_the_answers_of_the_batch(scorer, rows, count, orders):
    equal_answers(scorer, rows[:count], orders)


def test_so_it_has_with_several_pictures_or_none(scorer, rows):
    three = replace(
        rows[0],
        pictures=tuple(row.pictures[0] for row in rows[:3]),
        sizes=tuple(row.sizes[0] for row in rows[:3]),
        options=("<image 2>", "<image 3>", "none"),
    )
    equal_answers(scorer, [three, *in_words(rows[3:4])], "cyclic")


def test_so_it_has_of_a_family_that_sees_no_pictures(text_scorer, rows):
    equal_answers(text_scorer, in_words(rows[:2]), "1")


class Replayed:
    """Stands for a recorded forward pass, without a card."""

    made: list[int] = []

    def __init__(self, packed, label_ids):
        self.packed, self.label_ids = packed, label_ids

    @classmethod
    def of(cls, packed, batch, label_ids, place):
        cls.made.append(len(batch.ids))
        return cls(packed, label_ids)

    def answer(self, batch, count):
        return module.first(self.packed.answer(batch, self.label_ids), count)


@pytest.fixture
def graphs(scorer, monkeypatch):
    """As on a card with room, whose graphs are `Replayed`."""
    monkeypatch.setattr(module, "Recorded", Replayed)
    monkeypatch.setattr(module.Place, "on", lambda device: module.Place((0, 1), None))
    monkeypatch.setattr(module, "free_bytes", lambda device: module.ROOM)
    monkeypatch.setattr(Replayed, "made", [])
    graphs = Graphs(scorer.packed)
    graphs.why_not = ""
    return graphs


def asked(scorer, graphs, questions, orders="1", letters=4):
    return graphs.answer(prepare_batch(scorer.prepare, questions, orders), scorer.label_ids[:letters])[0]


def test_a_shape_is_recorded_when_it_comes_again(scorer, graphs, rows):
    expected = scorer.answer(prepare_batch(scorer.prepare, rows[:1], "1"), 4)[0]
    for time in range(4):
        found = asked(scorer, graphs, rows[:1])
        assert found.labels.shape == (1, 4) and (found.labels - expected.labels).abs().max() < 1e-5
        assert len(Replayed.made) == len(graphs.recorded) == min(time, 1)
    asked(scorer, graphs, rows[:1], letters=3)  # other letters are another shape
    assert len(Replayed.made) == 1
    asked(scorer, graphs, rows[:1], letters=3)
    assert len(Replayed.made) == 2


def test_the_graphs_used_last_are_kept(scorer, graphs, rows, monkeypatch):
    """Once there are so many, another shape must come often; so must one that was dropped."""
    monkeypatch.setattr(module, "MOST_GRAPHS", 2)
    monkeypatch.setattr(module, "REPAID", 3)
    for letters in (2, 2, 3, 3, 2, 4, 4):
        asked(scorer, graphs, rows[:1], letters=letters)
    assert [len(shape[-1]) for shape in graphs.recorded] == [3, 2] and len(Replayed.made) == 2
    asked(scorer, graphs, rows[:1], letters=4)
    assert [len(shape[-1]) for shape in graphs.recorded] == [2, 4] and len(Replayed.made) == 3
    for made in (3, 3, 4):
        asked(scorer, graphs, rows[:1], letters=3)
        assert len(Replayed.made) == made
    assert [len(shape[-1]) for shape in graphs.recorded] == [4, 3]


def test_shapes_that_are_remembered_are_bounded(scorer, graphs, rows, monkeypatch):
    monkeypatch.setattr(module, "MOST_SHAPES", 1)
    for letters in (2, 3, 2, 3):
        asked(scorer, graphs, rows[:1], letters=letters)
    assert Replayed.made == []


def test_large_batches_and_a_full_card_go_without(scorer, graphs, rows, monkeypatch):
    for _ in range(2):
        asked(scorer, graphs, rows[:16])  # as many leaves as a block has
    monkeypatch.setattr(module, "free_bytes", lambda device: module.ROOM - 1)
    for _ in range(3):
        asked(scorer, graphs, rows[:1])
    monkeypatch.setattr("scoring.engine.buckets.MOST_TOKENS", 10)
    monkeypatch.setattr(module, "free_bytes", lambda device: module.ROOM)
    asked(scorer, graphs, rows[:1])
    assert Replayed.made == []


def test_compiled_layers_go_without(scorer, graphs, rows, monkeypatch):
    monkeypatch.setattr(scorer.packed, "compiled", True)
    for _ in range(2):
        asked(scorer, graphs, rows[:1])
    assert Replayed.made == []


def test_a_recording_that_fails_is_told_once_and_never_tried_again(scorer, graphs, rows, monkeypatch):
    expected = scorer.answer(prepare_batch(scorer.prepare, rows[:1], "1"), 4)[0]
    tried = []

    def fail(*arguments):
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(Replayed, "of", fail)
    notes = list(scorer.model.notes)
    for _ in range(3):
        assert torch.equal(asked(scorer, graphs, rows[:1]).labels.argmax(), expected.labels.argmax())
    assert tried == [1] and not graphs.recorded
    assert scorer.model.notes[len(notes) :] == [
        "small batches are answered without CUDA graphs: a forward pass could not be recorded "
        "(OutOfMemoryError: CUDA out of memory.)"
    ]
    scorer.model.notes[:] = notes


def test_a_large_batch_that_finds_no_memory_gets_that_of_the_graphs(scorer, graphs, rows, monkeypatch):
    for _ in range(2):
        asked(scorer, graphs, rows[:1])
    assert len(graphs.recorded) == 1

    def full(*arguments):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(scorer.packed, "answer", full)
    with pytest.raises(torch.OutOfMemoryError):
        asked(scorer, graphs, rows[:16])
    assert not graphs.recorded and graphs.why_not == ""


def test_a_recorded_pass_reads_each_batch_and_hands_out_its_own_answers(scorer, rows):
    """With a graph that computes when it is replayed: what a card does, but for when."""
    batches = []
    for row in rows[:2]:
        batch = prepare_batch(scorer.prepare, [row], "1")
        tree = filled_up(Tree.build(batch.sequences, batch.picture_numbers), LEAVES)
        batches.append(TreeBatch.of(tree, batch.pictures, batch.grids, "cpu"))
    assert len({shape_of(batch, [1]) for batch in batches}) == 1
    labels = scorer.label_ids[:4]
    expected = [scorer.packed.answer(batch, labels)[0].labels[:1] for batch in batches]
    first = TreeBatch.of(batches[0].tree, [pixels.numpy() for pixels in batches[0].pixels[0]], batch.grids, "cpu")
    answers = scorer.packed.answer(first, labels)

    def replay():
        answers[0].labels.copy_(scorer.packed.answer(first, labels)[0].labels)

    recorded = Recorded(SimpleNamespace(replay=replay), first, answers)
    found = [recorded.answer(batch, 1)[0].labels for batch in batches]
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert not torch.equal(found[0], found[1])


def test_why_there_are_no_graphs(scorer, monkeypatch):
    assert "only cards that compute in bfloat16" in why_no_graphs(scorer.packed)
    monkeypatch.setattr(module, "has_flash", lambda tensor: True)
    assert "only cards that compute in bfloat16" in why_no_graphs(scorer.packed)
    monkeypatch.setattr(scorer.packed, "stream", torch.bfloat16)
    assert why_no_graphs(scorer.packed) == ""
    monkeypatch.setattr(scorer.model.parts, "recordable", False)
    assert "asks the card for values" in why_no_graphs(scorer.packed)
    monkeypatch.setattr(scorer.model.parts, "recordable", True)
    monkeypatch.setattr(scorer.packed.members[0], "merged", False)
    assert "PEFT's own layers" in why_no_graphs(scorer.packed)
    monkeypatch.setattr(module, "devices_of", lambda network: [torch.device("cpu")] * 2)
    assert "several cards" in why_no_graphs(scorer.packed)


def test_another_packing_begins_without_graphs(scorer):
    other, packed = copy(scorer), copy(scorer.packed)
    other.packed = packed
    assert other.packed is packed and other.graphs.packed is packed and scorer.packed is not packed


def test_members_share_a_forward_pass(rows, graphs):
    both = BatchScorer(plan_members(BOTH), weights="4bit")
    expected = both.answer(prepare_batch(both.prepare, rows[:1], "1"), 4)
    two = Graphs(both.packed)
    two.why_not = ""
    for _ in range(3):
        found = two.answer(prepare_batch(both.prepare, rows[:1], "1"), both.label_ids[:4])
        assert all((one.labels - other.labels).abs().max() < 1e-5 for one, other in zip(found, expected))
    assert len(found) == 2 and len(Replayed.made) == 1
