"""What the report reads of metrics.json, comparison.json and bench.json, as typed records.

run.json is read when a folder is opened, see `scores/folder.py`. A record has the fields that tables, figures and page
use, under the file's own names; other keys are ignored. Numbers become text here alone: every table rounds alike.
"""

from dataclasses import dataclass, field
from typing import Any, TypeVar

from scoring.files.reading import as_object
from scoring.scores.folder import TableEntry

NO_VALUE = "–"  # a cell without a number
T = TypeVar("T")


def number(value: float | None, form: str = ".3f", unit: float = 1) -> str:
    """A number as a cell shows it, in units of `unit`; a dash for None."""
    return NO_VALUE if value is None else format(value / unit if unit != 1 else value, form)


# ------------------------------------------------------------------ a metric
@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval; None for all three where the metric is not defined on these rows."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, form: str = ".3f") -> str:
        """The value as a cell shows it."""
        return number(self.value, form)

    def interval(self, form: str = ".3f") -> str:
        """The interval as a cell shows it."""
        return NO_VALUE if self.low is None else f"{number(self.low, form)} – {number(self.high, form)}"


@dataclass(frozen=True)
class CalibrationError(Estimate):
    """An ECE, with the mean and the 95 % quantile of what a perfectly calibrated model would show on as many rows."""

    floor_mean: float
    floor_95: float


# ------------------------------------------------------------------ comparison.json
@dataclass(frozen=True)
class Systems:
    """comparison.json, the part that names the two systems."""

    first: str
    second: str


@dataclass(frozen=True)
class Difference:
    """A metric of two systems and their difference; smallest: the effect that a 5 % test finds four times in five."""

    first: float
    second: float
    difference: Estimate
    smallest: float


@dataclass(frozen=True)
class AccuracyDifference(Difference):
    """only_first, only_second: rows that only one of the systems has right."""

    only_first: int
    only_second: int
    mcnemar_p: float


@dataclass(frozen=True)
class Comparison:
    """Two systems on the rows that both have scored; only_in_one: rows that they do not share."""

    rows: int
    accuracy: AccuracyDifference
    nll: Difference
    only_in_one: int = 0


# ------------------------------------------------------------------ metrics.json
@dataclass(frozen=True)
class Calibrated:
    """Metrics that say how calibrated probabilities are."""

    nll: Estimate
    ece: CalibrationError


@dataclass(frozen=True)
class Letter:
    """How often a letter is right (rows) and answered (share of all rows)."""

    rows: int
    predicted: float


@dataclass(frozen=True)
class Group:
    """Metrics of all rows, or of the rows of one group."""

    rows: int
    accuracy: Estimate
    nll: Estimate
    brier: Estimate
    ece: CalibrationError
    letters: list[Letter]


@dataclass(frozen=True)
class RiskPoint:
    """The share of wrong answers (risk) among the surest share of rows (coverage)."""

    coverage: float
    risk: float


@dataclass(frozen=True)
class Threshold:
    """The confidence threshold for a target accuracy; None where none can be promised.

    rows, left_out: rows that it was found on, and rows left out because a member has met them before; None and 0 where
    no row was met. reason: why no row may be used, or "".
    """

    wanted: float
    threshold: float | None
    coverage: float
    accuracy: float | None
    bound: float | None
    rows: int | None = None
    left_out: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Gain:
    """What a pool gains by a member: accuracy and NLL of the others' pool minus those of the whole pool.

    error: standard error of the NLL's gain. hurts: the others alone have the lower NLL.
    """

    accuracy: float
    nll: float
    error: float
    hurts: bool

    @property
    def nll_change(self) -> float:
        """How much the pool's NLL changes by the member; below 0 where it helps."""
        return -self.nll


@dataclass(frozen=True)
class Member:
    """A member of an ensemble; adds: what the pool gains by it."""

    member: str
    weight: float
    accuracy: Estimate
    nll: Estimate
    ece: CalibrationError
    adds: Gain


@dataclass(frozen=True)
class Agreement:
    """Shares of rows with the same answer: pairwise (M, M), and of all members; Fleiss' kappa, None if undefined."""

    pairwise: list[list[float]]
    all_agree: float
    fleiss_kappa: float | None


@dataclass(frozen=True)
class Pool:
    """How members are pooled: `log` or `linear`."""

    kind: str


@dataclass(frozen=True)
class Ensemble:
    """Members and their pool. best: the name of the best member. pool_against_best: that member against the pool."""

    pool: Pool
    members: list[Member]
    agreement: Agreement
    best: str
    pool_against_best: Comparison


@dataclass(frozen=True)
class OrderAgreement:
    """How a member's answers depend on the order of the options. letter_share: (K,) mean probability of each letter."""

    member: str
    all_agree: float
    changed_by_another: float
    letter_share: list[float] | None


@dataclass(frozen=True)
class CircularAccuracy(Estimate):
    """The share of rows that are right in every cyclic order, over `rows`; None where no row has them all.

    fewer_orders: rows that do not count since they have fewer orders; right_in_fewer: those of them that are right in
    these.
    """

    rows: int
    fewer_orders: int
    right_in_fewer: int


