"""What an adapter's `adapter_config.json` says: its settings, which of them are applied, and what is refused. No torch.

A setting that changes the arithmetic and is not applied here makes `config_faults` refuse the adapter. Settings of
training alone are passed over; unknown ones are named.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from scoring.inputs.families.family import HEAD

Number = TypeVar("Number", int, float)
MERGE = "merge it into a whole model with the tool that made it, and score that folder"

# Settings of adapter_config.json that are applied,
APPLIED = {"r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "target_modules"}
APPLIED |= {"layers_to_transform", "layers_pattern", "exclude_modules", "peft_type", "init_lora_weights"}
# settings that only training needs, or that describe the adapter,
DESCRIBES = {"lora_dropout", "task_type", "inference_mode", "auto_mapping", "peft_version", "base_model_name_or_path"}
DESCRIBES |= {"fan_in_fan_out"}  # PEFT resets it for linear layers
DESCRIBES |= {"revision", "megatron_core", "megatron_config", "qalora_group_size", "loftq_config", "eva_config"}
DESCRIBES |= {"corda_config", "lora_ga_config", "runtime_config", "ensure_weight_tying"}
# and settings that change the arithmetic and are not applied, with what they are for:
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
CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")  # those that PEFT can convert to an adapter on the original base
# PEFT's regular expressions: of a key of rank_pattern or alpha_pattern, and of a layer's number after layers_pattern.
_PATTERN, _LAYERS = r"(.*\.)?({})$", r"(?:^|.*?\.){}\.(\d+)\."


@dataclass
class AdapterConfig:
    """The settings of `adapter_config.json` that scoring needs, as PEFT names them.

    Raises ValueError for ranks, alphas and patterns that cannot be used. A layer may have two names, that in the
    adapter's file and that in the base: methods take all of them.
    """

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


def _by_pattern(patterns: Mapping[str, Number] | None, names: tuple[str, ...], common: Number) -> Number:
    """The value of the first pattern that matches one of a layer's names, else the common one."""
    for key, value in (patterns or {}).items():
        if any(re.match(_PATTERN.format(key), name) for name in names):
            return value
    return common


def _named(names: list[str] | str | None, layer: str) -> bool:
    """Whether a list of names (or ends of names) or a regular expression means a layer."""
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
        if name.startswith(CONVERTIBLE):
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
    """Names of settings that are not empty and not known here. PEFT ignores unknown settings, too."""
    known = APPLIED | DESCRIBES | {*NOT_APPLIED, "bias"}
    return sorted(
        name for name, value in values.items() if name not in known and value not in (None, False, "", [], {})
    )
