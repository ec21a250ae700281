"""A checkpoint's LoRA as a PEFT configuration, whoever wrote it; what is not supported is refused by name."""

import re

from scoring.engine.checkpoint import ADAPTER_FILE, AdapterCheck, Checkpoint, CheckpointError, read_header

# Settings of PEFT that change a LoRA's arithmetic and are not supported, by their names in adapter_config.json.
UNSUPPORTED = (
    "modules_to_save",
    "lora_bias",
    "trainable_token_indices",
    "use_qalora",
    "alora_invocation_tokens",
    "arrow_config",
    "target_parameters",
    "layer_replication",
    "fan_in_fan_out",
    "use_bdlora",
)


def alpha_of(config: dict, layer: str) -> float:
    """A layer's alpha by an `adapter_config.json`: of the first pattern that fits its name, else the common one."""
    patterns = (config.get("alpha_pattern") or {}).items()
    named = (value for pattern, value in patterns if re.fullmatch(rf"(.*\.)?({pattern})", layer))
    return next(named, config["lora_alpha"])


def lora_config(checkpoint: Checkpoint, check: AdapterCheck):
    """A PEFT configuration with the modules named in full, so that it means the same in whoever's folder.

    Ranks come from the tensors themselves; alphas from the configuration's patterns in the folder's own spelling.
    """
    from peft import LoraConfig

    found = checkpoint.adapter
    unsupported = [name for name in UNSUPPORTED if found.get(name)]
    if found.get("bias", "none") != "none":
        unsupported.append("bias")
    if unsupported:
        raise CheckpointError(
            f"{checkpoint.folder}: the adapter uses {', '.join(unsupported)}, which is not supported; "
            "merge it into a whole model and score that"
        )
    header = read_header(checkpoint.folder / ADAPTER_FILE)
    ranks, alphas = {}, {}
    for key, (module, part) in check.keys.items():
        if part == "lora_A.weight":
            ranks[module] = header[key]["shape"][0]
            own = re.sub(r"^base_model\.model\.|\.lora_A(\.[^.]+)?\.weight$", "", key)
            alphas[module] = alpha_of(found, own)
    rank, alpha = found["r"], found["lora_alpha"]
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        target_modules=sorted(ranks),
        inference_mode=True,
        use_rslora=bool(found.get("use_rslora")),
        use_dora=bool(found.get("use_dora")),
        rank_pattern={module: value for module, value in ranks.items() if value != rank},
        alpha_pattern={module: value for module, value in alphas.items() if value != alpha},
        task_type="CAUSAL_LM",
    )
