"""Groups of options of the command line. Imports click alone."""

import math
from functools import wraps
from pathlib import Path

import click

SMALLEST_BUDGET, LARGEST_SIDE = 32 * 32, 10_000


class Pixels(click.ParamType):
    """Pixel budgets: the side of a square, or (from 10,000 on) a number of pixels; `several` of them as a list."""

    name = "pixels"

    def __init__(self, several: bool):
        self.several = several

    def convert(self, value, parameter, context):
        if not isinstance(value, str):
            return value
        parts = value.split(",") if self.several else [value]
        if not all(part.strip().isdecimal() for part in parts):
            example = "448 or 448,560" if self.several else "448 or 200704"
            self.fail(f"{value!r}: expected the side of a square or a number of pixels, such as {example}")
        found = [int(part) ** 2 if int(part) < LARGEST_SIDE else int(part) for part in parts]
        if min(found) < SMALLEST_BUDGET:
            self.fail(f"{value!r}: expected a side of at least 32")
        return found if self.several else found[0]


PIXELS = Pixels(several=False)


class Finite(click.FloatRange):
    """A number in a range; NaN and infinity are in none."""

    def convert(self, value, parameter, context):
        number = super().convert(value, parameter, context)
        if not math.isfinite(number):
            self.fail(f"{value!r}: expected a finite number", parameter, context)
        return number


class Names(click.ParamType):
    """Some of a few names, separated by commas, as a list."""

    name = "names"

    def __init__(self, known: tuple[str, ...]):
        self.known = known

    def convert(self, value, parameter, context):
        if not isinstance(value, str):
            return value
        found = [part.strip() for part in value.split(",")]
        if foreign := [part for part in found if part not in self.known]:
            self.fail(f"{', '.join(map(repr, foreign))}: expected some of {', '.join(self.known)}")
        return found


def _together(*options):
    """One decorator for all of them; `--help` lists them in this order."""

    def decorated(command):
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def one_setting(values, option: str):
    """The only one of several values of an option that cannot have more with --out-of-fold; None of none."""
    if values and len(values) > 1:
        raise click.UsageError(f"--out-of-fold takes one {option}; call it for each")
    return values[0] if values else None


class Shard(click.ParamType):
    """`2/4`: which of how many, from 1."""

    name = "i/n"

    def convert(self, value, parameter, context):
        if not isinstance(value, str):
            return value
        which, sign, count = value.partition("/")
        if not (which.isdecimal() and count.isdecimal() and 1 <= int(which) <= int(count)):
            self.fail(f"{value!r}: expected which shard of how many, from 1, such as 2/4")
        return int(which), int(count)


class Column(click.ParamType):
    """`question=Q`: our name of a column, and the table's."""

    name = "ours=theirs"

    def convert(self, value, parameter, context):
        ours, sign, theirs = value.partition("=") if isinstance(value, str) else (*value, "=")
        if not (ours.strip() and theirs.strip()):
            self.fail(f"{value!r}: expected our name of the column, =, and the table's, such as question=Q")
        return ours.strip().casefold(), theirs.strip()


def _as_sets(command):
    """What sets are asked for comes to the command as one argument, `sets`."""

    @wraps(command)
    def called(sets, sets_method, sets_seed, **given):
        from scoring.stats.sets import SetRequest

        return command(**given, sets=SetRequest(sets, sets_method, sets_seed) if sets else None)

    return called


def _as_reading(command):
    """How a table is read comes to the command as one argument, `reading`."""

    @wraps(command)
    def called(**given):
        names = ("images", "allow_outside", "skip_bad_rows", "columns", "picture_pixels", "picture_bytes")
        reading = {name: given.pop(name) for name in names}
        return command(**given, reading=reading | {"columns": dict(reading["columns"])})

    return called


# How a table and its pictures are read.
data_options = _together(
    click.option(
        "--images",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="Folder that `path` is relative to.  [default: the table's]",
    ),
    click.option("--allow-outside", is_flag=True, help="Let `path` lead out of that folder."),
    click.option("--skip-bad-rows", is_flag=True, help="Go on without faulty rows; ends with exit code 3."),
    click.option(
        "--column",
        "columns",
        type=Column(),
        multiple=True,
        help="Where the table calls a column otherwise: question=Q, a=option_1; repeatable.",
    ),
    click.option(
        "--max-picture-pixels",
        "picture_pixels",
        type=click.IntRange(1),
        help="Pictures of more are refused before they are decoded.  [default: 200 million]",
    ),
    click.option(
        "--max-picture-bytes",
        "picture_bytes",
        type=click.IntRange(1),
        help="Larger files are refused too.  [default: 256 MiB]",
    ),
    _as_reading,
)

