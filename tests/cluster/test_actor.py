"""What a process of the cluster does, here in this one: it checks its files, loads once, and answers batches."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from scoring.checkpoints.plan import plan_members
from scoring.cluster.actor import ModelActor
from scoring.engine.batch_scorer import BatchScorer
from scoring.run import loader
from scoring.run.options import RunOptions
from scoring.run.run import run
from scoring.run.scheduler import Batch
from scoring.scores.folder import RunError
from tests.shared.demo import FOLD0

OPTIONS = RunOptions(verify=False)
LETTERS = 4


@pytest.fixture
def actor(known_models):
    return ModelActor(plan_members([str(FOLD0)]), OPTIONS, LETTERS)


@pytest.fixture
def batch(table):
    return Batch(7, table.questions[:6], "1")


def test_its_answers_are_those_of_a_run_here(actor, batch, table, tmp_path):
    assert actor.load().batch_tokens > 0
    table.questions = batch.questions
    whole = run(table, actor.loader.scorer, tmp_path / "run", RunOptions(verify=False, batch_tokens=100_000))
    answered = actor.answer(batch, "1")
    logits = dict(zip(answered.part.ids, answered.part.logits))
    assert all(np.array_equal(logits[row], values) for row, values in zip(whole.logits.ids, whole.logits.logits))
    assert (answered.number, answered.split, answered.part.status) == (7, 1, ["ok"] * 6)


def test_batches_that_come_at_once_load_one_model(batch, monkeypatch):
    loads, load = [], loader.BatchScorer

    def counting(*given, **more):
        loads.append(given)
        return load(*given, **more)

    monkeypatch.setattr(loader, "BatchScorer", counting)
    actor = ModelActor(plan_members([str(FOLD0)]), OPTIONS, LETTERS)
    threads = [threading.Thread(target=actor.answer, args=(batch, "1")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1


def test_another_plan_keeps_the_model_where_it_fits(actor, batch):
    actor.load()
    before = actor.loader.scorer.model
    actor.adopt(plan_members([str(FOLD0)], orders="cyclic"), OPTIONS, LETTERS)
    assert actor.loader.scorer.model is before
    actor.adopt(plan_members([str(FOLD0), str(FOLD0.parent / "fold1")]), OPTIONS, LETTERS)
    assert actor.answer(batch, "1").part.logits.shape[1] == 2


def test_a_batch_that_does_not_fit_is_answered_in_pieces(actor, batch, monkeypatch):
    whole = actor.answer(batch, "1").part
    begin, tried = BatchScorer.begin, []

    def scarce(scorer, prepared, letters):
        tried.append(len(prepared.rows))
        if len(prepared.rows) > 3:
            raise MemoryError if len(tried) == 1 else torch.OutOfMemoryError("CUDA out of memory")
        return begin(scorer, prepared, letters)

    monkeypatch.setattr(BatchScorer, "begin", scarce)
    answered = actor.answer(batch, "1")
    assert answered.split == 2 and tried == [6, 3, 3] and answered.part.status == ["ok"] * 6
    assert np.abs(answered.part.logits - whole.logits).max() < 1e-4
    actor.answer(batch, "1")
    assert tried[3:] == [3, 3]  # as a batch before
    actor.adopt(*actor.given)
    assert actor.answer(batch, "1", split=2).split == 2 and tried[5:] == [3, 3]  # as in another process


def test_files_that_are_not_those_of_the_plan_are_refused_by_name(actor, tmp_path):
    plan = actor.given[0]
    other = replace(plan, settings=replace(plan.settings, base="abc"), adapters={"fold0": "def"})
    with pytest.raises(RunError, match=r"^base, fold0: other files on .* than where the run was started"):
        ModelActor(other, OPTIONS, LETTERS).machine()
    with pytest.raises(RunError, match=r"nowhere: not on .*; expected the same path on every node"):
        ModelActor(replace(plan, base=tmp_path / "nowhere"), OPTIONS, LETTERS).load()
