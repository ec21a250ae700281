"""Fine-tunes one adapter: setup, steps and epochs, checkpoints. A killed training resumes from its last saved step."""

from contextlib import nullcontext
from dataclasses import asdict

from scoring.files.lock import lock_folder
from scoring.inputs.pictures import PictureError
from scoring.run.run_folder import check_same
from train.distributed import TrainingGroup
from train.epoch_end import end_epoch, stops_early
from train.folder import FAULT, STATE, check_finished, finished, read_fault, write_fault
from train.inputs import TrainContext, TrainError, TrainingInputs
from train.log import Log, NoLog, open_tracker
from train.model import LearningModel, Memory
from train.plan import TrainingPlan
from train.state import SavedState, TrainingState, check_state, read_state
from train.steps import run_steps
from train.training import Stopwatch, Training
from train.validation import Validation


class Trainer:
    """Fine-tunes one adapter on the training rows, validated on the validation rows, into the checkpoint folder `out`.

    Raises TrainError, StateError where `out` holds another training, RunError where processes have different inputs,
    ProcessError where another process failed, PictureError where a picture can no longer be read.
    """

    def __init__(self, inputs: TrainingInputs, context: TrainContext | None = None):
        self.plan, self.context = TrainingPlan(inputs), context or TrainContext()
        self.out, self.processes = inputs.out, self.context.processes

    def run(self) -> list[Validation]:
        """Train all epochs; the folder holds the best of them, by validation NLL after its temperature.

        Once `context.stop` is set, the current step is finished and saved, and KeyboardInterrupt raised.
        """
        with lock_folder(self.out) if self.processes.first else nullcontext():
            try:
                training = self.setup()
                self.train(training)
            except PictureError as error:
                write_fault(self.out, str(error))
                raise
            self.finish(training)
        return training.state.results

    def check_folder(self) -> None:
        """Raises FolderError or StateError where `out` holds another training, finished or not. Loads nothing."""
        if finished(self.out):
            check_finished(self.out, self.plan.identity)
        else:
            check_state(self.out, self.plan.identity)

    # ------------------------------------------------------------ setup
    def setup(self) -> Training:
        """Load the model, resume from the saved state where there is one, and mark the folder as unfinished."""
        saved = self.read_saved_state()
        training = self.load(saved)
        if not saved:
            training.save_state()
        if self.processes.first:
            (self.out / FAULT).unlink(missing_ok=True)
        return training

    def read_saved_state(self) -> SavedState | None:
        """The state that an earlier call saved in the folder; all processes read it before the first one writes."""
        key, identity = self._key, self.plan.identity
        check_same(identity, self.processes.gather(f"{key}/identity", identity)[0])
        saved = read_state(self.out, identity)
        steps = self.processes.gather(f"{key}/step", saved.values["step"] if saved else 0)
        if (step := steps[self.processes.rank]) != steps[0]:
            raise TrainError(
                f"{self.out} holds step {steps[0]:,} for the first process, but {step:,} for {self.processes.name}; "
                "expected a folder that all processes share"
            )
        if not saved and (self.out / STATE).exists():
            self.context.say(f"starting anew without the row that stopped the training before: {read_fault(self.out)}")
        return saved

    def load(self, saved: SavedState | None = None) -> Training:
        """Load the model and open the log and the progress bar; everything is as it was when `saved` was made."""
        plan, config, say = self.plan, self.plan.config, self.context.say
        plan.check_lengths()
        step_tokens = plan.step_tokens(self.processes.count)
        label_ids = plan.preparer.label_ids(len(plan.letters))
        model = LearningModel(plan.base_folder, config, plan.preparer.policy, label_ids)
        group = TrainingGroup(self.processes, model.model.device, self._key)
        for note in model.model.notes:
            say(note)
        state = TrainingState(model, config, plan.total_steps)
        memory = self._restore(state, saved) if saved else self._choose_memory(model, step_tokens)
        group.broadcast([*state.weights, *state.averages])
        say(model.use(memory, plan.total_steps - state.step, step_tokens))
        stopwatch, log = Stopwatch(state.rows_done), self._open_log(saved)
        bar = None
        if self.context.progress and self.processes.first:
            bar = self.context.progress(config.epochs * len(plan.inputs.train), state.rows_done)
        return Training(plan, self.context, model, state, memory, group, log, bar, stopwatch)

    @property
    def _key(self) -> str:
        """This training's key in the store that the processes share."""
        return f"training/{self.out.name}"

    def _restore(self, state: TrainingState, saved: SavedState) -> Memory:
        """Set `state` as it was saved; return the memory of the saved state, with what this call's options change."""
        state.restore(saved)
        epoch, step = divmod(state.step, self.plan.steps_per_epoch)
        self.context.say(
            f"going on: {state.step:,} steps are done (epoch {epoch + 1}, step {step} of {self.plan.steps_per_epoch:,})"
        )
        return Memory(**saved.values["memory"]).chosen(self.plan.config)

    def _choose_memory(self, model: LearningModel, step_tokens: int) -> Memory:
        """The memory settings that every process has room for."""
        memories = self.processes.gather(f"{self._key}/memory", asdict(model.choose_memory(step_tokens)))
        return Memory.least([Memory(**memory) for memory in memories])

    def _open_log(self, saved: SavedState | None) -> Log | NoLog:
        if not self.processes.first:
            return NoLog()
        self.out.mkdir(parents=True, exist_ok=True)
        config = asdict(self.plan.config)
        trackers = [open_tracker(name, self.out, config) for name in self.plan.inputs.trackers]
        return Log(self.out, trackers, saved.values["log_bytes"] if saved else 0)

    # ------------------------------------------------------------ train
    def train(self, training: Training) -> None:
        """All steps and epochs that are left. Each epoch ends with its checkpoints, and with a saved state."""
        try:
            for epoch in training.epochs_left():
                if stops_early(training):
                    break
                run_steps(training, epoch, done=training.state.step % self.plan.steps_per_epoch)
                end_epoch(training, epoch)
                training.save_state()
                training.stop_if(training.group.any_process(training.stop_requested))
        finally:
            training.close()

    def finish(self, training: Training) -> None:
        """Mark the folder as finished, and leave the group of processes."""
        if self.processes.first:
            (self.out / STATE).unlink()
        training.group.close()
