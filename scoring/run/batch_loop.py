"""The loop over batches: read, answer, write. Each batch becomes a part; one that does not fit is cut in pieces."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import PreparedBatch, read_ahead
from scoring.engine.forward import PendingAnswers
from scoring.engine.loading import out_of_memory
from scoring.inputs.questions import Question
from scoring.run.loader import ModelLoader
from scoring.run.options import Job
from scoring.run.processes import Queue, SharedBar
from scoring.run.run_folder import RunState, write_state
from scoring.run.scheduler import Scheduler
from scoring.scores.logits import OptionLogits, part_path, write_part

# A batch's pieces, and the answers that the device computes for each.
Pieces = list[tuple[PreparedBatch, PendingAnswers]]


@dataclass(frozen=True)
class _BatchOnDevice:
    """A batch whose forward is begun. number: that of its part."""

    number: int
    prepared: PreparedBatch
    pieces: Pieces


class BatchLoop:
    """Scores batches from a queue that all processes of a call share, and measures what that takes.

    state.split grows where a batch does not fit into memory. In the first process, it and peak_bytes become the largest
    of all processes once these have finished.
    """

    def __init__(self, job: Job, scheduler: Scheduler, loader: ModelLoader, state: RunState):
        self.job, self.scheduler, self.loader, self.state = job, scheduler, loader, state
        self.processes, self.stop = job.context.processes, job.context.stop
        self.rows = 0  # filed by this process
        self.started = 0.0
        self.seconds = 0.0  # of scoring, with the waits for other processes
        self.busy_seconds = 0.0
        self.waiting_seconds = 0.0  # for pictures that were not read yet
        self.first_seconds = 0.0  # until the first batch was filed
        self.peak_bytes = 0
        self.reports: dict[int, dict[str, Any]] = {}  # of the other processes, by rank

    def run(self, queue: Queue) -> None:
        """Every batch of the queue that no other process takes; the first process then waits for the others.

        Raises KeyboardInterrupt once the run is asked to stop, after the batch at hand is filed.
        """
        if not queue.todo:
            return
        scorer = self.loader.prepare(self.scheduler.batches[queue.todo[0]], self.state.compile)
        self.started = start = time.monotonic()
        on_card = scorer.model.device.type == "cuda"
        if on_card:
            torch.cuda.reset_peak_memory_stats()
        bar = self._open_bar(queue)
        try:
            self._score(scorer, queue.take(), len(queue.todo), bar)
            if self.processes.first:
                self._await_others(scorer, queue, bar)
        finally:
            bar.close()
            if on_card:
                self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())
            if not self.processes.first and not isinstance(sys.exception(), Exception):  # an error ends all processes
                queue.close({**self.report(), "split": self.state.split, "peak_bytes": self.peak_bytes})
        self.seconds += time.monotonic() - start

    def report(self) -> dict[str, Any]:
        """What this process did, for run.json."""
        return {
            "process": self.processes.rank,
            "rows": self.rows,
            "seconds": round(self.busy_seconds, 3),
            "verified": self.loader.comparison,
        }

    def reported(self) -> list[dict[str, Any]]:
        """The reports of all processes, this one's first."""
        return [self.report(), *self.reports.values()]

    def _open_bar(self, queue: Queue) -> SharedBar:
        progress, done = self.job.context.progress, self.scheduler.rows_done
        rows = self.scheduler.rows_in(queue.todo)
        return SharedBar(progress(rows + done, done) if progress else None, queue)

    def _await_others(self, scorer: BatchScorer, queue: Queue, bar: SharedBar) -> None:
        """Wait for the other processes; what one that was stopped had taken and not filed is scored here."""
        reports = queue.collect_reports(bar.update)
        bar.update()
        self.reports |= reports
        missing = [number for number in queue.todo if not part_path(self.job.parts, number).exists()]
        self._score(scorer, missing, len(missing), bar)
        self.state.split = max([self.state.split, *(report["split"] for report in reports.values())])
        self.peak_bytes = max([self.peak_bytes, *(report["peak_bytes"] for report in reports.values())])

    def _score(self, scorer: BatchScorer, numbers: Iterable[int], count: int, bar: SharedBar) -> None:
        """Score `count` batches by their numbers. While one is on the device, the one before is written."""
        taken: deque[int] = deque()

        def batches() -> Iterator[tuple[list[Question], str]]:
            for number in numbers:
                taken.append(number)
                batch = self.scheduler.batches[number]
                yield batch.questions, batch.orders

        on_device: _BatchOnDevice | None = None
        done = 0
        ahead = read_ahead(self.job.plan.preparer, batches(), scorer.model.device.type)
        start = waiting_since = time.monotonic()
        try:
            for prepared in ahead:
                self.waiting_seconds += time.monotonic() - waiting_since
                pieces = self._answer(scorer, prepared)
                if on_device:
                    self._file(scorer, on_device, bar)
                on_device, done = _BatchOnDevice(taken.popleft(), prepared, pieces), done + 1
                if self.stop.is_set():
                    break
                waiting_since = time.monotonic()
            if on_device:
                self._file(scorer, on_device, bar)
            if self.stop.is_set() and done < count:
                todo = self.scheduler.todo
                filed = sum(part_path(self.job.parts, number).exists() for number in todo)  # by all processes
                raise KeyboardInterrupt(f"{filed:,} of {len(todo):,} batches are filed")
        finally:
            ahead.close()
            self.busy_seconds += time.monotonic() - start

    def _answer(self, scorer: BatchScorer, prepared: PreparedBatch) -> Pieces:
        """The forward of a batch, in as many pieces as an earlier batch had to be cut into, and more where it must.

        The number is kept in the state, for later batches and for later starts of the run.
        """
        state = self.state
        pieces, split = answer_in_pieces(scorer, prepared, self.job.letters, state.split)
        if split > state.split:
            if state.split == 1:
                self.job.context.say(
                    f"out of memory with {state.batch_tokens:,} tokens a batch: going on in pieces that fit; "
                    "a smaller --batch-tokens fits at once"
                )
            state.split = split
            if self.processes.first:
                write_state(self.job.out, state)
        return pieces

    def _file(self, scorer: BatchScorer, batch: _BatchOnDevice, bar: SharedBar) -> None:
        """Write a batch's part."""
        prepared = batch.prepared
        part = part_of(scorer, prepared, batch.pieces, self.job.letters, self.job.options.orders)
        write_part(self.job.parts, batch.number, part, self.processes.mark)
        self.first_seconds = self.first_seconds or time.monotonic() - self.started
        self.rows += len(prepared.questions)
        bar.update(len(prepared.questions))


