"""A LoRA adapter, whoever wrote it: what its files say, whether it fits a base, and its PEFT configuration. No torch.

An adapter gives the logits that PEFT would give, or is refused by the name of what is not applied: its type, its
initialisation, a setting of its configuration, a tensor. A tensor's name says what it is, in every spelling that PEFT,
LLaMA-Factory, ms-swift, Unsloth and wrappers of distributed training have written.
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from scoring.checkpoints.weights import (
    EMBEDDINGS,
    FLOATS,
    BaseWeights,
    CheckpointError,
    Floats,
    StoredTensor,
    first_names,
    read_header,
)
from scoring.files.reading import read_json

if TYPE_CHECKING:
    from peft import LoraConfig

Number = TypeVar("Number", int, float)
ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
UNKNOWN_MODULE = "no module of the base has that name"
LORA_A, LORA_B, MAGNITUDE = LORA_PARAMETERS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
HEAD = "lm_head"
WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)(?=\.)")
MERGE = "merge it into a whole model with the tool that made it, and score that folder"

# Settings of adapter_config.json that are applied here:
APPLIED = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules"}
APPLIED |= {"layers_to_transform", "layers_pattern", "exclude_modules", "peft_type", "init_lora_weights"}
# settings that matter in training only, or describe:
DESCRIBES = {"lora_dropout", "task_type", "inference_mode", "auto_mapping", "peft_version", "base_model_name_or_path"}
DESCRIBES |= {"fan_in_fan_out"}  # PEFT resets it for linear layers
DESCRIBES |= {"revision", "megatron_core", "megatron_config", "qalora_group_size", "loftq_config", "eva_config"}
DESCRIBES |= {"corda_config", "lora_ga_config", "runtime_config", "ensure_weight_tying"}
# and settings that change the arithmetic, and are not applied:
NOT_APPLIED = {
    "modules_to_save": "modules saved whole",
    "trainable_token_indices": "trained tokens",
    "lora_bias": "a bias of lora_B",
    "target_parameters": "LoRA on parameters",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow",
    "velora_config": "VeLoRA",
    "monteclora_config": "MonteCLoRA",
    "kasa_config": "KaSA",
}
# Initialisations that leave the base as it is, as PEFT's True and False do. Others change it, or are unknown.
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica")
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
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


@dataclass
class AdapterConfig:
    """The settings of `adapter_config.json` that scoring needs, with their types."""

    r: int
    lora_alpha: float
    base_model_name_or_path: str | None = None
    revision: str | None = None
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    use_rslora: bool | None = False
    use_dora: bool | None = False

    def __post_init__(self) -> None:
        if self.r < 1 or any(rank < 1 for rank in (self.rank_pattern or {}).values()):
            raise ValueError(f"r is {self.r}, rank_pattern {self.rank_pattern}; expected ranks of at least 1")
        alphas = [self.lora_alpha, *(self.alpha_pattern or {}).values()]
        if not self.lora_alpha or not all(math.isfinite(alpha) for alpha in alphas):
            raise ValueError(
                f"lora_alpha is {self.lora_alpha:g}; expected a finite number other than 0, in patterns too"
            )
        layers = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern or []
        expressions = [_PATTERN.format(key) for key in (*(self.rank_pattern or ()), *(self.alpha_pattern or ()))]
        expressions += [_LAYERS.format(pattern) for pattern in layers]
        expressions += [names for names in (self.target_modules, self.exclude_modules) if isinstance(names, str)]
        for expression in expressions:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is not a regular expression ({error})") from None

    def rank(self, *names: str) -> int:
        """A layer's rank: that of the first pattern that matches one of its names, else `r`."""
        return _by_pattern(self.rank_pattern, names, self.r)

    def alpha(self, *names: str) -> float:
        """A layer's alpha: that of the first pattern that matches one of its names, else `lora_alpha`."""
        return _by_pattern(self.alpha_pattern, names, self.lora_alpha)

    def scaling(self, *names: str) -> float:
        """The factor of a layer's B·A: alpha / rank, or alpha / sqrt(rank) with rsLoRA."""
        rank = self.rank(*names)
        return float(self.alpha(*names) / (rank**0.5 if self.use_rslora else rank))

    def targets(self, *names: str) -> bool:
        """Whether PEFT would put an adapter on a layer with one of these names."""
        return any(self._targets(name) for name in names)

    def _targets(self, layer: str) -> bool:
        if _named(self.exclude_modules, layer):
            return False
        if isinstance(self.target_modules, str) or not self.target_modules:
            return self.target_modules == "all-linear" and layer != HEAD or _named(self.target_modules, layer)
        indexes = self.layers_to_transform
        if not _named(self.target_modules, layer) or indexes is None or indexes == []:
            return _named(self.target_modules, layer)
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern or [r"[^.]*"]
        matches = (re.match(_LAYERS.format(pattern), layer) for pattern in patterns)
        index = next((int(match[1]) for match in matches if match), None)
        return index in (indexes if isinstance(indexes, list) else [indexes])


