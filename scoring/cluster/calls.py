"""What a call of an actor gives: its result, the error that it raised there, or that its process is gone."""

from typing import Any

from scoring.errors import ScoringError


class LostError(ScoringError):
    """An actor, or its node, is gone."""


def result_of(ref: Any) -> Any:
    """What a call returned. Raises what it raised there, and LostError where its process is gone."""
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise (cause if isinstance(cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise LostError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Ray's explanation in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.lower().startswith(("the actor", "actor", "worker", "the node", "node"))]
    return ((told or lines or [type(error).__name__])[-1 if told else 0])[:300]
