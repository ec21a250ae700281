"""Where the numbers of a training go: `train.jsonl`, and the trackers that are asked for by name."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from scoring.errors import UserError

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}  # name -> package
PROJECT = "logit-scoring"


class LogError(UserError):
    """A tracker that cannot be used."""


def check_trackers(names: tuple[str, ...]) -> None:
    """LogError, before anything is loaded, where a package is missing."""
    if missing := [name for name in names if not find_spec(TRACKERS[name])]:
        packages = " ".join(TRACKERS[name] for name in missing)
        raise LogError(f"--log {missing[0]} needs a package that is not installed: pip install {packages}")


class Tracker:
    """One tracker, opened: `write(values, step)` and `close()`."""

    def __init__(self, name: str, out: Path, config: dict):
        self.write: Callable[[dict, int], object]
        self.close: Callable[[], object]
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            board = SummaryWriter(out / "tensorboard")
            self.write = lambda values, step: [board.add_scalar(key, value, step) for key, value in values.items()]
            self.close = board.close
        elif name == "wandb":
            import wandb

            run = wandb.init(project=PROJECT, name=out.name, dir=out, config=config)  # WANDB_MODE=offline stays here
            self.write = lambda values, step: run.log(values, step=step)
            self.close = run.finish
        else:
            import trackio

            trackio.init(project=PROJECT, name=out.name, config=config)
            self.write = lambda values, step: trackio.log(values, step=step)
            self.close = trackio.finish


class NoLog:
    """Of a process that is not the first of its training."""

    size = 0

    def write(self, step: int, **values) -> None: ...

    def close(self) -> None: ...


class Log:
    """Lines of `train.jsonl`; a training that goes on cuts off what comes after its state."""

    def __init__(self, out: Path, trackers: list[Tracker], size: int = 0):
        self.trackers = trackers
        self.file = open(out / "train.jsonl", "a", encoding="utf-8")  # noqa: SIM115 it stays open
        self.file.truncate(size)

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.file.tell()

    def write(self, step: int, **values) -> None:
        values = {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
        self.file.write(json.dumps({"step": step} | values) + "\n")
        self.file.flush()
        for tracker in self.trackers:
            tracker.write({key: float(value) for key, value in values.items() if value is not None}, step)

    def close(self) -> None:
        self.file.close()
        for tracker in self.trackers:
            tracker.close()
