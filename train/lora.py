"""The adapter: put on the base with PEFT, and written as a plain PEFT folder."""

import json
import os
import shutil
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model

from scoring.engine.checkpoint import ADAPTER_CONFIG, ADAPTER_FILE
from train.config import TrainConfig


def add_lora(network, config: TrainConfig) -> PeftModel:
    """Trainable float32 LoRA layers on the text model's projections; the base stays frozen.

    PEFT's own preparation for 4-bit training is not used: it casts the rest of the base to float32 and shifts
    the logits by 0.1.
    """
    return get_peft_model(
        network,
        LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            lora_dropout=config.dropout,
            bias="none",
            target_modules=list(config.targets),
            task_type="CAUSAL_LM",
        ),
    )


def save_lora(model: PeftModel, folder: Path, base: str) -> None:
    """Adapter and configuration, each written beside and renamed. `base` is the name that the configuration tells."""
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
