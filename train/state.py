"""What the steps of a training change, and the file from which a killed training resumes."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scoring.errors import ScoringError
from scoring.files.differences import changed, describe
from scoring.files.writing import write_whole
from train.config import TrainConfig
from train.folder import REMEDY, ROW_KEYS, STATE, read_fault
from train.model import LearningModel, average
from train.validation import LabelLogits, Validation


class StateError(ScoringError):
    """A saved state of another training, or a damaged one."""


@dataclass(frozen=True)
class SavedState:
    """Everything that the next step depends on: tensors, and values that JSON can hold."""

    tensors: dict[str, torch.Tensor]
    values: dict[str, Any]


# ------------------------------------------------------------------ the file
def write_state(folder: Path, state: SavedState) -> None:
    """Write the state, replacing the last one only once it is complete."""
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
    data = save(tensors, {"state": json.dumps(state.values)})
    write_whole(folder / STATE, lambda file: file.write(data))


def read_state(folder: Path, identity: dict[str, Any]) -> SavedState | None:
    """The saved state of the training with this identity; None where there is none to resume from.

    Raises StateError where it is another training's, naming what differs.
    """
    values = check_state(folder, identity)
    if values is None:
        return None
    with _opened(folder / STATE) as file:
        return SavedState({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118 no dict


def check_state(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The values of the saved state, without reading its tensors; see `read_state`.

    None also where an unusable row stopped the training and the rows have changed since: it starts anew.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with _opened(path) as file:
        values: dict[str, Any] = json.loads(file.metadata()["state"])
        before = values["identity"]
    changes = changed(before, identity, sorted({*identity, *before}))
    if changes and changes.keys() <= set(ROW_KEYS) and read_fault(folder) is not None:
        return None
    if changes:
        raise StateError(f"{folder} holds an unfinished training with other choices: {describe(changes)}. {REMEDY}")
    return values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open safetensors file. Raises StateError where it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: {error}; it is damaged: start anew with --overwrite") from None


# ------------------------------------------------------------------ the state itself
@dataclass(frozen=True)
class Update:
    """One update of the weights: the learning rate it was done with, and the norm of the gradient before clipping."""

    learning_rate: float
    gradient_norm: float


class TrainingState:
    """Weights, optimizer, schedule, averages, and how far the training is.

    step, rows_done: optimizer steps and rows so far, over all epochs. results: of each epoch that is finished.
    averages: the moving average of each weight; none without `ema`.
    """

    def __init__(self, model: LearningModel, config: TrainConfig, total_steps: int):
        from transformers import get_scheduler  # imports bitsandbytes, which `why_no_4bit` must do first

        self.config, self.weights, self.scaler = config, model.weights, model.scaler
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=model.model.device.type == "cuda",
        )
        schedule = "constant_with_warmup" if config.schedule == "constant" else config.schedule
        self.schedule = get_scheduler(schedule, self.optimizer, int(total_steps * config.warmup), total_steps)
        self.averages = [weight.detach().clone() for weight in self.weights] if config.ema else []
        self.step = self.rows_done = 0
        self.results: list[Validation] = []

    def update(self, rows: int) -> Update:
        """Update the weights by their gradients. rows: of the step."""
        learning_rate = self.schedule.get_last_lr()[0]
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.config.clip or torch.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averages:
            average(self.averages, self.weights, self.config.ema, self.step)
        self.step, self.rows_done = self.step + 1, self.rows_done + rows
        return Update(learning_rate, norm.item())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the weights are their moving averages, where there are any."""
        self._swap_averages()
        try:
            yield
        finally:
            self._swap_averages()

    def _swap_averages(self) -> None:
        for weight, mean in zip(self.weights, self.averages):
            weight.data, mean.data = mean.data, weight.data

    def save(self) -> SavedState:
        """A copy of everything as it is now, in main memory, for `restore`."""
        tensors = {
            f"{key}.{index}": value.detach().cpu()  # AdamW's moments and step counts
            for index, weight in enumerate(self.weights)
            for key, value in self.optimizer.state[weight].items()
        }
        tensors |= {f"weight.{index}": weight.detach().cpu() for index, weight in enumerate(self.weights)}
        tensors |= {f"average.{index}": mean.detach().cpu() for index, mean in enumerate(self.averages)}
        for result in self.results:
            arrays = result.scores.arrays.items()
            tensors |= {f"{result.epoch}.{name}": torch.from_numpy(array) for name, array in arrays}
        values = {
            "step": self.step,
            "rows_done": self.rows_done,
            "results": [result.to_json() for result in self.results],
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        return SavedState(tensors, values)

    def restore(self, saved: SavedState) -> None:
        """Set everything as it was when `saved` was made."""
        tensors, values = saved.tensors, saved.values
        for kind, targets in (("weight", self.weights), ("average", self.averages)):
            for index, target in enumerate(targets):
                target.data.copy_(tensors[f"{kind}.{index}"])
        self._restore_optimizer(tensors)
        self.schedule.load_state_dict(values["schedule"])
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr()):
            group["lr"] = rate
        self.scaler.load_state_dict(values["scaler"])
        self.step, self.rows_done = values["step"], values["rows_done"]
        for result in values["results"]:
            arrays = {name: tensors[f"{result['epoch']}.{name}"].numpy() for name in LabelLogits.names()}
            self.results.append(Validation.from_json(result, LabelLogits(**arrays)))

    def _restore_optimizer(self, tensors: dict[str, torch.Tensor]) -> None:
        moments = {
            index: {key: tensors[f"{key}.{index}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for index in range(len(self.weights))
            if f"step.{index}" in tensors
        }
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
