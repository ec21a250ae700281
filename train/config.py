"""All choices of a training, with the competition notebook's as defaults."""

from dataclasses import dataclass

SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainConfig:
    """Written whole into the checkpoint's `scoring.json`."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = SEVEN_PROJECTIONS
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.03  # share of the steps
    epochs: int = 3
    batch: int = 16  # rows for each step of the optimiser
    clip: float = 1.0  # norm of the gradient
    valid_share: float = 0.1
    shuffle_options: bool = False  # each row's options in another order in each epoch
    seed: int = 42
    quantization: str = "nf4"  # or "none"
    batch_tokens: int | None = None  # padded tokens in one forward; None: by device
    checkpointing: bool | None = None  # recompute activations; None: on a GPU
