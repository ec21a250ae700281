"""A LoRA adapter's tensors, whoever wrote them: whether they fit a base, and their PEFT configuration. No torch.

An adapter gives the logits that PEFT would give, or is refused with the names of what does not fit. A tensor's name
says what it is, in every spelling that PEFT, LLaMA-Factory, ms-swift, Unsloth and wrappers of distributed training
have written.
"""

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from scoring.checkpoints.adapter_config import APPLIED, MERGE, AdapterConfig
from scoring.checkpoints.weights import (
    FLOATS,
    BaseWeights,
    CheckpointError,
    Floats,
    StoredTensor,
    first_names,
    read_header,
)
from scoring.files.reading import read_json
from scoring.inputs.families.family import HEAD, Family

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
UNKNOWN_MODULE = "no module of the base has that name"
LORA_A, LORA_B, MAGNITUDE = LORA_PARAMETERS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)(?=\.)")
# What a tensor that is no LoRA factor belongs to, by a piece of its name.
FOREIGN_NAMES = {
    "lora_embedding": "LoRA on embeddings",
    "lora_B.bias": "a bias of lora_B",
    "lora_E": "AdaLoRA",
    "ranknum": "AdaLoRA",
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "ia3_": "IA3",
    "oft_": "OFT",
    "boft_": "BOFT",
    "vera_": "VeRA",
    "randlora_": "RandLoRA",
    "prompt_embeddings": "prompt tuning",
    "modules_to_save": "modules saved whole",
    "token_adapter": "trained tokens",
    "trainable_tokens": "trained tokens",
}


# ------------------------------------------------------------------ the file, compared with its base
@dataclass
class AdapterCheck:
    """How an adapter's file fits a base. keys: each tensor's (module of the base, parameter); faults: what is wrong."""

    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def raise_for_faults(self, folder: Path) -> None:
        """Raises CheckpointError with all faults, if there are any."""
        if self.faults:
            raise CheckpointError(f"{folder / ADAPTER_FILE}: " + "; and ".join(self.faults))

    @property
    def modules(self) -> list[str]:
        """The layers with an adapter."""
        return sorted({module for module, _ in self.keys.values()})


def check_adapter(folder: Path, base: BaseWeights, config: AdapterConfig | None = None) -> AdapterCheck:
    """Compare an adapter's file with names and shapes of its base, and with its own configuration, where it is given.

    Reads the file's header and its values: they must be finite, and some in lora_B other than 0. Raises CheckpointError
    where the file cannot be read; what does not fit is in the result's `faults`.
    """
    tensors = read_header(folder / ADAPTER_FILE)
    keys, faults = _locate_tensors(tensors, base)
    if not faults:
        faults = _layer_faults(_layers(keys, tensors, base), base, config)
    if not faults and not any(
        tensors[key].read_values().any() for key, (_, parameter) in keys.items() if parameter == LORA_B
    ):
        faults = ["every lora_B is zero: the adapter does nothing; the training did not run, or was not saved"]
    return AdapterCheck(keys, faults)


def _locate_tensors(
    tensors: dict[str, StoredTensor], base: BaseWeights
) -> tuple[dict[str, tuple[str, str]], list[str]]:
    """`AdapterCheck.keys`, and faults: tensors that belong to no module of the base, or are damaged."""
    linear = set(base.linear)
    keys: dict[str, tuple[str, str]] = {}
    first_key: dict[tuple[str, str], str] = {}  # of several spellings of one tensor
    unknown: dict[str, list[str]] = {}
    damaged: dict[str, list[str]] = {}
    for key, tensor in tensors.items():
        location = locate_key(key, linear, base.family)
        if location is None:
            if not _is_base_weight(key, tensor, base):
                unknown.setdefault(_describe_foreign(key, base), []).append(key)
        elif location in first_key:
            damaged.setdefault("the same tensor in two spellings", []).append(f"{first_key[location]} and {key}")
        else:
            first_key[location], keys[key] = key, location
            if fault := _tensor_fault(tensor, location[1]):
                damaged.setdefault(fault, []).append(f"{key} {list(tensor.shape)}")
    faults = []
    for description, names in unknown.items():
        remedy = MERGE if description != UNKNOWN_MODULE else "expected LoRA weights made for this base"
        faults.append(f"{_list_keys(names)}: {description}; {remedy}")
    return keys, faults + [f"{_list_keys(names)}: {fault}" for fault, names in damaged.items()]


