"""A resumable run: plan the batches, score what has no part yet, write the results.

Which rows form which batch is decided from the whole table before the first is scored, and written down with
everything the logits depend on (`plan.json`). A part is a batch. A run that was killed computes the same batches
again, skips those that have their part, and ends with the same bytes.

Of several processes the first plans and writes the results; all take batches from one queue, and file parts.
"""

import gc
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from pathlib import Path
from threading import Event

import torch

import scoring
from scoring.checkpoints.plan import Plan
from scoring.engine.batches import PreparedBatch, prepare_batch, read_ahead
from scoring.engine.guard import compare_first
from scoring.engine.packed import compiling_pays
from scoring.engine.scorer import Scorer, machine
from scoring.files.lock import check_held, hold
from scoring.inputs.orders import count_referring
from scoring.inputs.questions import Table
from scoring.run.memory import Begun, begin
from scoring.run.options import Finished, RunOptions
from scoring.run.passes import told_pride
from scoring.run.processes import Processes, Queue, SharedBar
from scoring.run.run_folder import check_folder, check_same, claim_folder, tidy, write_plan
from scoring.run.scheduler import Agenda
from scoring.run.shards import leave_shard, own_batches
from scoring.scores.evaluation import exposure_warnings
from scoring.scores.finalize import Ending
from scoring.scores.folder import RunError, columns_of
from scoring.scores.logits import OptionLogits, part_path, read_parts, write_part

WARM_UP_ROWS = 8


def run(
    table: Table,
    plan: Plan,
    out: Path,
    options: RunOptions | None = None,
    progress: Callable | None = None,
    say: Callable[[str], None] = print,
    scorer: Scorer | None = None,
    stop: Event | None = None,
    processes: Processes | None = None,
) -> Finished:
    """Score a table into `out`; go on where an earlier run with the same inputs stopped.

    progress: `progress(total_rows, done_rows)` gives an object with `update(rows)`, `show(**values)` and `close()`.
    scorer: of this plan, where it is loaded already. stop: once it is set, the batch at hand is finished and filed, and
    KeyboardInterrupt raised. processes: those that make the same call. Raises RunError where `out` holds the results of
    other inputs, HoldError where it cannot be written, ProcessError where another process failed.
    """
    processes, options = processes or Processes(), options or RunOptions()
    if options.device_map == "auto" and processes.count > 1:
        raise RunError("--device-map auto lays one process over all cards; start it without torchrun")
    gc.freeze()  # the model's and the libraries' objects live on: looking through them cost .6 s of a run of 10 s
    try:
        with hold(out) if processes.first else nullcontext():
            return _run(_Job(table, plan, out, options, say, scorer, stop, processes), progress)
    finally:
        gc.unfreeze()


