"""`score` and `merge` as functions: a run into a folder, which the same call continues.

Nothing here imports torch before the rows are known to be good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from scoring.checkpoints.checkpoint import folds_of
from scoring.errors import CallError
from scoring.inputs.orders import parse_orders
from scoring.inputs.prompt import PromptTemplate
from scoring.library.arguments import (
    Progressed,
    Rows,
    context_of,
    names_of,
    orders_from,
    pixels_from,
    refuse_several_processes,
    rows_in_ranges,
    template_of,
)
from scoring.library.messages import say_to_log, warn
from scoring.library.wording import for_callers
from scoring.messages import Say
from scoring.scores.logits import NOT_SCORED
from scoring.stats.sets import SetRequest
from scoring.tables.large import LargeTable
from scoring.tables.reading import TableOptions
from scoring.tables.sample import read_sample, tell_lacking
from scoring.tables.table import Table
from scoring.tables.usable import check_for_bases, for_bases

if TYPE_CHECKING:
    from scoring.library.answers import Answers
    from scoring.run.options import ModelOptions, RunContext, RunOptions, RunResult


@for_callers
def score(  # noqa: PLR0913 - each by its name, as the command's options
    data: Rows,
    ckpt: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    base: str | Path | None = None,
    images: str | Path | None = None,
    orders: str | int | Sequence[str | int] = "1",
    calibration: str | Path = "auto",
    template: PromptTemplate | str | Path | None = None,
    pixels: int | str | Sequence[int | str] | None = None,
    quantization: str | None = None,
    allow_mismatch: bool = False,
    margin: float = 0.7,
    sets: float | SetRequest | None = None,
    sample: str | Path | None = None,
    limit: int | None = None,
    shard: tuple[int, int] | None = None,
    out_of_fold: bool = False,
    batch_tokens: int | None = None,
    weights: str = "auto",
    compile: str = "auto",
    device: str | None = None,
    verify: bool = True,
    overwrite: bool = False,
    skip_bad_rows: bool = False,
    options: TableOptions | None = None,
    progress: Progressed | None = None,
    stop: Event | None = None,
) -> "Answers":
    """Score rows into the folder `out`, as `score` of the command line does: the same numbers, in the same files.

    For large tables, and where the process may be killed: the same call, without `overwrite`, continues where it was.
    A path of more than a million rows is read and scored a range at a time, though what this returns has all its rows.
    Without a folder, `Scorer.score` gives the same numbers.

    data: a table's path, a `Table`, a DataFrame, dicts or `Question`s.
    ckpt: checkpoints, or folders of folds; several are pooled. base: in place of the one that they name.
    images: the folder that paths of pictures are relative to.
    orders: of the options: `1`, `cyclic`, `all`, `adaptive`, `pride` or a number; several of them are pooled.
    calibration: `auto` for each checkpoint's own, `none`, or a file.
    template, pixels, quantization: in place of the checkpoint's. pixels: below 10,000 the side of a square; several
    budgets are pooled. allow_mismatch: permit settings that the checkpoint was not made with.
    margin: adaptive orders score again where the likeliest option leads by less.
    sets: add sets of options, of which this share holds the right one.
    sample: a sample submission, whose header, ids and order submission.csv gets.
    limit: score only the first rows. shard: (number, count), score only this part of the batches; see `merge`.
    out_of_fold: `data` was trained on in folds; score each row by the fold of `ckpt` that did not see it.
    batch_tokens: most tokens in a batch. weights: `4bit`, `16bit` or `auto`. compile: `on`, `off` or `auto`.
    device: `auto` to spread the base over all cards. verify: compare a row with the libraries' own forward first.
    overwrite: replace another run. skip_bad_rows: go on without faulty rows, which are in the result without a score.
    options: how tables are read.
    progress: called with (rows done, all rows) after each batch; each of several runs has its own.
    stop: once it is set, the batch at hand is filed, and KeyboardInterrupt raised.

    Returns the answers of all rows; the `status` of those without a score says why. Of a shard, the rows of others have
    none. What deserves a look is a `ScoringWarning`.

    Raises a `ScoringError` where something is wrong, before the model is loaded wherever that can be known.

    >>> answers = score("test.csv", ["ckpt/fold0", "ckpt/fold1"], "scores/test", orders="cyclic")  # doctest: +SKIP
    >>> [answer.id for answer in answers if not answer.scored]  # doctest: +SKIP
    """
    refuse_several_processes("score")
    request = ScoreRequest(
        checkpoints=names_of(ckpt),
        out=Path(out),
        base=None if base is None else str(base),
        orders=orders_from(orders),
        calibration=str(calibration),
        pixels=pixels_from(pixels),
        sample=None if sample is None else Path(sample),
        limit=limit,
        out_of_fold=out_of_fold,
        skip_bad_rows=skip_bad_rows,
    )
    _check(request, shard)
    scoring = Scoring(request, lambda: rows_in_ranges(data, images, options, skip_bad_rows), say_to_log)
    from scoring.library.answers import Answers
    from scoring.run.groups import release_memory
    from scoring.run.options import ModelOptions, RunOptions

    scoring.plan(
        ModelOptions(request.base, template_of(template), None, quantization, allow_mismatch),
        RunOptions(
            margin=margin,
            sets=SetRequest(sets) if isinstance(sets, float) else sets,
            shard=shard,
            batch_tokens=batch_tokens,
            weights=weights,
            compile=compile,
            overwrite=overwrite,
            verify=verify,
            device_map=device or "none",
        ),
    )
    result = scoring.run(context_of(progress, stop))
    result.scorer = None  # the only reference to the model
    release_memory()
    warn(result.warnings)
    if shard:
        return scoring.shard_answers(result)
    answers = Answers.load(scoring.out)
    if isinstance(scoring.table, Table):
        answers.option_logits.status = scoring.status_of(result)
    return answers


@for_callers
def merge(
    folders: Sequence[str | Path], out: str | Path, *, sample: str | Path | None = None, overwrite: bool = False
) -> "Answers":
    """Merge the shards of a table into the folder `out`, which a single run would have written.

    folders: of every shard of one run, once. sample: see `score`. overwrite: replace existing results.

    Raises RunError, naming everything that is wrong, where shards are missing, double or of different runs.

    >>> answers = merge(["scores/shard1", "scores/shard2"], "scores/whole")  # doctest: +SKIP
    """
    from scoring.library.answers import Answers
    from scoring.run.shards import merge as merge_shards

    wanted = read_sample(Path(sample)) if sample else None
    logits, _, warnings = merge_shards([Path(folder) for folder in folders], Path(out), overwrite, wanted)
    tell_lacking(wanted, logits.ids, say_to_log)
    warn(warnings)
    answers = Answers.load(out)
    answers.option_logits.status = logits.status
    return answers


def _check(request: "ScoreRequest", shard: tuple[int, int] | None) -> None:
    """Raises CallError for arguments that do not go together, and for rows or shards that there cannot be."""
    if not request.checkpoints:
        raise CallError("ckpt: found no checkpoint; expected one or more")
    if request.limit is not None and request.limit < 1:
        raise CallError(f"limit={request.limit!r}: expected 1 or more, or None for all rows")
    if shard and not 1 <= shard[0] <= shard[1]:
        raise CallError(f"shard={shard!r}: expected the shard's number, counted from 1, and how many there are")
    if request.out_of_fold:
        several = {"orders": request.orders, "pixels": request.pixels, "ckpt": request.checkpoints}
        for name, values in several.items():
            if len(values) > 1:
                raise CallError(f"out_of_fold=True takes a single {name}; make a call for each")


# ------------------------------------------------------------------ what the command does, too
@dataclass(frozen=True)
class ScoreRequest:
    """What is to be scored, and in which ways; model and run have options of their own: see `score`.

    out: None for scores/NAME, for a table NAME.csv. base: in place of the checkpoints' own.
    """

    checkpoints: Sequence[str]
    out: Path | None = None
    base: str | None = None
    orders: Sequence[str] = ("1",)
    calibration: str = "auto"
    pixels: Sequence[int] = ()
    sample: Path | None = None
    limit: int | None = None
    out_of_fold: bool = False
    skip_bad_rows: bool = False


class Scoring:
    """A call of `score`: first its rows are read, then `plan` reads the checkpoints, and `run` scores.

    Raises OrdersError, or InputError with everything that is wrong with the rows or the sample submission.
    """

    def __init__(self, request: ScoreRequest, read: Callable[[], Table | LargeTable], say: Say):
        self.request, self.say = request, say
        self.orders = [parse_orders(orders) for orders in request.orders]
        self.sample = read_sample(request.sample) if request.sample else None
        self.table: Table | LargeTable = read()
        if request.out_of_fold:
            self.table = self._all_rows("--out-of-fold")
        if request.limit is not None and request.limit < self.table.count:
            self.table = self.table.first(request.limit)
        self.out = request.out or Path("scores") / self.table.file.name.split(".")[0]
        if self.sample:
            ids = self.table.ids()
            self.sample.rows_in(ids)  # raises before anything is loaded
            tell_lacking(self.sample, ids, say)
        count = sum(len(folds_of(name)) for name in request.checkpoints)
        say(f"{self.table.count:,} rows, {count} checkpoint{'s' if count > 1 else ''}; loading …")
        from scoring.run.ahead import bases_here, begun

        with begun(bases_here(request.checkpoints, request.base)):
            import scoring.run.groups  # noqa: F401 - while threads read the bases

    def plan(self, model: "ModelOptions", options: "RunOptions") -> None:
        """Read the checkpoints, and check that they fit together, the rows and what is asked of them.

        Raises CheckpointError, MismatchError, SetsError, or InputError where a base sees no pictures.
        """
        from scoring.run.groups import check_sets, needs_all_rows, plan_groups

        request = self.request
        self.options, self.model = replace(options, sample=self.sample), model
        if request.out_of_fold:  # each fold is planned with its own rows
            return
        self.groups = plan_groups(request.checkpoints, model, request.pixels or None, self.orders, request.calibration)
        if isinstance(self.table, LargeTable) and (reason := needs_all_rows(self.groups, options)):
            self.table = self._all_rows(reason)
        check_sets(self.groups, options.sets, self.table, model.allow_mismatch)
        for note in dict.fromkeys(note for group in self.groups for note in group.plan.notes):
            self.say(note)
        bases = [group.plan.base for group in self.groups]
        if isinstance(self.table, LargeTable):
            check_for_bases(self.table, bases, request.skip_bad_rows, self.say)
        else:
            self.table = for_bases(self.table, bases, request.skip_bad_rows, self.say)

    def run(self, context: "RunContext") -> "RunResult":
        """Score the rows that have no score yet. Raises and stops as `run_groups`, or `score_out_of_fold`."""
        if not self.request.out_of_fold:
            from scoring.run.groups import run_groups

            return run_groups(self.table, self.groups, self.out, self.options, context)
        from scoring.run.out_of_fold import Folds, score_out_of_fold

        model = replace(self.model, pixels=self.request.pixels[0]) if self.request.pixels else self.model
        folds = Folds(self.request.checkpoints[0], model)
        assert isinstance(self.table, Table)  # since __init__
        return score_out_of_fold(self.table, folds, self.out, replace(self.options, orders=self.orders[0]), context)

    def _all_rows(self, reason: str) -> Table:
        """The table with all its rows in memory."""
        if isinstance(self.table, Table):
            return self.table
        self.say(f"{reason}: all {self.table.count:,} rows are held in memory")
        return self.table.read_all()

    def status_of(self, result: "RunResult") -> list[str]:
        """(N,) the status of each scored row; of one that was left out, what is wrong with it."""
        assert result.logits is not None and isinstance(self.table, Table)  # no other process, and no ranges
        faults = {row.id: row.fault for row in self.table.questions if row.fault}
        pairs = zip(result.logits.ids, result.logits.status)
        return [faults.get(id, status) if status == NOT_SCORED else status for id, status in pairs]

    def shard_answers(self, result: "RunResult") -> "Answers":
        """The answers of a shard, whose folder is no whole one; the rows of other shards have none."""
        from scoring.library.answers import Answers

        assert result.logits is not None and isinstance(self.table, Table)  # no other process, and no ranges
        plan = self.groups[0].plan  # a shard has a single setting
        run_json = {"data": self.table.about(), **plan.about(), "notes": plan.notes, "warnings": result.warnings}
        return Answers.of(
            table=self.table,
            logits=result.logits,
            calibrations=plan.calibrations,
            run_json=run_json,
            exposed=plan.exposed,
        )
