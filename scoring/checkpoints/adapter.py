"""A LoRA adapter, whoever wrote it: what its files say, whether it fits a base, and its PEFT configuration. No torch.

An adapter gives the logits that PEFT would give, or is refused by the name of what is not applied: its type, its
initialisation, a part of its configuration, a tensor. What a tensor means is told by its name, in every spelling that
PEFT, LLaMA-Factory, ms-swift, Unsloth and wrappers of distributed training have written.
"""

import hashlib
import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scoring.checkpoints.weights import FLOATS, TABLE, BaseWeights, CheckpointError, first_names, read_header, values_of
from scoring.files.reading import read_json

ADAPTER_FILE, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
STRANGE = "no module of the base has that name"
LORA_PARTS = ("lora_A.weight", "lora_B.weight", "lora_magnitude_vector")
HEAD = "lm_head"
WRAPPERS = re.compile(r"(^|\.)(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)(?=\.)")
MERGE = "merge it into a whole model with the tool that made it, and score that folder"

# Of adapter_config.json. What is applied here:
APPLIED = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules"}
APPLIED |= {"layers_to_transform", "layers_pattern", "exclude_modules", "peft_type", "init_lora_weights"}
# what counts in training alone, or describes:
DESCRIBES = {"lora_dropout", "task_type", "inference_mode", "auto_mapping", "peft_version", "base_model_name_or_path"}
DESCRIBES |= {"fan_in_fan_out"}  # PEFT resets it for linear layers
DESCRIBES |= {"revision", "megatron_core", "megatron_config", "qalora_group_size", "loftq_config", "eva_config"}
DESCRIBES |= {"corda_config", "lora_ga_config", "runtime_config", "ensure_weight_tying"}
# and what changes the arithmetic without being applied:
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
# Initialisations that leave the base as it is (PEFT's True and False too); all others change it, or are not known.
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica")
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
# What a tensor that is no LoRA factor belongs to, by a part of its name.
FOREIGN_PARTS = {
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
    """What is needed of `adapter_config.json`, and what kind of value it must be."""

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

    def __post_init__(self):
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
        expressions += [one for one in (self.target_modules, self.exclude_modules) if isinstance(one, str)]
        for expression in expressions:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is no regular expression ({error})") from None

    def rank(self, *names: str) -> int:
        """A layer's rank, by its names: of the first pattern that fits one of them, else the common one."""
        return _by_pattern(self.rank_pattern, names, self.r)

    def alpha(self, *names: str) -> float:
        """A layer's alpha, likewise."""
        return _by_pattern(self.alpha_pattern, names, self.lora_alpha)

    def scaling(self, *names: str) -> float:
        """What the B·A of a layer is multiplied by."""
        rank = self.rank(*names)
        return float(self.alpha(*names) / (rank**0.5 if self.use_rslora else rank))

    def targets(self, *names: str) -> bool:
        """Whether PEFT would put an adapter on a layer, by one of its names."""
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


def _by_pattern(patterns: dict | None, names: tuple[str, ...], common: Any) -> Any:
    for key, value in (patterns or {}).items():
        if any(re.match(_PATTERN.format(key), name) for name in names):
            return value
    return common


def _named(names: list[str] | str | None, layer: str) -> bool:
    if isinstance(names, str):
        return bool(names) and re.fullmatch(names, layer) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names or ())


def config_faults(values: dict) -> list[str]:
    """What an `adapter_config.json` asks for that is not applied here, each in words with what to do."""
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
    for name, what in NOT_APPLIED.items():
        if value := values.get(name):
            listed = f" ({', '.join(map(str, value))})" if isinstance(value, list) else ""
            faults.append(f"{name}: {what}{listed}: not supported; {MERGE}")
    if values.get("bias") not in (None, "none"):
        faults.append(f"bias is {values['bias']!r}: trained biases: not supported; {MERGE}")
    return faults


def unknown_settings(values: dict) -> list[str]:
    """Settings that this version knows nothing of, and that are not empty; PEFT passes them over, too."""
    known = APPLIED | DESCRIBES | {*NOT_APPLIED, "bias"}
    return sorted(
        name for name, value in values.items() if name not in known and value not in (None, False, "", [], {})
    )


# ------------------------------------------------------------------ an adapter's file
@dataclass
class AdapterCheck:
    """`keys` maps each tensor of the file to (module of the base, part); the rest is what is wrong with it."""

    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def raise_for_faults(self, folder: Path) -> None:
        """CheckpointError with all that is wrong, unless all is well."""
        if self.faults:
            raise CheckpointError(f"{folder / ADAPTER_FILE}: " + "; and ".join(self.faults))

    @property
    def modules(self) -> list[str]:
        """The layers with an adapter."""
        return sorted({module for module, _ in self.keys.values()})