def _tensor_fault(tensor: StoredTensor, parameter: str) -> str:
    """What is wrong with a tensor by itself; "" where nothing is."""
    if tensor.dtype not in FLOATS:
        return f"stored as {tensor.dtype}; expected BF16, F16 or F32"
    if not tensor.shape or 0 in tensor.shape:
        return "empty, as ZeRO-3 leaves weights that were not gathered; gather them, and save the adapter again"
    if len(tensor.shape) != (1 if parameter == MAGNITUDE else 2):
        return "flattened, as FSDP leaves weights that were not gathered; gather them, and save the adapter again"
    finite = np.isfinite(tensor.read_values()).all()
    return "" if finite else "NaN or infinite values; the training diverged: take an earlier checkpoint"


@dataclass
class _Layer:
    """The adapter of one linear layer: its tensors and their keys in the file, each by its parameter."""

    module: str
    outputs: int  # of the base's layer
    inputs: int
    keys: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, StoredTensor] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether both factors are in the file."""
        return LORA_A in self.keys and LORA_B in self.keys

    @property
    def factors_fit(self) -> bool:
        """Whether both factors are in the file, with shapes that fit each other and the base's layer."""
        if not self.complete:
            return False
        (rank, inputs), (outputs, columns) = self.tensors[LORA_A].shape, self.tensors[LORA_B].shape
        return (outputs, inputs) == (self.outputs, self.inputs) and rank == columns

    @property
    def names(self) -> tuple[str, ...]:
        """The layer's names that the configuration's patterns are matched with."""
        return names_of(self.module, self.keys[LORA_A])

    def describe(self, *parameters: str) -> list[str]:
        """Keys and shapes of these parameters, for a message."""
        return [f"{self.keys[parameter]} {list(self.tensors[parameter].shape)}" for parameter in parameters]


def _layers(keys: dict[str, tuple[str, str]], tensors: dict[str, StoredTensor], base: BaseWeights) -> list[_Layer]:
    """The layers with an adapter, in the file's order. keys: see `AdapterCheck`."""
    layers: dict[str, _Layer] = {}
    for key, (module, parameter) in keys.items():
        outputs, inputs = base.shapes[f"{module}.weight"]
        layer = layers.setdefault(module, _Layer(module, outputs, inputs))
        layer.keys[parameter], layer.tensors[parameter] = key, tensors[key]
    return list(layers.values())


def _layer_faults(layers: list[_Layer], base: BaseWeights, config: AdapterConfig | None) -> list[str]:
    """Shapes that do not fit the base, layers that lack a factor, and contradictions to the configuration."""
    faults = _shape_faults(layers)
    if config is None:
        return faults
    faults += _setting_faults(layers, config)
    if not faults:
        faults = _missing_layers(layers, base, config)
    return faults + _dora_faults(layers, config)


def _shape_faults(layers: list[_Layer]) -> list[str]:
    shapes: list[str] = []
    for layer in layers:
        if layer.complete and not layer.factors_fit:
            shapes += layer.describe(LORA_A, LORA_B)
        elif layer.complete and MAGNITUDE in layer.keys and layer.tensors[MAGNITUDE].shape != (layer.outputs,):
            shapes += layer.describe(MAGNITUDE)
    faults = []
    if shapes:
        faults.append(
            f"{_list_keys(shapes)} have another shape than the base's; expected LoRA weights made for this base"
        )
    if incomplete := [next(iter(layer.keys.values())) for layer in layers if not layer.complete]:
        faults.append(
            f"{_list_keys(incomplete)} lack their lora_A or lora_B; the file is not complete: save the adapter again"
        )
    return faults


