"""A weighted average of adapters as one adapter, exactly: their factors side by side, of the rank of all together.

Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁ s₁ B₁, w₂ s₂ B₂, …] · [A₁; A₂; …], with PEFT's scaling 1 (alpha = rank).
"""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE, names_of
from scoring.checkpoints.checkpoint import MANIFEST, Checkpoint, base_name
from scoring.checkpoints.plan import read_sound
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint
from scoring.files.reading import read_json
from scoring.files.writing import write_json, write_whole
from scoring.scores.exposure import TRAINING, read_rows, write_rows
from scoring.stats.pools import parse_weights


def soup(names: list[str], out: Path, weights: list[float] | None = None, base: str | None = None) -> list[str]:
    """Write the average of the checkpoints' adapters into the folder `out`; what there is to say about it.

    A folder of folds stands for its folds. weights: one for each, equal where not given; they need not sum to 1. base:
    in place of the one that they name. Raises CheckpointError with the reason where the adapters cannot be averaged:
    other bases, prompts, or layers.
    """
    checkpoints, folders = read_sound(names, base)
    weights = list(weights or [1 / len(checkpoints)] * len(checkpoints))
    if len(checkpoints) < 2 or len(weights) != len(checkpoints):
        raise CheckpointError(f"{len(checkpoints)} checkpoints, {len(weights)} weights; expected two or more, one each")
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} holds files already; choose another --out")
    first = checkpoints[0]
    for other, folder in zip(checkpoints, folders):
        _must_match(first, other, [base_fingerprint(folders[0]), base_fingerprint(folder)])
    factors = [_factors(checkpoint, BaseWeights.of(folder)) for checkpoint, folder in zip(checkpoints, folders)]
    layers = sorted(set().union(*factors))
    tensors, ranks = {}, {}
    for layer in layers:
        parts = [(weight, found[layer]) for weight, found in zip(weights, factors) if layer in found]
        down = torch.cat([down for _, (down, _) in parts])
        tensors[f"base_model.model.{layer}.lora_A.weight"] = down.contiguous()
        up = torch.cat([up * weight for weight, (_, up) in parts], 1)
        tensors[f"base_model.model.{layer}.lora_B.weight"] = up.contiguous()
        ranks[layer] = len(down)
    rank = max(ranks.values())
    config = read_json(first.folder / ADAPTER_CONFIG) | {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": {layer: each for layer, each in ranks.items() if each != rank},
        "alpha_pattern": {layer: each for layer, each in ranks.items() if each != rank},
        "target_modules": layers,
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "init_lora_weights": True,
        "base_model_name_or_path": base_name(str(folders[0]), out),
    }
    out.mkdir(parents=True, exist_ok=True)
    data = save(tensors, {"format": "pt"})
    write_whole(out / ADAPTER_FILE, lambda file: file.write(data))
    write_json(out / ADAPTER_CONFIG, config)
    told = [
        {"folder": str(found.folder), "adapter": found.fingerprint(), "weight": weight}
        for found, weight in zip(checkpoints, weights)
    ]
    manifest = replace(
        first.manifest, base=config["base_model_name_or_path"], metrics={}, training={"soup": told}, data={}
    )
    write_json(out / MANIFEST, asdict(manifest))
    _keep_rows([found.folder for found in checkpoints], out)
    parts = ", ".join(f"{weight:.2f} × {found.name}" for weight, found in zip(weights, checkpoints))
    return [
        f"{len(layers)} layers, rank {rank}: {parts}",
        "no calibration: the members' temperatures are not the soup's. Score labelled rows with it, and `calibrate`",
    ]


def _keep_rows(folders: list[Path], out: Path) -> None:
    """The rows that any of the adapters was made from, where all keep a record of theirs: the average has met them."""
    records = [read_rows(folder) for folder in folders]
    if any(record is None for record in records):
        return
    flags: dict[str, int] = {}
    for record in records:
        for digest, part in record.items():
            flags[digest] = flags.get(digest, 0) | part
    training = [digest for digest, part in flags.items() if part & TRAINING]
    write_rows(out, training, [digest for digest, part in flags.items() if not part & TRAINING])


def _must_match(first: Checkpoint, other: Checkpoint, bases: list[str]) -> None:
    """CheckpointError, naming the field and both values, where two adapters were made for different things."""
    if first.adapter is None or other.adapter is None:
        whole = next(found.folder for found in (first, other) if found.adapter is None)
        raise CheckpointError(f"{whole}: a whole model; expected adapters over one base")
    fields = {
        "base": bases,
        "template": [found.manifest.prompt.fingerprint for found in (first, other)],
        "letters": [found.manifest.letters for found in (first, other)],
    }
    for name, (ours, theirs) in fields.items():
        if ours != theirs:
            raise CheckpointError(
                f"{other.folder}: {name} is {theirs}, but {first.folder} has {ours}; they cannot be averaged"
            )
    if other.adapter.use_dora:
        raise CheckpointError(f"{other.folder}: DoRA cannot be averaged exactly; expected LoRA")


def _factors(checkpoint: Checkpoint, base: BaseWeights) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer of the base -> A (R, K), B (N, R) times its scaling, in float32."""
    keys = checkpoint.check(base).keys
    tensors, factors = load_file(checkpoint.folder / ADAPTER_FILE), {}
    key_of = {located: key for key, located in keys.items()}
    for (layer, part), key in key_of.items():
        if part == "lora_A.weight":
            down, up = tensors[key].float(), tensors[key_of[layer, "lora_B.weight"]].float()
            factors[layer] = down, up * checkpoint.adapter.scaling(*names_of(layer, key))
    return factors


def given_weights(text: str | None, count: int) -> list[float] | None:
    """Numbers separated by commas, one for each of `count`; None where none are given. Raises CheckpointError."""
    if not text:
        return None
    if found := parse_weights(text, count):
        return found
    raise CheckpointError(f"weights {text!r}: expected {count} numbers separated by commas")
