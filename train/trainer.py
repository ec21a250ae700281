"""The training itself: steps, epochs, the best one kept; a killed run goes on from its last saved step."""

import json
import time
from collections.abc import Callable
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from threading import Event

import numpy as np
import torch

from scoring.checkpoints.adapter import adapter_fingerprint
from scoring.checkpoints.checkpoint import MANIFEST, find_base, read_checkpoint
from scoring.engine.batches import TokenCost, costs_of, plan_batches, read_ahead
from scoring.engine.scorer import machine
from scoring.errors import UserError
from scoring.files.lock import hold
from scoring.files.writing import write_text
from scoring.inputs.pictures import PictureError, PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.run.processes import Processes
from scoring.run.run_folder import check_same
from train.batches import AugmentingPreparer, epoch_order, shuffled
from train.checkpoint import Provenance, save_checkpoint
from train.config import TrainConfig
from train.distributed import Together
from train.folder import FAULT, STATE, check_finished, finished, read_fault, write_fault
from train.identity import TrainingRows, identity_of
from train.log import Log, NoLog, Tracker
from train.lora import check_choices
from train.model import LearningModel, Memory, average
from train.state import check_state, optimizer_tensors, read_state, restore_optimizer, write_state
from train.validation import Validation, best, validate, write_epochs, write_scores


class TrainError(UserError):
    """A training that cannot start or go on; the message says why and what to do."""