# What may differ from the checkpoint's own settings.
model_options = _together(
    click.option("--base", help="Base model: folder or hub id.  [default: the checkpoint's]"),
    click.option(
        "--template",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Prompt template, a TOML file.  [default: the checkpoint's]",
    ),
    click.option("--quantization", type=click.Choice(["nf4", "none"]), help="[default: the checkpoint's]"),
    click.option("--allow-mismatch", is_flag=True, help="Go on where settings differ from the checkpoint's."),
)

one_pixels = click.option("--pixels", type=PIXELS, help="Pixel budget, such as 448 for 448x448.")
several_pixels = click.option(
    "--pixels",
    type=Pixels(several=True),
    help="Pixel budget, such as 448 for 448x448; 448,560 scores each checkpoint at both and pools.",
)

# How the engine keeps the model and cuts a table into batches.
engine_options = (
    click.option(
        "--batch-tokens",
        type=click.IntRange(64),
        help="Tokens of a batch: less needs less memory.  [default: by memory]",
    ),
    click.option(
        "--weights",
        type=click.Choice(["auto", "4bit", "16bit"]),
        default="auto",
        show_default=True,
        help="Keep the base in 4 bits, or expand it at load: faster, the same logits.",
    ),
    click.option(
        "--compile",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Compile the layers for this card: half a minute at first, faster after that.",
    ),
)

# Sets of options.
set_options = (
    click.option(
        "--sets",
        type=Finite(0.5, 1, max_open=True),
        help="Add sets of options that hold the right one that often, such as 0.9.",
    ),
    click.option(
        "--sets-method",
        type=click.Choice(["lac", "aps"]),
        default="lac",
        show_default=True,
        help="lac: the smallest sets on average. aps: sizes that follow how hard a row is.",
    ),
    click.option("--sets-seed", type=click.IntRange(0), help="With aps: randomised sets, exact on average."),
)

# How anyone's file of numbers is read.
file_options = (
    click.option(
        "--format",
        "form",
        type=click.Choice(["auto", "probabilities", "log-probabilities", "logits", "shares"]),
        default="auto",
        show_default=True,
        help="What the letters' columns of a file hold; shares: numbers to be divided by their sum.",
    ),
    click.option(
        "--answers",
        type=click.Path(path_type=Path),
        help="Table with the right answers by id, for rows without them; other answers than a row's own are refused.",
    ),
    click.option(
        "--calibration",
        "calibrations",
        type=click.Path(path_type=Path),
        multiple=True,
        help="File of `calibrate --out`, for the members of its adapter, or without one of its name; repeatable.",
    ),
)

form_option, answers_option, _ = file_options
anyones_options = _together(*file_options)

# How a table is scored.
run_options = _together(
    click.option(
        "--orders",
        default="1",
        show_default=True,
        help="Option orders, averaged: 1, cyclic, all, a number, adaptive (more where unsure), pride (letters' "
        "prior taken off); 1,cyclic scores each checkpoint both ways and pools.",
    ),
    click.option(
        "--margin",
        type=Finite(0),
        default=0.7,
        show_default=True,
        help="With adaptive orders: unsure is a smaller lead.",
    ),
    click.option("--calibration", default="auto", show_default=True, help="auto, none, or a file from `calibrate`."),
    *set_options,
    click.option(
        "--device-map",
        type=click.Choice(["none", "auto"]),
        default="none",
        show_default=True,
        help="auto: lay a base that is too large for one card over all of them.",
    ),
    click.option(
        "--verify/--no-verify",
        default=True,
        show_default=True,
        help="Hold the first row against the libraries' own forward before the others are scored.",
    ),
    click.option("--shard", type=Shard(), help="Score that share of the batches alone, such as 2/4; see `merge`."),
    *engine_options,
    _as_sets,
)

# What `bench` measures, and what it tells.
BENCH_WAYS = (
    *("seed", "one", "batched", "strong", "forward", "padded"),
    *("engine-4bit", "engine-16bit", "engine", "cyclic"),
)
bench_options = _together(
    click.option(
        "--ways",
        type=Names(BENCH_WAYS),
        help=f"Comma-separated: {', '.join(BENCH_WAYS)}.  [default: all that apply to the base and this machine]",
    ),
    click.option(
        "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Interleaved; medians are told."
    ),
    click.option("--price", type=Finite(0, min_open=True), help="Of an hour of this machine, to tell the cost."),
    click.option(
        "--cost-rows", type=click.IntRange(1), default=100_000, show_default=True, help="Rows whose cost is told."
    ),
    *engine_options,
)

# How members are pooled.
pool_options = _together(
    click.option("--pool", "kind", type=click.Choice(["log", "linear", "vote"]), default="log", show_default=True),
    click.option(
        "--weights",
        default="equal",
        show_default=True,
        help="equal; numbers: 0.5,0.3,0.2; or, for log pools alone, fitted on the rows of --fit: fit or greedy (where "
        "rows held out of the fit gain more than the error), or nll (likewise, but of 1,000 labelled rows at least).",
    ),
    click.option(
        "--fit",
        type=click.Path(path_type=Path),
        help="Labelled rows: one folder or file that holds all members, or out-of-fold rows; for the pool's "
        "temperature and weights.",
    ),
    *set_options,
    *file_options,
    _as_sets,
)
