"""`Scorer`: questions in, probabilities out, from any thread.

It asks what `score` asks and answers with the same bits: the same plan of checkpoints, the same batches, the same
calibrations. `settings` says what it is loaded from, `member_run` answers, and `owner` computes.
"""

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import READERS
from scoring.errors import ScoringError
from scoring.inputs.orders import check_orders
from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import TOO_LONG
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.library.answers import Answer, Answers, pool_answers
from scoring.library.arguments import Orders, Rows
from scoring.library.ask_limits import AskLimits
from scoring.library.member_run import MemberRun
from scoring.library.messages import ProgressOf, say_to_log, warn
from scoring.library.owner import CLOSED, ModelOwner
from scoring.library.rows import as_table, question_of
from scoring.library.settings import ScorerSettings
from scoring.library.wording import for_callers, for_programs
from scoring.messages import Say
from scoring.run.groups import Group, release_memory
from scoring.scores.logits import SCORED
from scoring.scores.pooling import PoolOptions
from scoring.scores.probabilities import (
    margins,
    mean_label_mass,
    member_log_probabilities,
    pool_members,
)
from scoring.stats.calibration import Calibration
from scoring.tables.reading import TableOptions
from scoring.tables.table import Table
from scoring.tables.unseen_pictures import mark_unseen

STREAMED = 64  # rows of a stream that are under way at a time, and rows of an iterator that are read together