class Trainer:
    """Fine-tunes one adapter on `train` rows, watched on `valid` rows, into the checkpoint folder `out`.

    `say` prints a line; `progress(total, done)` gives an object with `update(rows)`, `show(**values)` and `close()`.
    trackers: names of `train.log.TRACKERS`. processes: those that make the same call, and share its steps; the first of
    them writes. Raises TrainError, StateError where `out` holds another training, RunError where processes see
    different things, ProcessError where another failed, PictureError where a picture cannot be read any more.
    """

    def __init__(
        self,
        base: str,
        train: list[Question],
        valid: list[Question],
        out: Path,
        config: TrainConfig,
        template: PromptTemplate | None = None,
        pixels: int | None = None,
        data: dict | None = None,
        say: Callable[[str], None] = print,
        progress: Callable | None = None,
        trackers: tuple[str, ...] = (),
        stop: Event | None = None,
        processes: Processes | None = None,
    ):
        self.base, self.train, self.valid, self.out, self.config = base, train, valid, out, config
        self.say, self.progress, self.data, self.trackers, self.stop = say, progress, data or {}, trackers, stop
        self.processes = processes or Processes()
        self.folder = find_base(base)
        check_choices(self.folder, config)
        policy = PixelPolicy.of_base(self.folder, pixels)
        self.prepare = Preparer.of_base(self.folder, template or PromptTemplate(), policy)
        self.letters = LETTERS[: max(len(question.options) for question in [*train, *valid])]
        self.rows = TrainingRows(train, valid)
        self.steps_an_epoch = -(-len(train) // config.batch)
        self.identity = machine() | identity_of(
            config, self.folder, self.prepare.template, policy.max_pixels, self.rows
        )
        self.results: list[Validation] = []
        self.step = self.rows_done = 0
        self.bar = None

    @cached_property
    def costs(self) -> list[TokenCost]:
        """Of the training rows, in the data's order. Raises TrainError where a prompt is too long."""
        return self._costs(self.train)

    @cached_property
    def valid_costs(self) -> list[TokenCost]:
        """The same of the validation rows."""
        return self._costs(self.valid)

    def _costs(self, rows: list[Question]) -> list[TokenCost]:
        costs = list(costs_of(self.prepare, rows, "1"))
        if faults := [
            f"row {row.id!r}: {cost.found}" for row, cost in zip(rows, costs) if isinstance(cost, PictureError)
        ]:
            raise TrainError(f"{'; '.join(faults[:10])}; expected prompts within the model's context")
        return costs

    # ------------------------------------------------------------ the whole
    def run(self) -> list[Validation]:
        """Train all epochs; the folder holds the best of them, by validation NLL after its temperature.

        Once `stop` is set, the step at hand is finished and saved, and KeyboardInterrupt raised.
        """
        with hold(self.out) if self.processes.first else nullcontext():
            try:
                return self._run()
            except PictureError as error:
                write_fault(self.out, str(error))
                raise

    def check_folder(self) -> None:
        """Raises FolderError or StateError where `out` holds another training, finished or not. Loads nothing."""
        if finished(self.out):
            check_finished(self.out, self.identity)
        else:
            check_state(self.out, self.identity)

    def _run(self) -> list[Validation]:
        state = self._state()
        log = self.begin(state)
        if not state:
            self._save_state(log)  # from here to the end the folder tells that it is not finished
        if self.processes.first:
            (self.out / FAULT).unlink(missing_ok=True)
        self.bar = None
        if self.progress and self.processes.first:
            self.bar = self.progress(self.config.epochs * len(self.train), self.rows_done)
        try:
            first, at = divmod(self.step, self.steps_an_epoch)
            for epoch in range(first + 1, self.config.epochs + 1):
                if self._stopped_early():
                    break
                self.run_steps(epoch, at, log)
                at = 0
                self._end_epoch(epoch, log)
                self._save_state(log)
                self._stop_if_asked(log, self.together.any(self._asked()))
        finally:
            log.close()
            if self.bar:
                self.bar.close()
        if self.processes.first:
            (self.out / STATE).unlink()
        self.together.close()
        return self.results

    def _state(self) -> tuple[dict[str, torch.Tensor], dict] | None:
        """What the folder holds of this training: read by all processes before the first writes into it."""
        place, identity = f"training/{self.out.name}", self.identity
        check_same(identity, self.processes.gather(f"{place}/identity", identity)[0])
        state = read_state(self.out, identity)
        steps = self.processes.gather(f"{place}/step", state[1]["step"] if state else 0)
        if (here := steps[self.processes.rank]) != steps[0]:
            raise TrainError(
                f"{self.out} holds step {steps[0]:,} to the first process, {here:,} here; expected one that all share"
            )
        if not state and (self.out / STATE).exists():
            self.say(f"starting anew without the row that stopped the training before: {read_fault(self.out)}")
        return state

    def begin(self, state: tuple[dict[str, torch.Tensor], dict] | None = None) -> Log:
        """Load the model, and set everything as it was in a state."""
        from transformers import get_scheduler  # here: it imports bitsandbytes, which `why_no_4bit` must do first

        config = self.config
        _ = self.costs, self.valid_costs  # a prompt that is too long is an error before anything is loaded
        self.model = LearningModel(self.folder, config, self.prepare.policy, self.prepare.chat.label_ids(self.letters))
        self.together = Together(self.processes, self.model.model.device, f"training/{self.out.name}")
        for note in self.model.model.notes:
            self.say(note)
        self.optimizer = torch.optim.AdamW(
            self.model.weights,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=self.model.model.device.type == "cuda",
        )
        steps = config.epochs * self.steps_an_epoch
        schedule = "constant_with_warmup" if config.schedule == "constant" else config.schedule
        self.schedule = get_scheduler(schedule, self.optimizer, int(steps * config.warmup), steps)
        self.averages = [weight.detach().clone() for weight in self.model.weights] if config.ema else []
        step_tokens = int(np.mean([cost.tokens for cost in self.costs]) * config.batch) // self.processes.count
        if state:
            self._restore(*state)
        else:
            own = asdict(self.model.choose_memory(step_tokens))
            self.memory = Memory.least(self.processes.gather(f"{self.together.name}/memory", own))
        self.together.same([*self.model.weights, *self.averages])
        self.say(self.model.use(self.memory, steps - self.step, step_tokens))
        self.started, self.rows_before = time.monotonic(), self.rows_done
        if not self.processes.first:
            return NoLog()
        self.out.mkdir(parents=True, exist_ok=True)
        trackers = [Tracker(name, self.out, asdict(config)) for name in self.trackers]
        return Log(self.out, trackers, state[1]["log_bytes"] if state else 0)

    def kept(self) -> Validation:
        """The validation of the epoch that the folder holds, of a training that is finished."""
        if self.results:
            return best(self.results)
        from scoring.scores.folder import open_scores

        metrics = json.loads((self.out / MANIFEST).read_text("utf-8"))["metrics"]
        logits = open_scores(self.out / "validation").logits
        return Validation(
            *(metrics[name] for name in ("epoch", "loss", "accuracy", "nll")),
            calibration=None,
            logits=logits.logits[:, 0, 0],
            label_mass=logits.label_mass[:, 0, 0],
            top_token=logits.top_token[:, 0, 0],
        )

    # ------------------------------------------------------------ steps
    def run_steps(self, epoch: int, done: int, log: Log) -> None:
        """All steps of an epoch after the first `done`."""
        config, device = self.config, self.model.model.device.type
        self.model.model.network.train()
        steps = epoch_order(len(self.train), config.batch, config.seed, epoch)[done:]
        cut = [self._parts(rows) for rows in steps]
        prepare = AugmentingPreparer(**vars(self.prepare), strength=config.augment, seed=config.seed, epoch=epoch)
        questions = (([self._shown(row, epoch) for row in part], "1") for parts in cut for part in parts)
        ahead = read_ahead(prepare, questions, device)
        try:
            for rows, parts in zip(steps, cut):
                self._step(rows, len(parts), ahead, epoch, log)
        finally:
            ahead.close()

    def _asked(self) -> bool:
        return bool(self.stop and self.stop.is_set())

    def _stop_if_asked(self, log: Log, asked: bool) -> None:
        steps = self.config.epochs * self.steps_an_epoch
        if asked and self.step < steps:
            self._save_state(log)
            raise KeyboardInterrupt(f"{self.step:,} of {steps:,} steps are saved")

    def _parts(self, rows: np.ndarray) -> list[np.ndarray]:
        """This process's share of one step's rows in forwards that fit, those of a picture together."""
        own = rows[self.together.share([self.costs[row] for row in rows])]
        return [own[part] for part in plan_batches([self.costs[row] for row in own], self.memory.tokens)]

    def _shown(self, row: int, epoch: int) -> Question:
        question = self.train[row]
        return shuffled(question, self.config.seed, epoch) if self.config.shuffle_options else question

    def _step(self, rows: np.ndarray, parts: int, ahead, epoch: int, log: Log) -> None:
        config, scaler = self.config, self.model.scaler
        losses = []
        for part in range(self.processes.rank, parts * self.processes.count, self.processes.count):
            ready = next(ahead)
            ready.raise_for_faults()
            losses.append(self.model.loss_backward(ready, (config.seed, self.step, part), len(rows)))
        loss, asked = self.together.add_gradients(
            self.model.weights, sum(found.item() for found in losses), float(self._asked())
        )
        if not np.isfinite(loss):
            named = ", ".join(self.train[row].id for row in rows)
            raise TrainError(
                f"step {self.step + 1}: the loss is {loss}; rows of this step: {named}. "
                "Lower --learning-rate, or look at these rows"
            )
        rate = self.schedule.get_last_lr()[0]
        scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.weights, config.clip or torch.inf)
        scaler.step(self.optimizer)
        scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averages:
            average(self.averages, self.model.weights, config.ema, self.step)
        self.step, self.rows_done = self.step + 1, self.rows_done + len(rows)
        speed = (self.rows_done - self.rows_before) / (time.monotonic() - self.started)
        log.write(
            self.step,
            epoch=epoch,
            loss=loss,
            learning_rate=rate,
            gradient_norm=norm.item(),
            rows_per_second=round(speed, 2),
        )
        if self.bar:
            self.bar.show(epoch=f"{epoch}/{config.epochs}", loss=f"{loss:.3f}")
            self.bar.update(len(rows))
        if self.step % config.save_every == 0 and self.step % self.steps_an_epoch:
            self._save_state(log)
        if self.step % self.steps_an_epoch:
            self._stop_if_asked(log, bool(asked))

    # ------------------------------------------------------------ epochs
    def _end_epoch(self, epoch: int, log: Log) -> None:
        """Validate, keep the best and the last, and tell."""
        self.model.model.network.eval()
        with self._averaged():
            result = validate(
                *(self.model, self.prepare, self.valid, self.valid_costs, self.memory, self.together),
                *(epoch, self.config.generate),
            )
            self.results.append(result)
            is_best = result is best(self.results)
            if not self.processes.first:
                return
            provenance = Provenance(
                self.base, self.folder, self.prepare, self.letters, self.rows, self.config, self.memory, self.data
            )
            save_checkpoint(self.out / "last", self.model, provenance, result)
            if is_best:
                save_checkpoint(self.out, self.model, provenance, result)
                adapter = adapter_fingerprint(self.out)
                places = [np.arange(len(self.valid))]
                settings = read_checkpoint(str(self.out)).manifest.settings
                write_scores(self.out / "validation", self.valid, {self.out.name: result}, places, [adapter], settings)
                write_text(self.out / "train.toml", self.config.to_toml())
        write_epochs(self.out / "validation.csv", self.valid, self.results)
        temperature = result.calibration.temperature
        log.write(
            self.step,
            epoch=epoch,
            valid_loss=result.loss,
            valid_accuracy=result.accuracy,
            valid_nll=result.nll,
            valid_nll_calibrated=result.calibrated_nll,
            temperature=temperature,
            best=is_best,
            **({"valid_accuracy_generated": result.generated} if self.config.generate else {}),
        )
        generated = f", {result.generated:.3f} by generating" if self.config.generate else ""
        self.say(
            f"epoch {epoch}: validation loss {result.loss:.3f}, accuracy {result.accuracy:.3f}{generated}, "
            f"NLL {result.nll:.3f}, {result.calibrated_nll:.3f} after T = {temperature:.2f}"
            f"{' (best so far, kept)' if is_best else ''}"
        )

    def _stopped_early(self) -> bool:
        patience = self.config.patience
        if not patience or not self.results or len(self.results) - best(self.results).epoch < patience:
            return False
        self.say(f"stopped early: no better epoch in the last {patience}")
        return True

    @contextmanager
    def _averaged(self):
        """Inside, the adapter is its moving average, where there is one."""
        pairs = list(zip(self.model.weights, self.averages))
        for weight, mean in pairs:
            weight.data, mean.data = mean.data, weight.data
        try:
            yield
        finally:
            for weight, mean in pairs:
                weight.data, mean.data = mean.data, weight.data

    # ------------------------------------------------------------ going on
    def _save_state(self, log: Log) -> None:
        if not self.processes.first:
            return
        tensors = optimizer_tensors(self.optimizer, self.model.weights)
        for kind, held in (("weight", self.model.weights), ("average", self.averages)):
            tensors |= {f"{kind}.{at}": value.detach().cpu() for at, value in enumerate(held)}
        for result in self.results:
            tensors |= {f"{result.epoch}.{name}": torch.from_numpy(a) for name, a in result.arrays.items()}
        about = {
            "identity": self.identity,
            "step": self.step,
            "rows_done": self.rows_done,
            "results": [result.to_json() for result in self.results],
            "schedule": self.schedule.state_dict(),
            "scaler": self.model.scaler.state_dict(),
            "memory": asdict(self.memory),
            "log_bytes": log.size,
        }
        write_state(self.out, tensors, about)

    def _restore(self, tensors: dict[str, torch.Tensor], about: dict) -> None:
        for kind, held in (("weight", self.model.weights), ("average", self.averages)):
            for at, value in enumerate(held):
                value.data.copy_(tensors[f"{kind}.{at}"])
        restore_optimizer(self.optimizer, self.model.weights, tensors)
        self.schedule.load_state_dict(about["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr()):
            group["lr"] = rate
        self.model.scaler.load_state_dict(about["scaler"])
        self.step, self.rows_done = about["step"], about["rows_done"]
        self.memory = self._chosen_memory(Memory(**about["memory"]))
        for values in about["results"]:
            arrays = {name: tensors[f"{values['epoch']}.{name}"].numpy() for name in Validation.ARRAYS}
            self.results.append(Validation.from_json(values, arrays))
        epoch, at = divmod(self.step, self.steps_an_epoch)
        self.say(f"going on: {self.step:,} steps are done (epoch {epoch + 1}, step {at} of {self.steps_an_epoch:,})")

    def _chosen_memory(self, before: Memory) -> Memory:
        """That of the state, but for what is chosen now: who goes on after an out-of-memory error may need less."""
        mode = before.mode if self.config.memory == "auto" else self.config.memory
        return replace(before, mode=mode, tokens=self.config.batch_tokens or before.tokens)