@dataclass(frozen=True)
class SetCoverage:
    """Sets of options: the level that was asked for, the share that holds the right option, and their mean size."""

    asked: float
    covered: float
    mean_size: float


@dataclass(frozen=True)
class Suspect:
    """The row whose label is least credible."""

    id: str
    answer: str
    pred: str
    p_pred: float


@dataclass(frozen=True)
class LabelCheck:
    """How many of the checked rows have a label that looks wrong. left_out: rows that a member was trained on."""

    rows: int
    flagged: int
    left_out: int
    file: str | None
    first: Suspect | None = None
    reason: str = ""


@dataclass(frozen=True)
class Metrics:
    """metrics.json. by: column -> group -> its metrics."""

    overall: Group
    by: dict[str, dict[str, Group]]
    risk_coverage: list[RiskPoint]
    selective: Threshold
    ensemble: Ensemble | None = None
    circular: CircularAccuracy | None = None
    suspects: LabelCheck | None = None

    @property
    def task_types(self) -> dict[str, Group]:
        return self.by.get("task_type", {})


@dataclass(frozen=True)
class MoreEstimates:
    """Metrics of all rows that only `evaluate` prints."""

    nll: Estimate
    brier: Estimate
    ece: Estimate
    rms_calibration_error: Estimate
    smooth_ece: Estimate
    classwise_ece: Estimate
    auroc: Estimate
    aurc: Estimate
    recall_std: Estimate


@dataclass(frozen=True)
class Details:
    """metrics.json, the part that only `evaluate` prints, and the page of a run in all cyclic orders shows."""

    overall: MoreEstimates
    selective: Threshold
    orders: list[OrderAgreement] = field(default_factory=list)
    circular: CircularAccuracy | None = None
    sets: SetCoverage | None = None
    suspects: LabelCheck | None = None


# ------------------------------------------------------------------ bench.json
@dataclass(frozen=True)
class RowSeconds:
    """Quantiles of the seconds a row."""

    p50: float
    p95: float


@dataclass(frozen=True)
class Cost:
    """What so many rows would cost. money: None without a price."""

    rows: int
    hours: float
    money: float | None

    @property
    def duration(self) -> str:
        return f"{self.hours:,.1f} h" if self.hours >= 1 else f"{60 * self.hours:.1f} min"


@dataclass(frozen=True)
class AgainstEngine:
    """differ: ids of the rows to which a way gives another letter than the engine."""

    differ: list[str]
    mcnemar_p: float | None


@dataclass(frozen=True)
class BenchWay:
    """A way to answer, as measured. unsteady: letters that another repeat did not repeat."""

    title: str
    rows_per_second: float
    seconds_per_row: RowSeconds
    peak_device_bytes: int | None
    peak_host_bytes: int | None
    joules_per_row: float | None
    accuracy: Estimate | None
    nll: Estimate | None
    unanswered: int
    fallbacks: int
    unsteady: int
    cost: Cost
    weights: str | None = None
    ratio: float | None = None
    against_engine: AgainstEngine | None = None

    @property
    def ratio_text(self) -> str:
        """Its speed as a multiple of the notebook's; "" where that was not measured."""
        return "" if self.ratio is None else f"{self.ratio:.2f}x"


@dataclass(frozen=True)
class FirstTokens:
    """Rows whose likeliest token is a letter, and ids of those whose generation starts with another token.

    others: the most frequent texts that are generated where that token is no letter, with their numbers of rows.
    """

    rows: int
    top_is_a_label: int
    violations: list[str]
    others: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """bench.json, the part that the terminal shows: ways by their names, and their check."""

    rows: int
    ways: dict[str, BenchWay]
    first_token: FirstTokens | None
    price_per_hour: float | None


@dataclass(frozen=True)
class BenchAnswer:
    """What a way answers to a row: its letter or "", the generated text, the probabilities of the options."""

    letter: str
    text: str | None = None
    p: list[float] | None = None

    @property
    def confidence(self) -> float | None:
        return max(self.p) if self.p else None


@dataclass(frozen=True)
class BenchRow:
    """A row of a benchmark, with the answer of each way."""

    id: str
    picture: str
    question: str
    options: list[str]
    answer: str
    task_type: str
    ways: dict[str, BenchAnswer]
    more_pictures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BenchRun(Bench):
    """The whole of bench.json: what was run, and each row, too."""

    checkpoint: str
    fingerprint: str | None
    device: str
    dtype: str
    quantization: str
    weights: str
    compiled: bool
    repeats: int
    per_row: list[BenchRow]
    data: TableEntry = field(default_factory=TableEntry)
    command: list[str] = field(default_factory=list)
    versions: dict[str, str | None] = field(default_factory=dict)


FILES: dict[type[Any], str] = {
    Metrics: "metrics.json",
    Details: "metrics.json",
    Comparison: "comparison.json",
    Systems: "comparison.json",
    Bench: "bench.json",
    BenchRun: "bench.json",
}


def read_record(kind: type[T], values: dict[str, Any], source: object = None) -> T:
    """The record of these values, which are of the file that FILES names; source: its path, where that is known.

    Raises FileError, which names the source, where a value is of another type.
    """
    return as_object(kind, values, source or FILES[kind])
