"""`bench` as a function: one forward pass against generating text, on the same rows."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TypeVar

from scoring.errors import CallError
from scoring.inputs.prompt import PromptTemplate
from scoring.library.arguments import Progressed, Rows, budget_of, template_of, usable_rows
from scoring.library.messages import ProgressOf, say_to_log
from scoring.library.wording import for_callers
from scoring.tables.reading import TableOptions

if TYPE_CHECKING:
    from scoring.report.records import BenchRun

DEMO = Path(__file__).resolve().parents[2] / "demo"
DEMO_ROWS = 80
T = TypeVar("T")


@for_callers
def bench(  # noqa: PLR0913 - each by its name, as the command's options
    data: Rows | None = None,
    ckpt: str | Path | None = None,
    *,
    out: str | Path | None = None,
    base: str | Path | None = None,
    images: str | Path | None = None,
    ways: Sequence[str] | None = None,
    repeats: int = 3,
    limit: int | None = None,
    price: float | None = None,
    cost_rows: int = 100_000,
    template: PromptTemplate | str | Path | None = None,
    pixels: int | str | None = None,
    quantization: str | None = None,
    allow_mismatch: bool = False,
    batch_tokens: int | None = None,
    weights: str = "auto",
    compile: str = "auto",
    skip_bad_rows: bool = False,
    options: TableOptions | None = None,
    progress: Progressed | None = None,
) -> "BenchRun":
    """Measure ways to answer on the same rows, as `bench` of the command line does; returns what bench.json holds.

    data: rows, see `score`; without them 80 of the demo in this repository. ckpt: folder or hub id.
    out: a folder for bench.json, also of a call that is stopped, and report.html; None: nothing is left behind.
    ways: names of `scoring.benchmark.summary.WAYS`; None for all but `decision` that are possible here.
    repeats: of each way, taking turns; the medians count. limit: use only the first rows.
    price: of this machine per hour. cost_rows: of how many rows time and cost are given.
    progress: called with (rows answered, rows of all ways and repeats). The others: see `score`.

    Seconds are of this machine, which should do nothing else. Raises a `ScoringError`, as `score` does, and RunError
    where none of the ways applies.

    >>> measured = bench(ways=["forward", "engine"], repeats=1)  # doctest: +SKIP
    >>> {name: way.rows_per_second for name, way in measured.ways.items()}  # doctest: +SKIP
    """
    rows, name, limit = rows_or_demo(data, None if ckpt is None else str(ckpt), limit)
    table = usable_rows(rows, images, options, skip_bad_rows)
    from scoring.benchmark.measure import BenchOptions
    from scoring.benchmark.measure import bench as measure
    from scoring.benchmark.summary import WAYS
    from scoring.report.page import write_report
    from scoring.report.records import BenchRun, read_record
    from scoring.run.groups import release_memory
    from scoring.run.options import ModelOptions, RunOptions

    if unknown := [name for name in ways or [] if name not in WAYS]:
        raise CallError(f"ways: found {', '.join(map(repr, unknown))}; expected some of {', '.join(WAYS)}")
    if min(repeats, 1 if limit is None else limit) < 1:
        raise CallError(f"repeats={repeats!r}, limit={limit!r}: expected 1 or more")
    budget = None if pixels is None else budget_of(pixels)
    model = ModelOptions(
        None if base is None else str(base), template_of(template), budget, quantization, allow_mismatch
    )
    run = RunOptions(batch_tokens=batch_tokens, weights=weights, compile=compile)
    table = replace(table, questions=table.good[:limit])
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(TemporaryDirectory()))
        chosen = BenchOptions(folder, model, run, list(ways) if ways else None, repeats, price, cost_rows)
        measured = measure(table, name, chosen, ProgressOf(progress or _ignore), say_to_log)
        if out is not None:
            write_report(folder)
    release_memory()
    return read_record(BenchRun, measured)


def _ignore(done: int, total: int) -> None:
    """Progress that nobody asked for."""


# ------------------------------------------------------------------ what the command does, too
def rows_or_demo(data: T | None, ckpt: str | None, limit: int | None) -> tuple[T | Path, str, int | None]:
    """(rows, checkpoint, how many rows) of a benchmark: those of the repository's demo where none are named.

    The number is the most to use; None for all. Raises CallError where there is no demo, or rows without checkpoint.
    """
    if data is not None:
        if ckpt is None:
            raise CallError("name the checkpoint with --ckpt")
        return data, ckpt, limit
    if not (DEMO / "test.csv").exists():
        raise CallError("the demo is not installed with the package; run bench from a clone, or give DATA and --ckpt")
    return DEMO / "test.csv", ckpt or str(DEMO / "checkpoints" / "fold0"), limit or DEMO_ROWS