def _run(job: "_Job", progress: Callable | None) -> Finished:
    seconds = {"planning": 0.0, "loading": 0.0, "compiling": 0.0, "scoring": 0.0}
    for number, plan in enumerate((job.plan_rows, job.plan_unsure)):
        start, loaded = time.monotonic(), job.load_seconds
        queue = job.share(number, plan)
        seconds["planning"] += time.monotonic() - start - (job.load_seconds - loaded)
        if queue.todo:
            job.load()
            job.verify()
            seconds["compiling"] += job.warm_up()
            start = time.monotonic()
            job.score_all(queue, progress)
            seconds["scoring"] += time.monotonic() - start
    if not job.processes.first:
        return Finished(None, None, [], 0, seconds, scorer=job.scorer)
    start = time.monotonic()
    logits = job.read()
    seconds["scoring"] += time.monotonic() - start
    seconds |= {"loading": job.load_seconds, "verifying": job.verify_seconds, "waiting_for_pictures": job.waited}
    ending, metrics = job.ending(seconds, logits), None
    if job.options.shard:
        leave_shard(ending, job.options.shard, job.mine, job.agenda.status)
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
    scorer: Scorer | None
    stop: Event | None
    processes: Processes
    done: int = 0  # rows of this shard that had their scores before
    scored_now: int = 0
    more: str = ""  # what is to be said about orders
    waited: float = 0.0  # for pictures that were not read yet
    peak_bytes: int = 0
    verified: dict | None = None  # how far the first row was from the libraries' own forward
    verify_seconds: float = 0.0
    filed: int = 0  # rows by this process, and the seconds that it took
    busy: float = 0.0

    def __post_init__(self):
        start = time.monotonic()
        self.reports: dict[int, dict] = {}  # of the other processes
        self.agenda = Agenda(self.table, self.plan, self.options)
        self.letters = len(self.table.letters)
        self.label_ids = self.plan.preparer.chat.label_ids(self.table.letters)
        self.machine = machine()
        self.parts = self.out / "logits"
        self.load_seconds = time.monotonic() - start  # of tokenizer and libraries

    # ------------------------------------------------------------ planning
    def share(self, number: int, plan: Callable[[], None]) -> Queue:
        """What is to be done next, planned by the first process for all."""
        name = f"{self.out.name}/{number}"
        if self.processes.first:
            plan()
            if self.processes.count > 1:
                self.processes.tell(name, {"state": self.state, **self.agenda.to_json()})
        else:
            if number == 0:
                self._offer()
            told = self.processes.hear(name)
            check_same(self.identity(), told["state"])
            check_held(self.out)
            self.state = told["state"]
            self.agenda.follow(told)
        return Queue(self.processes, name, self.agenda.todo)

    def identity(self) -> dict:
        """Everything that the logits depend on but for the batches."""
        identity = {
            "data": self.table.digest,
            "rows": len(self.table.questions),
            **self.plan.identity,
            **self.machine,
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
        return identity

    def plan_rows(self) -> None:
        """Claim the folder, and decide which rows form which batch."""
        identity, asked = self.identity(), {"batch_tokens": self.options.batch_tokens}
        if self.options.compile != "auto":
            asked["compile"] = self.options.compile == "on"
        before = check_folder(
            self.out,
            identity | {key: value for key, value in asked.items() if value is not None},
            self.options.overwrite and self.processes.once("overwrite"),
        )
        self.processes.tell(f"{self.out.name}/free", before is None and asked["batch_tokens"] is None)
        others, count = self.processes.others, self.processes.count
        self.tokens = self.agenda.cost(
            [self._heard("costs", at) if at in others else self.agenda.costs(at, count) for at in range(count)]
        )
        if before:
            self.state = before
        else:
            self.state = identity | self._chosen(asked) | {"split": 1}
        self.parts = claim_folder(self.out, self.state, before)
        self.agenda.cut(self.state["batch_tokens"], self.parts)
        batches = self.agenda.batches
        self.mine = own_batches(self.agenda.tokens_of, self.options.shard or (1, 1))
        self.agenda.todo = sorted({*self.agenda.todo} & {*self.mine})
        self.scored_now = sum(len(batches[number]) for number in self.agenda.todo)
        self.done = sum(len(batches[number]) for number in self.mine) - self.scored_now
        if self.options.orders != "1" and (fixed := count_referring(self.agenda.planned)):
            note = (
                f"{fixed:,} of {len(self.agenda.planned):,} rows keep the order of their options, since these refer to "
                "each other (such as 'all of the above')"
            )
            self.say(note)
            self.plan.notes.append(note)
        if self.done:
            self.say(f"going on: {self.done:,} of {len(self.agenda.planned):,} rows have their scores already")

    def plan_unsure(self) -> None:
        """With adaptive orders: the rest of them for rows whose answer is not clear after the first."""
        first, self.agenda.todo = sum(shown != "rest" for shown in self.agenda.shown), []
        if self.options.orders == "pride":
            self.more = told_pride(self.agenda.planned)
        if self.options.orders == "adaptive":
            self.more = self.agenda.cut_unsure(self.read(first), self.state["batch_tokens"], self.parts)

    def _offer(self) -> None:
        """Tell the first process what this share of the rows costs, and how many tokens of a batch fit here."""
        costs = self.agenda.costs(self.processes.rank, self.processes.count)
        told = [[found if isinstance(found, str) else astuple(found)[1:] for found in part] for part in costs]
        self.processes.tell(f"{self.out.name}/costs/{self.processes.rank}", told)
        if self.processes.hear(f"{self.out.name}/free"):
            self.load()
            self.processes.tell(f"{self.out.name}/tokens/{self.processes.rank}", self.scorer.packed.batch_tokens())

    def _heard(self, what: str, rank: int):
        """What another process offered."""
        return self.processes.hear(f"{self.out.name}/{what}/{rank}", rank)

    def _chosen(self, asked: dict) -> dict:
        """What this run decides for itself, once: a run that goes on uses the same."""
        chosen, processes = dict(asked), self.processes
        if chosen["batch_tokens"] is None:
            self.load()
            others = (self._heard("tokens", rank) for rank in processes.others)
            chosen["batch_tokens"] = min([self.scorer.packed.batch_tokens(), *others])
        if "compile" not in chosen and self.scorer and self.scorer.packed.compiled:
            chosen["compile"] = True  # by the run before
        if "compile" not in chosen and self.options.device_map == "auto":
            chosen["compile"] = False
        if "compile" not in chosen:
            tokens = self.tokens * len(self.plan.members) // processes.count
            chosen["compile"], why = compiling_pays(self.plan.base, tokens)
            if why:
                self.say(why)
        return chosen

    def load(self) -> None:
        if self.scorer is None:
            start = time.monotonic()
            device = "auto" if self.options.device_map == "auto" else None
            self.scorer = Scorer(self.plan, device, weights=self.options.weights)
            self.load_seconds += time.monotonic() - start
            for note in self.scorer.model.notes:
                self.say(note)
            self.plan.notes += self.scorer.model.notes

    def verify(self) -> None:
        """Hold one row that is to be scored against the libraries' own forward. Raises DisagreementError."""
        if not self.options.verify or self.verified is not None or self.scorer.packed.compiled:
            return  # what is compiled was verified before, and would be compiled again for the other way
        start, agenda = time.monotonic(), self.agenda
        rows = [agenda.planned[row] for row in agenda.batches[agenda.todo[0]]]
        compared = compare_first(self.scorer, rows)
        self.verified = compared.to_json() if compared else {}
        self.verify_seconds = time.monotonic() - start

    def warm_up(self) -> float:
        """Compile, where that was chosen, on a few rows whose results are dropped; seconds that it took."""
        if not self.state["compile"] or self.scorer.packed.compiled:
            return 0.0
        start = time.monotonic()
        self.say("compiling the layers for this card (the next run finds most of it on disk) …")
        self.scorer.packed.compile()
        agenda, first = self.agenda, self.agenda.todo[0]
        rows = [agenda.planned[row] for row in agenda.batches[first][:WARM_UP_ROWS]]
        ready = prepare_batch(self.plan.preparer, rows, agenda.shown[first])
        for found in self.scorer.answer(ready, self.letters):
            found.top.cpu()
        return time.monotonic() - start

    # ------------------------------------------------------------ scoring
    def score_all(self, queue: Queue, progress: Callable | None) -> None:
        """Every batch of the queue that no other process takes; what one left behind that is gone is done by the first.

        `peak_bytes` and `split` are the largest of all processes then.
        """
        on_card = self.scorer.model.device.type == "cuda"
        if on_card:
            torch.cuda.reset_peak_memory_stats()
        rows = sum(len(self.agenda.batches[number]) for number in queue.todo)
        bar = SharedBar(progress(rows + self.done, self.done) if progress else None, queue)
        try:
            self.score(queue.take(), len(queue.todo), bar)
            if self.processes.first:
                reports, gone = queue.settle(bar.show_all)
                self.reports |= reports
                for rank in gone:
                    self.say(f"process {rank} has fallen silent; what it had begun is done by the first")
                left = [number for number in queue.todo if not part_path(self.parts, number).exists()]
                self.score(iter(left), len(left), bar)
                if gone:
                    tidy(self.parts)
                self.state["split"] = max([self.state["split"], *(report["split"] for report in reports.values())])
                self.peak_bytes = max([0, *(report["peak_bytes"] for report in reports.values())])
        finally:
            bar.close()
            if on_card:
                self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())
            if not self.processes.first and not isinstance(sys.exception(), Exception):  # a fault ends all
                queue.over({**self._report(), "split": self.state["split"], "peak_bytes": self.peak_bytes})

    def _report(self) -> dict:
        return {
            "process": self.processes.rank,
            "rows": self.filed,
            "seconds": round(self.busy, 3),
            "verified": self.verified,
        }

    def score(self, numbers: Iterable[int], count: int, bar: SharedBar) -> None:
        """These batches; while one is on the device, the last one's results are written."""
        agenda, taken, waiting, done = self.agenda, deque(), None, 0

        def batches():
            for number in numbers:
                taken.append(number)
                yield [agenda.planned[row] for row in agenda.batches[number]], agenda.shown[number]

        ahead = read_ahead(self.plan.preparer, batches(), self.scorer.model.device.type)
        try:
            start = begun_at = time.monotonic()
            for ready in ahead:
                self.waited += time.monotonic() - start
                begun = self._begin(ready)
                if waiting:
                    self._finish(*waiting, bar)
                waiting, done = (taken.popleft(), ready, begun), done + 1
                if self.stop and self.stop.is_set():
                    break
                start = time.monotonic()
            if waiting:
                self._finish(*waiting, bar)
            if self.stop and self.stop.is_set() and done < count:
                todo = self.agenda.todo
                filed = sum(part_path(self.parts, number).exists() for number in todo)  # by all processes
                raise KeyboardInterrupt(f"{filed:,} of {len(todo):,} batches are filed")
        finally:
            ahead.close()
            self.busy += time.monotonic() - begun_at

    def _begin(self, ready: PreparedBatch) -> Begun:
        """The forward of a batch. How it had to be cut, this and the next starts do at once."""
        begun, split = begin(self.scorer, ready, self.letters, self.state["split"])
        if split > self.state["split"]:
            if self.state["split"] == 1:
                self.say(
                    f"out of memory with {self.state['batch_tokens']:,} tokens a batch: going on in pieces that fit; "
                    "a smaller --batch-tokens fits at once"
                )
            self.state["split"] = split
            if self.processes.first:
                write_plan(self.out, self.state)
        return begun

    def _finish(self, number: int, ready: PreparedBatch, begun: Begun, bar: SharedBar) -> None:
        """Results of a batch into its part. Rows of a part stand in the batch's order, however it was cut."""
        part = OptionLogits.empty(
            [question.id for question in ready.questions], self.plan.members, self.letters, self.options.orders
        )
        for piece, answers in begun:
            part.take(self.scorer.collect(piece, answers, self.letters, self.options.orders))
        for row, fault in ready.faults.items():
            part.status[row] = fault
        write_part(self.parts, number, part, self.processes.mark)
        bar.update(len(ready.questions))
        self.filed += len(ready.questions)

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
            logits.status[row] = self.agenda.status.get(question.id, logits.status[row])
        return logits

    def ending(self, seconds: dict[str, float], logits: OptionLogits) -> Ending:
        """What was done, with what, and how long it took."""
        columns = columns_of(self.table.questions)
        exposed = self.plan.exposed(columns, self.table.digest)
        columns["exposed"] = exposed.tolist()
        overlaps = exposure_warnings(self.plan.members, exposed)
        identity = {key: value for key, value in self.state.items() if key != "split"}
        about = {
            "command": sys.argv,
            "data": self.table.about(),
            **self.plan.about(),
            "identity": identity,
            "weights": self.scorer.packed.weights if self.scorer else None,
            "split": self.state["split"],
            "processes": [self._report(), *self.reports.values()],
            "versions": scoring.versions(),
            "notes": self.plan.notes + [self.more] * bool(self.more),
            "warnings": [],  # these, and what else follows from the logits, when it is finished
            "counts": {
                "rows": len(self.table.questions),
                "scored": 0,
                "scored_now": self.scored_now,
                "unscored": 0,
                "batches": len(self.agenda.batches),
                "tokens": self.tokens,
            },
            "seconds": {key: round(value, 3) for key, value in seconds.items()},
            "peak_gpu_bytes": self.peak_bytes,
        }
        calibrations = self.plan.calibrations
        return Ending(self.out, about, columns, logits, calibrations, self.label_ids, self.options.sets, overlaps)
