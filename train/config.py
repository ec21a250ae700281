"""All choices of a training, with the competition notebook's as defaults: a TOML file, then the command line."""

import tomllib
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scoring.errors import UserError

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ConfigError(UserError):
    """A choice that does not exist or has a wrong value; the message says which, found and expected."""


def choice(
    default: Any, text: str, low: float | None = None, high: float | None = None, among: tuple[str, ...] = ()
) -> Any:
    """A field of `TrainConfig`: its default, a line of help, and its bounds or the values that it may have."""
    return field(default=default, metadata={"help": text, "low": low, "high": high, "among": among})


@dataclass(frozen=True)
class TrainConfig:
    """The choices of a training. A checkpoint records them in `scoring.json`, and in `train.toml` for `--config`."""

    epochs: int = choice(3, "Passes over the training rows.", 1)
    learning_rate: float = choice(1e-4, "Peak learning rate.", 0)
    batch: int = choice(16, "Rows of an optimizer step.", 1)
    schedule: str = choice("linear", "Learning rate schedule after warm-up.", among=("linear", "cosine", "constant"))
    warmup: float = choice(0.03, "Share of the steps with a rising learning rate.", 0, 1)
    weight_decay: float = choice(0.01, "Weight decay of AdamW.", 0)
    clip: float = choice(1.0, "Largest norm of the gradient; 0: no clipping.", 0)
    ema: float = choice(
        0.0, "Decay of a moving average of the adapter, which is saved in its place; 0: none.", 0, 0.9999
    )
    rank: int = choice(16, "LoRA rank.", 1)
    alpha: int = choice(32, "LoRA alpha.", 1)
    dropout: float = choice(0.05, "LoRA dropout.", 0, 0.95)
    targets: tuple[str, ...] = choice(SEVEN_PROJECTIONS, "Linear layers that get an adapter, comma-separated.")
    rslora: bool = choice(False, "Scale by alpha / sqrt(rank).")
    label_mass_weight: float = choice(1.0, "1: cross-entropy over all tokens. 0: over the letters only.", 0)
    shuffle_options: bool = choice(False, "Shuffle each row's options in each epoch.")
    augment: float = choice(0.0, "Strength of random crops and color changes in training pictures.", 0, 1)
    valid_share: float = choice(
        0.1, "Share of the pictures to hold out, with all their rows, stratified by task type.", 0.001, 0.9
    )
    generate: bool = choice(False, "Also validate by generating text and extracting the letter.")
    patience: int = choice(0, "Stop after this many epochs without a better one; 0: never.", 0)
    seed: int = choice(42, "Random seed of initialization, order, dropout and split.", 0)
    quantization: str = choice("nf4", "Quantization of the base.", among=("nf4", "none"))
    memory: str = choice("auto", "low: recompute activations. fast: keep them.", among=("auto", "low", "fast"))
    compile: str = choice("auto", "Compile the layers for this GPU.", among=("auto", "on", "off"))
    batch_tokens: int = choice(0, "Tokens of one forward pass; 0: as many as fit into memory.", 0)
    save_every: int = choice(50, "Steps between saved states, from which a killed training resumes.", 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))

    @classmethod
    def read(cls, path: Path | None, **options: Any) -> "TrainConfig":
        """From a TOML file where there is one; `options` that are not None win. Raises ConfigError."""
        values: dict[str, Any] = {}
        if path:
            try:
                values = tomllib.loads(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"{path}: {error}; expected a TOML file of training choices") from None
            known = [setting.name for setting in fields(cls)]
            if unknown := sorted(set(values) - set(known)):
                raise ConfigError(f"{path}: no such choice: {', '.join(unknown)}; there are {', '.join(known)}")
        values |= {key: value for key, value in options.items() if value is not None}
        if "targets" in values:
            targets = values["targets"]
            values["targets"] = tuple(targets.replace(" ", "").split(",") if isinstance(targets, str) else targets)
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}" if path else str(error)) from None

    def to_toml(self) -> str:
        """The same choices as a file for `--config`."""

        return "".join(f"{key} = {_toml(value)}\n" for key, value in asdict(self).items())


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{name}"' for name in value) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _check(setting: "Field[Any]", value: Any) -> None:
    """Raises ConfigError where a choice has a value of another type, or one that it may not have."""
    low, high, among = (setting.metadata[name] for name in ("low", "high", "among"))
    kind: Any = tuple if setting.name == "targets" else setting.type
    if not _is_allowed(setting, kind, value) or (among and value not in among):
        expected = f"one of {', '.join(among)}" if among else kind.__name__
        if low is not None:
            expected += f" from {low}" + (f" to {high}" if high is not None else "")
        raise ConfigError(f"{setting.name}: found {value!r}; expected {expected}")


def _is_allowed(setting: "Field[Any]", kind: Any, value: Any) -> bool:
    """Whether a value is of its type and within its bounds."""
    if isinstance(value, bool):
        return kind is bool
    types: Any = (int, float) if kind is float else kind
    if not isinstance(value, types):
        return False
    if setting.name == "targets":
        return bool(value) and all(isinstance(name, str) and name for name in value)
    if kind in (int, float):
        low, high = setting.metadata["low"], setting.metadata["high"]
        within = (low is None or value >= low) and (high is None or value <= high)
        return within and not (setting.name == "learning_rate" and value == 0)
    return True
