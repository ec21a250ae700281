"""What is asked of a run."""

from dataclasses import dataclass

from scoring.results.folder import RunError


@dataclass
class RunOptions:
    """How a run is done. `None` and "auto" are chosen by what this machine has, and written down."""

    orders: str = "1"
    margin: float = 0.7  # with adaptive orders: the rest of them where the likeliest option leads by less
    sets: float | None = None
    shard: tuple[int, int] | None = None  # of how many, from 1
    batch_tokens: int | None = None
    weights: str = "auto"
    compile: str = "auto"
    overwrite: bool = False

    def __post_init__(self):
        if self.shard and self.orders == "adaptive":
            raise RunError(
                "--shard with adaptive orders: which rows are shown in more of them depends on all rows; use --orders "
                "cyclic or pride"
            )
