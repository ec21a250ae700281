"""A weighted average of adapters as one adapter, exactly: their factors side by side, of the rank of all together.

Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁ s₁ B₁, w₂ s₂ B₂, …] · [A₁; A₂; …], with PEFT's scaling 1 (alpha = rank).
"""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save

from scoring.engine.adapter import alpha_of
from scoring.engine.checkpoint import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    MANIFEST,
    Checkpoint,
    CheckpointError,
    base_fingerprint,
    base_name,
    read_checkpoint,
)
from scoring.results.ensemble import parse_weights
from scoring.results.exposure import TRAINING, read_rows, write_rows
from scoring.results.files import write_json, write_whole

SAME = ("peft_type", "bias", "use_dora", "fan_in_fan_out", "modules_to_save")  # of adapter_config.json


def soup(names: list[str], out: Path, weights: list[float] | None = None) -> list[str]:
    """Write the average of the checkpoints' adapters into the folder `out`; what there is to say about it.

    weights: one for each, equal where not given; they need not sum to 1. Raises CheckpointError with the reason where
    the adapters cannot be averaged: other bases, prompts, or layers.
    """
    checkpoints = [read_checkpoint(name) for name in names]
    weights = list(weights or [1 / len(names)] * len(names))
    if len(checkpoints) < 2 or len(weights) != len(checkpoints):
        raise CheckpointError(f"{len(checkpoints)} checkpoints, {len(weights)} weights; expected two or more, one each")
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} holds files already; choose another --out")
    first = checkpoints[0]
    for other in checkpoints:
        _must_match(first, other)
    factors = [_factors(checkpoint) for checkpoint in checkpoints]
    layers = sorted(set().union(*factors))
    tensors, ranks = {}, {}
    for layer in layers:
        parts = [(weight, found[layer]) for weight, found in zip(weights, factors) if layer in found]
        shapes = {(down.shape[1], up.shape[0]) for _, (down, up) in parts}
        if len(shapes) > 1:
            raise CheckpointError(f"{layer}: shapes {sorted(shapes)} differ between the checkpoints")
        down = torch.cat([down for _, (down, _) in parts])
        tensors[f"{layer}.lora_A.weight"] = down.contiguous()
        tensors[f"{layer}.lora_B.weight"] = torch.cat([up * weight for weight, (_, up) in parts], 1).contiguous()
        ranks[layer.removeprefix("base_model.model.")] = len(down)
    rank = max(ranks.values())
    config = dict(first.adapter) | {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": {layer: own for layer, own in ranks.items() if own != rank},
        "alpha_pattern": {layer: own for layer, own in ranks.items() if own != rank},
        "target_modules": sorted({layer.split(".")[-1] for layer in ranks}),
        "base_model_name_or_path": base_name(str(first.base_folder()), out),
    }
    out.mkdir(parents=True, exist_ok=True)
    data = save(tensors, {"format": "pt"})
    write_whole(out / ADAPTER_FILE, lambda file: file.write(data))
    write_json(out / ADAPTER_CONFIG, config)
    told = [
        {"folder": name, "adapter": found.fingerprint(), "weight": w}
        for name, found, w in zip(names, checkpoints, weights)
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


def _must_match(first: Checkpoint, other: Checkpoint) -> None:
    """CheckpointError, naming the field and both values, where two adapters were made for different things."""
    if first.adapter is None or other.adapter is None:
        whole = next(found.folder for found in (first, other) if found.adapter is None)
        raise CheckpointError(f"{whole}: a whole model; expected adapters over one base")
    fields = {
        "base": [base_fingerprint(found.base_folder()) for found in (first, other)],
        "template": [found.manifest.prompt.fingerprint for found in (first, other)],
        "letters": [found.manifest.letters for found in (first, other)],
        **{name: [found.adapter.get(name) or None for found in (first, other)] for name in SAME},
    }
    for name, (ours, theirs) in fields.items():
        if ours != theirs:
            raise CheckpointError(
                f"{other.folder}: {name} is {theirs}, but {first.folder} has {ours}; they cannot be averaged"
            )
    if other.adapter.get("use_dora") or other.adapter.get("modules_to_save"):
        raise CheckpointError(f"{other.folder}: DoRA or whole modules beside the LoRA cannot be averaged exactly")


def _factors(checkpoint: Checkpoint) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """layer -> (A (R, K), B (N, R) times its scaling), in float32."""
    config, tensors = checkpoint.adapter, load_file(checkpoint.folder / ADAPTER_FILE)
    found = {}
    for key, down in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        layer = key.removesuffix(".lora_A.weight")
        rank, alpha = len(down), alpha_of(config, layer)
        scale = alpha / (np.sqrt(rank) if config.get("use_rslora") else rank)
        found[layer] = (down.float(), tensors[f"{layer}.lora_B.weight"].float() * float(scale))
    if len(found) * 2 != len(tensors):
        odd = sorted(key for key in tensors if ".lora_A.weight" not in key and ".lora_B.weight" not in key)
        raise CheckpointError(
            f"{checkpoint.folder}: {json.dumps(odd[:5])} are no LoRA factors; they cannot be averaged"
        )
    return found


def given_weights(text: str | None, count: int) -> list[float] | None:
    """Numbers separated by commas, one for each of `count`; None where none are given. Raises CheckpointError."""
    if not text:
        return None
    if found := parse_weights(text, count):
        return found
    raise CheckpointError(f"weights {text!r}: expected {count} numbers separated by commas")
