"""The plan of a run: its members, and what is said before anything is loaded."""

from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer


def test_a_whole_model_is_a_checkpoint_too(base, test_rows):
    from scoring.engine.batch_scorer import BatchScorer

    plan = plan_members([str(base)])
    assert plan.checkpoints[0].adapter is None and plan.policy.max_pixels == 192 * 192
    assert BatchScorer(plan).score(test_rows[:2]).status == ["ok", "ok"]


def test_several_members_on_one_base(scorer, demo, test_rows):
    both = BatchScorer.load([str(demo / "checkpoints" / name) for name in ("fold1", "fold0")])
    result = both.score(test_rows[:4])
    assert result.members == ["fold1", "fold0"]
    assert abs(result.logits[:, 1, 0] - scorer.score(test_rows[:4]).logits[:, 0, 0]).max() < 1e-5
    assert abs(result.logits[:, 0, 0] - result.logits[:, 1, 0]).max() > 0.1
