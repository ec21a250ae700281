"""The thread that owns a model. Whoever asks hands over prepared rows; what waits together is answered together.

In: a `Request` from any thread. Out: a future of its `OptionLogits`. A model computes for one caller at a time, since
its adapters are switched in place; so one thread alone computes, and nobody else waits for a lock. It takes the oldest
request and as many others as fit into a batch, whoever sent them: a row has the same bits in any company.
"""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import PreparedBatch, joined, with_tensors
from scoring.engine.costs import TokenCost
from scoring.engine.exclusive import computing
from scoring.engine.guard import compare_first
from scoring.errors import ScoringError
from scoring.library.wording import copy_of
from scoring.run.batch_loop import Pieces, answer_in_pieces
from scoring.scores.logits import OptionLogits

FEW = 4  # requests that one batch answers nearly as fast as it answers one
POLL = 0.001  # seconds
CLOSED = "this Scorer is closed; load another one"


@dataclass(eq=False)
class Request:
    """Rows that one caller waits for, as the model takes them.

    scorer: the model with the prompt and the adapters that are to answer. orders: of the table of logits, see
    `option_orders`. cost: what the rows add to a batch.
    """

    scorer: BatchScorer
    batch: PreparedBatch
    orders: str
    cost: TokenCost
    future: "Future[OptionLogits]" = field(default_factory=Future)

    @property
    def letters(self) -> int:
        """The largest number of options of a row."""
        return max((len(question.options) for question in self.batch.questions), default=2)

    @property
    def on_card(self) -> bool:
        """Whether a card answers it, beside which the host is free."""
        return self.scorer.model.device.type == "cuda"

    def joins(self, other: "Request") -> bool:
        """Whether both can be answered by one forward pass of each member."""
        return self.scorer is other.scorer and self.orders == other.orders


@dataclass(frozen=True)
class _BatchOnDevice:
    """Requests whose forward is begun, as one batch."""

    requests: list[Request]
    prepared: PreparedBatch
    letters: int
    pieces: Pieces

    @property
    def finished(self) -> bool:
        """Whether the answers are computed."""
        return all(pending.ready for _, pending in self.pieces)


