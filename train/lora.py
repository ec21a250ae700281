"""The adapter: put on the base with PEFT, and written as a plain PEFT folder."""

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.engine.checkpoint import ADAPTER_CONFIG, ADAPTER_FILE, MIXTURE
from train.config import SEVEN_PROJECTIONS, ConfigError, TrainConfig

FEED_FORWARD = SEVEN_PROJECTIONS[4:]

if TYPE_CHECKING:
    from peft import PeftModel


def add_lora(network, config: TrainConfig) -> "PeftModel":
    """Trainable float32 LoRA layers on the named linear layers; the base stays frozen. Raises ConfigError.

    In a mixture of experts the feed-forward's projections are no linear layers: those names are passed over.
    PEFT's own preparation for 4-bit training is not used: it casts the rest of the base to float32 and shifts
    the logits by 0.1.
    """
    from peft import LoraConfig, get_peft_model  # here: it imports bitsandbytes, which `why_no_4bit` must do first

    layers = [name for name, _ in network.named_modules()]
    missing = [name for name in config.targets if not any(f".{layer}".endswith(f".{name}") for layer in layers)]
    passed = FEED_FORWARD if network.config.model_type == MIXTURE else ()
    if foreign := [name for name in missing if name not in passed]:
        raise ConfigError(f"targets: found {', '.join(foreign)}; expected names of linear layers, such as q_proj")
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        use_rslora=config.rslora,
        bias="none",
        target_modules=[name for name in config.targets if name not in missing],
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(network, lora)
    except ValueError as error:  # PEFT's, where none is left, or one is not linear
        raise ConfigError(f"targets: found {', '.join(config.targets)}: {str(error).splitlines()[0]}") from None


def save_lora(model: "PeftModel", folder: Path, base: str) -> None:
    """Adapter and configuration, each written beside and renamed. `base` is the name that the configuration tells."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / ".saving"
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(beside, safe_serialization=True, save_embedding_layers=False)
    config = json.loads((beside / ADAPTER_CONFIG).read_text())
    config["base_model_name_or_path"] = base
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order changes from run to run
    (beside / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for name in (ADAPTER_FILE, ADAPTER_CONFIG):
        os.replace(beside / name, folder / name)
    shutil.rmtree(beside)
