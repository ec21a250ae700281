"""The libraries' own ways to answer, which benchmarks measure the engine against: generation, and plain forwards.

All multiply as transformers and PEFT do, the adapter beside its layer. Batches are padded, and have as many rows as are
fastest on this machine.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.benchmark.decision_pipeline import Ask, PipelineUnavailableError, decision_pipeline
from scoring.benchmark.extraction import extract_choice, extract_stated
from scoring.benchmark.generate import Generated, generate_batch, generate_text
from scoring.benchmark.padded import collate, padded_states
from scoring.benchmark.summary import DECISION, NOTEBOOK, SINGLE, Answer, BatchSize, TimedAnswers
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import AHEAD, READERS
from scoring.engine.forward import project
from scoring.engine.loading import out_of_memory
from scoring.engine.reference import reference_logits
from scoring.inputs.pictures import PictureError
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence
from scoring.stats.calibration import log_probabilities
from scoring.tables.table import Table

FEWEST_ROWS, MOST_ROWS = 4, {"cpu": 32, "cuda": 256}  # of the libraries' batches; a CPU gains nothing beyond
SHORT_SECONDS = 1.0  # batches that take less are measured twice
AS_FAST = 0.95  # a larger batch is chosen where it is at least about as fast
FEW_TOKENS, MORE_TOKENS = 2, 16  # that the ways which generate texts generate at most

Prepared = tuple[TokenSequence, NDArray[Any]]  # a prompt, and its picture's patches (N, 1536)
Advance = Callable[[int], object]  # called with the number of rows that are done since the last call
AnswerBatch = Callable[[list[Prepared]], list[Any]]  # a batch's prompts -> a result for each


class BatchedWay(NamedTuple):
    """A way that answers in batches. answer_batch: prompts -> a result for each. read: a row's result -> its answer."""

    answer_batch: AnswerBatch
    read: Callable[[Any, Question], Answer]


