"""What is asked of a run, what it talks to while it works, and what it leaves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from scoring.checkpoints.plan import Plan, plan_members
from scoring.inputs.prompt import PromptTemplate
from scoring.messages import Progress, Say
from scoring.run.processes import Processes, Queue
from scoring.scores.folder import RunError
from scoring.scores.logits import OptionLogits
from scoring.stats.sets import SetRequest
from scoring.tables.sample import SampleSubmission
from scoring.tables.table import Table

if TYPE_CHECKING:
    from scoring.engine.batch_scorer import BatchScorer
    from scoring.engine.costs import RowCost
    from scoring.run.run_folder import RunState


def _check_choice(option: str, value: str | None, known: Sequence[str | None]) -> None:
    """Raises RunError for a value that an option does not have; the command line has none of these."""
    if value not in known:
        raise RunError(f"{option} {value}: expected one of {', '.join(filter(None, known))}")


@dataclass(frozen=True)
class ModelOptions:
    """Settings that replace the checkpoint's own. None: as the checkpoint was made."""

    base: str | None = None
    template: PromptTemplate | None = None
    pixels: int | None = None
    quantization: str | None = None
    allow_mismatch: bool = False

    def __post_init__(self) -> None:
        _check_choice("--quantization", self.quantization, (None, "nf4", "fp4", "none"))

    def plan(
        self, names: Sequence[str], orders: str = "1", calibration: str = "auto", noted: Sequence[str] = ()
    ) -> Plan:
        """The plan of these checkpoints with these settings; see `plan_members`."""
        return plan_members(
            names,
            self.base,
            self.template,
            self.pixels,
            self.quantization,
            self.allow_mismatch,
            orders,
            calibration,
            noted,
        )


@dataclass(frozen=True)
class RunOptions:
    """How a run is done. The run decides what is `None` or "auto" by this machine, and writes its decision down.

    orders: see `parse_orders`. batch_tokens: most tokens of a batch. weights: of linear layers, `4bit` or `16bit`.
    compile: `on` or `off`. overwrite: replace another run's results. sample: whose header, ids and order submission.csv
    has.
    """

    orders: str = "1"
    margin: float = 0.7  # adaptive orders: score again where the likeliest option leads by less
    sets: SetRequest | None = None
    shard: tuple[int, int] | None = None  # (number, count), numbered from 1
    batch_tokens: int | None = None
    weights: str = "auto"
    compile: str = "auto"
    overwrite: bool = False
    verify: bool = True  # compare one row with the libraries' own forward before scoring the others
    device_map: str = "none"  # "auto": spread the base over all cards
    sample: SampleSubmission | None = None

    def __post_init__(self) -> None:
        _check_choice("--weights", self.weights, ("auto", "4bit", "16bit"))
        _check_choice("--compile", self.compile, ("auto", "on", "off"))
        _check_choice("--device-map", self.device_map, ("none", "auto"))
        if self.batch_tokens is not None and self.batch_tokens < 1:
            raise RunError(f"--batch-tokens {self.batch_tokens}: expected a number of tokens, or none")
        if not 0 <= self.margin < math.inf:
            raise RunError(f"--margin {self.margin}: expected a number from 0 on")
        if self.shard and self.orders == "adaptive":
            raise RunError(
                "--shard with adaptive orders: which rows are scored in more orders depends on all rows; use --orders "
                "cyclic or pride"
            )
        if self.shard and self.sample:
            raise RunError("--shard with --sample: a shard writes no submission.csv; give the sample to `merge`")

    @property
    def decided(self) -> dict[str, Any]:
        """What the caller has decided of that which a run else decides by its machine, as `plan.json` names it."""
        decided: dict[str, Any] = {} if self.batch_tokens is None else {"batch_tokens": self.batch_tokens}
        return decided if self.compile == "auto" else decided | {"compile": self.compile == "on"}


class Loader(Protocol):
    """Loads a run's model, here or elsewhere. `ModelLoader` says what each attribute is."""

    machine: dict[str, Any]
    label_ids: list[int]
    steps: dict[str, float]
    compiling_seconds: float
    verifying_seconds: float
    scorer: "BatchScorer | None"

    @property
    def loading_seconds(self) -> float: ...

    @property
    def weights(self) -> str | None: ...

    @property
    def compiled(self) -> bool: ...

    def load(self) -> object: ...

    def batch_tokens(self) -> int: ...


class Loop(Protocol):
    """Scores scheduled batches. `BatchLoop` says what each attribute is."""

    seconds: float
    first_seconds: float
    waiting_seconds: float
    peak_bytes: int

    def run(self, queue: Queue) -> None: ...

    def reported(self) -> list[dict[str, Any]]: ...


class Workers(Protocol):
    """Processes elsewhere that load the model and answer batches in place of this one."""

    def loader(self, job: "Job") -> Loader: ...

    def costs(self, scheduler: Any, stop: Event) -> "list[list[RowCost]]":
        """`scheduler.costs(stop=stop)`, worked out wherever that is soonest."""

    def loop(self, job: "Job", scheduler: Any, state: "RunState") -> Loop:
        """scheduler: a `scoring.run.scheduler.Scheduler`, whose module needs this one."""


@dataclass(frozen=True)
class RunContext:
    """What a run talks to.

    progress: opens a bar of all rows. stop: once it is set, the run files the batch that it is working on and raises
    KeyboardInterrupt. processes: those that make the same call. workers: those that answer in place of this process.
    """

    progress: Progress | None = None
    say: Say = print
    stop: Event = field(default_factory=Event)
    processes: Processes = field(default_factory=Processes)
    workers: Workers | None = None


@dataclass(frozen=True)
class Job:
    """One run: these rows, with this model, into the folder `out`."""

    table: Table
    plan: Plan
    out: Path
    options: RunOptions
    context: RunContext

    @property
    def parts(self) -> Path:
        """The folder with a part for each batch of this run."""
        return self.out / "logits"

    @property
    def letters(self) -> int:
        """The largest number of options of a row."""
        return len(self.table.letters)


@dataclass
class RunResult:
    """What a run leaves: its logits as read back from the parts, and what there is to say about them.

    logits: None in processes other than the first. metrics: those of metrics.json, None without answers. scored_now:
    rows that this call scored, not an earlier one. seconds: by phase. peak_bytes: of memory on a card. orders_note: a
    sentence about orders that differ between rows, or "". scorer: the loaded model, for another run. scored: how many
    rows have a score, where the logits are those of a sample.
    """

    logits: OptionLogits | None
    metrics: dict[str, Any] | None
    warnings: list[str]
    scored_now: int
    seconds: dict[str, float]
    peak_bytes: int = 0
    orders_note: str = ""
    scorer: "BatchScorer | None" = None
    scored: int | None = None

    @property
    def scored_rows(self) -> int:
        """How many rows have a score; 0 in processes other than the first."""
        if self.scored is not None:
            return self.scored
        return int(self.logits.scored.sum()) if self.logits is not None else 0


def total_seconds(results: Sequence[RunResult]) -> dict[str, float]:
    """Seconds by phase of several runs of a call, one after the other."""
    phases = dict.fromkeys(phase for result in results for phase in result.seconds)
    return {phase: sum(result.seconds.get(phase, 0.0) for result in results) for phase in phases}
