"""Batches that do not fit into memory are cut in pieces; other errors stop the run."""

import json

import numpy as np
import pytest
import torch

from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run


def scarce(scorer, monkeypatch, rows: int):
    """A card on which batches of more than `rows` sequences do not fit; the sizes that were tried."""
    whole, tried = scorer.packed.answer, []

    def answer(batch, labels):
        tried.append(batch.count)
        if batch.count > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(batch, labels)

    monkeypatch.setattr(scorer.packed, "answer", answer)
    return tried


def test_out_of_memory_splits_the_batch_and_the_rest_of_the_plan(scorer, table, tmp_path, monkeypatch):
    options = RunOptions(batch_tokens=900)
    whole = run(table, scorer, tmp_path / "whole", options)
    said = []
    tried = scarce(scorer, monkeypatch, 3)
    split = run(table, scorer, tmp_path / "split", options, RunContext(say=said.append))
    assert np.abs(split.logits.logits - whole.logits.logits).max() < 1e-4 and split.logits.status == ["ok"] * 20
    assert sum("out of memory" in line for line in said) == 1 and "out of memory with 900 tokens" in said[0]
    assert sum(size > 3 for size in tried) == 2, tried  # the first batch, and its half: never again after that
    assert json.loads((tmp_path / "split" / "plan.json").read_text())["split"] == 4
    assert json.loads((tmp_path / "split" / "run.json").read_text())["split"] == 4


def test_a_run_that_goes_on_remembers_how_much_fits(scorer, table, tmp_path, monkeypatch):
    run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"split": 4}))
    for part in list((tmp_path / "logits").iterdir())[1:]:
        part.unlink()
    tried = scarce(scorer, monkeypatch, 3)
    finished = run(table, scorer, tmp_path, RunOptions())
    assert finished.logits.scored.all() and max(tried) <= 3


def test_a_row_that_does_not_fit_alone_is_marked(scorer, table, tmp_path, monkeypatch):
    scarce(scorer, monkeypatch, 0)
    finished = run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    assert set(finished.logits.status) == {"out of memory, alone in its batch"}


def test_other_errors_stop_the_run(scorer, table, tmp_path, monkeypatch):
    def fail(batch, labels):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(scorer.packed, "answer", fail)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        run(table, scorer, tmp_path, RunOptions())