_PATTERN, _LAYERS = r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(\d+)\."  # PEFT's


def _by_pattern(patterns: Mapping[str, Number] | None, names: tuple[str, ...], common: Number) -> Number:
    """The value of the first pattern that matches one of a layer's names, else the common one."""
    for key, value in (patterns or {}).items():
        if any(re.match(_PATTERN.format(key), name) for name in names):
            return value
    return common


def _named(names: list[str] | str | None, layer: str) -> bool:
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, layer) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names or ())


def config_faults(values: dict[str, Any]) -> list[str]:
    """What an `adapter_config.json` asks for that is not applied here, each with what to do."""
    kind = str(values.get("peft_type") or "").upper()
    if kind != "LORA":
        name = f"an adapter of type {kind}" if kind else "peft_type is missing"
        return [f"{name}; only LORA is applied: {MERGE}"]
    faults = []
    init = values.get("init_lora_weights", True)
    if not isinstance(init, bool | None) and str(init).lower() not in PLAIN_INITS:
        name = str(init).lower()
        remedy = "score it on the base that it was trained on, saved whole, or " + MERGE
        if name.startswith(CONVERTED):
            remedy = (
                "convert it with PEFT, save_pretrained(…, path_initial_model_for_weight_conversion=…), and score what "
                "that writes"
            )
        faults.append(f"init_lora_weights is {init!r}: the adapter belongs to a base that PEFT had changed; {remedy}")
    for name, method in NOT_APPLIED.items():
        if value := values.get(name):
            items = f" ({', '.join(map(str, value))})" if isinstance(value, list) else ""
            faults.append(f"{name}: {method}{items}: not supported; {MERGE}")
    if values.get("bias") not in (None, "none"):
        faults.append(f"bias is {values['bias']!r}: trained biases: not supported; {MERGE}")
    return faults


def unknown_settings(values: dict[str, Any]) -> list[str]:
    """Settings that are not empty and that this version does not know; PEFT ignores unknown settings, too."""
    known = APPLIED | DESCRIBES | {*NOT_APPLIED, "bias"}
    return sorted(
        name for name, value in values.items() if name not in known and value not in (None, False, "", [], {})
    )


