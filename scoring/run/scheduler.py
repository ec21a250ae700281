"""What a run has to do: which rows form which batch, in which orders each is shown, and which have no part yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scoring.checkpoints.plan import Plan
from scoring.engine.batches import TokenCost, costs_of, picture_key, plan_batches, tokens_in
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question, Table
from scoring.run.options import RunOptions
from scoring.run.passes import first_passes, told_adaptive
from scoring.scores.logits import OptionLogits, part_path
from scoring.scores.probabilities import margins, pooled_log_probabilities


@dataclass
class Agenda:
    """Batches are numbered as their parts are; `batches` holds rows of `planned`, `shown` the orders of each."""

    table: Table
    plan: Plan
    options: RunOptions
    status: dict[str, str] = field(default_factory=dict)  # of rows that no batch holds
    planned: list[Question] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    tokens_of: list[int] = field(default_factory=list)  # of each batch
    todo: list[int] = field(default_factory=list)
    passes: list[tuple[str, list[TokenCost]]] = field(default_factory=list)

    def costs(self, rank: int = 0, count: int = 1) -> list[list[TokenCost | str]]:
        """What every `count`-th row from `rank` on adds to a batch, or why it cannot be scored.

        A list for each of the orders that rows are shown in first.
        """
        return [
            [
                found.found if isinstance(found, PictureError) else found
                for found in costs_of(self.plan.preparer, rows[rank::count], orders)
            ]
            for orders, rows in self._first()
        ]

    def _first(self) -> list[tuple[str, list[Question]]]:
        return first_passes([question for question in self.table.questions if not question.fault], self.options.orders)

    def cost(self, shares: list[list[list]]) -> int:
        """Take in what `costs` found, by each process in turn; the tokens of all rows that can be scored."""
        self.status = {question.id: question.fault for question in self.table.questions if question.fault}
        for number, (orders, rows) in enumerate(self._first()):
            costs = []
            for at, question in enumerate(rows):
                found = shares[at % len(shares)][number][at // len(shares)]
                if isinstance(found, str):
                    self.status[question.id] = found
                else:
                    self.planned.append(question)
                    costs.append(found if isinstance(found, TokenCost) else TokenCost(picture_key(question), *found))
            self.passes.append((orders, costs))
        return tokens_in(cost for _, found in self.passes for cost in found)

    def cut(self, budget: int, parts: Path) -> None:
        """Batches of the rows that `cost` found; those without a part are to do."""
        first = 0
        for orders, found in self.passes:
            self._cut(found, orders, range(first, first := first + len(found)), budget, parts)

    def _cut(self, costs: list[TokenCost], orders: str, rows: Sequence[int], budget: int, parts: Path) -> None:
        begun = len(self.batches)
        batches = plan_batches(costs, budget)
        self.batches += [[rows[at] for at in batch] for batch in batches]
        self.tokens_of += [tokens_in(costs[at] for at in batch) for batch in batches]
        self.shown += [orders] * len(batches)
        self.todo += [number for number in range(begun, len(self.batches)) if not part_path(parts, number).exists()]

    def cut_unsure(self, logits: OptionLogits, budget: int, parts: Path) -> str:
        """With adaptive orders: the rest of them for rows whose answer is not clear in `logits`, which hold the first.

        Only those batches are to do then. What there is to say about it is returned.
        """
        types = [question.task_type for question in self.table.questions]
        lead = dict(zip(logits.ids, margins(pooled_log_probabilities(logits, self.plan.calibrations, types))))
        scored = dict(zip(logits.ids, logits.scored))
        rows = [
            at
            for at, question in enumerate(self.planned)
            if scored[question.id] and lead[question.id] < self.options.margin and orders_of(question, "rest")
        ]
        questions = [self.planned[at] for at in rows]
        costs = [cost for cost in costs_of(self.plan.preparer, questions, "rest") if isinstance(cost, TokenCost)]
        self.todo = []
        self._cut(costs, "rest", rows, budget, parts)
        return told_adaptive(self.planned, questions, self.options.margin)

    # ------------------------------------------------------------ for the other processes of a call
    def to_json(self) -> dict:
        """What is to do, by rows of the table."""
        place = {question.id: at for at, question in enumerate(self.table.questions)} if self.todo else {}
        batches = {number: [place[self.planned[row].id] for row in self.batches[number]] for number in self.todo}
        return {"todo": self.todo, "batches": batches, "shown": self.shown}

    def follow(self, told: dict) -> None:
        """Do what the first process told, which planned from the same table."""
        self.planned, self.todo, self.shown = self.table.questions, told["todo"], told["shown"]
        self.batches = [told["batches"].get(str(number), []) for number in range(len(self.shown))]