def check_adapter(folder: Path, base: BaseWeights, config: AdapterConfig | None = None) -> AdapterCheck:
    """Hold an adapter's file against names and shapes of its base, and against its own configuration.

    Reads the file's header, and its values, which must be finite, some of them in lora_B other than 0.
    """
    path = folder / ADAPTER_FILE
    header = read_header(path)
    check, unknown, wrong, linear = AdapterCheck(), {}, {}, set(base.linear)
    first_of: dict[tuple[str, str], str] = {}
    for key, entry in header.items():
        located = locate_key(key, linear)
        if not located and _is_the_base_s(key, path, entry, base):
            continue
        if not located:
            unknown.setdefault(_what_it_is(key, base.shapes), []).append(key)
        elif other := first_of.get(located):
            wrong.setdefault("the same tensor in two spellings", []).append(f"{other} and {key}")
        else:
            first_of[located] = key
            check.keys[key] = located
            if problem := _odd(path, entry, located[1]):
                wrong.setdefault(problem, []).append(f"{key} {entry['shape']}")
    for what, keys in unknown.items():
        remedy = MERGE if what != STRANGE else "expected LoRA weights made for this base"
        check.faults.append(f"{_listed(keys)}: {what}; {remedy}")
    check.faults += [f"{_listed(keys)}: {problem}" for problem, keys in wrong.items()]
    if not check.faults:
        check.faults = _misfits(check, header, base, config)
    if not check.faults and not any(
        part == "lora_B.weight" and values_of(path, header[key]).any() for key, (_, part) in check.keys.items()
    ):
        check.faults.append(
            "every lora_B is zero: the adapter does nothing; the training did not run, or was not saved"
        )
    return check


def _misfits(check: AdapterCheck, header: dict, base: BaseWeights, config: AdapterConfig | None) -> list[str]:
    """Shapes that do not belong to the module, modules that lack a factor, and contradictions to the configuration."""
    factors: dict[str, dict[str, str]] = {}
    for key, (module, part) in check.keys.items():
        factors.setdefault(module, {})[part] = key
    shapes, halves, ranks, strangers = [], [], [], []
    for module, keys in factors.items():
        down, up = (keys.get(part) for part in LORA_PARTS[:2])
        if not down or not up:
            halves.append(next(iter(keys.values())))
            continue
        outputs, inputs = base.shapes[f"{module}.weight"][:2]
        (rank, wide), (tall, narrow) = header[down]["shape"], header[up]["shape"]
        if wide != inputs or tall != outputs or rank != narrow:
            shapes += [f"{key} {header[key]['shape']}" for key in (down, up)]
            continue
        if config is None:
            continue
        names = names_of(module, down)
        if rank != config.rank(*names):
            ranks.append(f"{down} {header[down]['shape']}")
        if not config.targets(*names):
            strangers.append(down)
        size = keys.get(LORA_PARTS[2])
        if size and header[size]["shape"] != [outputs]:
            shapes.append(f"{size} {header[size]['shape']}")
    faults = []
    if shapes:
        faults.append(f"{_listed(shapes)} have another shape than the base's; expected LoRA weights made for this base")
    if halves:
        faults.append(
            f"{_listed(halves)} lack their lora_A or lora_B; the file is not complete: save the adapter again"
        )
    if ranks:
        faults.append(f"{_listed(ranks)} have another rank than {ADAPTER_CONFIG} says; expected files of one adapter")
    if strangers:
        faults.append(
            f"{_listed(strangers)} belong to layers that target_modules in {ADAPTER_CONFIG} does not name; "
            "expected files of one adapter"
        )
    if (
        config
        and not faults
        and (absent := [name for name in base.linear if name not in factors and config.targets(name)])
    ):
        faults.append(
            f"{_listed(absent)} have no adapter in the file, but target_modules in {ADAPTER_CONFIG} names them; "
            "the file is not complete: save the adapter again"
        )
    if config and config.use_dora and (bare := [name for name, keys in factors.items() if LORA_PARTS[2] not in keys]):
        faults.append(f"{_listed(bare)} lack their lora_magnitude_vector, but use_dora is set; save the adapter again")
    if (
        config
        and not config.use_dora
        and (full := [keys[LORA_PARTS[2]] for keys in factors.values() if LORA_PARTS[2] in keys])
    ):
        faults.append(f"{_listed(full)} belong to DoRA, but use_dora is not set in {ADAPTER_CONFIG}")
    if config and config.use_dora and HEAD in factors:
        faults.append(f"DoRA on {HEAD} is not supported; {MERGE}")
    return faults


def names_of(module: str, key: str) -> tuple[str, ...]:
    """The names that patterns may mean a layer by: that of its tensor `key`, where that is another, and the base's."""
    return tuple(dict.fromkeys((_module_and_part(key)[0], module)))


