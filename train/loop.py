"""The training itself: answer-token loss, honest accumulation, validation by logits, the best epoch kept."""

import json
import os
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from transformers import get_linear_schedule_with_warmup

import scoring
from scoring.engine.checkpoint import (
    ADAPTER_FILE,
    CALIBRATION,
    MANIFEST,
    Manifest,
    base_fingerprint,
    check_base,
    find_base,
)
from scoring.engine.forward import project
from scoring.engine.model import Model
from scoring.engine.padded import padded_states
from scoring.engine.plan import calibration_fingerprint
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.results.calibration import Calibration, fit_temperature, log_probabilities, nll
from scoring.results.files import write_csv, write_text
from train.batches import epoch_order, micro_batches, shuffled, to_batch
from train.config import TrainConfig
from train.lora import add_lora, save_lora

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TOKENS = {"cpu": 2_560, "cuda": 8_192}  # padded tokens in one forward


class TrainError(ValueError):
    """A training that cannot start or go on; the message says why and what to do."""


@dataclass
class Validation:
    """One epoch's validation: loss over the vocabulary, and what the label logits give."""

    epoch: int
    loss: float
    accuracy: float
    nll: float
    calibration: Calibration
    logits: np.ndarray

    @property
    def calibrated_nll(self) -> float:
        """What epochs are compared by; the raw NLL where there were too few rows to fit a temperature."""
        return self.calibration.nll_after if np.isfinite(self.calibration.nll_after) else self.nll


