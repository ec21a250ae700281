"""A training under way: what its steps and the ends of its epochs work with."""

import time
from dataclasses import asdict, dataclass, field

from scoring.messages import ProgressBar
from train.distributed import TrainingGroup
from train.inputs import TrainContext
from train.log import Log, NoLog
from train.model import LearningModel, Memory
from train.plan import TrainingPlan
from train.state import SavedState, TrainingState, write_state


@dataclass(frozen=True)
class Stopwatch:
    """Rows per second since it was started, after `rows_before` rows."""

    rows_before: int
    started: float = field(default_factory=time.monotonic)

    def rows_per_second(self, rows_done: int) -> float:
        return (rows_done - self.rows_before) / (time.monotonic() - self.started)


@dataclass(frozen=True)
class Training:
    """The plan, the loaded model, and the state that changes; only the first process has a bar and a log."""

    plan: TrainingPlan
    context: TrainContext
    model: LearningModel
    state: TrainingState
    memory: Memory
    group: TrainingGroup
    log: Log | NoLog
    bar: ProgressBar | None
    stopwatch: Stopwatch

    @property
    def first(self) -> bool:
        """Whether this process writes and reports."""
        return self.context.processes.first

    @property
    def stop_requested(self) -> bool:
        """Whether this process was asked to stop."""
        return self.context.stop.is_set()

    def epochs_left(self) -> range:
        """Epochs that are not finished, counted from 1."""
        return range(self.state.step // self.plan.steps_per_epoch + 1, self.plan.config.epochs + 1)

    def save_state(self) -> None:
        """Write everything that the next step depends on, from which a killed training resumes."""
        if self.first:
            saved = self.state.save()
            values = {
                "identity": self.plan.identity,
                **saved.values,
                "memory": asdict(self.memory),
                "log_bytes": self.log.size,
            }
            write_state(self.plan.out, SavedState(saved.tensors, values))

    def stop_if(self, requested: bool) -> None:
        """Save the state and raise KeyboardInterrupt, where that is requested and there are steps left."""
        if requested and self.state.step < self.plan.total_steps:
            self.save_state()
            raise KeyboardInterrupt(f"{self.state.step:,} of {self.plan.total_steps:,} steps are saved")

    def close(self) -> None:
        """Close the log and the bar."""
        self.log.close()
        if self.bar:
            self.bar.close()
