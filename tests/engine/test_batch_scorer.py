"""The scorer: questions in, label logits out, whatever is wrong with a row."""

from dataclasses import replace

import numpy as np
import pytest

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.forward import project
from scoring.inputs.orders import OrdersError
from tests.shared.demo import BOTH


def test_several_checkpoints_over_one_sight_equal_each_by_itself(rows):
    together = BatchScorer.load(BOTH).score(rows[:8])
    for number, name in enumerate(BOTH):
        alone = BatchScorer.load(name).score(rows[:8])
        assert np.abs(together.logits[:, number] - alone.logits[:, 0]).max() < 1e-5


def test_orders_that_need_a_schedule_are_refused(scorer, rows):
    for orders in ("adaptive", "pride", "half", "0", "bogus"):
        with pytest.raises(OrdersError):
            scorer.score(rows[:2], orders)


def test_rows_with_fewer_options_and_broken_pictures(scorer, rows, tmp_path):
    broken = tmp_path / "x.jpg"
    broken.write_bytes(rows[0].picture.read_bytes()[:500])
    rows = [
        rows[0],
        replace(rows[1], options=rows[1].options[:3]),
        replace(rows[2], pictures=(broken,)),
    ]
    for orders in ("1", "cyclic"):
        result = scorer.score(rows, orders)
        assert result.status[:2] == ["ok", "ok"] and result.status[2].startswith("picture: ")
        assert np.isnan(result.logits[1, 0, :, 3]).all() and np.isnan(result.logits[2]).all()
        assert np.isfinite(result.logits[1, 0, :3, :3]).all() and np.isnan(result.logits[1, 0, 3:]).all()
        assert result.label_mass[0, 0, 0] > 0.9


def test_non_finite_logits_are_marked(scorer, rows, monkeypatch):
    def poisoned(*arguments):
        result = project(*arguments)
        result.labels[1] = float("nan")
        return result

    monkeypatch.setattr("scoring.engine.packed.project", poisoned)
    result = scorer.score(rows[:3])
    assert result.status == ["ok", "the model gave no finite logits", "ok"] and np.isnan(result.logits[1]).all()
