"""The guard at load: a packed forward that is not the libraries' own is caught."""

import pytest
import torch

from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.guard import DisagreementError, compare_first
from scoring.engine.loading import Model, why_no_4bit
from tests.shared.foreign_checkpoints import Workshop


def test_a_head_that_is_not_added_is_caught_by_the_guard(base, test_rows, tmp_path, monkeypatch):
    why_no_4bit()  # before PEFT imports bitsandbytes
    shop = Workshop(tmp_path / "shop", base)
    shop.used = shop.untied
    plan = plan_members([str(shop.lora(target_modules=["lm_head"]))], str(shop.untied), quantization="none")
    scorer = BatchScorer(plan, "cpu", torch.float32)
    assert compare_first(scorer, test_rows[:1]).largest < 1e-4
    monkeypatch.setattr(Model, "head_adapter", lambda self, name: None)
    with pytest.raises(DisagreementError, match="by the packed forward, but a .* by the libraries' own"):
        compare_first(scorer, test_rows[:1])