# ------------------------------------------------------------------ an adapter's file
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
    """Compare an adapter's file with names and shapes of its base, and with its own configuration.

    Reads the file's header, and its values, which must be finite, some of them in lora_B other than 0.
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
    """`AdapterCheck.keys`, and the tensors that have no place in the base or are damaged, in words."""
    linear = set(base.linear)
    keys: dict[str, tuple[str, str]] = {}
    first_key: dict[tuple[str, str], str] = {}  # of several spellings of one tensor
    unknown: dict[str, list[str]] = {}
    damaged: dict[str, list[str]] = {}
    for key, tensor in tensors.items():
        location = locate_key(key, linear)
        if location is None:
            if not _is_base_weight(key, tensor, base):
                unknown.setdefault(_describe_foreign(key, base.shapes), []).append(key)
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
        """The names by which the configuration's patterns may mean the layer."""
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
    strangers: list[str] = []
    for layer in layers:
        if not layer.factors_fit:
            continue
        if layer.tensors[LORA_A].shape[0] != config.rank(*layer.names):
            ranks += layer.describe(LORA_A)
        if not config.targets(*layer.names):
            strangers.append(layer.keys[LORA_A])
    faults = []
    if ranks:
        faults.append(
            f"{_list_keys(ranks)} have another rank than {ADAPTER_CONFIG} says; expected files of one adapter"
        )
    if strangers:
        faults.append(
            f"{_list_keys(strangers)} belong to layers that target_modules in {ADAPTER_CONFIG} does not name; "
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
    """The names by which patterns may mean a layer: that in its tensor `key`, if it differs, and the base's."""
    return tuple(dict.fromkeys((_split_key(key)[0], module)))


def _list_keys(keys: list[str]) -> str:
    return (f"{len(keys)} keys: " if len(keys) > 1 else "") + first_names(keys)


def locate_key(key: str, linear: Collection[str]) -> tuple[str, str] | None:
    """(linear layer of the base, parameter) that an adapter's key means, whoever wrote it; None for other tensors.

    Known spellings: PEFT's `base_model.model.` with or without an adapter name before `weight`; text-only and
    older names without `language_model`, or with it in another place (transformers before 4.52, LLaMA-Factory,
    ms-swift, Unsloth); the prefixes of DataParallel, torch.compile, FSDP and activation checkpointing.
    """
    module, parameter = _split_key(key)
    if parameter not in LORA_PARAMETERS:
        return None
    return next(((name, parameter) for name in _spellings(module) if name in linear), None)


def _split_key(key: str) -> tuple[str, str]:
    """A tensor's module in the file's spelling, without the prefixes of PEFT and wrappers, and its parameter."""
    name = WRAPPERS.sub("", key).lstrip(".").removeprefix("base_model.model.")
    name = re.sub(r"\.(lora_A|lora_B)\.(?!weight$|bias$)[^.]+\.(weight|bias)$", r".\1.\2", name)
    name = re.sub(r"\.lora_magnitude_vector(\..+)?$", ".lora_magnitude_vector", name)
    last = name.rpartition(".")[2]
    parameter = next((parameter for parameter in LORA_PARAMETERS if name.endswith(f".{parameter}")), last)
    return name[: -len(parameter) - 1], parameter


def _spellings(module: str) -> tuple[str, ...]:
    """The names that a module of an adapter's file may have in the base."""
    text = re.sub(
        r"^(model\.)?(language_model\.)?(model\.)?(language_model\.)?layers\.", "model.language_model.layers.", module
    )
    visual = re.sub(r"^(model\.)?visual\.", "model.visual.", module)
    head = re.sub(r"^(model\.|language_model\.)+lm_head$", HEAD, module)
    return module, text, visual, head, f"model.{module}"


def _is_base_weight(key: str, tensor: StoredTensor, base: BaseWeights) -> bool:
    """Whether a tensor is a weight of the base as the base has it: PEFT saves the head's beside a LoRA on it."""
    module, parameter = _split_key(key)
    if parameter != "weight" or tensor.dtype not in FLOATS:
        return False
    names = [f"{spelling}.weight" for spelling in _spellings(module)]
    if module == HEAD:
        names.append(EMBEDDINGS)
    for name in names:
        stored = base.tensors.get(name)
        if stored and stored.dtype in FLOATS and stored.shape == tensor.shape:
            return bool(np.array_equal(tensor.read_values(), _rounded(stored.read_values(), tensor.dtype)))
    return False


def _rounded(values: Floats, dtype: str) -> Floats:
    """float32 values as a type of safetensors holds them."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":  # to the nearest, ties to even
        bits = values.astype(np.float32).view(np.uint32)
        return (bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000).view(np.float32)
    return values


def _describe_foreign(key: str, base_shapes: dict[str, tuple[int, ...]]) -> str:
    """What a tensor that is no LoRA factor of a linear layer is, in words that follow its name."""
    for piece, method in FOREIGN_NAMES.items():
        if piece in key:
            return f"{method}: not supported"
    module, parameter = _split_key(key)
    if any(f"{name}.weight" in base_shapes for name in _spellings(module)):
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
    """The first version of adapters' fingerprints, which old files record: 16 hexadecimal digits of the weights."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
