"""All choices of a training: defaults as in the competition notebook, then a TOML file, then the command line."""

import tomllib
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scoring.errors import ScoringError

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ABOVE_LOW = ("learning_rate",)  # choices that may not have their lower bound itself
# What a choice of each type may be, for a message.
DESCRIPTIONS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a list of names",
}


class ConfigError(ScoringError):
    """A choice that does not exist or has a wrong value; the message says which, found and expected."""


def choice(
    default: Any, text: str, low: float | None = None, high: float | None = None, among: tuple[str, ...] = ()
) -> Any:
    """A field of `TrainConfig`: its default, a line of help, and its bounds or the values that it may have."""
    return field(default=default, metadata={"help": text, "low": low, "high": high, "among": among})


@dataclass(frozen=True)
class TrainConfig:
    """The choices of a training. A checkpoint records them in `scoring.json`, and in `train.toml` for `--config`.

    >>> TrainConfig(epochs=1, rank=8).learning_rate
    0.0001
    """

    epochs: int = choice(3, "Number of passes over the training rows.", 1)
    learning_rate: float = choice(1e-4, "Peak learning rate.", 0)
    batch: int = choice(16, "Rows per optimizer step.", 1)
    schedule: str = choice("linear", "Learning rate schedule after warm-up.", among=("linear", "cosine", "constant"))
    warmup: float = choice(0.03, "Share of the steps in which the learning rate rises.", 0, 1)
    weight_decay: float = choice(0.01, "Weight decay of AdamW.", 0)
    clip: float = choice(1.0, "Norm to which the gradient is clipped; 0: no clipping.", 0)
    ema: float = choice(
        0.0, "Decay of a moving average of the weights, which is saved in their place; 0: none.", 0, 0.9999
    )
    rank: int = choice(16, "LoRA rank.", 1)
    alpha: int = choice(32, "LoRA alpha.", 1)
    dropout: float = choice(0.05, "LoRA dropout.", 0, 0.95)
    targets: tuple[str, ...] = choice(SEVEN_PROJECTIONS, "Linear layers that get an adapter, comma-separated.")
    rslora: bool = choice(False, "rsLoRA: scale the adapter by alpha / sqrt(rank), not alpha / rank.")
    label_mass_weight: float = choice(
        1.0, "Weight of the label mass in the loss. 1: cross-entropy over all tokens. 0: over the letters only.", 0
    )
    shuffle_options: bool = choice(False, "Shuffle each row's options anew in each epoch.")
    augment: float = choice(0.0, "Strength of random crops and color changes in training pictures.", 0, 1)
    valid_share: float = choice(
        0.1, "Share of the pictures to hold out, with all their rows, stratified by task type.", 0.001, 0.9
    )
    generate: bool = choice(False, "Also validate by generating a text and extracting the letter.")
    patience: int = choice(0, "Stop after this many epochs without a better one; 0: never.", 0)
    seed: int = choice(42, "Random seed of initialization, row order, dropout and validation split.", 0)
    quantization: str = choice("nf4", "Quantization of the base.", among=("nf4", "none"))
    memory: str = choice(
        "auto",
        "Activations. low: recompute them. fast: keep them. auto: by the free memory.",
        among=("auto", "low", "fast"),
    )
    compile: str = choice(
        "auto", "Compile the layers for this GPU. auto: where it saves time.", among=("auto", "on", "off")
    )
    batch_tokens: int = choice(0, "Most tokens in one forward pass; 0: as many as fit into memory.", 0)
    save_every: int = choice(50, "Steps between saved states; a killed training resumes from the last.", 1)

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))

    @classmethod
    def read(cls, path: Path | None, **options: Any) -> "TrainConfig":
        """The choices of the TOML file `path`, if any, and of `options` that are not None, which win.

        The file may also have a section [columns], which is no choice of the training.
        Raises ConfigError where the file cannot be read or a choice is unknown or wrong.
        """
        values: dict[str, Any] = {}
        if path:
            try:
                values = tomllib.loads(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"{path}: {error}; expected a TOML file of training choices") from None
            values.pop("columns", None)  # names of the tables' columns, for whom reads the tables
            known = [setting.name for setting in fields(cls)]
            if unknown := sorted(set(values) - set(known)):
                raise ConfigError(f"{path}: unknown: {', '.join(unknown)}; expected some of {', '.join(known)}")
        values |= {key: value for key, value in options.items() if value is not None}
        if "targets" in values:
            targets = values["targets"]
            names = targets.replace(" ", "").split(",") if isinstance(targets, str) else targets
            values["targets"] = tuple(names) if isinstance(names, list) else names
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
        expected = f"one of {', '.join(among)}" if among else DESCRIPTIONS[kind]
        if low is not None:
            expected += f" above {low}" if setting.name in ABOVE_LOW else f" from {low}"
            expected += f" to {high}" if high is not None else ""
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
        return within and not (setting.name in ABOVE_LOW and value == low)
    return True
