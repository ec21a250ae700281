"""Groups of options of the command line, and the records in which commands get their values. Nothing heavy."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from scoring.inputs.pixel_budgets import PixelsError, parse_pixels

if TYPE_CHECKING:
    from scoring.run.options import ModelOptions, RunOptions
    from scoring.stats.sets import SetRequest

    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic from click 8.4 on

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]
T = TypeVar("T")


# ---------------------------------------------------------------- types of values
class Pixels(ParamType):
    """Pixel budgets: the side of a square, or (from 10,000 on) a number of pixels; `several` of them as a list."""

    name = "pixels"

    def __init__(self, several: bool):
        self.several = several

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        parts = value.split(",") if self.several else [value]
        try:
            budgets = [parse_pixels(part) for part in parts]
        except PixelsError as error:
            self.fail(str(error))
        return budgets if self.several else budgets[0]


class Finite(click.FloatRange):
    """A number in a range; NaN and infinity are in none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r}: expected a finite number", param, ctx)
        return number


class Names(ParamType):
    """Some of a few names, separated by commas, as a list."""

    name = "names"

    def __init__(self, known: tuple[str, ...]):
        self.known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        names = [part.strip() for part in value.split(",")]
        if unknown := [name for name in names if name not in self.known]:
            self.fail(f"{', '.join(map(repr, unknown))}: expected one or more of {', '.join(self.known)}")
        return names


class Shard(ParamType):
    """`2/4`: shard 2 of 4, numbered from 1."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        number, _, count = value.partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            self.fail(f"{value!r}: expected the shard's number, counted from 1, and how many there are, such as 2/4")
        return int(number), int(count)


class Column(ParamType):
    """`question=Q`: a column's name in this program, and its name in the table."""

    name = "name=column"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name, _, column = value.partition("=") if isinstance(value, str) else (value[0], "=", value[1])
        if not (name.strip() and column.strip()):
            self.fail(f"{value!r}: expected a column's usual name, =, and its name in the table, such as question=Q")
        return name.strip().casefold(), column.strip()


def only_value(values: "list[T] | tuple[T, ...] | None", option: str) -> T | None:
    """The only value of an option that takes no more with --out-of-fold; None where it is not given."""
    if values and len(values) > 1:
        raise click.UsageError(f"--out-of-fold takes a single {option}; run the command once for each")
    return values[0] if values else None


# ---------------------------------------------------------------- records
@dataclass(frozen=True)
class TableOptions:
    """How a table and its pictures are read. columns: a column's usual name -> its name in the table, if they differ.

    columns_file: a file with more such names. encoding, meaning, layout: of a file of text, of the answers, and how
    rows hold questions; None where they are found out. picture_pixels, picture_bytes: the most that a picture may have;
    None for the defaults. split: the only one to read; None for all.
    """

    images: Path | None
    allow_outside: bool
    skip_bad_rows: bool
    text_only_rows: bool
    columns: dict[str, str]
    columns_file: Path | None
    encoding: str | None
    meaning: str | None
    layout: str | None
    picture_pixels: int | None
    picture_bytes: int | None
    split: str | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))  # the option gives pairs


@dataclass(frozen=True)
class ModelChoices:
    """Settings that replace the checkpoint's own, as given; None where not given. template: a file."""

    base: str | None
    template: Path | None
    quantization: str | None
    allow_mismatch: bool

    def options(self, pixels: int | None = None) -> "ModelOptions":
        """Raises TemplateError, where the file holds no template."""
        from scoring.inputs.prompt import PromptTemplate
        from scoring.run.options import ModelOptions

        template = PromptTemplate.read(self.template) if self.template else None
        return ModelOptions(self.base, template, pixels, self.quantization, self.allow_mismatch)


@dataclass(frozen=True)
class EngineChoices:
    """How the engine keeps the model and cuts a table into batches."""

    batch_tokens: int | None
    weights: str
    compile: str

    def options(self) -> "RunOptions":
        from scoring.run.options import RunOptions

        return RunOptions(**asdict(self))


@dataclass(frozen=True)
class RunChoices:
    """How a table is scored, apart from the option orders. shard: (number, count), numbered from 1."""

    margin: float
    sets: "SetRequest | None"
    device_map: str
    verify: bool
    shard: tuple[int, int] | None
    batch_tokens: int | None
    weights: str
    compile: str
    overwrite: bool

    def options(self, orders: str = "1") -> "RunOptions":
        from scoring.run.options import RunOptions

        return RunOptions(orders=orders, **{each.name: getattr(self, each.name) for each in fields(self)})