def _setting_faults(layers: list[_Layer], config: AdapterConfig) -> list[str]:
    """Ranks and layers that are not those of the configuration."""
    ranks: list[str] = []
    untargeted: list[str] = []
    for layer in layers:
        if not layer.factors_fit:
            continue
        if layer.tensors[LORA_A].shape[0] != config.rank(*layer.names):
            ranks += layer.describe(LORA_A)
        if not config.targets(*layer.names):
            untargeted.append(layer.keys[LORA_A])
    faults = []
    if ranks:
        faults.append(
            f"{_list_keys(ranks)} have another rank than {ADAPTER_CONFIG} says; expected files of one adapter"
        )
    if untargeted:
        faults.append(
            f"{_list_keys(untargeted)} belong to layers that target_modules in {ADAPTER_CONFIG} does not name; "
            "expected files of one adapter"
        )
    return faults


def _missing_layers(layers: list[_Layer], base: BaseWeights, config: AdapterConfig) -> list[str]:
    """Layers of the base that the configuration names and the file lacks."""
    present = {layer.module for layer in layers}
    missing = [name for name in base.linear if name not in present and config.targets(name)]
    if not missing:
        return []
    return [
        f"{_list_keys(missing)} have no adapter in the file, but target_modules in {ADAPTER_CONFIG} names them; "
        "the file is not complete: save the adapter again"
    ]


def _dora_faults(layers: list[_Layer], config: AdapterConfig) -> list[str]:
    """Magnitudes without use_dora, use_dora without magnitudes, and DoRA on the head."""
    magnitudes = [layer.keys[MAGNITUDE] for layer in layers if MAGNITUDE in layer.keys]
    if not config.use_dora:
        if not magnitudes:
            return []
        return [f"{_list_keys(magnitudes)} belong to DoRA, but use_dora is not set in {ADAPTER_CONFIG}"]
    faults = []
    if without := [layer.module for layer in layers if MAGNITUDE not in layer.keys]:
        faults.append(
            f"{_list_keys(without)} lack their lora_magnitude_vector, but use_dora is set; save the adapter again"
        )
    if any(layer.module == HEAD for layer in layers):
        faults.append(f"DoRA on {HEAD} is not supported; {MERGE}")
    return faults


def names_of(module: str, key: str) -> tuple[str, ...]:
    """The names of a layer that patterns are matched with: that in its tensor `key`, if it differs, and the base's."""
    return tuple(dict.fromkeys((_split_key(key)[0], module)))


def _list_keys(keys: list[str]) -> str:
    return (f"{len(keys)} keys: " if len(keys) > 1 else "") + first_names(keys)


def locate_key(key: str, linear: Collection[str], family: Family) -> tuple[str, str] | None:
    """(linear layer of the base, parameter) that an adapter's key means, whoever wrote it; None for other tensors.

    Known spellings: PEFT's `base_model.model.` with or without an adapter name before `weight`; text-only and
    older names without `language_model`, or with it in another place (transformers before 4.52, LLaMA-Factory,
    ms-swift, Unsloth); the prefixes of DataParallel, torch.compile, FSDP and activation checkpointing.
    """
    module, parameter = _split_key(key)
    if parameter not in LORA_PARAMETERS:
        return None
    return next(((name, parameter) for name in _spellings(module, family) if name in linear), None)


def _split_key(key: str) -> tuple[str, str]:
    """A tensor's module in the file's spelling, without the prefixes of PEFT and wrappers, and its parameter."""
    name = WRAPPERS.sub("", key).lstrip(".").removeprefix("base_model.model.")
    name = re.sub(r"\.(lora_A|lora_B)\.(?!weight$|bias$)[^.]+\.(weight|bias)$", r".\1.\2", name)
    name = re.sub(r"\.lora_magnitude_vector(\..+)?$", ".lora_magnitude_vector", name)
    last = name.rpartition(".")[2]
    parameter = next((parameter for parameter in LORA_PARAMETERS if name.endswith(f".{parameter}")), last)
    return name[: -len(parameter) - 1], parameter


