"""What is asked of a run, and what it leaves."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scoring.scores.folder import RunError
from scoring.scores.logits import OptionLogits
from scoring.stats.sets import SetRequest

if TYPE_CHECKING:
    from scoring.engine.scorer import Scorer


@dataclass
class RunOptions:
    """How a run is done. `None` and "auto" are chosen by what this machine has, and written down."""

    orders: str = "1"
    margin: float = 0.7  # with adaptive orders: the rest of them where the likeliest option leads by less
    sets: SetRequest | None = None
    shard: tuple[int, int] | None = None  # of how many, from 1
    batch_tokens: int | None = None
    weights: str = "auto"
    compile: str = "auto"
    overwrite: bool = False
    verify: bool = True  # one row against the libraries' own forward, before the others
    device_map: str = "none"  # "auto": the base over all cards

    def __post_init__(self):
        if self.shard and self.orders == "adaptive":
            raise RunError(
                "--shard with adaptive orders: which rows are shown in more of them depends on all rows; use --orders "
                "cyclic or pride"
            )


@dataclass
class Finished:
    """What a run leaves: its results as read back from the parts, and what is to be said about them.

    logits: None of a process that is not the first.
    """

    logits: OptionLogits | None
    metrics: dict | None
    warnings: list[str]
    scored_now: int
    seconds: dict[str, float]
    peak_bytes: int = 0
    about_orders: str = ""
    scorer: "Scorer | None" = None