def _odd(path: Path, entry: dict, part: str) -> str:
    """What is wrong with a tensor by itself; "" where nothing is."""
    if entry["dtype"] not in FLOATS:
        return f"stored as {entry['dtype']}; expected BF16, F16 or F32"
    if not entry["shape"] or 0 in entry["shape"]:
        return "empty, as ZeRO-3 leaves weights that were not gathered; gather them, and save the adapter again"
    if len(entry["shape"]) != (1 if part == LORA_PARTS[2] else 2):
        return "flattened, as FSDP leaves weights that were not gathered; gather them, and save the adapter again"
    finite = np.isfinite(values_of(path, entry)).all()
    return "" if finite else "NaN or infinite values; the training diverged: take an earlier checkpoint"


def _listed(keys: list[str]) -> str:
    return (f"{len(keys)} keys: " if len(keys) > 1 else "") + first_names(keys)


def locate_key(key: str, linear: Collection[str]) -> tuple[str, str] | None:
    """(linear layer of the base, part) that an adapter's key means, whoever wrote it.

    Known spellings: PEFT's `base_model.model.` with or without an adapter name before `weight`; text-only and
    older names without `language_model`, or with it in another place (transformers before 4.52, LLaMA-Factory,
    ms-swift, Unsloth); the prefixes of DataParallel, torch.compile, FSDP and activation checkpointing.
    """
    module, part = _module_and_part(key)
    if part not in LORA_PARTS:
        return None
    return next(((name, part) for name in _spellings(module) if name in linear), None)


def _module_and_part(key: str) -> tuple[str, str]:
    """A tensor's module in its file's own spelling, without the prefixes of PEFT and of wrappers, and its part."""
    name = WRAPPERS.sub("", key).lstrip(".").removeprefix("base_model.model.")
    name = re.sub(r"\.(lora_A|lora_B)\.(?!weight$|bias$)[^.]+\.(weight|bias)$", r".\1.\2", name)
    name = re.sub(r"\.lora_magnitude_vector(\..+)?$", ".lora_magnitude_vector", name)
    part = next((part for part in LORA_PARTS if name.endswith("." + part)), name.rpartition(".")[2])
    return name[: -len(part) - 1], part


def _spellings(module: str) -> tuple[str, ...]:
    text = re.sub(
        r"^(model\.)?(language_model\.)?(model\.)?(language_model\.)?layers\.", "model.language_model.layers.", module
    )
    visual = re.sub(r"^(model\.)?visual\.", "model.visual.", module)
    head = re.sub(r"^(model\.|language_model\.)+lm_head$", HEAD, module)
    return module, text, visual, head, f"model.{module}"


def _is_the_base_s(key: str, path: Path, entry: dict, base: BaseWeights) -> bool:
    """Whether a tensor is a weight of the base as the base has it: PEFT saves the head's beside a LoRA on it."""
    module, part = _module_and_part(key)
    if part != "weight" or entry["dtype"] not in FLOATS:
        return False
    tied = [TABLE] * (module == HEAD)
    for name in (*(f"{spelling}.weight" for spelling in _spellings(module)), *tied):
        where, stored = base.tensors.get(name, (None, {}))
        if where and stored["dtype"] in FLOATS and list(stored["shape"]) == list(entry["shape"]):
            return bool(np.array_equal(values_of(path, entry), _rounded(values_of(where, stored), entry["dtype"])))
    return False


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as a type of safetensors holds them."""
    if dtype == "F16":
        return values.astype(np.float16).astype(np.float32)
    if dtype == "BF16":  # to the nearest, ties to even
        bits = values.astype(np.float32).view(np.uint32)
        return (bits + 0x7FFF + ((bits >> 16) & 1) & 0xFFFF0000).view(np.float32)
    return values


def _what_it_is(key: str, base_shapes: dict[str, tuple[int, ...]]) -> str:
    """What a tensor that is no LoRA factor of a linear layer is, in words that follow its name."""
    for part, what in FOREIGN_PARTS.items():
        if part in key:
            return f"{what}: not supported"
    module, part = _module_and_part(key)
    if any(f"{name}.weight" in base_shapes for name in _spellings(module)):
        if part in LORA_PARTS:
            return "LoRA on something other than a linear layer: not supported"
        if part in ("weight", "bias"):
            return f"{'trained biases' if part == 'bias' else 'modules saved whole'}: not supported"
    return STRANGE


# ------------------------------------------------------------------ for PEFT, and for those who ask which adapter it is
def lora_config(config: AdapterConfig, check: AdapterCheck):
    """A PEFT configuration with the modules named in full, so that it means the same in whoever's folder."""
    from peft import LoraConfig

    ranks, alphas = {}, {}
    for key, (module, part) in check.keys.items():
        if part == "lora_A.weight":
            names = names_of(module, key)
            ranks[module], alphas[module] = config.rank(*names), config.alpha(*names)
    return LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
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
    """What checkpoints and calibrations recorded of an adapter at first: 16 hexadecimal digits of its weights alone."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