def _spellings(module: str, family: Family) -> tuple[str, ...]:
    """The names that a module of an adapter's file may have in the base."""
    text = re.sub(r"^(model\.)?(language_model\.)?(model\.)?(language_model\.)?layers\.", family.layers, module)
    visual = re.sub(r"^(model\.)?visual\.", f"{family.vision}.", module)
    head = re.sub(r"^(model\.|language_model\.)+lm_head$", HEAD, module)
    return module, text, visual, head, f"model.{module}"


def _is_base_weight(key: str, tensor: StoredTensor, base: BaseWeights) -> bool:
    """Whether a tensor is a weight of the base as the base has it: PEFT saves the head's beside a LoRA on it."""
    module, parameter = _split_key(key)
    if parameter != "weight" or tensor.dtype not in FLOATS:
        return False
    names = [f"{spelling}.weight" for spelling in _spellings(module, base.family)]
    if module == HEAD:
        names.append(base.family.embeddings)
    for name in names:
        stored = base.tensors.get(name)
        if stored and stored.dtype in FLOATS and stored.shape == tensor.shape:
            return bool(np.array_equal(tensor.read_values(), _rounded(stored.read_values(), tensor.dtype)))
    return False


def _rounded(values: Floats, dtype: str) -> Floats:
    """float32 values, rounded to a type of safetensors such as "BF16"."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":  # to the nearest, ties to even
        bits = values.astype(np.float32).view(np.uint32)
        return (bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000).view(np.float32)
    return values


def _describe_foreign(key: str, base: BaseWeights) -> str:
    """What a tensor that is no LoRA factor of a linear layer is, in words that follow its name."""
    for piece, method in FOREIGN_NAMES.items():
        if piece in key:
            return f"{method}: not supported"
    module, parameter = _split_key(key)
    if any(f"{name}.weight" in base.shapes for name in _spellings(module, base.family)):
        if parameter in LORA_PARAMETERS:
            return "LoRA on something other than a linear layer: not supported"
        if parameter in ("weight", "bias"):
            return f"{'trained biases' if parameter == 'bias' else 'modules saved whole'}: not supported"
    return UNKNOWN_MODULE


# ------------------------------------------------------------------ for PEFT, and fingerprints
def lora_config(config: AdapterConfig, check: AdapterCheck) -> "LoraConfig":
    """A PEFT configuration that names its modules in full, in the base's spelling."""
    from peft import LoraConfig

    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    for key, (module, parameter) in check.keys.items():
        if parameter == LORA_A:
            names = names_of(module, key)
            ranks[module], alphas[module] = config.rank(*names), config.alpha(*names)
    return LoraConfig(
        r=config.r,
        lora_alpha=cast(int, config.lora_alpha),  # PEFT divides it, whatever number it is
        lora_dropout=0.0,
        target_modules=sorted(ranks),
        inference_mode=True,
        use_rslora=bool(config.use_rslora),
        use_dora=bool(config.use_dora),
        rank_pattern={module: value for module, value in ranks.items() if value != config.r},
        alpha_pattern={module: value for module, value in alphas.items() if value != config.lora_alpha},
        task_type="CAUSAL_LM",
    )


def adapter_fingerprint(folder: Path) -> str:
    """16 hexadecimal digits of an adapter: of every byte of its weights, and of its configuration's arithmetic."""
    values = read_json(folder / ADAPTER_CONFIG) or {}
    settings = {name: values[name] for name in sorted(APPLIED - {"init_lora_weights"}) if values.get(name)}
    if isinstance(settings.get("target_modules"), list):
        settings["target_modules"] = sorted(settings["target_modules"])
    digest = hashlib.sha256((folder / ADAPTER_FILE).read_bytes())
    digest.update(json.dumps(settings, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def file_fingerprint(path: Path) -> str:
    """The first version of adapters' fingerprints, which old files record: 16 hexadecimal digits, of the weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