class Trainer:
    """Fine-tunes one adapter on `train` rows, watched on `valid` rows, into the checkpoint folder `out`.

    `say` prints a line; `progress(total)` gives an object with `update(steps)`, `show(**values)` and `close()`.
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
        board: "SummaryWriter | None" = None,
    ):
        """board: where TensorBoard's scalars go, beside `train.jsonl`."""
        self.board = board
        self.base, self.train, self.valid, self.out, self.config = base, train, valid, out, config
        self.say, self.progress, self.data = say, progress, data or {}
        self.folder = find_base(base)
        check_base(self.folder)
        self.prepare = Preparer.of_base(
            self.folder, template or PromptTemplate(), PixelPolicy.of_base(self.folder, pixels)
        )
        self.letters = LETTERS[: max(len(question.options) for question in [*train, *valid])]
        self.label_ids = self.prepare.chat.label_ids(self.letters)
        self.lengths = np.array([len(self.prepare.encode(question).ids) for question in train])
        self.valid_lengths = np.array([len(self.prepare.encode(question).ids) for question in valid])

    def run(self) -> list[Validation]:
        """Train all epochs; the folder holds the best of them, by validation NLL after its temperature."""
        config = self.config
        torch.manual_seed(config.seed)
        self.model = Model.load(self.folder, config.quantization)
        for note in self.model.notes:
            self.say(note)
        self.peft = add_lora(self.model.network, config)
        device = self.model.device
        if config.checkpointing if config.checkpointing is not None else device.type == "cuda":
            self.model.network.gradient_checkpointing_enable({"use_reentrant": False})
        weights = [weight for weight in self.peft.parameters() if weight.requires_grad]
        steps = config.epochs * -(-len(self.train) // config.batch)
        optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
        schedule = get_linear_schedule_with_warmup(optimizer, int(steps * config.warmup), steps)
        scaler = torch.amp.GradScaler(enabled=self.model.dtype == torch.float16)
        budget = config.batch_tokens or TOKENS[device.type]
        self.out.mkdir(parents=True, exist_ok=True)
        results, step, rows_done, start = [], 0, 0, time.monotonic()
        bar = self.progress(steps) if self.progress else None
        with open(self.out / "train.jsonl", "w") as log, closing(bar) if bar else nullcontext():
            for epoch in range(1, config.epochs + 1):
                self.model.network.train()
                for rows in epoch_order(len(self.train), config.batch, config.seed, epoch):
                    parts = micro_batches(self.lengths, rows, budget)
                    loss = sum(self._backward(part, epoch, len(rows), scaler) for part in parts)
                    if not np.isfinite(loss):
                        named = ", ".join(self.train[row].id for row in rows)
                        raise TrainError(
                            f"step {step + 1}: the loss is {loss}; rows of this step: {named}. "
                            "Lower --learning-rate, or look at these rows"
                        )
                    rate = schedule.get_last_lr()[0]
                    scaler.unscale_(optimizer)
                    torch.nn.utils.clip_grad_norm_(weights, config.clip)
                    scaler.step(optimizer)
                    scaler.update()
                    schedule.step()
                    optimizer.zero_grad(set_to_none=True)
                    step, rows_done = step + 1, rows_done + len(rows)
                    speed = rows_done / (time.monotonic() - start)
                    self._log(log, step, epoch=epoch, loss=loss, learning_rate=rate, rows_per_second=round(speed, 2))
                    if bar:
                        bar.show(loss=f"{loss:.3f}", rows_per_second=f"{speed:.1f}")
                        bar.update(1)
                self._end_epoch(epoch, step, results, log)
        return results

    def _end_epoch(self, epoch: int, step: int, results: list[Validation], log) -> None:
        """Validate, keep the best, and tell."""
        result = self._validate(epoch)
        results.append(result)
        self._keep(results)
        best = result is _best(results)
        temperature = result.calibration.temperature
        self._log(
            log,
            step,
            epoch=epoch,
            valid_loss=result.loss,
            valid_accuracy=result.accuracy,
            valid_nll=result.nll,
            valid_nll_calibrated=result.calibrated_nll,
            temperature=temperature,
            best=best,
        )
        self.say(
            f"epoch {epoch}: validation loss {result.loss:.3f}, accuracy {result.accuracy:.3f}, NLL {result.nll:.3f}, "
            f"{result.calibrated_nll:.3f} after T = {temperature:.2f}{' (best so far, kept)' if best else ''}"
        )

    def _log(self, file, step: int, **values) -> None:
        """A line of `train.jsonl`, and the same numbers for TensorBoard where it is asked for."""
        values = {key: round(value, 6) if isinstance(value, float) else value for key, value in values.items()}
        line = values if "valid_loss" in values else {"step": step} | values
        file.write(json.dumps(line) + "\n")
        file.flush()
        for key, value in values.items() if self.board else ():
            self.board.add_scalar(key, float(value), step)

    def _backward(self, rows: np.ndarray, epoch: int, step_rows: int, scaler) -> float:
        """Gradients of one forward; its share of the step's mean loss."""
        questions = [self.train[row] for row in rows]
        if self.config.shuffle_options:
            questions = [shuffled(question, self.config.seed, epoch) for question in questions]
        batch = to_batch(self.prepare, questions).to(self.model.device)
        targets = torch.tensor(
            [self.label_ids[LETTERS.index(question.answer)] for question in questions], device=self.model.device
        )
        with self._autocast():
            logits = F.linear(padded_states(self.model.network, batch), self.model.head)
        loss = F.cross_entropy(logits.float(), targets, reduction="sum") / step_rows
        scaler.scale(loss).backward()
        return loss.item()

    def _autocast(self):
        """LoRA's float32 products in the base's type on a GPU; nothing on the CPU."""
        return torch.autocast(self.model.device.type, self.model.dtype, enabled=self.model.device.type == "cuda")

    @torch.no_grad()
    def _validate(self, epoch: int) -> Validation:
        """Raw label logits of the validation rows, as `score` computes them."""
        self.model.network.eval()
        logits = np.full((len(self.valid), len(self.letters)), np.nan, np.float32)
        losses = np.zeros(len(self.valid))
        budget = self.config.batch_tokens or TOKENS[self.model.device.type]
        for rows in micro_batches(self.valid_lengths, np.arange(len(self.valid)), budget):
            questions = [self.valid[row] for row in rows]
            batch = to_batch(self.prepare, questions).to(self.model.device)
            found = project(padded_states(self.model.network, batch), self.model.head, self.label_ids)
            labels, total = found.labels.cpu().numpy(), found.log_total.cpu().numpy()
            for number, (row, question) in enumerate(zip(rows, questions)):
                logits[row, : len(question.options)] = labels[number, : len(question.options)]
                losses[row] = total[number] - labels[number, LETTERS.index(question.answer)]
        y = self._gold()
        calibration = fit_temperature(logits, y)
        return Validation(
            epoch,
            float(losses.mean()),
            float((np.nanargmax(logits, 1) == y).mean()),
            nll(logits, y),
            calibration,
            logits,
        )

    def _gold(self) -> np.ndarray:
        return np.array([LETTERS.index(question.answer) for question in self.valid])

    # ------------------------------------------------------------ what is kept
    def _keep(self, results: list[Validation]) -> None:
        """The folder as it is after this epoch: adapter of the best one, its manifest and calibration, all tables."""
        best = _best(results)
        if best is results[-1]:
            base, revision = base_name(self.base, self.out), ""
            if not Path(self.base).is_dir():  # only a hub id has a revision; a folder's name may hold an @
                base, _, revision = base.partition("@")
            save_lora(self.peft, self.out, base)
            manifest = self._manifest(base, revision, best)
            write_text(self.out / MANIFEST, _json(asdict(manifest)))
            best.calibration.fingerprint = calibration_fingerprint(manifest, self.out / ADAPTER_FILE)
            write_text(self.out / CALIBRATION, _json(best.calibration.to_json()))
        rows = [["id", "gold", "pred", *(f"p_{letter}" for letter in self.letters), "epoch"]]
        for result in results:
            for question, p in zip(self.valid, np.exp(log_probabilities(result.logits))):
                rows.append(
                    [
                        question.id,
                        question.answer,
                        self.letters[int(np.nanargmax(p))],
                        *("" if np.isnan(value) else f"{value:.6f}" for value in p),
                        str(result.epoch),
                    ]
                )
        write_csv(self.out / "validation.csv", rows)

    def _manifest(self, base: str, revision: str, best: Validation) -> Manifest:
        policy = self.prepare.policy
        return Manifest(
            base=base,
            revision=revision or None,
            base_fingerprint=base_fingerprint(self.folder),
            template=asdict(self.prepare.template),
            letters=self.letters,
            pixels={"min_pixels": policy.min_pixels, "max_pixels": policy.max_pixels},
            quantization=self.model.quantization,
            dtype=str(self.model.dtype).removeprefix("torch."),
            data=self.data | {"train_rows": len(self.train), "valid_rows": len(self.valid)},
            training=asdict(self.config),
            versions=scoring.versions(),
            metrics={
                "epoch": best.epoch,
                "loss": best.loss,
                "accuracy": best.accuracy,
                "nll": best.nll,
                "nll_calibrated": best.calibrated_nll,
                "temperature": best.calibration.temperature,
            },
        )


def tensorboard(out: Path) -> "SummaryWriter":
    """Where TensorBoard finds the scalars of the training into `out`."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(out / "tensorboard")


def base_name(base: str, out: Path) -> str:
    """How a checkpoint names its base: a hub id as it is; a folder relative to the checkpoint where both lie in the
    working directory, so that they can be moved together; else in full."""
    if not Path(base).is_dir():
        return base
    folder, here = Path(base).resolve(), Path.cwd()
    together = folder.is_relative_to(here) and out.resolve().is_relative_to(here)
    return os.path.relpath(folder, out.resolve()) if together else str(folder)


def _best(results: list[Validation]) -> Validation:
    """The lowest validation NLL after calibration; the earlier epoch where two are equal."""
    return min(results, key=lambda result: result.calibrated_nll)


def _json(values: dict) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
