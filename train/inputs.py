"""What a training is made of, and what it talks to while it works."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from scoring.errors import ScoringError
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from scoring.messages import Say
from scoring.run.options import RunContext
from train.config import TrainConfig


class TrainError(ScoringError):
    """A training that cannot start or continue; the message says why and what to do."""


@dataclass(frozen=True)
class TrainingInputs:
    """One training: base, rows, choices, and the checkpoint folder `out` that it writes.

    valid: the validation rows; none where folds hold out parts of `train`. template: default where None. pixels: the
    budget; None is the default within the base's limits. data: what the manifest records of the table. trackers: names
    of `train.log.TRACKERS`.
    """

    base: str
    train: list[Question]
    valid: list[Question]
    out: Path
    config: TrainConfig
    template: PromptTemplate | None = None
    pixels: int | None = None
    data: dict[str, Any] = field(default_factory=dict)
    trackers: tuple[str, ...] = ()


class FoldWorkers(Protocol):
    """Processes elsewhere that train folds in place of this one. `RayFolds` says what each method does."""

    def machine(self) -> dict[str, Any]: ...

    def train(self, folds: Sequence[TrainingInputs], context: "TrainContext") -> None: ...


@dataclass(frozen=True)
class TrainContext(RunContext):
    """What a training talks to: a run's context, whose processes share the steps.

    progress: opens a bar of all rows of all epochs. stop: once it is set, the training finishes and saves the current
    step and raises KeyboardInterrupt. say_everyone: prints a line of this very process (default: `say`). fold_workers:
    train the folds, where this process does not.
    """

    say_everyone: Say | None = None
    fold_workers: FoldWorkers | None = None

    def alone(self, name: str) -> "TrainContext":
        """For a training that this process does by itself beside the others'; `name` precedes its lines."""
        say = self.say_everyone or self.say

        def say_with_name(text: str, /) -> None:
            say(f"{name}: {text}")

        return replace(self, say=say_with_name, processes=self.processes.alone())
