"""The log of a training: `train.jsonl`, and trackers that are named on the command line."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scoring.errors import ScoringError

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}  # name -> package
PROJECT = "logit-scoring"
LogValue = float | int | bool | None


class LogError(ScoringError):
    """A tracker that cannot be used."""


def check_trackers(names: tuple[str, ...]) -> None:
    """Raises LogError for an unknown tracker, or one whose package is not installed. Imports none of them."""
    if unknown := [name for name in names if name not in TRACKERS]:
        raise LogError(f"--log {unknown[0]}: expected some of {', '.join(TRACKERS)}")
    if missing := [name for name in names if not find_spec(TRACKERS[name])]:
        packages = " ".join(TRACKERS[name] for name in missing)
        raise LogError(f"--log {missing[0]} needs a package that is not installed: pip install {packages}")


@dataclass(frozen=True)
class Tracker:
    """An open tracker. write: takes the values of a step by name, and the step's number."""

    write: Callable[[dict[str, float], int], object]
    close: Callable[[], object]


def open_tracker(name: str, out: Path, config: dict[str, Any]) -> Tracker:
    """One of TRACKERS. config: the choices of the training, for the tracker to show."""
    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        board = SummaryWriter(out / "tensorboard")

        def write(values: dict[str, float], step: int) -> None:
            for key, value in values.items():
                board.add_scalar(key, value, step)

        return Tracker(write, board.close)
    if name == "wandb":
        import wandb

        run = wandb.init(project=PROJECT, name=out.name, dir=out, config=config)  # offline with WANDB_MODE=offline
        return Tracker(lambda values, step: run.log(values, step=step), run.finish)
    import trackio

    trackio.init(project=PROJECT, name=out.name, config=config)
    return Tracker(lambda values, step: trackio.log(values, step=step), trackio.finish)


class NoLog:
    """The log of all processes but the first of a training: it writes nothing."""

    size = 0

    def write(self, step: int, **values: LogValue) -> None: ...

    def close(self) -> None: ...


class Log:
    """The lines of `train.jsonl`, also sent to trackers.

    size: bytes of the lines to keep; a training that resumes cuts off what comes after its saved state.
    """

    def __init__(self, out: Path, trackers: list[Tracker], size: int = 0):
        self.trackers = trackers
        self.file = open(out / "train.jsonl", "a", encoding="utf-8")  # noqa: SIM115 it stays open
        self.file.truncate(size)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.file.tell()

    def write(self, step: int, **values: LogValue) -> None:
        """One line. Numbers are rounded to six decimals."""
        values = {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
        self.file.write(json.dumps({"step": step} | values) + "\n")
        self.file.flush()
        for tracker in self.trackers:
            tracker.write({key: float(value) for key, value in values.items() if value is not None}, step)

    def close(self) -> None:
        self.file.close()
        for tracker in self.trackers:
            tracker.close()
