"""A base that is too large for one card, laid over several: whole layers, which the cards work through in turn."""

from pathlib import Path

import torch
from torch import nn

from scoring.checkpoints.weights import CheckpointError

FOR_THE_WORK = 0.8  # share of a card's free memory that weights may take
GIB = 2**30


def place(folder: Path, dtype: torch.dtype, kept: list[str], four_bit: bool, free: dict[int, int]) -> dict[str, int]:
    """Part of the base -> card, for accelerate and transformers: the vision tower, the embeddings and each layer whole.

    kept: parts that are not quantised. free: bytes of each card. Raises CheckpointError where it does not fit.
    """
    from accelerate import infer_auto_device_map, init_empty_weights
    from accelerate.utils import CustomDtype, get_balanced_memory
    from transformers import AutoConfig, AutoModelForImageTextToText

    with init_empty_weights():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        network = AutoModelForImageTextToText.from_config(config, dtype=dtype, trust_remote_code=False)
    network.tie_weights()
    whole = [*network._no_split_modules, type(network.model.visual).__name__]
    linear = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    small = {name for name in linear if four_bit and not name.startswith(tuple(kept))}  # all else keeps its type
    plain = {name: dtype for name, _ in network.named_parameters() if name not in small}
    room = {card: int(FOR_THE_WORK * size) for card, size in free.items()}
    options = {
        "no_split_module_classes": whole,
        "dtype": CustomDtype.INT4 if small else dtype,
        "special_dtypes": plain if small else {},
    }
    found = infer_auto_device_map(network, get_balanced_memory(network, room, **options), **options)
    if "disk" in found.values() or "cpu" in found.values():
        found = infer_auto_device_map(network, room, **options)  # balanced, the last layers may find no room
    if outside := [part for part, device in found.items() if device in ("cpu", "disk")]:
        told = ", ".join(f"{size / GIB:.1f}" for size in free.values())
        raise CheckpointError(
            f"{folder}: {len(outside)} parts, such as {outside[0] or 'the whole'}, do not fit into the {told} GiB free "
            "on the cards; expected room for all of it: more or larger cards, or --quantization nf4"
        )
    first = found.get("model.visual", next(iter(found.values())))
    return found | {"model.language_model.embed_tokens": first, "model.language_model.rotary_emb": first}


def follow(network: nn.Module) -> None:
    """Let each layer get what it is given on its own card: accelerate's hooks, which look into every module of a
    layer, are taken off for one on each layer."""
    from accelerate.hooks import remove_hook_from_module
    from accelerate.utils import send_to_device

    def bring(module: nn.Module, args: tuple, kwargs: dict):
        device = next(module.parameters()).device
        return send_to_device(args, device), send_to_device(kwargs, device, skip_keys=["deepstack", "picture_tokens"])

    remove_hook_from_module(network, recurse=True)
    language = network.model.language_model
    for layer in (*language.layers, language.norm):
        layer.register_forward_pre_hook(bring, with_kwargs=True)


def cards(network: nn.Module) -> list[torch.device]:
    """Where its weights are, in the order of the layers."""
    return list(dict.fromkeys(weight.device for weight in network.parameters()))
