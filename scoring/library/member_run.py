"""Members that share a forward pass answer a question, or a table: the run of a program, which writes no file.

In: a question or a table. Out: `OptionLogits` of the question, `Answers` of the table. Rows get the batches, the orders
and the calibrations that `score` gives them: the scheduler, the plan and the back-off are the same.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from threading import Semaphore

from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer, machine
from scoring.engine.batches import AHEAD, cost_of, prepare_batch, read_ahead
from scoring.engine.costs import TokenCost, costs_of, plan_batches, tokens_in
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question
from scoring.library.answers import Answers
from scoring.library.ask_limits import AskLimits
from scoring.library.messages import warn
from scoring.library.owner import ModelOwner, Request
from scoring.messages import ProgressBar
from scoring.run.options import RunOptions
from scoring.run.run import describe_run
from scoring.run.scheduler import REST, Scheduler, describe_pride
from scoring.scores.evaluation import warnings_of
from scoring.scores.logits import SCORED, OptionLogits
from scoring.scores.probabilities import margins, pooled_log_probabilities
from scoring.tables.table import Table

ENCODED = 4  # questions between two looks at the limits


@dataclass(frozen=True, eq=False)
class MemberRun:
    """Members that share a forward pass, in one choice of orders.

    scorer: their model with their prompt; `owner` alone computes with it. labels: their names among those of all runs.
    margin: of adaptive orders. preparing: limits how many threads read pictures at once.
    """

    scorer: BatchScorer
    owner: ModelOwner
    orders: str
    labels: list[str]
    margin: float
    preparing: Semaphore

    @property
    def plan(self) -> Plan:
        """Of the members."""
        return self.scorer.plan

    def ask(self, questions: Sequence[Question], limits: AskLimits) -> OptionLogits:
        """The logits of questions that are asked together; a status says why there is none.

        What they have in common, such as a picture, is computed once. Raises CallError beyond the limits.
        """
        if self.orders != "adaptive":
            return self._in_batches(questions, self.orders, limits)
        logits = self._in_batches(questions, "half", limits)
        log_p = pooled_log_probabilities(logits, self.plan.calibrations, [each.task_type for each in questions])
        lead = margins(log_p)
        unsure = [
            row
            for row, question in enumerate(questions)
            if logits.status[row] == SCORED and lead[row] < self.margin and orders_of(question, REST)
        ]
        if unsure:
            logits.add(self._in_batches([questions[row] for row in unsure], REST, limits), unsure)
        return logits

    def _in_batches(self, questions: Sequence[Question], orders: str, limits: AskLimits) -> OptionLogits:
        """Let the owner answer questions, in as many batches as they need."""
        if len(questions) == 1:
            return self._request(questions, orders, limits)
        costs = self._costs(questions, orders, limits)
        scorable = {row: cost for row, cost in enumerate(costs) if isinstance(cost, TokenCost)}
        numbers, known = list(scorable), list(scorable.values())
        planned = plan_batches(known, self.owner.budget)
        limits.refuse(sum(tokens_in(known[number] for number in batch) for batch in planned))
        batches = [[numbers[number] for number in batch] for batch in planned]
        batches += [[row] for row, cost in enumerate(costs) if isinstance(cost, PictureError)]  # for their statuses
        letters = max(len(question.options) for question in questions)
        ids = [question.id for question in questions]
        logits = OptionLogits.empty(ids, self.plan.members, letters, self.orders)
        for rows in batches:
            logits.add(self._request([questions[row] for row in rows], orders, limits), rows)
        return logits

    def _costs(self, questions: Sequence[Question], orders: str, limits: AskLimits) -> list[TokenCost | PictureError]:
        """The cost of each question. Raises CallError as soon as their texts alone go beyond the limits."""
        costs: list[TokenCost | PictureError] = []
        texts = 0
        with self.preparing:
            for start in range(0, len(questions), ENCODED):
                limits.check()
                costs += costs_of(self.scorer.prepare, list(questions[start : start + ENCODED]), orders)
                texts += sum(cost.text_tokens for cost in costs[start:] if isinstance(cost, TokenCost))
                limits.refuse(texts)
        return costs

    def _request(self, questions: Sequence[Question], orders: str, limits: AskLimits) -> OptionLogits:
        """Let the owner answer questions as one batch. Preparing them is done here, in the thread that asks."""
        with self.owner.caller():
            with self.preparing:
                limits.check()
                batch = prepare_batch(self.scorer.prepare, list(questions), orders)
            cost = cost_of(batch)
            limits.count(cost.tokens)
            future = self.owner.submit(Request(self.scorer, batch, self.orders, cost))
            try:
                if limits.cancel:
                    limits.cancel.watch(future)
                return future.result()
            except BaseException:
                future.cancel()
                raise

    def score(self, table: Table, bar: ProgressBar | None) -> Answers:
        """The answers of all rows; `bar` moves with them."""
        run_options = RunOptions(orders=self.orders, margin=self.margin)
        scheduler = Scheduler(table, self.plan, run_options)
        scheduler.add_costs([scheduler.costs()])
        scheduler.schedule(self.owner.budget, _without_parts)
        ids = [question.id for question in table.questions]
        logits = OptionLogits.empty(ids, self.plan.members, len(table.letters), self.orders)
        self._score_batches(scheduler, logits, bar)
        notes = [*self.plan.notes, *filter(None, [scheduler.describe_fixed()])]
        if self.orders == "pride":
            notes.append(describe_pride(scheduler.scorable))
        elif self.orders == "adaptive":
            notes.append(scheduler.schedule_unsure(logits, self.owner.budget, _without_parts))
            self._score_batches(scheduler, logits, None)
        for row, question in enumerate(table.questions):
            logits.status[row] = scheduler.unscorable.get(question.id, logits.status[row])
        settings = scheduler.identity(machine()) | {"batch_tokens": self.owner.budget, "compile": False}
        run_json = describe_run(table, self.plan, settings, notes) | {"weights": self.scorer.packed.weights}
        label_ids = self.scorer.label_ids[: len(table.letters)]
        answers = Answers.of(
            table=table,
            logits=logits,
            calibrations=self.plan.calibrations,
            run_json=run_json,
            label_ids=label_ids,
            exposed=self.plan.exposed,
        )
        warn(warnings_of(logits, label_ids, answers.calibrations, answers.answers, answers.log_probabilities))
        return answers

    def _score_batches(self, scheduler: Scheduler, logits: OptionLogits, bar: ProgressBar | None) -> None:
        """Let the owner answer the batches that are to do; their rows are put into `logits`."""
        row_of = {id: row for row, id in enumerate(logits.ids)}
        batches = [scheduler.batches[number] for number in scheduler.todo]
        device = self.scorer.model.device.type
        waiting: deque[Future[OptionLogits]] = deque()

        def take() -> None:
            part = waiting.popleft().result()
            logits.add(part, [row_of[id] for id in part.ids])
            if bar:
                bar.update(len(part.ids))

        ahead = read_ahead(self.scorer.prepare, ((batch.questions, batch.orders) for batch in batches), device)
        try:
            with closing(ahead):
                for batch, prepared in zip(batches, ahead):
                    cost = TokenCost(batch.number, 0, 0, batch.tokens)
                    waiting.append(self.owner.submit(Request(self.scorer, prepared, self.orders, cost)))
                    if len(waiting) > min(AHEAD[device], 1):
                        take()
            while waiting:
                take()
        finally:
            for future in waiting:
                future.cancel()


def _without_parts(number: int) -> bool:
    """No batch is done before: nothing is on disk."""
    return False
