"""`score` and `merge` as functions: a run into a folder, which the same call continues.

Nothing here imports torch before the rows are known to be good.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.checkpoints.checkpoint import folds_of
from scoring.inputs.orders import parse_orders
from scoring.messages import Say
from scoring.tables.sample import read_sample, tell_lacking
from scoring.tables.table import Table
from scoring.tables.usable import for_bases

if TYPE_CHECKING:
    from scoring.run.options import ModelOptions, RunContext, RunOptions, RunResult


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
    pixels: Sequence[int] | None = None
    sample: Path | None = None
    limit: int | None = None
    out_of_fold: bool = False
    skip_bad_rows: bool = False


class Scoring:
    """A call of `score`: first its rows are read, then `plan` reads the checkpoints, and `run` scores.

    Raises OrdersError, or InputError with everything that is wrong with the rows or the sample submission.
    """

    def __init__(self, request: ScoreRequest, read: Callable[[], Table], say: Say):
        self.request, self.say = request, say
        self.orders = [parse_orders(orders) for orders in request.orders]
        self.sample = read_sample(request.sample) if request.sample else None
        table = read()
        self.table = replace(table, questions=table.questions[: request.limit])
        self.out = request.out or Path("scores") / table.file.name.split(".")[0]
        if self.sample:
            ids = [question.id for question in self.table.questions]
            self.sample.rows_in(ids)  # raises before anything is loaded
            tell_lacking(self.sample, ids, say)
        count = sum(len(folds_of(name)) for name in request.checkpoints)
        say(f"{len(self.table.questions):,} rows, {count} checkpoint{'s' if count > 1 else ''}; loading …")
        from scoring.run.ahead import bases_here, begun

        with begun(bases_here(request.checkpoints, request.base)):
            import scoring.run.groups  # noqa: F401 - while threads read the bases

    def plan(self, model: "ModelOptions", options: "RunOptions") -> None:
        """Read the checkpoints, and check that they fit together, the rows and what is asked of them.

        Raises CheckpointError, MismatchError, SetsError, or InputError where a base sees no pictures.
        """
        from scoring.run.groups import check_sets, plan_groups

        request = self.request
        self.options, self.model = replace(options, sample=self.sample), model
        if request.out_of_fold:  # each fold is planned with its own rows
            return
        self.groups = plan_groups(request.checkpoints, model, request.pixels, self.orders, request.calibration)
        check_sets(self.groups, options.sets, self.table, model.allow_mismatch)
        for note in dict.fromkeys(note for group in self.groups for note in group.plan.notes):
            self.say(note)
        bases = [group.plan.base for group in self.groups]
        self.table = for_bases(self.table, bases, request.skip_bad_rows, self.say)

    def run(self, context: "RunContext") -> "RunResult":
        """Score the rows that have no score yet. Raises and stops as `run_groups`, or `score_out_of_fold`."""
        if not self.request.out_of_fold:
            from scoring.run.groups import run_groups

            return run_groups(self.table, self.groups, self.out, self.options, context)
        from scoring.run.out_of_fold import Folds, score_out_of_fold

        model = replace(self.model, pixels=self.request.pixels[0]) if self.request.pixels else self.model
        folds = Folds(self.request.checkpoints[0], model)
        return score_out_of_fold(self.table, folds, self.out, replace(self.options, orders=self.orders[0]), context)