def part_of(scorer: BatchScorer, prepared: PreparedBatch, pieces: Pieces, letters: int, orders: str) -> OptionLogits:
    """A batch's logits, once they are computed. Its rows are in the batch's order, however it was cut."""
    ids = [question.id for question in prepared.questions]
    part = OptionLogits.empty(ids, scorer.plan.members, letters, orders)
    for piece, pending in pieces:
        part.add(scorer.collect(piece, pending, letters, orders))
    for row, fault in prepared.faults.items():
        part.status[row] = fault
    return part


def answer_in_pieces(scorer: BatchScorer, prepared: PreparedBatch, letters: int, split: int) -> tuple[Pieces, int]:
    """The forward of a batch in `split` pieces, and in more where those do not fit; how many pieces that took.

    split: a power of two. A row that does not fit alone gets that as its fault.
    """
    waiting = [prepared]
    for _ in range(split.bit_length() - 1):
        waiting = [half for piece in waiting for half in piece.halves()]
    answered: Pieces = []
    while waiting:
        piece = waiting.pop(0)
        try:
            answered.append((piece, scorer.begin(piece, letters)))
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        halves = piece.halves()
        if len(halves) == 1:
            piece.faults.update(dict.fromkeys(piece.rows, "out of memory, alone in its batch"))
            answered.append((piece, PendingAnswers([])))
            continue
        while split < len(answered) + len(waiting) + 2:
            split *= 2
        waiting = halves + waiting
    return answered, split
