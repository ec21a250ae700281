"""The loop over batches: read, answer, write. Each batch becomes a part; one that does not fit is cut in pieces."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from scoring.engine.batches import PreparedBatch, read_ahead
from scoring.engine.forward import AnswerLogits
from scoring.engine.loading import out_of_memory
from scoring.engine.scorer import Scorer
from scoring.inputs.questions import Question
from scoring.run.loader import ModelLoader
from scoring.run.options import Job
from scoring.run.processes import Queue, SharedBar
from scoring.run.run_folder import RunState, remove_unfinished, write_state
from scoring.run.scheduler import Scheduler
from scoring.scores.logits import OptionLogits, part_path, write_part

# A batch's pieces, and the answers that the device computes for each.
Pieces = list[tuple[PreparedBatch, list[AnswerLogits]]]


@dataclass(frozen=True)
class _Begun:
    """A batch that is on the device."""

    number: int
    ready: PreparedBatch
    pieces: Pieces


class BatchLoop:
    """Scores batches from a queue that all processes of a call share, and measures what that takes.

    peak_bytes, and the `split` of the state: the largest of all processes, in the first one.
    """

    def __init__(self, job: Job, scheduler: Scheduler, loader: ModelLoader, state: RunState):
        self.job, self.scheduler, self.loader, self.state = job, scheduler, loader, state
        self.processes, self.stop = job.context.processes, job.context.stop
        self.rows = 0  # filed by this process
        self.seconds = 0.0  # of scoring, with the waits for other processes
        self.busy_seconds = 0.0
        self.waiting_seconds = 0.0  # for pictures that were not read yet
        self.peak_bytes = 0
        self.reports: dict[int, dict[str, Any]] = {}  # of the other processes, by rank

    def run(self, queue: Queue) -> None:
        """Every batch of the queue that no other process takes; the first process finishes what others leave.

        Raises KeyboardInterrupt once the run is asked to stop, after the batch at hand is filed.
        """
        if not queue.todo:
            return
        scorer = self.loader.prepare(self.scheduler.batches[queue.todo[0]], self.state.compile)
        start = time.monotonic()
        on_card = scorer.model.device.type == "cuda"
        if on_card:
            torch.cuda.reset_peak_memory_stats()
        bar = self._open_bar(queue)
        try:
            self._score(scorer, queue.take(), len(queue.todo), bar)
            if self.processes.first:
                self._finish_for_others(scorer, queue, bar)
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

    def _open_bar(self, queue: Queue) -> SharedBar:
        progress, done = self.job.context.progress, self.scheduler.rows_done
        rows = self.scheduler.rows_in(queue.todo)
        return SharedBar(progress(rows + done, done) if progress else None, queue)

    def _finish_for_others(self, scorer: Scorer, queue: Queue, bar: SharedBar) -> None:
        """Wait for the other processes, and score what those that are lost leave."""
        reports, lost = queue.collect_reports(bar.show_all)
        self.reports |= reports
        for rank in lost:
            self.job.context.say(f"process {rank} does not respond any more; the first process finishes its batches")
        missing = [number for number in queue.todo if not part_path(self.job.parts, number).exists()]
        self._score(scorer, missing, len(missing), bar)
        if lost:
            remove_unfinished(self.job.parts)
        self.state.split = max([self.state.split, *(report["split"] for report in reports.values())])
        self.peak_bytes = max([self.peak_bytes, *(report["peak_bytes"] for report in reports.values())])

    def _score(self, scorer: Scorer, numbers: Iterable[int], count: int, bar: SharedBar) -> None:
        """These batches. While one is on the device, the results of the one before are written."""
        taken: deque[int] = deque()

        def batches() -> Iterator[tuple[list[Question], str]]:
            for number in numbers:
                taken.append(number)
                batch = self.scheduler.batches[number]
                yield batch.questions, batch.orders

        on_device: _Begun | None = None
        done = 0
        ahead = read_ahead(self.job.plan.preparer, batches(), scorer.model.device.type)
        start = waiting_since = time.monotonic()
        try:
            for ready in ahead:
                self.waiting_seconds += time.monotonic() - waiting_since
                pieces = self._answer(scorer, ready)
                if on_device:
                    self._file(scorer, on_device, bar)
                on_device, done = _Begun(taken.popleft(), ready, pieces), done + 1
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

    def _answer(self, scorer: Scorer, ready: PreparedBatch) -> Pieces:
        """The forward of a batch. The next batches, and the next starts, are cut in as many pieces at once."""
        state = self.state
        pieces, split = answer_in_pieces(scorer, ready, self.job.letters, state.split)
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

    def _file(self, scorer: Scorer, begun: _Begun, bar: SharedBar) -> None:
        """Write a batch's part. Its rows are in the batch's order, however it was cut."""
        ready, letters, orders = begun.ready, self.job.letters, self.job.options.orders
        part = OptionLogits.empty([question.id for question in ready.questions], self.job.plan.members, letters, orders)
        for piece, answers in begun.pieces:
            part.take(scorer.collect(piece, answers, letters, orders))
        for row, fault in ready.faults.items():
            part.status[row] = fault
        write_part(self.job.parts, begun.number, part, self.processes.mark)
        self.rows += len(ready.questions)
        bar.update(len(ready.questions))


def answer_in_pieces(scorer: Scorer, ready: PreparedBatch, letters: int, split: int) -> tuple[Pieces, int]:
    """The forward of a batch in `split` pieces, and in more where those do not fit; how many pieces that took.

    split: a power of two. A row that does not fit alone gets that as its fault.
    """
    waiting = [ready]
    for _ in range(split.bit_length() - 1):
        waiting = [half for piece in waiting for half in piece.halves()]
    begun: Pieces = []
    while waiting:
        piece = waiting.pop(0)
        try:
            begun.append((piece, scorer.answer(piece, letters)))
            continue
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        halves = piece.halves()
        if len(halves) == 1:
            piece.faults.update(dict.fromkeys(piece.rows, "out of memory, alone in its batch"))
            begun.append((piece, []))
            continue
        while split < len(begun) + len(waiting) + 2:
            split *= 2
        waiting = halves + waiting
    return begun, split
