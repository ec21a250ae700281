"""What a call of an actor gives: its result, its own error, or that its process is gone."""

import pytest

from scoring.cluster.calls import LostError, result_of
from scoring.errors import ScoringError

ray = pytest.importorskip("ray")


@pytest.fixture
def given(monkeypatch):
    """Whoever gets a result gets this: an error is raised."""

    def give(value):
        def get(ref):
            if isinstance(value, Exception):
                raise value
            return value

        monkeypatch.setattr(ray, "get", get)

    return give


def test_an_error_is_raised_as_it_was_there(given):
    given(ray.exceptions.RayTaskError("train", "its traceback", ScoringError("rank: found 0")))
    with pytest.raises(ScoringError, match="^rank: found 0$"):
        result_of(None)
    given(7)
    assert result_of(None) == 7


def test_a_process_that_is_gone_is_lost_for_a_reason_of_one_line(given):
    given(ray.exceptions.ActorDiedError())
    with pytest.raises(LostError, match="^The actor died unexpectedly before finishing this task.$"):
        result_of(None)
