"""The schedule of a run: which rows form which batch, in which option orders, and which batches have no part yet.

It decides, and neither reads nor writes anything: the same table, plan and options always give the same batches.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from threading import Event
from typing import Any

from scoring.checkpoints.plan import Plan
from scoring.engine.costs import (
    RowCost,
    TokenCost,
    cost_from_json,
    cost_to_json,
    costs_of,
    plan_batches,
    row_costs,
    tokens_in,
)
from scoring.inputs.orders import orders_of
from scoring.inputs.questions import Question
from scoring.inputs.referring import count_referring
from scoring.run.options import RunOptions
from scoring.run.shards import assign_batches
from scoring.scores.logits import OptionLogits
from scoring.scores.probabilities import margins, pooled_log_probabilities
from scoring.tables.table import Table

FEWEST_SAMPLED, SAMPLED = 64, 0.05  # rows that `--orders pride` scores in all cyclic orders: at least, and their share
REST = "rest"  # the cyclic orders that the first pass of adaptive orders leaves out


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together, each in its option orders. Its part has its number."""

    number: int
    questions: list[Question]
    orders: str
    tokens: int = 0


class Scheduler:
    """The batches of a run, numbered as their parts are; `todo` holds the numbers of those without a part."""

    def __init__(self, table: Table, plan: Plan, options: RunOptions):
        self.table, self.plan, self.options = table, plan, options
        self.scorable: list[Question] = []
        self.unscorable = {question.id: question.fault for question in table.questions if question.fault}  # id -> why
        self.tokens = 0  # of all scorable rows, in the orders that are scored first
        self.batches: dict[int, Batch] = {}
        self.assigned: list[int] = []  # the batches of this shard
        self.todo: list[int] = []
        self.rows_todo = self.rows_done = 0  # of this shard, when the run starts
        self.fixed: FixedRows | None = None  # once they are described
        self.saving: AdaptiveSaving | None = None  # once adaptive orders are scheduled
        self.passes = first_passes([question for question in table.questions if not question.fault], options.orders)
        self._costs: list[tuple[str, list[TokenCost]]] = []  # of `scorable`, by pass

    def identity(self, machine: dict[str, Any]) -> dict[str, Any]:
        """Everything that the logits depend on, except for the batches."""
        return identity_of(self.table, len(self.table.questions), self.plan, self.options, machine)

    def costs(self, rank: int = 0, count: int = 1, stop: Event | None = None) -> list[list[RowCost]]:
        """For each pass, the cost of every `count`-th row from `rank` on: the share of process `rank` of `count`.

        stop: once it is set, nobody waits for the costs any more, and the others are left out.
        """

        def wanted(cost: object) -> bool:
            return not (stop and stop.is_set())

        return [
            list(takewhile(wanted, row_costs(self.plan.preparer, rows[rank::count], orders)))
            for orders, rows in self.passes
        ]

    def add_costs(self, shares: Sequence[list[list[RowCost]]]) -> None:
        """Take in the `costs` of all processes, by rank."""
        for number, (orders, rows) in enumerate(self.passes):
            costs = []
            for index, question in enumerate(rows):  # as `costs` deals them to the processes
                cost = shares[index % len(shares)][number][index // len(shares)]
                if isinstance(cost, str):
                    self.unscorable[question.id] = cost
                else:
                    self.scorable.append(question)
                    costs.append(cost)
            self._costs.append((orders, costs))
        self.tokens = tokens_in(cost for _, costs in self._costs for cost in costs)

    def schedule(self, budget: int, has_part: Callable[[int], bool]) -> None:
        """Cut the scorable rows into batches of at most `budget` tokens; this shard's without a part are to do."""
        start = 0
        for orders, costs in self._costs:
            self._cut(self.scorable[start : start + len(costs)], costs, orders, budget)
            start += len(costs)
        self.assigned = assign_batches([batch.tokens for batch in self.batches.values()], self.options.shard or (1, 1))
        self.todo = [number for number in self.assigned if not has_part(number)]
        self.rows_todo = self.rows_in(self.todo)
        self.rows_done = self.rows_in(self.assigned) - self.rows_todo

    def schedule_unsure(self, logits: OptionLogits, budget: int, has_part: Callable[[int], bool]) -> str:
        """Adaptive orders: batches of the rows whose lead in `logits` is below the margin, in the orders that are left.

        Only those are to do then. Returns a sentence about what that saves.
        """
        types = [question.task_type for question in self.table.questions]
        log_p = pooled_log_probabilities(logits, self.plan.calibrations, types)
        leads, scored = dict(zip(logits.ids, margins(log_p))), dict(zip(logits.ids, logits.scored))
        unsure = [
            question
            for question in self.scorable
            if scored[question.id] and leads[question.id] < self.options.margin and orders_of(question, REST)
        ]
        costs = [cost for cost in costs_of(self.plan.preparer, unsure, REST) if isinstance(cost, TokenCost)]
        first = len(self.batches)
        self._cut(unsure, costs, REST, budget)
        self.todo = [number for number in range(first, len(self.batches)) if not has_part(number)]
        self.saving = AdaptiveSaving.of_rows(self.scorable, unsure, self.options.margin)
        return str(self.saving)

    def describe_fixed(self) -> str:
        """A sentence about rows that are shown in one order only, whatever was asked for; "" where there are none."""
        if self.options.orders == "1":
            return ""
        self.fixed = FixedRows(count_referring(self.scorable), len(self.scorable))
        return str(self.fixed)

    def _cut(self, questions: Sequence[Question], costs: list[TokenCost], orders: str, budget: int) -> None:
        """Add the batches of these rows, whose costs are in their order."""
        for rows in plan_batches(costs, budget):
            number = len(self.batches)
            tokens = tokens_in(costs[row] for row in rows)
            self.batches[number] = Batch(number, [questions[row] for row in rows], orders, tokens)

    def rows_in(self, numbers: Sequence[int]) -> int:
        """Rows of these batches."""
        return sum(len(self.batches[number].questions) for number in numbers)

    # ------------------------------------------------------------ messages between the processes of a call
    def costs_from_json(self, values: list[list[Any]], rank: int, count: int) -> list[list[RowCost]]:
        """The `costs` of another process, from its message (`costs_to_json`)."""
        return [list(map(cost_from_json, rows[rank::count], share)) for (_, rows), share in zip(self.passes, values)]

    def to_json(self) -> dict[str, Any]:
        """The schedule as a message: the batches to do, by indices of the table's rows."""
        if not self.todo:
            return {"todo": []}
        index = {question.id: row for row, question in enumerate(self.table.questions)}
        todo = [self.batches[number] for number in self.todo]
        return {
            "todo": [[batch.number, batch.orders, [index[row.id] for row in batch.questions]] for batch in todo],
        }

    def follow(self, message: dict[str, Any]) -> None:
        """Take over what the first process scheduled, from the same table."""
        self.batches = {
            number: Batch(number, [self.table.questions[row] for row in rows], orders)
            for number, orders, rows in message["todo"]
        }
        self.todo = list(self.batches)


def identity_of(table: Table, rows: int, plan: Plan, options: RunOptions, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything that the logits depend on, except for the batches. rows: how many the table has, held or not."""
    identity = {
        "data": table.digest,
        "rows": rows,
        **plan.identity,
        **machine,
        "letters": table.letters,
        "orders": options.orders,
        **table.identity(),
    }
    if options.shard:
        identity["shard"] = list(options.shard)
    if options.orders == "adaptive":  # which rows are scored in more orders depends on these
        identity |= {
            "margin": options.margin,
            "temperatures": [calibration.temperature for calibration in plan.calibrations],
        }
    return identity


def costs_to_json(costs: list[list[RowCost]]) -> list[list[str | list[int]]]:
    """`Scheduler.costs` as a message."""
    return [list(map(cost_to_json, share)) for share in costs]


# ---------------------------------------------------------------- orders that are not the same for all rows
def first_passes(questions: list[Question], orders: str) -> list[tuple[str, list[Question]]]:
    """(orders, rows) that are scored first. Adaptive orders may add another pass."""
    if orders == "adaptive":
        return [("half", questions)]
    if orders == "pride":
        sample = set(random.Random(0).sample(range(len(questions)), sample_size(len(questions))))
        sampled = [question for row, question in enumerate(questions) if row in sample]
        others = [question for row, question in enumerate(questions) if row not in sample]
        return [("cyclic", sampled), ("1", others)]
    return [(orders, questions)]


def sample_size(rows: int) -> int:
    """How many of the rows `--orders pride` scores in all cyclic orders."""
    return min(rows, max(FEWEST_SAMPLED, round(SAMPLED * rows)))


def describe_pride(rows: Sequence[Question]) -> str:
    """What was done with the letters' prior."""
    return (
        f"the letters' prior was estimated on {sample_size(len(rows)):,} rows in all cyclic orders, and removed from "
        "the others"
    )


@dataclass(frozen=True)
class FixedRows:
    """How many of the rows are shown in one order only."""

    count: int
    rows: int

    def __add__(self, other: "FixedRows") -> "FixedRows":
        """Of both tables' rows."""
        return FixedRows(self.count + other.count, self.rows + other.rows)

    def __str__(self) -> str:
        if not self.count:
            return ""
        return (
            f"{self.count:,} of {self.rows:,} rows keep the order of their options, since these refer to each "
            "other (such as 'all of the above')"
        )


@dataclass(frozen=True)
class AdaptiveSaving:
    """What adaptive orders saved. prompts: how many were scored, of those that --orders cyclic would have scored.

    unsure: rows that were scored in all orders, of all rows, since their lead was under `margin`.
    """

    prompts: int
    cyclic: int
    unsure: int
    rows: int
    margin: float

    @classmethod
    def of_rows(cls, rows: Sequence[Question], unsure: Sequence[Question], margin: float) -> "AdaptiveSaving":
        """What was saved on these rows."""
        cyclic, half = (sum(len(orders_of(row, orders)) for row in rows) for orders in ("cyclic", "half"))
        prompts = half + sum(len(orders_of(row, REST)) for row in unsure)
        return cls(prompts, cyclic, len(unsure), len(rows), margin)

    def __add__(self, other: "AdaptiveSaving") -> "AdaptiveSaving":
        """Of both tables' rows."""
        return AdaptiveSaving(
            self.prompts + other.prompts,
            self.cyclic + other.cyclic,
            self.unsure + other.unsure,
            self.rows + other.rows,
            self.margin,
        )

    def __str__(self) -> str:
        return (
            f"adaptive orders: {self.prompts:,} of the {self.cyclic:,} prompts of --orders cyclic "
            f"({1 - self.prompts / max(self.cyclic, 1):.0%} saved); all orders for {self.unsure:,} of {self.rows:,} "
            f"rows, where the lead was under {self.margin:g}"
        )
