"""Generating a text against reading logits: six ways to answer, on the same rows, in one run.

Every way takes each row from its file to its letter with the same loaded model. Ways take turns, forth in one repeat
and back in the next, so that a machine's drift hits all alike; warm-up and compilation are not timed.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import scoring
from scoring.engine.batches import AHEAD, READERS
from scoring.engine.generate import Generated, generate_batch, generate_text
from scoring.engine.meter import Meter
from scoring.engine.model import device_name, out_of_memory
from scoring.engine.plan import Plan, plan_members
from scoring.engine.reference import reference_logits
from scoring.engine.run import RunOptions, run
from scoring.engine.scorer import Scorer
from scoring.inputs.pictures import PictureError
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question, Table
from scoring.results.benchmark import ENGINE, NOTEBOOK, SINGLE, WAYS, Answer, Measured, Repeat, summarise
from scoring.results.calibration import log_probabilities
from scoring.results.extraction import extract_choice, extract_stated
from scoring.results.files import write_json
from scoring.results.probabilities import pooled_log_probabilities, predictions

FEWEST_ROWS, MOST_ROWS = 4, {"cpu": 32, "cuda": 256}  # of a batch that generates; a CPU gains nothing beyond
SOON = 1.0  # seconds of a batch that are measured twice
AS_FAST = 0.95  # a larger batch is taken where it is at least about as fast
WARM_UP = 8
FEW_TOKENS, MORE_TOKENS = 2, 16
ORDERS = {ENGINE: "1", "cyclic": "cyclic"}  # of the engine's ways


def bench(
    table: Table,
    ckpt: str,
    out: Path,
    model: dict,
    options: RunOptions,
    progress: Callable,
    ways: list[str] | None = None,
    repeats: int = 3,
    price: float | None = None,
    size: int = 100_000,
    say: Callable[[str], None] = print,
) -> dict:
    """Measure the ways (all of them where not named) and write `bench.json` into `out`; its content.

    model: `base`, `template`, `pixels`, `quantization` and `allow_mismatch` where they are not the checkpoint's. price:
    of an hour of this machine. size: rows of the data set whose cost is told. Raises CheckpointError, MismatchError or
    PictureError.
    """
    ways = [name for name in WAYS if not ways or name in ways]
    plans = {name: plan_members([ckpt], orders=orders, **model) for name, orders in ORDERS.items()}
    out.mkdir(parents=True, exist_ok=True)
    scorer = Scorer(plans[ENGINE], weights=options.weights)
    for note in plans[ENGINE].notes + scorer.model.notes:
        say(note)
    told = {
        "command": sys.argv,
        "data": table.about(),
        "checkpoint": plans[ENGINE].members[0],
        "fingerprint": plans[ENGINE].about()["checkpoints"][0].get("fingerprint"),
        "device": device_name(scorer.model.device),
        "dtype": str(scorer.model.dtype).removeprefix("torch."),
        "quantization": scorer.model.quantization,
        "weights": scorer.packed.weights,
        "versions": scoring.versions(),
        "price_per_hour": price,
    }
    passes = Bench(scorer, table, plans, options, out).measure(ways, repeats, progress, say)
    for number, measured in enumerate(passes, 1):  # written after each: a call that is stopped leaves the others
        found = summarise(table.questions, measured, scorer.label_ids, price, size)
        report = told | {"compiled": scorer.packed.compiled, "repeats": number} | found
        write_json(out / "bench.json", report)
    return report


@dataclass
class Bench:
    """A loaded model and the rows that every way answers. plans: of the engine's ways, by their name."""

    scorer: Scorer
    table: Table
    plans: dict[str, Plan]
    options: RunOptions
    work: Path

    def __post_init__(self) -> None:
        self.questions = self.table.questions
        self.chat, self.network = self.scorer.prepare.chat, self.scorer.model.network
        self.device = self.scorer.model.device
        self.batch = FEWEST_ROWS
        self.generate = {
            NOTEBOOK: self._notebook,
            "batched": lambda rows, done: self._batches(rows, FEW_TOKENS, self._extracted, done),
            "strong": lambda rows, done: self._batches(rows, MORE_TOKENS, self._stated, done),
            SINGLE: self._forward,
        }

    def measure(
        self, ways: list[str], repeats: int, progress: Callable, say: Callable
    ) -> Iterator[dict[str, Measured]]:
        """Every way `repeats` times over all rows; what is known after each repeat.

        Raises PictureError, naming all rows with a picture that fails.
        """
        self._look_at_pictures()
        few = self.questions[:WARM_UP]
        say("warming up …")
        about: dict[str, dict] = {name: {} for name in ways}
        for name in ways:
            self._answer(name, few, lambda count: None)
        if generated := [name for name in ("batched", "strong") if name in ways]:
            self.batch, tried = self._largest_batch()
            for name in generated:
                about[name] = {"batch_rows": self.batch, "rows_per_second_by_batch": tried}
        measured = {name: Measured([], about=about[name]) for name in ways}
        bar = progress(repeats * len(ways) * len(self.questions))
        for number in range(repeats):
            for name in ways if number % 2 == 0 else reversed(ways):
                self._repeat(name, measured[name], bar.update)
            yield measured
        bar.close()

    def _repeat(self, name: str, measured: Measured, done: Callable[[int], None]) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        with Meter(self.device) as meter:
            answers, each, seconds = self._answer(name, self.questions, done)
        if meter.device_bytes is not None and name in self.generate:
            meter.device_bytes -= self._only_the_engines()
        repeat = Repeat(seconds or meter.seconds, each, meter.device_bytes, meter.host_bytes, meter.joules)
        measured.repeats.append(repeat)
        before = [answer.letter for answer in measured.answers]
        measured.unsteady += sum(old != new.letter for old, new in zip(before, answers))
        measured.answers = measured.answers or answers

    def _answer(self, name: str, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float], float]:
        """Answers, seconds of each row, and all seconds where the meter's are not to be taken (0 else)."""
        if name not in self.generate:
            return self._engine(self.plans[name], questions, done, name)
        with self._as_the_libraries():
            return *self.generate[name](questions, done), 0.0

    @contextmanager
    def _as_the_libraries(self):
        """Inside, the network multiplies as transformers and PEFT do: not compiled, the adapter beside its layer."""
        self.scorer.model.use(self.scorer.adapters[0])
        compiled = self.scorer.packed.compiled
        with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
            yield

    def _look_at_pictures(self) -> None:
        """Decode each picture once: broken ones are told before anything is timed, and all ways find the files warm."""

        def fault(question: Question) -> str:
            try:
                self.scorer.prepare.picture(question)
                return ""
            except PictureError as error:
                return f"row {question.id!r}: {error.found}"

        with ThreadPoolExecutor(READERS) as pool:
            faults = [told for told in pool.map(fault, self.questions) if told]
        if faults:
            raise PictureError("; ".join(faults), "pictures that can be read", "leave those rows out")

    def _only_the_engines(self) -> int:
        """Bytes on the card that the other ways do not need: weights expanded to 16 bits."""
        packed = self.scorer.packed
        return sum(linear.expanded_bytes for linear in packed.linears) if packed.weights == "16bit" else 0

    # ------------------------------------------------------------ one row at a time
    def _notebook(self, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        answers, each = [], []
        for question in questions:
            start = time.perf_counter()
            found = generate_text(self.network, self.chat, *self.scorer.prepare(question), FEW_TOKENS)
            answers.append(self._extracted(found, question))
            each.append(time.perf_counter() - start)
            done(1)
        return answers, each

    def _forward(self, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float]]:
        answers, each = [], []
        calibration = self.scorer.plan.calibrations[0]
        for question in questions:
            start = time.perf_counter()
            logits = reference_logits(self.network, *self.scorer.prepare(question))
            options = len(question.options)
            own = np.full((1, len(self.table.letters)), np.nan)
            own[0, :options] = logits[self.scorer.label_ids[:options]].cpu().numpy()
            log_p = calibration.apply(log_probabilities(own), [question.task_type])[0, :options]
            answers.append(Answer(LETTERS[int(log_p.argmax())], int(logits.argmax()), p=np.exp(log_p).tolist()))
            each.append(time.perf_counter() - start)
            done(1)
        return answers, each

    # ------------------------------------------------------------ batches that generate
    def _batches(
        self, questions: list[Question], new_tokens: int, read: Callable, done: Callable
    ) -> tuple[list[Answer], list[float]]:
        """Rows of like length together, the longest first; pictures are read ahead, as the engine does."""
        order = self._by_length(questions)
        parts = [order[at : at + self.batch] for at in range(0, len(order), self.batch)]
        answers, each = [Answer("")] * len(questions), [0.0] * len(questions)
        start = time.perf_counter()
        for part, prepared in zip(parts, self._prepared(questions, parts)):
            for row, found in zip(part, self._generated(prepared, new_tokens)):
                answers[row] = read(found, questions[row])
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

    def _generated(self, prepared: list, new_tokens: int) -> list[Generated]:
        """In halves where memory does not suffice."""
        try:
            return generate_batch(self.network, self.chat, prepared, new_tokens)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(prepared) == 1:
                raise
        torch.cuda.empty_cache()  # outside of `except`: the trace would keep the tensors
        half = len(prepared) // 2
        return self._generated(prepared[:half], new_tokens) + self._generated(prepared[half:], new_tokens)

    def _largest_batch(self) -> tuple[int, dict[str, float]]:
        """The largest batch of the longest rows that fits, unless a smaller one is clearly faster; what was tried."""
        most = min(len(self.questions), MOST_ROWS[self.device.type])
        rows = [self.scorer.prepare(self.questions[row]) for row in self._by_length(self.questions)[:most]]
        tried: dict[int, float] = {}
        size = min(FEWEST_ROWS, most)
        with self._as_the_libraries():
            while True:
                try:
                    seconds = self._seconds(rows[:size])
                    if seconds < SOON:  # so short a time may hold a start of something
                        seconds = min(seconds, self._seconds(rows[:size]))
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

    def _seconds(self, prepared: list) -> float:
        start = time.perf_counter()
        generate_batch(self.network, self.chat, prepared, FEW_TOKENS)
        return time.perf_counter() - start

    @staticmethod
    def _extracted(found: Generated, question: Question) -> Answer:
        letter, fallback = extract_choice(found.text)
        return Answer(letter, found.first_token, found.new_text, fallback)

    @staticmethod
    def _stated(found: Generated, question: Question) -> Answer:
        return Answer(extract_stated(found.new_text, question.options), found.first_token, found.new_text)

    # ------------------------------------------------------------ the engine
    def _engine(self, plan: Plan, questions: list[Question], done: Callable, name: str):
        """A whole `score`, files included; without answers, so that no metrics are computed beside it."""
        unanswered = [replace(question, answer="") for question in questions]
        table = replace(self.table, questions=unanswered)
        clock = _Clock(done)
        with TemporaryDirectory(dir=self.work) as folder:
            finished = run(
                table,
                plan,
                Path(folder) / "scores",
                replace(self.options, orders=ORDERS[name]),
                clock.start,
                lambda text: None,
                self.scorer.with_plan(plan),
            )
        logits, types = finished.logits, [question.task_type for question in questions]
        log_p = pooled_log_probabilities(logits, plan.calibrations, types)
        answers = [
            Answer(letter, int(top), p=np.exp(row[: len(question.options)]).tolist() if letter else None)
            for question, letter, top, row in zip(
                questions, predictions(logits, log_p), logits.top_token[:, 0, 0], log_p
            )
        ]
        planning = finished.seconds["planning"]
        each = [planning / len(questions) + seconds for seconds in clock.row_seconds]
        return answers, each, planning + finished.seconds["scoring"]


class _Clock:
    """A run's progress: each batch's seconds, shared among its rows."""

    def __init__(self, done: Callable[[int], None]):
        self.done, self.row_seconds = done, []

    def start(self, total: int, had: int) -> "_Clock":
        self._last = time.perf_counter()
        return self

    def update(self, count: int) -> None:
        now = time.perf_counter()
        self.row_seconds += [(now - self._last) / count] * count
        self._last = now
        self.done(count)

    def show(self, **values) -> None:
        """Nothing: the bar is the benchmark's."""

    def close(self) -> None:
        """Nothing: the bar goes on."""
