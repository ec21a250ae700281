"""A weighted average of adapters as one adapter, exactly: their factors side by side, of the rank of all together.

Σ wᵢ sᵢ Bᵢ Aᵢ = [w₁ s₁ B₁, w₂ s₂ B₂, …] · [A₁; A₂; …], with PEFT's scaling 1 (alpha = rank).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE, LORA_A, LORA_B, names_of
from scoring.checkpoints.checkpoint import MANIFEST, Checkpoint, base_name
from scoring.checkpoints.compatibility import read_sound
from scoring.checkpoints.weights import BaseWeights, CheckpointError, base_fingerprint
from scoring.files.reading import read_json
from scoring.files.writing import write_json, write_whole
from scoring.scores.exposure import TRAINING, read_rows, write_rows
from scoring.stats.pools import parse_weights


@dataclass(frozen=True)
class Ingredient:
    """One adapter of an average. base: the folder of its base."""

    checkpoint: Checkpoint
    base: Path
    weight: float

    def record(self) -> dict[str, Any]:
        """What the average's manifest says of it."""
        folder, adapter = str(self.checkpoint.folder), self.checkpoint.fingerprint()
        return {"folder": folder, "adapter": adapter, "weight": self.weight}


@dataclass(frozen=True)
class Factors:
    """One layer's adapter in float32. down: A (R, K); up: B (N, R) times the adapter's scaling."""

    down: torch.Tensor
    up: torch.Tensor


def soup(names: list[str], out: Path, weights: list[float] | None = None, base: str | None = None) -> list[str]:
    """Write the average of the checkpoints' adapters into the folder `out`; returns notes for the user.

    A folder of folds stands for its folds. weights: one for each, equal where not given; they need not sum to 1. base:
    in place of the one that they name. Raises CheckpointError with the reason where the adapters cannot be averaged:
    other bases, prompts, or layers.
    """
    ingredients = _read_ingredients(names, weights, base)
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} holds files already; choose another --out")
    for other in ingredients:
        _must_match(ingredients[0], other)
    layers = _average(ingredients)
    ranks = {layer: len(factors.down) for layer, factors in layers.items()}
    out.mkdir(parents=True, exist_ok=True)
    _write_adapter(out, layers, _config(ingredients[0], ranks, out))
    _write_manifest(out, ingredients)
    _write_rows([ingredient.checkpoint.folder for ingredient in ingredients], out)
    terms = ", ".join(f"{ingredient.weight:.2f} × {ingredient.checkpoint.name}" for ingredient in ingredients)
    return [
        f"{len(layers)} layers, rank {max(ranks.values())}: {terms}",
        "no calibration: the members' temperatures are not the soup's. Score labelled rows with it, and `calibrate`",
    ]


def _read_ingredients(names: list[str], weights: list[float] | None, base: str | None) -> list[Ingredient]:
    """Raises CheckpointError where there are not two or more checkpoints, with a weight for each."""
    checkpoints, folders = read_sound(names, base)
    weights = weights or [1 / len(checkpoints)] * len(checkpoints)
    if len(checkpoints) < 2 or len(weights) != len(checkpoints):
        raise CheckpointError(
            f"{len(checkpoints)} checkpoints, {len(weights)} weights; expected two or more, and a weight for each"
        )
    return [Ingredient(*ingredient) for ingredient in zip(checkpoints, folders, weights)]


def _must_match(first: Ingredient, other: Ingredient) -> None:
    """Raises CheckpointError, naming the field and both values, where two adapters cannot be averaged."""
    for checkpoint in (first.checkpoint, other.checkpoint):
        if checkpoint.adapter is None:
            raise CheckpointError(f"{checkpoint.folder}: a whole model; expected adapters over one base")
    expected, actual = _requirements(first), _requirements(other)
    for name, value in actual.items():
        if value != expected[name]:
            raise CheckpointError(
                f"{other.checkpoint.folder}: {name} is {value}, but {first.checkpoint.folder} has {expected[name]}; "
                "they cannot be averaged"
            )
    if other.checkpoint.adapter and other.checkpoint.adapter.use_dora:
        raise CheckpointError(f"{other.checkpoint.folder}: DoRA cannot be averaged exactly; expected LoRA")


