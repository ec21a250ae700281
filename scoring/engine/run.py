"""A resumable run: plan the batches, score what has no part yet, write the results.

Which rows form which batch is decided from the whole table before the first is scored, and written down with
everything the logits depend on (`plan.json`). A part is a batch. A run that was killed computes the same batches
again, skips those that have their part, and ends with the same bytes.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import torch

import scoring
from scoring.engine.batches import Cost, Ready, costs_of, make_ready, plan_batches, read_ahead, tokens_in
from scoring.engine.choices import RunOptions
from scoring.engine.claim import check_folder, claim_folder, write_plan
from scoring.engine.forward import AnswerLogits
from scoring.engine.model import out_of_memory
from scoring.engine.packed import compiling_pays
from scoring.engine.passes import first_passes, told_adaptive, told_pride
from scoring.engine.plan import Plan
from scoring.engine.scorer import Scorer, machine
from scoring.engine.shards import leave_shard, own_batches
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question, Table
from scoring.results.finish import Ending
from scoring.results.folder import columns_of
from scoring.results.hold import hold
from scoring.results.judging import plan_overlaps
from scoring.results.logits import OptionLogits, part_path, read_parts, write_part
from scoring.results.probabilities import margins, pooled_log_probabilities

WARM_UP_ROWS = 8


@dataclass
class Finished:
    """What a run leaves: its results as read back from the parts, and what is to be said about them."""

    logits: OptionLogits
    metrics: dict | None
    warnings: list[str]
    scored_now: int
    seconds: dict[str, float]
    peak_bytes: int = 0
    about_orders: str = ""
    scorer: Scorer | None = None


def run(
    table: Table,
    plan: Plan,
    out: Path,
    options: RunOptions | None = None,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
    scorer: Scorer | None = None,
    stop: Event | None = None,
) -> Finished:
    """Score a table into `out`; go on where an earlier run with the same inputs stopped.

    progress: `progress(total_rows, done_rows)` gives an object with `update(rows)`, `show(**values)` and `close()`.
    scorer: of this plan, where it is loaded already. stop: once it is set, the batch at hand is finished and filed, and
    KeyboardInterrupt raised. Raises RunError where `out` holds the results of other inputs, HoldError where it cannot
    be written.
    """
    gc.freeze()  # the model's and the libraries' objects live on: looking through them cost .6 s of a run of 10 s
    try:
        with hold(out):
            return _run(_Job(table, plan, out, options or RunOptions(), say, scorer, stop), progress)
    finally:
        gc.unfreeze()


def _run(job: "_Job", progress: Callable | None) -> Finished:
    seconds = {"planning": 0.0, "loading": 0.0, "compiling": 0.0, "scoring": 0.0}
    for plan in (job.plan_rows, job.plan_unsure):
        start, loaded = time.monotonic(), job.load_seconds
        plan()
        seconds["planning"] += time.monotonic() - start - (job.load_seconds - loaded)
        if job.todo:
            job.load()
            seconds["compiling"] += job.warm_up()
            start = time.monotonic()
            job.score(progress)
            seconds["scoring"] += time.monotonic() - start
    start = time.monotonic()
    logits = job.read()
    seconds["scoring"] += time.monotonic() - start
    seconds |= {"loading": job.load_seconds, "waiting_for_pictures": job.waited}
    ending, metrics = job.ending(seconds, logits), None
    if job.options.shard:
        leave_shard(ending, job.options.shard, job.mine, job.status)
        warnings = ending.warnings
    else:
        metrics, warnings = ending.finish()
    seconds["scoring"] = ending.about["seconds"]["scoring"]
    return Finished(logits, metrics, list(warnings), job.scored_now, seconds, job.peak_bytes, job.more, job.scorer)


@dataclass
class _Job:
    """One call of `run`, step by step."""

    table: Table
    plan: Plan
    out: Path
    options: RunOptions
    say: Callable[[str], None]
    scorer: Scorer | None = None
    stop: Event | None = None
    status: dict[str, str] = field(default_factory=dict)  # of rows that no batch holds
    planned: list[Question] = field(default_factory=list)
    batches: list[list[int]] = field(default_factory=list)  # rows of `planned`, in the order of the parts
    shown: list[str] = field(default_factory=list)  # in which orders each batch is shown
    tokens_of: list[int] = field(default_factory=list)  # of each batch
    mine: list[int] = field(default_factory=list)  # batches of this shard
    scored_now: int = 0
    more: str = ""  # what is to be said about orders
    load_seconds: float = 0.0
    waited: float = 0.0  # for pictures that were not read yet
    peak_bytes: int = 0

    def plan_rows(self) -> None:
        """Claim the folder, and decide which rows form which batch."""
        self.todo: list[int] = []
        self.letters = len(self.table.letters)
        self.label_ids = self.plan.preparer.chat.label_ids(self.table.letters)
        identity = {
            "data": self.table.digest,
            "rows": len(self.table.questions),
            **self.plan.identity,
            **machine(),
            "letters": self.table.letters,
            "orders": self.options.orders,
            "columns": self.table.columns or None,
            "images": self.table.images,
        }
        if self.options.shard:
            identity["shard"] = list(self.options.shard)
        if self.options.orders == "adaptive":  # which rows get more depends on these
            identity |= {
                "margin": self.options.margin,
                "temperatures": [found.temperature for found in self.plan.calibrations],
            }
        asked = {"batch_tokens": self.options.batch_tokens}
        if self.options.compile != "auto":
            asked["compile"] = self.options.compile == "on"
        before = check_folder(
            self.out,
            identity | {key: value for key, value in asked.items() if value is not None},
            self.options.overwrite,
        )
        good = [question for question in self.table.questions if not question.fault]
        self.status = {question.id: question.fault for question in self.table.questions if question.fault}
        passes = [(orders, self._costs(rows, orders)) for orders, rows in first_passes(good, self.options.orders)]
        self.tokens = tokens_in(cost for _, found in passes for cost in found)
        if before:
            self.state = before
        else:
            self.state = identity | self._chosen(asked) | {"split": 1}
        self.parts = claim_folder(self.out, self.state, before)
        first = 0
        for orders, found in passes:
            self._plan(found, orders, range(first, first := first + len(found)))
        self.mine = own_batches(self.tokens_of, self.options.shard or (1, 1))
        self.todo = sorted({*self.todo} & {*self.mine})
        self.scored_now = sum(len(self.batches[number]) for number in self.todo)
        self.done = sum(len(self.batches[number]) for number in self.mine) - self.scored_now
        if self.done:
            self.say(f"going on: {self.done:,} of {len(self.planned):,} rows have their scores already")

    def _costs(self, questions: list[Question], orders: str) -> list[Cost]:
        """What each row that can be scored adds to a batch; those join `planned`, the others' reasons `status`."""
        costs = []
        for question, found in zip(questions, costs_of(self.plan.preparer, questions, orders)):
            if isinstance(found, PictureError):
                self.status[question.id] = found.found
            else:
                self.planned.append(question)
                costs.append(found)
        return costs

    def _plan(self, costs: list[Cost], orders: str, rows: Sequence[int]) -> None:
        """Batches of these rows of `planned`; those without a part are to do."""
        begun = len(self.batches)
        batches = plan_batches(costs, self.state["batch_tokens"])
        self.batches += [[rows[at] for at in batch] for batch in batches]
        self.tokens_of += [tokens_in(costs[at] for at in batch) for batch in batches]
        self.shown += [orders] * len(batches)
        self.todo += [
            number for number in range(begun, len(self.batches)) if not part_path(self.parts, number).exists()
        ]

    def plan_unsure(self) -> None:
        """With adaptive orders: the rest of them for rows whose answer is not clear after the first."""
        self.todo = []
        if self.options.orders == "pride":
            self.more = told_pride(self.planned)
        if self.options.orders != "adaptive":
            return
        first = sum(shown != "rest" for shown in self.shown)
        logits = self.read(first)
        types = [question.task_type for question in self.table.questions]
        lead = dict(zip(logits.ids, margins(pooled_log_probabilities(logits, self.plan.calibrations, types))))
        scored = dict(zip(logits.ids, logits.scored))
        rows = [
            at
            for at, question in enumerate(self.planned)
            if scored[question.id] and lead[question.id] < self.options.margin and orders_of(question, "rest")
        ]
        questions = [self.planned[at] for at in rows]
        costs = [cost for cost in costs_of(self.plan.preparer, questions, "rest") if isinstance(cost, Cost)]
        self._plan(costs, "rest", rows)
        self.more = told_adaptive(self.planned, questions, self.options.margin)

    def _chosen(self, asked: dict) -> dict:
        """What this run decides for itself, once: a run that goes on uses the same."""
        chosen = dict(asked)
        if chosen["batch_tokens"] is None:
            self.load()
            chosen["batch_tokens"] = self.scorer.packed.batch_tokens()
        if "compile" not in chosen and self.scorer and self.scorer.packed.compiled:
            chosen["compile"] = True  # by the run before
        if "compile" not in chosen:
            chosen["compile"], why = compiling_pays(self.plan.base, self.tokens * len(self.plan.members))
            if why:
                self.say(why)
        return chosen

    def load(self) -> None:
        if self.scorer is None:
            start = time.monotonic()
            self.scorer = Scorer(self.plan, weights=self.options.weights)
            self.load_seconds = time.monotonic() - start
            for note in self.scorer.model.notes:
                self.say(note)
            self.plan.notes += self.scorer.model.notes

    def warm_up(self) -> float:
        """Compile, where that was chosen, on a few rows whose results are dropped; seconds that it took."""
        if not self.state["compile"] or self.scorer.packed.compiled:
            return 0.0
        start = time.monotonic()
        self.say("compiling the layers for this card (the next run finds most of it on disk) …")
        self.scorer.packed.compile()
        rows = [self.planned[row] for row in self.batches[self.todo[0]][:WARM_UP_ROWS]]
        ready = make_ready(self.plan.preparer, rows, self.shown[self.todo[0]])
        for found in self.scorer.answer(ready, self.letters):
            found.top.cpu()
        return time.monotonic() - start

    # ------------------------------------------------------------ scoring
    def score(self, progress: Callable | None) -> None:
        """Every batch that has no part yet; while one is on the device, the last one's results are written."""
        device = self.scorer.model.device.type
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        batches = [[self.planned[row] for row in self.batches[number]] for number in self.todo]
        total = sum(map(len, batches))
        bar = progress(total + self.done, self.done) if progress else None
        waiting, stopped = None, False
        ahead = read_ahead(self.plan.preparer, batches, [self.shown[number] for number in self.todo], device)
        try:
            for number in self.todo:
                if stopped := bool(self.stop and self.stop.is_set()):
                    break
                start = time.monotonic()
                ready = next(ahead)
                self.waited += time.monotonic() - start
                begun = self._begin(ready)
                if waiting:
                    self._finish(*waiting, bar)
                waiting = number, ready, begun
            if waiting:
                self._finish(*waiting, bar)
            if stopped:
                raise KeyboardInterrupt(f"{self.todo.index(number):,} of {len(self.todo):,} batches are filed")
        finally:
            ahead.close()
            if bar:
                bar.close()
            if device == "cuda":
                self.peak_bytes = torch.cuda.max_memory_allocated()

    def _begin(self, ready: Ready) -> list[tuple[Ready, list[AnswerLogits]]]:
        """The forward of a batch, in as many pieces as memory has been found to need."""
        pieces = [ready]
        for _ in range(self.state["split"].bit_length() - 1):
            pieces = [half for piece in pieces for half in piece.halves()]
        begun = []
        while pieces:
            piece = pieces.pop(0)
            try:
                begun.append((piece, self.scorer.answer(piece, self.letters)))
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
            halves = piece.halves()
            if len(halves) == 1:
                piece.faults |= dict.fromkeys(piece.rows, "out of memory, alone in its batch")
                begun.append((piece, []))
                continue
            self._split(ready, len(begun) + len(pieces) + 2)
            pieces = halves + pieces
        return begun

    def _split(self, ready: Ready, pieces: int) -> None:
        """Remember that batches of this run must be cut into pieces: this and the next starts do so at once."""
        split = self.state["split"]
        while split < pieces:
            split *= 2
        if split > self.state["split"]:
            if self.state["split"] == 1:
                self.say(
                    f"out of memory with {self.state['batch_tokens']:,} tokens a batch: going on in pieces that fit; "
                    "a smaller --batch-tokens fits at once"
                )
            self.state["split"] = split
            write_plan(self.out, self.state)

    def _finish(self, number: int, ready: Ready, begun: list, bar) -> None:
        """Results of a batch into its part. Rows of a part stand in the batch's order, however it was cut."""
        part = OptionLogits.empty(
            [question.id for question in ready.questions], self.plan.members, self.letters, self.options.orders
        )
        for piece, answers in begun:
            part.take(self.scorer.collect(piece, answers, self.letters, self.options.orders))
        for row, fault in ready.faults.items():
            part.status[row] = fault
        write_part(self.parts, number, part)
        if bar:
            if self.scorer.model.device.type == "cuda":
                bar.show(GPU=f"{torch.cuda.memory_reserved() / 2**30:.1f} GiB")
            bar.update(len(ready.questions))

    # ------------------------------------------------------------ results
    def read(self, parts: int | None = None) -> OptionLogits:
        """Everything that is scored, or what the first `parts` hold of it."""
        logits = read_parts(
            self.parts,
            [question.id for question in self.table.questions],
            self.plan.members,
            self.letters,
            self.options.orders,
            parts,
        )
        for row, question in enumerate(self.table.questions):
            logits.status[row] = self.status.get(question.id, logits.status[row])
        return logits

    def ending(self, seconds: dict[str, float], logits: OptionLogits) -> Ending:
        """What was done, with what, and how long it took."""
        columns = columns_of(self.table.questions)
        folders, known = zip(*((checkpoint.folder, checkpoint.manifest.data) for checkpoint in self.plan.checkpoints))
        overlaps = plan_overlaps(self.plan.members, folders, known, self.table.digest, columns["digest"])
        identity = {key: value for key, value in self.state.items() if key != "split"}
        about = {
            "command": sys.argv,
            "data": self.table.about(),
            **self.plan.about(),
            "identity": identity,
            "weights": self.scorer.packed.weights if self.scorer else None,
            "split": self.state["split"],
            "versions": scoring.versions(),
            "notes": self.plan.notes + [self.more] * bool(self.more),
            "warnings": [],  # these, and what else follows from the logits, when it is finished
            "counts": {
                "rows": len(self.table.questions),
                "scored": 0,
                "scored_now": self.scored_now,
                "unscored": 0,
                "batches": len(self.batches),
                "tokens": self.tokens,
            },
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
            "peak_gpu_bytes": self.peak_bytes,
        }
        calibrations = self.plan.calibrations
        return Ending(self.out, about, columns, logits, calibrations, self.label_ids, self.options.sets, overlaps)
