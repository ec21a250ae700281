"""What a killed training goes on from: one file with everything the next step depends on, written whole."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from scoring.results.files import write_whole
from train.folder import STATE


class StateError(ValueError):
    """A state of another training, or a damaged one."""


def write_state(folder: Path, tensors: dict[str, torch.Tensor], about: dict) -> None:
    """Tensors, and what JSON can hold."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"state": json.dumps(about)})
    write_whole(folder / STATE, lambda file: file.write(data))


def read_state(folder: Path, identity: dict) -> tuple[dict[str, torch.Tensor], dict] | None:
    """The state of this very training, or None. Raises StateError for another's, naming what differs."""
    path = folder / STATE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 no dict
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StateError(f"{path}: {error}; it is damaged: start anew with --overwrite") from None
    before = about["identity"]
    if changed := [key for key in sorted({*identity, *before}) if identity.get(key) != before.get(key)]:
        told = "; ".join(f"{key} was {before.get(key)}, now {identity.get(key)}" for key in changed)
        raise StateError(
            f"{folder} holds an unfinished training with other choices: {told}. "
            "Choose another --out, or start anew with --overwrite"
        )
    return tensors, about


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