class Scorer:
    """Checkpoints that answer questions about pictures, from any thread.

    Threads that ask at the same time are answered together, and each gets the bits that it would get alone. A scorer
    pickles as what it was loaded from: another process loads it anew.

    >>> from scoring import Scorer
    >>> with Scorer.load("demo/checkpoints/fold0") as scorer:
    ...     answer = scorer.ask("demo/images/004c8b4f1d.jpg", "What is shown?", ["a dog", "a cat", "a hen", "a cow"])
    >>> answer.letter in "abcd" and round(sum(answer.values()), 6)
    1.0
    """

    def __init__(self, settings: ScorerSettings, loaded: BatchScorer | None = None, say: Say = say_to_log):
        """Load what the settings name; see `load`, which makes them.

        loaded: their model, if it is loaded already. say: where the notes on checkpoints go.
        """
        self.settings, self._say = settings, say
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._preparing = threading.BoundedSemaphore(READERS)  # more threads would wait for Python's lock
        self._runs: dict[Orders, list[MemberRun]] = {}
        self._models: list[tuple[BatchScorer, ModelOwner]] = []
        self._closed = False
        if loaded:
            self._own(loaded)
        for group in settings.groups(settings.orders):
            if not any(scorer.fits(group.plan) for scorer, _ in self._models):
                self._load(group.plan)
        self._finalizer = weakref.finalize(self, _close, [owner for _, owner in self._models])
        self._runs_in(settings.orders)

    @classmethod
    @for_callers
    def load(  # noqa: PLR0913 - a public call whose parameters are the options of `score`
        cls,
        ckpt: str | Path | Sequence[str | Path],
        base: str | Path | None = None,
        *,
        orders: str | int | Sequence[str | int] = "1",
        calibration: str | Path | Calibration | Sequence[Calibration] = "auto",
        template: PromptTemplate | str | Path | None = None,
        pixels: int | str | Sequence[int | str] | None = None,
        quantization: str | None = None,
        device: str | None = None,
        weights: str = "auto",
        margin: float = 0.7,
        batch_tokens: int | None = None,
        verify: bool = True,
        allow_mismatch: bool = False,
    ) -> "Scorer":
        """Load a checkpoint or several: folders or hub ids; a folder of folds stands for all of them.

        Each parameter is the option of `score` with its name. orders: `1`, `cyclic`, `all`, `adaptive`, `pride` or a
        number; a list pools the results of several. calibration: `auto`, `none`, a file that `calibrate` wrote, or
        calibrations, one for all members or one for each, which are used as they are. template: or its TOML file.
        pixels: the side of a square or, from 10,000 on, a number of pixels; a list pools. device: such as `cuda:1`, or
        `auto` for all cards. weights: `auto`, `4bit` or `16bit`. margin: of adaptive orders. batch_tokens: most tokens
        of a batch. verify: compare the first row with the libraries' own forward.

        Raises CheckpointError, MismatchError, OrdersError, TemplateError and other kinds of ScoringError.
        """
        settings = ScorerSettings.of(
            ckpt=ckpt,
            base=base,
            orders=orders,
            calibration=calibration,
            template=template,
            pixels=pixels,
            quantization=quantization,
            device=device,
            weights=weights,
            margin=margin,
            batch_tokens=batch_tokens,
            verify=verify,
            allow_mismatch=allow_mismatch,
        )
        return cls(settings)

    # ------------------------------------------------------------ asking
    @for_callers
    def ask(  # noqa: PLR0913 - a public call: what a question consists of
        self,
        pictures: Any,
        question: str,
        options: Sequence[str],
        *,
        hint: str = "",
        task_type: str = "",
        orders: str | int | None = None,
    ) -> Answer:
        """Answer one question, with probabilities calibrated as `score` calibrates them.

        pictures: one, a list of several, or None: a path, the bytes of a file, a binary file object, a Pillow image or
        an array (H, W, 3) of uint8. `<image 2>` in a text is the place of the second picture; pictures that no text
        names come first. options: 2 to 26. orders: as in `load`, in place of what is said there; not `pride`, which
        needs a table.

        Raises InputError or PictureError for what cannot be asked, and ScoringError where the model has no answer.
        """
        self._check_open()
        asked = question_of(pictures, question, options, hint=hint, task_type=task_type)
        chosen = self.settings.orders_or(orders)
        self.settings.refuse_tables_alone(chosen)
        for choice in chosen:
            check_orders([asked], choice)
        answer = self._ask(asked, chosen)
        if not answer.scored:
            if answer.status.startswith("picture: ") or TOO_LONG.match(answer.status):
                fix = "see what was found"
                raise PictureError(answer.status, "a picture and a prompt that the model can take", fix)
            raise ScoringError(f"no answer: {answer.status}")
        return answer

    @for_callers
    def ask_together(
        self,
        rows: Rows,
        *,
        images: str | Path | None = None,
        orders: str | int | None = None,
        limits: AskLimits | None = None,
    ) -> list[Answer]:
        """Answer a few rows in one forward pass, from any thread: a picture or a text that they share is computed once.

        rows, images: as in `score`. A row that cannot be answered says why in its status. orders: as in `ask`.
        limits: how many tokens the rows may have; it counts them, and another thread can withdraw them.

        Raises InputError where rows cannot be told apart, OrdersError, CallError beyond the limits, and
        `concurrent.futures.CancelledError` where they were withdrawn.
        """
        self._check_open()
        questions = as_table(rows, images).questions
        chosen = self.settings.orders_or(orders)
        self.settings.refuse_tables_alone(chosen)
        for choice in chosen:
            check_orders(list(questions), choice)
        return self._ask_together(questions, chosen, limits or AskLimits())

    @for_callers
    def score(
        self,
        rows: Rows,
        *,
        images: str | Path | None = None,
        options: TableOptions | None = None,
        orders: str | int | Sequence[str | int] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Answers:
        """Answer all rows, as `score` does. A row that cannot be scored says why in its status, and costs no other.

        rows: a table's path, `read_table`'s table, a DataFrame, or dicts and `Question`s, with the columns of a table.
        images, options: how the table is read. orders: as in `load`. progress: called with rows done and rows in all.

        Raises InputError where rows cannot be told apart, and OrdersError.
        """
        self._check_open()
        table = as_table(rows, images, options)
        chosen = self.settings.orders_or(orders)
        runs = self._runs_in(chosen)
        for run in runs:
            check_orders(table.questions, run.orders)
            table = mark_unseen(table, run.scorer.prepare.chat.family)
        total = len(table.good) * len(runs)
        bar = ProgressOf(progress)(total) if progress else None
        results = [run.score(table, bar) for run in runs]
        return results[0] if len(results) == 1 else _pool(table, runs, results)

    @for_callers
    def stream(
        self, rows: Rows, *, images: str | Path | None = None, orders: str | int | None = None
    ) -> Iterator[Answer]:
        """The answer of each row, in their order, while later rows are still being read and scored.

        rows: as in `score`; of an iterator no more than the rows under way are held. Its rows are read 64 at a time:
        what depends on all rows, such as repeated ids, is found among these.
        """
        self._check_open()
        chosen = self.settings.orders_or(orders)
        self.settings.refuse_tables_alone(chosen)
        with ThreadPoolExecutor(STREAMED, "scoring-stream") as askers:
            waiting: deque[Future[Answer]] = deque()
            try:
                for question in _questions(rows, images):
                    if len(waiting) >= STREAMED:
                        yield waiting.popleft().result()
                    waiting.append(askers.submit(self._ask, question, chosen))
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def close(self) -> None:
        """Free the model. Questions that wait get an error."""
        with self._lock:
            self._closed = True
            self._runs.clear()
            self._models.clear()
        self._finalizer()
        release_memory()

    @property
    def members(self) -> list[str]:
        """The names of the checkpoints, as `score` names them."""
        return [label for run in self._runs_in(self.settings.orders) for label in run.labels]

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return Scorer, (self.settings,)

    def __repr__(self) -> str:
        state = "closed" if self._closed else ", ".join(self.settings.names)
        return f"<Scorer: {state}>"

    # ------------------------------------------------------------ models
    def _load(self, plan: Plan) -> None:
        settings = self.settings
        scorer = BatchScorer(plan, settings.device, weights=settings.weights)
        for note in dict.fromkeys([*plan.notes, *scorer.model.notes]):
            self._say(note)
        self._own(scorer)

    def _own(self, scorer: BatchScorer) -> None:
        budget = self.settings.batch_tokens or scorer.packed.batch_tokens()
        self._models.append((scorer, ModelOwner(budget, self.settings.verify)))

    def _runs_in(self, orders: Orders) -> list[MemberRun]:
        """The runs that answer in these orders. Their calibrations are read when the orders are first asked for."""
        with self._lock:
            if self._closed:
                raise ScoringError(CLOSED)
            if orders not in self._runs:
                runs = [self._run(group) for group in self.settings.groups(orders)]
                for run in {id(run.owner): run for run in reversed(runs)}.values():  # the first of each model
                    run.plan.notes += [note for note in run.scorer.model.notes if note not in run.plan.notes]
                self._runs[orders] = runs
            return self._runs[orders]

    def _run(self, group: Group) -> MemberRun:
        scorer, owner = next(pair for pair in self._models if pair[0].fits(group.plan))
        view = scorer.with_plan(group.plan)
        return MemberRun(view, owner, group.orders, group.labels, self.settings.margin, self._preparing)

    def _check_open(self) -> None:
        """Raises ScoringError where this scorer cannot answer any more, or not in this process."""
        if self._closed:
            raise ScoringError(CLOSED)
        if os.getpid() != self._process:
            raise ScoringError(
                "this Scorer was loaded before the process was forked, and its model cannot be used in the child; load "
                "it there, or start processes with `spawn`, to which a Scorer is sent as what it is loaded from"
            )

    # ------------------------------------------------------------ one question
    def _ask(self, question: Question, orders: Orders) -> Answer:
        """The answer of one question; its status says why there is none."""
        return self._ask_together([question], orders, AskLimits())[0]

    def _ask_together(self, questions: Sequence[Question], orders: Orders, limits: AskLimits) -> list[Answer]:
        """The answers of questions that share a forward pass; a status says why there is none."""
        runs = self._runs_in(orders)
        answers = [Answer(each.id, status=for_programs(each.fault), options=each.options) for each in questions]
        askable = [number for number, each in enumerate(questions) if not each.fault]
        if not askable:
            return answers
        asked = [questions[number] for number in askable]
        results = [run.ask(asked, limits) for run in runs]
        statuses = [
            next((status for status in of_runs if status != SCORED), SCORED)
            for of_runs in zip(*(logits.status for logits in results))
        ]
        for number, question, status in zip(askable, asked, statuses):
            answers[number] = Answer(question.id, status=status, options=question.options)
        if SCORED not in statuses:
            return answers
        parts = results
        if len(runs) > 1:  # each member counts once, in however many orders
            parts = [logits.of_member(member) for logits in results for member in range(len(logits.members))]
        task_types = [each.task_type for each in asked]
        with np.errstate(invalid="ignore"):  # of rows without a score
            members = np.concatenate(
                [
                    member_log_probabilities(logits, run.plan.calibrations, task_types)
                    for run, logits in zip(runs, results)
                ]
            )
            log_p = pool_members(members)
        label_mass = np.mean([mean_label_mass(part) for part in parts], axis=0)
        lead, names = margins(log_p), [label for run in runs for label in run.labels]
        for row, (number, question) in enumerate(zip(askable, asked)):
            if statuses[row] != SCORED:
                continue
            count = len(question.options)
            answers[number] = replace(
                answers[number],
                letter=LETTERS[int(np.nanargmax(log_p[row]))],
                probabilities=_by_letter(log_p[row, :count]),
                margin=float(lead[row]),
                label_mass=float(label_mass[row]),
                members={name: _by_letter(member[row, :count]) for name, member in zip(names, members)},
            )
        return answers


def _by_letter(log_p: np.ndarray) -> dict[str, float]:
    """The probabilities of a row's K options (K,)."""
    return dict(zip(LETTERS, np.exp(log_p).tolist()))


def _pool(table: Table, runs: Sequence[MemberRun], results: Sequence[Answers]) -> Answers:
    """The answers of several runs as one pool, with what the command line records of it."""
    run_json = {
        "command": sys.argv,
        "data": table.about(),
        "notes": [note for answers in results for note in answers.scores.run.notes],
    }
    warnings = [warning for answers in results for warning in answers.warnings]
    names = [label for run in runs for label in run.labels]
    pooled = pool_answers(results, PoolOptions(names=names), run_json, warnings)
    warn(text for text in pooled.warnings if text not in warnings)
    return pooled


def _close(owners: list[ModelOwner]) -> None:
    for owner in owners:
        owner.close()


def _questions(rows: Rows, images: str | Path | None) -> Iterator[Question]:
    """The questions of rows; those of an iterator are read when they are needed, numbered through."""
    if not isinstance(rows, Iterator):
        yield from as_table(rows, images).questions
        return
    done = 0
    while chunk := list(islice(rows, STREAMED)):
        for question in as_table(chunk, images).questions:
            named = question.id if question.id != str(question.row) else str(done + question.row)
            yield replace(question, id=named, row=done + question.row)
        done += len(chunk)
