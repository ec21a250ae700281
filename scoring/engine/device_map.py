"""A base that is too large for one card, over several: whole layers, which the cards work through in turn.

In: a base's folder and the cards' free memory. Out: which module goes to which card (`make_device_map`), and a loaded
network whose layers get their inputs on their own card (`move_inputs_to_layers`). Next: `loading`, which calls both.
"""

from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from scoring.checkpoints.weights import CheckpointError
from scoring.engine import Network
from scoring.engine.families.registry import parts_of
from scoring.inputs.families.registry import family_of

FOR_WEIGHTS = 0.8  # share of a card's free memory that weights may take
GIB = 2**30


def make_device_map(folder: Path, dtype: torch.dtype, four_bit: bool, free: dict[int, int]) -> dict[str, int]:
    """Module of the base -> card, for accelerate and transformers. The vision tower, the embeddings and each layer stay
    whole.

    four_bit: whether the linear layers that the family quantizes are in 4 bits; all others are in `dtype`. free: bytes
    of each card. Raises CheckpointError where the base does not fit.
    """
    import transformers
    from accelerate import infer_auto_device_map, init_empty_weights
    from accelerate.utils import CustomDtype, get_balanced_memory

    with init_empty_weights():
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
        auto_model: Any = getattr(transformers, family_of(folder).auto_model)
        network: Network = auto_model.from_config(config, dtype=dtype, trust_remote_code=False)
    network.tie_weights()
    parts = parts_of(network)
    unsplit = [*network._no_split_modules, *(type(module).__name__ for module in parts.seeing)]
    linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    in_4bit = {f"{name}.weight" for name in linear if four_bit and parts.family.is_quantized(name)}
    plain = {name: dtype for name, _ in network.named_parameters() if name not in in_4bit}
    room = {card: int(FOR_WEIGHTS * size) for card, size in free.items()}
    options: dict[str, Any] = {
        "no_split_module_classes": unsplit,
        "dtype": CustomDtype.INT4 if in_4bit else dtype,
        "special_dtypes": plain if in_4bit else {},
    }
    device_map: dict[str, Any] = infer_auto_device_map(
        network, get_balanced_memory(network, room, **options), **options
    )
    if "disk" in device_map.values() or "cpu" in device_map.values():
        device_map = infer_auto_device_map(network, room, **options)  # balanced, the last layers may find no room
    if outside := [module for module, device in device_map.items() if device in ("cpu", "disk")]:
        sizes = ", ".join(f"{size / GIB:.1f}" for size in free.values())
        raise CheckpointError(
            f"{folder}: {len(outside)} modules, such as {outside[0] or 'the whole'}, do not fit into the {sizes} GiB "
            "free on the cards; expected room for all of it: use more or larger cards, or --quantization nf4"
        )
    family = parts.family
    begins = f"{family.vision}." if family.vision else f"{family.layers}0."
    first = next(card for name, card in device_map.items() if not name or begins.startswith(f"{name}."))
    others = [f"{family.language}{name}" for name in ("embed_tokens", "rotary_emb")]
    return device_map | dict.fromkeys([*others, *([family.projector] if family.projector else [])], first)


def move_inputs_to_layers(network: Network) -> None:
    """Let each layer move its inputs to its own card, by one hook a layer.

    accelerate's hooks, which this removes, look into every module of a layer.
    """
    from accelerate.hooks import remove_hook_from_module
    from accelerate.utils import send_to_device

    def move(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        device = next(module.parameters()).device
        return send_to_device(args, device), send_to_device(kwargs, device, skip_keys=["deepstack", "picture_tokens"])

    remove_hook_from_module(network, recurse=True)
    language = parts_of(network).language
    for layer in (*language.layers, language.norm):
        layer.register_forward_pre_hook(move, with_kwargs=True)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be allocated: on a card including what PyTorch holds unused."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def devices_of(network: Network) -> list[torch.device]:
    """Where a network's weights are, in the order of the layers."""
    return list(dict.fromkeys(weight.device for weight in network.parameters()))