def _requirements(ingredient: Ingredient) -> dict[str, str]:
    """What all adapters of an average must have in common."""
    manifest = ingredient.checkpoint.manifest
    return {
        "base": base_fingerprint(ingredient.base),
        "template": manifest.prompt.fingerprint,
        "letters": manifest.letters,
    }


def _average(ingredients: Sequence[Ingredient]) -> dict[str, Factors]:
    """The average's factors by layer of the base, in the order of names."""
    adapters = [_read_factors(ingredient) for ingredient in ingredients]
    layers: dict[str, Factors] = {}
    for layer in sorted(set[str]().union(*adapters)):
        terms = [
            (ingredient.weight, adapter[layer])
            for ingredient, adapter in zip(ingredients, adapters)
            if layer in adapter
        ]
        down = torch.cat([factors.down for _, factors in terms])
        up = torch.cat([factors.up * weight for weight, factors in terms], 1)
        layers[layer] = Factors(down.contiguous(), up.contiguous())
    return layers


def _read_factors(ingredient: Ingredient) -> dict[str, Factors]:
    """One adapter's factors by layer of the base."""
    checkpoint = ingredient.checkpoint
    config = checkpoint.require_adapter()
    tensors = load_file(checkpoint.folder / ADAPTER_FILE)
    keys = checkpoint.check(BaseWeights.of(ingredient.base)).keys
    key_of = {location: key for key, location in keys.items()}
    factors = {}
    for (layer, parameter), key in key_of.items():
        if parameter == LORA_A:
            up = tensors[key_of[layer, LORA_B]].float() * config.scaling(*names_of(layer, key))
            factors[layer] = Factors(tensors[key].float(), up)
    return factors


# ------------------------------------------------------------------ writing
def _config(first: Ingredient, ranks: dict[str, int], out: Path) -> dict[str, Any]:
    """The average's `adapter_config.json`: the first adapter's with ranks and layers of the average."""
    rank = max(ranks.values())
    other_ranks = {layer: layer_rank for layer, layer_rank in ranks.items() if layer_rank != rank}
    return (read_json(first.checkpoint.folder / ADAPTER_CONFIG) or {}) | {
        "r": rank,
        "lora_alpha": rank,
        "use_rslora": False,
        "rank_pattern": other_ranks,
        "alpha_pattern": other_ranks,
        "target_modules": list(ranks),
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "init_lora_weights": True,
        "base_model_name_or_path": base_name(str(first.base), out),
    }


def _write_adapter(out: Path, layers: dict[str, Factors], config: dict[str, Any]) -> None:
    tensors = {}
    for layer, factors in layers.items():
        tensors[f"base_model.model.{layer}.{LORA_A}"] = factors.down
        tensors[f"base_model.model.{layer}.{LORA_B}"] = factors.up
    data = save(tensors, {"format": "pt"})
    write_whole(out / ADAPTER_FILE, lambda file: file.write(data))
    write_json(out / ADAPTER_CONFIG, config)


def _write_manifest(out: Path, ingredients: Sequence[Ingredient]) -> None:
    first = ingredients[0]
    training = {"soup": [ingredient.record() for ingredient in ingredients]}
    base = base_name(str(first.base), out)
    manifest = replace(first.checkpoint.manifest, base=base, metrics={}, training=training, data={})
    write_json(out / MANIFEST, asdict(manifest))


def _write_rows(folders: Sequence[Path], out: Path) -> None:
    """Record for the average the rows that any of the adapters has met, if all of them have such a record."""
    flags: dict[str, int] = {}
    for folder in folders:
        record = read_rows(folder)
        if record is None:
            return
        for digest, flag in record.items():
            flags[digest] = flags.get(digest, 0) | flag
    training = [digest for digest, flag in flags.items() if flag & TRAINING]
    write_rows(out, training, [digest for digest, flag in flags.items() if not flag & TRAINING])


def given_weights(text: str | None, count: int) -> list[float] | None:
    """Numbers separated by commas, one for each of `count`; None where none are given. Raises CheckpointError."""
    if not text:
        return None
    if weights := parse_weights(text, count):
        return weights
    raise CheckpointError(f"weights {text!r}: expected {count} numbers separated by commas")
