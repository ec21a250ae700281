"""What a killed training goes on from: one file with everything the next step depends on, written whole."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scoring.errors import UserError
from scoring.files.writing import write_whole
from train.folder import ROW_KEYS, STATE, WAY_OUT, describe, differences, read_fault


class StateError(UserError):
    """A state of another training, or a damaged one."""


def write_state(folder: Path, tensors: dict[str, torch.Tensor], about: dict) -> None:
    """Tensors, and what JSON can hold."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"state": json.dumps(about)})
    write_whole(folder / STATE, lambda file: file.write(data))


def read_state(folder: Path, identity: dict) -> tuple[dict[str, torch.Tensor], dict] | None:
    """The state of this very training, or None where there is none to go on from.

    Raises StateError for another's, naming what differs.
    """
    about = check_state(folder, identity)
    if about is None:
        return None
    with _opened(folder / STATE) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 no dict


def check_state(folder: Path, identity: dict) -> dict | None:
    """What the state says besides its tensors, which are not read; as `read_state`.

    None also where a row that cannot be used stopped the training, and the rows are others now: it starts anew.
    """
    path = folder / STATE
    if not path.exists():
        return None
    with _opened(path) as file:
        about = json.loads(file.metadata()["state"])
        before = about["identity"]
    changed = differences(before, identity, sorted({*identity, *before}))
    if changed and changed.keys() <= set(ROW_KEYS) and read_fault(folder) is not None:
        return None
    if changed:
        raise StateError(f"{folder} holds an unfinished training with other choices: {describe(changed)}. {WAY_OUT}")
    return about


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    """The file, open. Raises StateError where it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: {error}; it is damaged: start anew with --overwrite") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, weights: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """AdamW's moments and step counts, by the number of the weight."""
    return {
        f"{key}.{at}": value.detach().cpu()
        for at, weight in enumerate(weights)
        for key, value in optimizer.state[weight].items()
    }


def restore_optimizer(optimizer, weights: list[torch.Tensor], tensors: dict[str, torch.Tensor]) -> None:
    state = {
        at: {key: tensors[f"{key}.{at}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for at in range(len(weights))
        if f"step.{at}" in tensors
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
