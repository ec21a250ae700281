"""The adapter: added to the base with PEFT, and written as a plain PEFT folder."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from scoring.checkpoints.weights import BaseWeights, stored_bits
from scoring.inputs.families.family import HEAD, Family
from train.config import SEVEN_PROJECTIONS, ConfigError, TrainConfig

FEED_FORWARD = SEVEN_PROJECTIONS[4:]

if TYPE_CHECKING:
    from peft import PeftModel


def check_choices(base: Path, config: TrainConfig) -> None:
    """Raises ConfigError where a training of that base would make an adapter that cannot be scored. Loads nothing.

    In a mixture of experts the projections of the feed-forward are no linear layers: their names are ignored.
    """
    weights = BaseWeights.of(base)
    mixture = weights.family.is_mixture(weights.config)
    stored, linear = stored_bits(base), set(weights.linear)
    modules = [
        name.removesuffix(".weight")
        for name in weights.shapes
        if name.endswith(".weight") and weights.family.experts not in name
    ]
    faults = []
    for target in weights.family.targets(config.targets):
        matches = [name for name in modules if f".{name}".endswith(f".{target}")]
        if others := [name for name in matches if name not in linear]:
            faults.append(f"{target} means {others[0]}, which is no linear layer and cannot have an adapter here")
        elif not matches and not (mixture and target in FEED_FORWARD):
            faults.append(f"{target} is no layer of {base}")
    if faults:
        raise ConfigError(f"targets: {'; '.join(faults)}; expected names of linear layers, such as q_proj or lm_head")
    if stored and config.quantization == "none":
        raise ConfigError(
            f"quantization: found none, but the weights of {base} are in 4 bits ({stored}) already; leave it out, or "
            "name the model in 16 bits with --base"
        )


def present_targets(network: Any, targets: Sequence[str]) -> list[str]:
    """Those that name a module of the network."""
    modules = [f".{name}" for name, _ in network.named_modules()]
    return [target for target in targets if any(name.endswith(f".{target}") for name in modules)]


def target_modules(modules: list[str], targets: list[str], family: Family) -> list[str] | str:
    """What PEFT is told to put adapters on: a name means layers of the language model, or others where it has none.

    The targets themselves where they say that already; else an expression that names the language model. modules: the
    names of all of the network's.
    """

    def named(target: str, inside: bool) -> bool:
        return any(
            f".{name}".endswith(f".{target}") and inside == (name.startswith(family.language) or name == HEAD)
            for name in modules
        )

    within = [target for target in targets if named(target, inside=True)]
    if not any(named(target, inside=False) for target in within):
        return targets
    outside = [target for target in targets if target not in within]
    choices = [rf"(?:{re.escape(family.language)}(?:.*\.)?)?(?:{'|'.join(map(re.escape, within))})"]
    if outside:
        choices.append(rf"(?:.*\.)?(?:{'|'.join(map(re.escape, outside))})")
    return "|".join(choices)


def add_lora(network: Any, config: TrainConfig, family: Family) -> "PeftModel":
    """Trainable float32 LoRA layers on the named linear layers; the base stays frozen. Raises ConfigError.

    PEFT's own preparation for 4-bit training is not used: it casts the rest of the base to float32 and shifts
    the logits by 0.1.
    """
    from peft import LoraConfig, get_peft_model  # imports bitsandbytes, which `why_no_4bit` must do first

    present = present_targets(network, family.targets(config.targets))
    if not present:
        raise ConfigError(
            f"targets: found {', '.join(config.targets)}; expected names of linear layers, such as q_proj"
        )
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        bias="none",
        target_modules=target_modules([name for name, _ in network.named_modules()], present, family),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(network, lora)


def save_lora(model: "PeftModel", folder: Path, base: str) -> None:
    """Write adapter and configuration, each into a hidden folder first. base: its name in the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / ".saving"
    shutil.rmtree(hidden, ignore_errors=True)
    model.save_pretrained(str(hidden), safe_serialization=True, save_embedding_layers=False)
    config = json.loads((hidden / ADAPTER_CONFIG).read_text())
    config["base_model_name_or_path"] = base
    if isinstance(config["target_modules"], list):  # a set in PEFT: its order changes from run to run
        config["target_modules"] = sorted(config["target_modules"])
    (hidden / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in (ADAPTER_FILE, ADAPTER_CONFIG):
        os.replace(hidden / name, folder / name)
    shutil.rmtree(hidden)
