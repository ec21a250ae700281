"""All choices of a training, with the competition notebook's as defaults: from a TOML file, then the command line."""

import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from scoring.errors import UserError

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ConfigError(UserError):
    """A choice that does not exist or cannot be; the message says which, what was found and what was expected."""


def choice(default, about: str, low: float | None = None, high: float | None = None, among: tuple[str, ...] = ()):
    """A field: its default, a line of help, and what it may be."""
    return field(default=default, metadata={"help": about, "low": low, "high": high, "among": among})


@dataclass(frozen=True)
class TrainConfig:
    """Written whole into the checkpoint, as `scoring.json` and as `train.toml`, which `--config` reads."""

    epochs: int = choice(3, "Times that every row is seen.", 1)
    learning_rate: float = choice(1e-4, "Of AdamW, at its highest.", 0)
    batch: int = choice(16, "Rows for each optimiser step.", 1)
    schedule: str = choice("linear", "Of the learning rate, after warm-up.", among=("linear", "cosine", "constant"))
    warmup: float = choice(0.03, "Share of the steps.", 0, 1)
    weight_decay: float = choice(0.01, "Of AdamW.", 0)
    clip: float = choice(1.0, "Largest norm of the gradient; 0: never clipped.", 0)
    ema: float = choice(
        0.0, "Decay of a moving average of the adapter, which is then the one kept; 0: none.", 0, 0.9999
    )
    rank: int = choice(16, "LoRA rank.", 1)
    alpha: int = choice(32, "LoRA alpha.", 1)
    dropout: float = choice(0.05, "LoRA dropout.", 0, 0.95)
    targets: tuple[str, ...] = choice(SEVEN_PROJECTIONS, "Linear layers with an adapter, comma-separated.")
    rslora: bool = choice(False, "Scale by alpha / sqrt(rank).")
    label_mass_weight: float = choice(1.0, "1: cross-entropy over all tokens. 0: over the letters alone.", 0)
    shuffle_options: bool = choice(False, "Another order of each row's options in each epoch.")
    augment: float = choice(0.0, "Strength of random crops and changes of light in training pictures.", 0, 1)
    valid_share: float = choice(
        0.1, "Share of the pictures held out, with all their rows, stratified by task type.", 0.001, 0.9
    )
    generate: bool = choice(False, "Also validate by generating a text and extracting the letter.")
    patience: int = choice(0, "Stop after so many epochs without a better one; 0: never.", 0)
    seed: int = choice(42, "Of initialisation, order, dropout and split.", 0)
    quantization: str = choice("nf4", "Of the base.", among=("nf4", "none"))
    memory: str = choice("auto", "low: recompute activations. fast: keep them.", among=("auto", "low", "fast"))
    compile: str = choice("auto", "Compile the layers for this card.", among=("auto", "on", "off"))
    batch_tokens: int = choice(0, "Tokens in one forward; 0: by memory.", 0)
    save_every: int = choice(50, "Steps between states that a killed run goes on from.", 1)

    def __post_init__(self):
        for found in fields(self):
            _check(found, getattr(self, found.name))

    @classmethod
    def read(cls, path: Path | None, **given) -> "TrainConfig":
        """From a TOML file where there is one; `given` values that are not None win. Raises ConfigError."""
        values = {}
        if path:
            try:
                values = tomllib.loads(path.read_text("utf-8"))
            except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"{path}: {error}; expected a TOML file of training choices") from None
            known = [found.name for found in fields(cls)]
            if unknown := sorted(set(values) - set(known)):
                raise ConfigError(f"{path}: no such choice: {', '.join(unknown)}; there are {', '.join(known)}")
        values |= {key: value for key, value in given.items() if value is not None}
        if "targets" in values:
            targets = values["targets"]
            values["targets"] = tuple(targets.replace(" ", "").split(",") if isinstance(targets, str) else targets)
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}" if path else str(error)) from None

    def to_toml(self) -> str:
        """The same choices as a file for `--config`."""

        def written(value) -> str:
            if isinstance(value, bool):
                return str(value).lower()
            if isinstance(value, tuple):
                return "[" + ", ".join(f'"{name}"' for name in value) + "]"
            return f'"{value}"' if isinstance(value, str) else repr(value)

        return "".join(f"{key} = {written(value)}\n" for key, value in asdict(self).items())


def _check(found, value) -> None:
    low, high, among = (found.metadata[name] for name in ("low", "high", "among"))
    kind = tuple if found.name == "targets" else found.type
    right = isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if right and found.name == "targets":
        right = bool(value) and all(isinstance(name, str) and name for name in value)
    if right and kind in (int, float):
        right = (low is None or value >= low) and (high is None or value <= high)
        right = right and not (found.name == "learning_rate" and value == 0)
    if not right or (among and value not in among):
        expected = f"one of {', '.join(among)}" if among else kind.__name__
        if low is not None:
            expected += f" from {low}" + (f" to {high}" if high is not None else "")
        raise ConfigError(f"{found.name}: found {value!r}; expected {expected}")