class ModelOwner:
    """Answers requests in a thread of its own, which begins with the first of them.

    budget: most tokens of a batch. verify: compare the first row with the libraries' own forward before it is answered.
    """

    def __init__(self, budget: int, verify: bool = True):
        self.budget, self.split = budget, 1
        self.verify = verify
        self._waiting: deque[Request] = deque()
        self._callers = 0  # see `caller`
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def submit(self, request: Request) -> "Future[OptionLogits]":
        """Hand over a request. A future that is cancelled before its turn costs nothing. Raises ScoringError."""
        with self._changed:
            if self._closed:
                raise ScoringError(CLOSED)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
                self._thread.start()
            self._waiting.append(request)
            self._changed.notify()
        return request.future

    @contextmanager
    def caller(self) -> Iterator[None]:
        """Inside, a thread prepares a question, submits it and waits for its answer."""
        with self._changed:
            self._callers += 1
        try:
            yield
        finally:
            with self._changed:
                self._callers -= 1

    def close(self) -> None:
        """Answer what is being computed, refuse what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join()

    def _refuse_waiting(self) -> None:
        """Give an error to all who wait."""
        with self._changed:
            waiting, self._waiting = self._waiting, deque()
        for request in waiting:
            if request.future.set_running_or_notify_cancel():
                request.future.set_exception(ScoringError(CLOSED))

    # ------------------------------------------------------------ the thread
    def _work(self) -> None:
        """Answer until the owner is closed. Whatever ends the thread, nobody waits for it in vain."""
        try:
            self._answer_all()
        finally:
            with self._changed:
                self._closed = True
            self._refuse_waiting()

    def _answer_all(self) -> None:
        """Answer batches. While one is on the device, the next is begun."""
        on_device: _BatchOnDevice | None = None
        while True:
            requests = self._take(on_device)
            begun = self._begin(requests) if requests else None
            if on_device:
                self._deliver(on_device)
            on_device = begun
            if on_device and on_device.finished:  # on a CPU: nobody waits longer than for the own batch
                self._deliver(on_device)
                on_device = None
            if not requests and self._closed:
                return

    def _take(self, on_device: _BatchOnDevice | None) -> list[Request]:
        """The oldest request, and those that join it within the budget; none once `on_device` is finished, or closed.

        While a card answers one half of the callers, the other half prepares its questions. So a batch for a card takes
        half of all callers, and waits for them, or for all who are not being answered, as long as the card is busy.
        """
        with self._changed:
            while True:
                if self._closed or (on_device and on_device.finished):
                    return []
                others = len(on_device.requests) if on_device else 0
                half = max(FEW, (max(self._callers, len(self._waiting) + others) + 1) // 2)
                if self._waiting and (on_device is None or self._is_enough(min(half, self._callers - others))):
                    return self._joining(half if self._waiting[0].on_card else len(self._waiting))
                self._changed.wait(POLL if on_device else None)

    def _is_enough(self, count: int) -> bool:
        """Whether so many requests wait, or half a batch of tokens."""
        tokens = sum(request.cost.tokens for request in self._waiting)
        return len(self._waiting) >= count or tokens >= self.budget // 2

    def _joining(self, most: int) -> list[Request]:
        """Take the oldest of the requests that wait, and at most so many that join it; those cancelled are dropped."""
        taken: list[Request] = []
        left: deque[Request] = deque()
        pictures: set[object] = set()
        tokens = 0
        for request in self._waiting:
            cost = request.cost
            added = cost.text_tokens + (0 if cost.picture in pictures else cost.picture_tokens)
            fits = not taken or (request.joins(taken[0]) and tokens + added <= self.budget)
            if not fits or len(taken) == most:
                left.append(request)
            elif request.future.set_running_or_notify_cancel():
                tokens += added + (0 if taken else cost.prefix_tokens)
                taken.append(request)
                pictures.add(cost.picture)
        self._waiting = left
        return taken

    def _begin(self, requests: list[Request]) -> _BatchOnDevice | None:
        """Begin the forward passes of requests as one batch. Where that fails, each of them is answered alone."""
        try:
            return self._answer(requests)
        except Exception as error:  # whatever it is, the callers are told, and the thread goes on
            if len(requests) == 1:
                requests[0].future.set_exception(error)
                return None
        for request in requests:
            try:
                self._deliver(self._answer([request]))
            except Exception as error:
                request.future.set_exception(error)
        return None

    def _answer(self, requests: list[Request]) -> _BatchOnDevice:
        scorer = requests[0].scorer
        device = scorer.model.device
        batch = joined([request.batch for request in requests])
        letters = max(request.letters for request in requests)
        with computing(), torch.cuda.device(device) if device.type == "cuda" else nullcontext():
            if self.verify:
                compare_first(scorer, batch.questions)
                self.verify = False
            if batch.tensors is None:
                batch = with_tensors(batch, device.type)
            pieces, self.split = answer_in_pieces(scorer, batch, letters, self.split)
        return _BatchOnDevice(requests, batch, letters, pieces)

    def _deliver(self, batch: _BatchOnDevice) -> None:
        """Wait for the device, and give each request its rows."""
        try:
            scorer, orders = batch.requests[0].scorer, batch.requests[0].orders
            ids = [question.id for question in batch.prepared.questions]
            whole = OptionLogits.empty(ids, scorer.plan.members, batch.letters, orders)
            for piece, pending in batch.pieces:
                whole.add(scorer.collect(piece, pending, batch.letters, orders))
            for row, fault in batch.prepared.faults.items():
                whole.status[row] = fault
        except Exception as error:
            for request in batch.requests:
                request.future.set_exception(copy_of(error))
            return
        start = 0
        for request in batch.requests:
            stop = start + len(request.batch.questions)
            request.future.set_result(whole.of_rows(start, stop, request.letters))
            start = stop