class Baselines:
    """The libraries' ways over the rows of a table, with a loaded model that uses its adapter and is not compiled."""

    def __init__(self, scorer: BatchScorer, table: Table):
        self.scorer, self.questions = scorer, table.questions
        self.chat, self.network = scorer.prepare.chat, scorer.model.network
        self.device = scorer.model.device
        self.label_ids = scorer.label_ids[: len(table.letters)]
        self.batch_rows: dict[str, int] = {}
        self.single = {
            NOTEBOOK: self._answer_as_notebook,
            SINGLE: self._answer_by_forward,
            DECISION: self._answer_by_pipeline,
        }
        self.batched = {
            "one": BatchedWay(partial(self._generate, 1), self._read_choice),
            "batched": BatchedWay(partial(self._generate, FEW_TOKENS), self._read_choice),
            "strong": BatchedWay(partial(self._generate, MORE_TOKENS), self._read_stated),
            "padded": BatchedWay(self._padded, self._calibrated),
        }

    def answer(self, name: str, questions: list[Question], advance: Advance) -> TimedAnswers:
        """The answers of the way of that name."""
        if name in self.single:
            return self._answer_one_by_one(self.single[name], questions, advance)
        return self._answer_in_batches(name, questions, advance)

    # ------------------------------------------------------------ one row at a time
    @staticmethod
    def _answer_one_by_one(
        answer: Callable[[Question], Answer], questions: list[Question], advance: Advance
    ) -> TimedAnswers:
        timed = TimedAnswers([], [])
        for question in questions:
            start = time.perf_counter()
            timed.answers.append(answer(question))
            timed.row_seconds.append(time.perf_counter() - start)
            advance(1)
        return timed

    def _answer_as_notebook(self, question: Question) -> Answer:
        generated = generate_text(self.network, self.chat, *self.scorer.prepare(question), FEW_TOKENS)
        return self._read_choice(generated, question)

    def _answer_by_forward(self, question: Question) -> Answer:
        logits = reference_logits(self.network, *self.scorer.prepare(question))
        labels = logits[self.label_ids].cpu().numpy()
        return self._calibrated((labels, int(logits.argmax())), question)

    @cached_property
    def _pipeline(self) -> Ask:
        """transformers' own. Raises PipelineUnavailableError."""
        return decision_pipeline(self.scorer)

    def why_no_pipeline(self) -> str:
        """Why transformers' own pipeline cannot be measured; "" where it can."""
        try:
            _ = self._pipeline
        except PipelineUnavailableError as error:
            return str(error)
        return ""

    def _answer_by_pipeline(self, question: Question) -> Answer:
        p = self._pipeline(question, self.scorer.prepare.pictures(question))
        return Answer(LETTERS[int(np.argmax(p))], p=p)

    # ------------------------------------------------------------ batches
    def _answer_in_batches(self, name: str, questions: list[Question], advance: Advance) -> TimedAnswers:
        """Rows of like length together, the longest first; pictures are read ahead, as the engine does."""
        order, size = self._by_length(questions), self.batch_rows.get(name, FEWEST_ROWS)
        answer_batch, read = self.batched[name]
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        timed = TimedAnswers([Answer("")] * len(questions), [0.0] * len(questions))
        start = time.perf_counter()
        for rows, prepared in zip(batches, self._prepare_ahead(questions, batches)):
            for row, result in zip(rows, self._in_halves(answer_batch, prepared)):
                timed.answers[row] = read(result, questions[row])
            end = time.perf_counter()
            for row in rows:
                timed.row_seconds[row] = (end - start) / len(rows)
            start = end
            advance(len(rows))
        return timed

    def _by_length(self, questions: list[Question]) -> list[int]:
        """Row numbers, the longest prompt first. Rows with a fault come last."""
        encoded = self.scorer.prepare.encode_many([(question, question.sizes, "") for question in questions])
        lengths = [0 if isinstance(sequence, PictureError) else len(sequence.ids) for sequence in encoded]
        return sorted(range(len(questions)), key=lambda row: -lengths[row])

    def _prepare_ahead(self, questions: list[Question], batches: list[list[int]]) -> Iterator[list[Prepared]]:
        with ThreadPoolExecutor(READERS) as pool:
            waiting: deque[list[Future[Prepared]]] = deque()
            for rows in batches:
                waiting.append([pool.submit(self.scorer.prepare, questions[row]) for row in rows])
                if len(waiting) > AHEAD[self.device.type]:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]

    def _generate(self, new_tokens: int, prepared: list[Prepared]) -> list[Generated]:
        return generate_batch(self.network, self.chat, prepared, new_tokens)

    @torch.no_grad()
    def _padded(self, prepared: list[Prepared]) -> list[tuple[NDArray[Any], int]]:
        """Of each row the logits of the letters (K,) and the likeliest token, by transformers' and PEFT's forward."""
        sequences, patches = zip(*prepared)
        batch = collate(list(sequences), list(patches)).to(self.device)
        model = self.scorer.model
        adapter = model.head_adapter(self.scorer.adapters[0])
        answers = project(padded_states(self.network, batch), model.head, self.label_ids, adapter)
        return list(zip(answers.labels.cpu().numpy(), answers.top.tolist()))

    def _in_halves(self, answer_batch: AnswerBatch, prepared: list[Prepared]) -> list[Any]:
        """A batch's results. Where memory does not suffice, the batch is answered in halves."""
        try:
            return answer_batch(prepared)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(prepared) == 1:
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        half = len(prepared) // 2
        return self._in_halves(answer_batch, prepared[:half]) + self._in_halves(answer_batch, prepared[half:])

    def choose_batches(self, ways: list[str]) -> dict[str, BatchSize]:
        """Measure and set how many rows the batches of each way have. `strong` has the batches of `batched`."""
        batched = [name for name in ways if name in self.batched]
        if not batched:
            return {}
        most = min(len(self.questions), MOST_ROWS[self.device.type])
        rows = [self.scorer.prepare(self.questions[row]) for row in self._by_length(self.questions)[:most]]
        measured_by = {name: "batched" if name == "strong" else name for name in batched}
        sizes = {
            name: self._largest_batch(self.batched[name].answer_batch, rows)
            for name in dict.fromkeys(measured_by.values())
        }
        chosen = {name: sizes[measured_by[name]] for name in batched}
        self.batch_rows.update({name: size.rows for name, size in chosen.items()})
        return chosen

    def _largest_batch(self, answer_batch: AnswerBatch, rows: list[Prepared]) -> BatchSize:
        """The largest batch of these rows, the longest first, that fits, unless a smaller one is clearly faster."""
        rates: dict[int, float] = {}
        size = min(FEWEST_ROWS, len(rows))
        while size not in rates:
            try:
                seconds = _seconds(answer_batch, rows[:size])
                if seconds < SHORT_SECONDS:  # a start-up may be a large part of so short a time
                    seconds = min(seconds, _seconds(answer_batch, rows[:size]))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or not rates:
                    raise
                break
            rates[size] = size / seconds
            size = min(2 * size, len(rows))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        fastest = max(rates.values())
        return BatchSize(max(size for size, rate in rates.items() if rate >= AS_FAST * fastest), rates)

    # ------------------------------------------------------------ answers
    @staticmethod
    def _read_choice(generated: Generated, question: Question) -> Answer:
        letter, fallback = extract_choice(generated.text)
        return Answer(letter, generated.first_token, generated.new_text, fallback)

    def _read_stated(self, generated: Generated, question: Question) -> Answer:
        text, labels = generated.new_text, self.scorer.prepare.template.labels
        return Answer(extract_stated(text, question.options, labels), generated.first_token, text)

    def _calibrated(self, result: tuple[NDArray[Any], int], question: Question) -> Answer:
        """The calibrated answer, from logits of the letters (K,) and the likeliest token of the whole vocabulary."""
        labels, top = result
        options = len(question.options)
        logits = np.full((1, len(labels)), np.nan)
        logits[0, :options] = labels[:options]
        calibration = self.scorer.plan.calibrations[0]
        log_p = calibration.apply(log_probabilities(logits), [question.task_type])[0, :options]
        return Answer(LETTERS[int(log_p.argmax())], top, p=np.exp(log_p).tolist())


def _seconds(answer_batch: AnswerBatch, rows: list[Prepared]) -> float:
    start = time.perf_counter()
    answer_batch(rows)
    return time.perf_counter() - start
