"""The libraries' own ways to answer, which benchmarks measure the engine against: generation, and plain forwards.

All multiply as transformers and PEFT do, the adapter beside its layer; a batch is padded, and has the rows that are
fastest here.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from scoring.bench.extraction import extract_choice, extract_stated
from scoring.bench.generate import Generated, generate_batch, generate_text
from scoring.bench.padded import collate, padded_states
from scoring.bench.summary import NOTEBOOK, SINGLE, Answer
from scoring.engine.batches import AHEAD, READERS
from scoring.engine.forward import project
from scoring.engine.loading import out_of_memory
from scoring.engine.reference import reference_logits
from scoring.engine.scorer import Scorer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question, Table
from scoring.stats.calibration import log_probabilities

FEWEST_ROWS, MOST_ROWS = 4, {"cpu": 32, "cuda": 256}  # of the libraries' batches; a CPU gains nothing beyond
SOON = 1.0  # seconds of a batch that are measured twice
AS_FAST = 0.95  # a larger batch is taken where it is at least about as fast
FEW_TOKENS, MORE_TOKENS = 2, 16


class Baselines:
    """The libraries' ways over the rows of a table, with a loaded model whose adapter is in use and uncompiled."""

    def __init__(self, scorer: Scorer, table: Table):
        self.scorer, self.questions = scorer, table.questions
        self.chat, self.network = scorer.prepare.chat, scorer.model.network
        self.device = scorer.model.device
        self.label_ids = scorer.label_ids[: len(table.letters)]
        self.batch_rows: dict[str, int] = {}
        # of those in batches: what answers a batch, and what reads a letter from a row of that
        self.single = {NOTEBOOK: self._notebook, SINGLE: self._forward}
        self.batched = {
            "one": (partial(self._generate, 1), self._extracted),
            "batched": (partial(self._generate, FEW_TOKENS), self._extracted),
            "strong": (partial(self._generate, MORE_TOKENS), self._stated),
            "padded": (self._padded, self._calibrated),
        }

    def answer(self, name: str, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        """A way's answers, and the seconds of each row."""
        if name in self.single:
            return self.single[name](questions, done)
        return self._batches(name, questions, done)

    # ------------------------------------------------------------ one row at a time
    def _notebook(self, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        answers, each = [], []
        for question in questions:
            start = time.perf_counter()
            generated = generate_text(self.network, self.chat, *self.scorer.prepare(question), FEW_TOKENS)
            answers.append(self._extracted(generated, question))
            each.append(time.perf_counter() - start)
            done(1)
        return answers, each

    def _forward(self, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        answers, each = [], []
        for question in questions:
            start = time.perf_counter()
            logits = reference_logits(self.network, *self.scorer.prepare(question))
            labels = logits[self.label_ids].cpu().numpy()
            answers.append(self._calibrated((labels, int(logits.argmax())), question))
            each.append(time.perf_counter() - start)
            done(1)
        return answers, each

    # ------------------------------------------------------------ batches
    def _batches(self, name: str, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        """Rows of like length together, the longest first; pictures are read ahead, as the engine does."""
        order, size = self._by_length(questions), self.batch_rows.get(name, FEWEST_ROWS)
        answer_batch, read = self.batched[name]
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        answers, each = [Answer("")] * len(questions), [0.0] * len(questions)
        start = time.perf_counter()
        for part, prepared in zip(parts, self._prepared(questions, parts)):
            for row, result in zip(part, self._in_halves(answer_batch, prepared)):
                answers[row] = read(result, questions[row])
            start, begun = time.perf_counter(), start
            for row in part:
                each[row] = (start - begun) / len(part)
            done(len(part))
        return answers, each

    def _by_length(self, questions: list[Question]) -> list[int]:
        sequences = self.scorer.prepare.encode_many([(question, question.size, "") for question in questions])
        return sorted(range(len(questions)), key=lambda row: -len(sequences[row].ids))

    def _prepared(self, questions: list[Question], parts: list[list[int]]) -> Iterator[list]:
        with ThreadPoolExecutor(READERS) as pool:
            waiting: deque = deque()
            for part in parts:
                waiting.append([pool.submit(self.scorer.prepare, questions[row]) for row in part])
                if len(waiting) > AHEAD[self.device.type]:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]

    def _generate(self, new_tokens: int, prepared: list) -> list[Generated]:
        return generate_batch(self.network, self.chat, prepared, new_tokens)

    @torch.no_grad()
    def _padded(self, prepared: list) -> list[tuple[np.ndarray, int]]:
        """Of each row the logits of the letters (K,) and the likeliest token, by transformers' and PEFT's forward."""
        sequences, patches = zip(*prepared)
        batch = collate(list(sequences), list(patches)).to(self.device)
        model = self.scorer.model
        adapter = model.head_adapter(self.scorer.adapters[0])
        answers = project(padded_states(self.network, batch), model.head, self.label_ids, adapter)
        return list(zip(answers.labels.cpu().numpy(), answers.top.tolist()))

    def _in_halves(self, answer_batch: Callable[[list], list], prepared: list) -> list:
        """A batch's results; in halves where memory does not suffice."""
        try:
            return answer_batch(prepared)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(prepared) == 1:
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        half = len(prepared) // 2
        return self._in_halves(answer_batch, prepared[:half]) + self._in_halves(answer_batch, prepared[half:])

    def choose_batches(self, ways: list[str]) -> dict[str, dict]:
        """How many rows the batches of the libraries' ways get, each way's measured by itself (`strong` has those of
        `batched`), and what was tried."""
        batched = [name for name in ways if name in self.batched]
        if not batched:
            return {}
        most = min(len(self.questions), MOST_ROWS[self.device.type])
        rows = [self.scorer.prepare(self.questions[row]) for row in self._by_length(self.questions)[:most]]
        measured_by = {name: "batched" if name == "strong" else name for name in batched}
        sizes = {name: self._largest_batch(self.batched[name][0], rows) for name in dict.fromkeys(measured_by.values())}
        chosen = {}
        for name in batched:
            self.batch_rows[name], rates = sizes[measured_by[name]]
            chosen[name] = {"batch_rows": self.batch_rows[name], "rows_per_second_by_batch": rates}
        return chosen

    def _largest_batch(self, answer_batch: Callable[[list], list], rows: list) -> tuple[int, dict[str, float]]:
        """The largest batch of these rows, the longest first, that fits, unless a smaller one is clearly faster; what
        was tried."""
        tried: dict[int, float] = {}
        most = len(rows)
        size = min(FEWEST_ROWS, most)
        while True:
            try:
                seconds = _seconds(answer_batch, rows[:size])
                if seconds < SOON:  # so short a time may hold a start of something
                    seconds = min(seconds, _seconds(answer_batch, rows[:size]))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or not tried:
                    raise
                break
            tried[size] = size / seconds
            if size == most:
                break
            size = min(2 * size, most)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        fast = max(tried.values())
        return max(size for size, rate in tried.items() if rate >= AS_FAST * fast), {
            str(size): rate for size, rate in tried.items()
        }

    @staticmethod
    def _extracted(generated: Generated, question: Question) -> Answer:
        letter, fallback = extract_choice(generated.text)
        return Answer(letter, generated.first_token, generated.new_text, fallback)

    @staticmethod
    def _stated(generated: Generated, question: Question) -> Answer:
        text = generated.new_text
        return Answer(extract_stated(text, question.options), generated.first_token, text)

    def _calibrated(self, result: tuple[np.ndarray, int], question: Question) -> Answer:
        """From logits of the letters (K,) and the likeliest token of the whole vocabulary."""
        labels, top = result
        options = len(question.options)
        logits = np.full((1, len(labels)), np.nan)
        logits[0, :options] = labels[:options]
        calibration = self.scorer.plan.calibrations[0]
        log_p = calibration.apply(log_probabilities(logits), [question.task_type])[0, :options]
        return Answer(LETTERS[int(log_p.argmax())], top, p=np.exp(log_p).tolist())


def _seconds(answer_batch: Callable[[list], list], rows: list) -> float:
    start = time.perf_counter()
    answer_batch(rows)
    return time.perf_counter() - start