def as_record(record: type, parameter: str) -> Decorator:
    """The options that are named as the fields of `record` come to the command as one argument, `parameter`."""
    names = [each.name for each in fields(record)]

    def decorated(command: Command) -> Command:
        @wraps(command)
        def called(**values: Any) -> Any:
            chosen = record(**{name: values.pop(name) for name in names})
            return command(**{parameter: chosen}, **values)

        return called

    return decorated


def _as_sets(command: Command) -> Command:
    """The three options of sets come to the command as one argument, `sets`: a request, or None."""

    @wraps(command)
    def called(sets: float | None, sets_method: Literal["lac", "aps"], sets_seed: int | None, **values: Any) -> Any:
        from scoring.stats.sets import SetRequest

        return command(**values, sets=SetRequest(sets, sets_method, sets_seed) if sets else None)

    return called


def together(*options: Decorator) -> Decorator:
    """One decorator for all of them; `--help` lists them in this order."""

    def decorated(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


# ---------------------------------------------------------------- groups of options
table_options = together(
    click.option(
        "--images",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder that picture paths are relative to.  [default: the table's folder]",
    ),
    click.option("--allow-outside", is_flag=True, help="Allow picture paths that lead out of that folder."),
    click.option("--skip-bad-rows", is_flag=True, help="Leave out faulty rows, and end with exit code 3."),
    click.option(
        "--text-only-rows", is_flag=True, help="Accept rows without a picture in a table whose other rows have one."
    ),
    click.option(
        "--column",
        "columns",
        type=Column(),
        multiple=True,
        help="Column that has another name in the table, such as question=Q or a=first. Repeatable.",
    ),
    click.option("--split", help="Split to read, of a folder of Parquet files or of a table with a column split."),
    click.option(
        "--columns",
        "columns_file",
        type=click.Path(path_type=Path, dir_okay=False),
        help='TOML file with such names in lines as question = "Q", or in its section [columns]; --column wins.',
    ),
    click.option("--encoding", help="Encoding of a text file, such as shift_jis.  [default: found out]"),
    click.option(
        "--answers",
        "meaning",
        type=click.Choice(["letters", "text", "from-0", "from-1"]),
        help="What the answers are: letters, the options' texts, or numbers from 0 or 1.  [default: found out]",
    ),
    click.option(
        "--layout",
        type=click.Choice(["letters", "choices", "inline", "chat"]),
        help="Where the options are: a column each (letters), a list (choices), inside the question (inline), or in a "
        "conversation (chat).  [default: found out]",
    ),
    click.option(
        "--max-picture-pixels",
        "picture_pixels",
        type=click.IntRange(1),
        help="Refuse pictures with more pixels, before decoding them.  [default: 200 million]",
    ),
    click.option(
        "--max-picture-bytes",
        "picture_bytes",
        type=click.IntRange(1),
        help="Refuse larger picture files.  [default: 256 MiB]",
    ),
    as_record(TableOptions, "reading"),
)

template_option = click.option(
    "--template",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Prompt template, a TOML file.  [default: the checkpoint's]",
)
model_options = together(
    click.option("--base", help="Base model: folder or hub id.  [default: the checkpoint's]"),
    template_option,
    click.option(
        "--quantization",
        type=click.Choice(["nf4", "none"]),
        help="Quantization of the base.  [default: the checkpoint's]",
    ),
    click.option("--allow-mismatch", is_flag=True, help="Allow settings that differ from the checkpoint's."),
    as_record(ModelChoices, "model"),
)
base_option = click.option("--base", help="Base model: folder or hub id.  [default: as the checkpoint names it]")

PIXELS = Pixels(several=False)
one_pixels = click.option(
    "--pixels", type=PIXELS, help="Pixel budget, such as 448 for 448x448.  [default: the checkpoint's]"
)
several_pixels = click.option(
    "--pixels",
    type=Pixels(several=True),
    help="Pixel budget, such as 448 for 448x448. 448,560 scores each checkpoint at both and pools the results.  "
    "[default: the checkpoint's]",
)

orders_option = click.option(
    "--orders",
    default="1",
    show_default=True,
    help="Option orders to average over: 1, cyclic, all, a number, adaptive (more where the lead is small), or "
    "pride (remove the letters' prior). 1,cyclic scores each checkpoint both ways and pools the results.",
)
margin_option = click.option(
    "--margin",
    type=Finite(0),
    default=0.7,
    show_default=True,
    help="Adaptive orders: score again where the lead is below this.",
)
calibration_option = click.option(
    "--calibration",
    default="auto",
    show_default=True,
    help="auto (each checkpoint's own), none, or a file from `calibrate`.",
)
device_map_option = click.option(
    "--device-map",
    type=click.Choice(["none", "auto"]),
    default="none",
    show_default=True,
    help="auto: spread the layers over all GPUs of this host, for a base that is too large for one.",
)
verify_option = click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare one row with the forward pass of transformers and PEFT before scoring the others.",
)
batch_tokens_option = click.option(
    "--batch-tokens",
    type=click.IntRange(64),
    help="Most tokens in a batch; fewer need less memory.  [default: chosen by free memory]",
)
weights_option = click.option(
    "--weights",
    type=click.Choice(["auto", "4bit", "16bit"]),
    default="auto",
    show_default=True,
    help="Weights in memory: 4bit needs less room, 16bit is faster, with the same logits. auto: 16bit if it fits.",
)

_engine_options = (
    batch_tokens_option,
    weights_option,
    click.option(
        "--compile",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Compile the layers for this GPU: takes half a minute, then scores faster. auto: where the run is long "
        "enough.",
    ),
)

_set_options = (
    click.option(
        "--sets",
        type=Finite(0.5, 1, max_open=True),
        help="Add a conformal set of options to each row; this share of the sets, such as 0.9, holds the right option.",
    ),
    click.option(
        "--sets-method",
        type=click.Choice(["lac", "aps"]),
        default="lac",
        show_default=True,
        help="lac: smallest sets on average. aps: set sizes that follow a row's difficulty.",
    ),
    click.option(
        "--sets-seed",
        type=click.IntRange(0),
        help="With aps: randomize the sets with this seed, so that the rate of --sets is met exactly on average.",
    ),
)

form_option = click.option(
    "--format",
    "form",
    type=click.Choice(["auto", "probabilities", "log-probabilities", "logits", "shares"]),
    default="auto",
    show_default=True,
    help="What the letter columns of a file hold. shares: any non-negative numbers, to be divided by their sum.",
)
sample_option = click.option(
    "--sample",
    type=click.Path(path_type=Path),
    help="Sample submission, a table of two columns (ids and answers): submission.csv gets its header, ids and order.",
)
answers_option = click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="Table with the right answers by id, for rows without one. It must not contradict a row's own answer.",
)
_calibrations_option = click.option(
    "--calibration",
    "calibrations",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File from `calibrate --out`, matched to members by adapter, or else by name. Repeatable.",
)
file_options = together(form_option, answers_option, _calibrations_option)

run_options = together(
    orders_option,
    margin_option,
    calibration_option,
    *_set_options,
    device_map_option,
    verify_option,
    click.option("--shard", type=Shard(), help="Score only this shard of the batches, such as 2/4; see `merge`."),
    *_engine_options,
    click.option("--overwrite", is_flag=True, help="Start anew, replacing the run in the folder."),
    _as_sets,
    as_record(RunChoices, "choices"),
)

BENCH_WAYS = (
    *("seed", "one", "batched", "strong", "forward", "padded"),
    *("engine-4bit", "engine-16bit", "engine", "cyclic", "decision"),
)
bench_options = together(
    click.option(
        "--ways",
        type=Names(BENCH_WAYS),
        help=f"Ways to measure, comma-separated: {', '.join(BENCH_WAYS)}.  [default: all that this base and machine "
        "allow, but decision]",
    ),
    click.option(
        "--repeats",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Interleaved repeats of each way; the medians are reported.",
    ),
    click.option("--price", type=Finite(0, min_open=True), help="Price of this machine per hour, to report costs."),
    click.option(
        "--cost-rows",
        type=click.IntRange(1),
        default=100_000,
        show_default=True,
        help="Number of rows whose time and cost are reported.",
    ),
    *_engine_options,
    as_record(EngineChoices, "choices"),
)

pool_options = together(
    click.option(
        "--pool",
        "kind",
        type=click.Choice(["log", "linear", "vote"]),
        default="log",
        show_default=True,
        help="log: average log-probabilities. linear: average probabilities. vote: count the members' answers.",
    ),
    click.option(
        "--weights",
        default="equal",
        show_default=True,
        help="equal, numbers such as 0.5,0.3,0.2, or (for log pools) weights fitted on the rows of --fit: fit, greedy, "
        "or nll, which needs 1,000 rows. Fitted weights are used only where held-out rows gain more than the error.",
    ),
    click.option(
        "--fit",
        type=click.Path(path_type=Path),
        help="Labelled rows to fit the pool's temperature and weights: a folder or file with all members, or "
        "out-of-fold rows.",
    ),
    *_set_options,
    file_options,
    _as_sets,
)
