"""Generating a text against reading logits: eleven ways to answer, on the same rows, in one run.

Every way takes each row from its file to its letter with the same loaded model. The ways take turns, in reverse order
in every other repeat, so that the machine's drift affects all alike. Warm-up and compilation are not timed.

The engine is also measured with its weights in 4 bits, as the libraries multiply: its speed is compared with theirs
where weights, batches and orders are alike.
"""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import scoring
from scoring.benchmark.asked import AskedServer, AskedWay
from scoring.benchmark.baselines import Advance, Baselines
from scoring.benchmark.meter import Meter
from scoring.benchmark.summary import (
    ASKED,
    DECISION,
    DEFAULT_WAYS,
    ENGINE,
    ENGINE_4BIT,
    ENGINE_16BIT,
    WAYS,
    Answer,
    Measurement,
    Repeat,
    TimedAnswers,
    WaySetup,
    summarise,
)
from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import READERS
from scoring.engine.linear import MergedLinear
from scoring.engine.loading import device_name
from scoring.engine.packed import PackedModel
from scoring.engine.stand_in import Replacement, put_back, unwrap
from scoring.errors import InputError
from scoring.files.writing import write_json
from scoring.inputs.orders import check_orders
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question
from scoring.messages import Progress, Say, silent
from scoring.run.options import ModelOptions, RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.folder import RunError
from scoring.scores.probabilities import pooled_log_probabilities, predictions
from scoring.tables.table import Table
from scoring.tables.unseen_pictures import mark_unseen

WARM_UP_ROWS = 8
ORDERS = {ENGINE_4BIT: "1", ENGINE_16BIT: "1", ENGINE: "1", "cyclic": "cyclic"}  # of the engine's ways
WEIGHTS = {ENGINE_4BIT: "4bit", ENGINE_16BIT: "16bit"}  # of those that do not use the weights that --weights chose


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how.

    out: the folder of `bench.json`. model: settings that replace the checkpoint's own. run: options of the engine's
    ways. ways: their names; None for `DEFAULT_WAYS` that apply. price: of this machine per hour. cost_rows: rows of a
    data set whose cost the report gives. began: when the process began, by `time.time`; None: that does not count.
    endpoint: a server that is measured beside the ways.
    """

    out: Path
    model: ModelOptions = field(default_factory=ModelOptions)
    run: RunOptions = field(default_factory=RunOptions)
    ways: list[str] | None = None
    repeats: int = 3
    price: float | None = None
    cost_rows: int = 100_000
    began: float | None = None
    endpoint: AskedServer | None = None


def bench(table: Table, ckpt: str, options: BenchOptions, progress: Progress, say: Say = print) -> dict[str, Any]:
    """Measure the ways and write `bench.json`; return its content.

    Raises CheckpointError, MismatchError, PictureError, OrdersError, InputError where rows have pictures that the base
    does not see, or RunError where none of the ways applies.
    """
    ways = [name for name in WAYS if name in (options.ways or DEFAULT_WAYS)]
    for name in ways:
        check_orders(table.questions, ORDERS.get(name, "1"), f"--ways {name}")
    by_orders = {orders: options.model.plan([ckpt], orders) for orders in set(ORDERS.values())}
    plans = {name: by_orders[orders] for name, orders in ORDERS.items()}
    if unseen := mark_unseen(table, plans[ENGINE].preparer.chat.family).problems[len(table.problems) :]:
        raise InputError(unseen)
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.time()
    scorer = BatchScorer(plans[ENGINE], weights=options.run.weights)
    first_run = {"starting": start - (options.began or start), "loading": time.time() - start}
    for note in plans[ENGINE].notes + scorer.model.notes:
        say(note)
    circumstances = _circumstances(table, scorer, options.price)
    if options.endpoint:
        circumstances["endpoint"] = options.endpoint.about()
    job = Bench(scorer, table, plans, options.run, options.out)
    job.asked = AskedWay(options.endpoint) if options.endpoint else None
    report: dict[str, Any] = {}
    for number, measurements in enumerate(job.measure(ways, options.repeats, progress, say), 1):
        summary = summarise(table.questions, measurements, scorer.label_ids, options.price, options.cost_rows)
        if job.first_seconds is not None:
            summary["first_run"] = first_run | {"first_batch": job.first_seconds}
        report = circumstances | {"compiled": job.compiled, "repeats": number} | summary
        write_json(options.out / "bench.json", report)  # after each repeat: one that is stopped leaves the others
    return report


def _circumstances(table: Table, scorer: BatchScorer, price: float | None) -> dict[str, Any]:
    """What was measured, and on which machine."""
    plan = scorer.plan
    return {
        "command": sys.argv,
        "data": table.about(),
        "checkpoint": plan.members[0],
        "fingerprint": plan.about()["checkpoints"][0].get("fingerprint"),
        "device": device_name(scorer.model.device),
        "dtype": str(scorer.model.dtype).removeprefix("torch."),
        "quantization": scorer.model.quantization,
        "weights": scorer.packed.weights,
        "versions": scoring.versions(),
        "price_per_hour": price,
    }


class Bench:
    """A loaded model and the rows that every way answers.

    plans: of the engine's ways, by their name. work: a folder for what the engine writes while it is measured.
    first_seconds: what the engine took for its first rows; None before that, or where it is not measured. asked: a
    server that is measured, too.
    """

    def __init__(self, scorer: BatchScorer, table: Table, plans: dict[str, Plan], options: RunOptions, work: Path):
        self.scorer, self.table, self.plans, self.options, self.work = scorer, table, plans, options, work
        self.questions = table.questions
        self.network, self.device = scorer.model.network, scorer.model.device
        self.baselines = Baselines(scorer, table)
        self.first_seconds: float | None = None
        self.asked: AskedWay | None = None
        self.packings = {scorer.packed.weights: scorer.packed}
        self.spare_layers: dict[str, list[Replacement]] = {}  # of packings that are not in the network

    @property
    def compiled(self) -> bool:
        return any(packed.compiled for packed in self.packings.values())

    def measure(self, ways: list[str], repeats: int, progress: Progress, say: Say) -> Iterator[dict[str, Measurement]]:
        """Every way `repeats` times over all rows; all measurements after each repeat.

        Raises PictureError, naming all rows with a picture that fails, and RunError where none of the ways applies.
        """
        ways = [*self._applicable(ways, say), *([ASKED] if self.asked else [])]
        self._check_pictures()
        say("warming up …")
        for name in ways:
            self._share_compilation(name)
            start = time.perf_counter()
            self._answer(name, self.questions[:WARM_UP_ROWS], _ignore)
            if name in ORDERS and self.first_seconds is None:
                self.first_seconds = time.perf_counter() - start
        with self._as_the_libraries():
            batches = self.baselines.choose_batches(ways)
        measurements = {
            name: Measurement([], setup=WaySetup(self._weights_of(name), batches.get(name))) for name in ways
        }
        if self.asked:
            measurements[ASKED].setup = self.asked.setup
        bar = progress(repeats * len(ways) * len(self.questions))
        for number in range(repeats):
            for name in ways if number % 2 == 0 else reversed(ways):
                self._repeat(name, measurements[name], bar.update)
            yield measurements
        bar.close()

    def _repeat(self, name: str, measured: Measurement, advance: Advance) -> None:
        """Add a repeat of a way to its measurement."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self._share_compilation(name):
            self._answer(name, self.questions[:WARM_UP_ROWS], _ignore)
        with Meter(self.device) as meter:
            timed = self._answer(name, self.questions, advance)
        if name == ASKED and self.asked:
            meter.device_bytes = meter.joules = None  # of this machine, which only waits
            measured.price_per_row = self.asked.price_per_row
        if meter.device_bytes is not None:
            meter.device_bytes -= self._unneeded_bytes(name)
        seconds = meter.seconds if timed.seconds is None else timed.seconds
        measured.repeats.append(Repeat(seconds, timed.row_seconds, meter.device_bytes, meter.host_bytes, meter.joules))
        before = [answer.letter for answer in measured.answers]
        measured.unsteady += sum(letter != answer.letter for letter, answer in zip(before, timed.answers))
        measured.answers = measured.answers or timed.answers

    def _answer(self, name: str, questions: list[Question], advance: Advance) -> TimedAnswers:
        if name in ORDERS:
            return self._answer_by_engine(name, questions, advance)
        if name == ASKED and self.asked:
            return self.asked.answer(questions, advance)
        with self._as_the_libraries():
            return self.baselines.answer(name, questions, advance)

    @contextmanager
    def _as_the_libraries(self) -> Iterator[None]:
        """Inside, the network multiplies as transformers and PEFT do: not compiled, the adapter beside its layer."""
        self.scorer.model.use(self.scorer.adapters[0])
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
            yield

    def _check_pictures(self) -> None:
        """Decode each picture once, before anything is timed: broken ones are reported, and files are cached."""

        def fault(question: Question) -> str:
            try:
                self.scorer.prepare.pictures(question)
                return ""
            except PictureError as error:
                return f"row {question.id!r}: {error.found}"

        with ThreadPoolExecutor(READERS) as pool:
            faults = [text for text in pool.map(fault, self.questions) if text]
        if faults:
            raise PictureError("; ".join(faults), "pictures that can be read", "leave those rows out")

    # ------------------------------------------------------------ weights
    @property
    def _quantised(self) -> bool:
        """Whether the base has weights in 4 bits."""
        layers = (_base_layer(linear) for linear in self.scorer.packed.linears)
        return any(getattr(layer.weight, "quant_state", None) is not None for layer in layers)

    def _packing_of(self, name: str) -> str | None:
        """Which of `packings` a way needs; None for the libraries' ways."""
        return self._engine_weights(name) if name in ORDERS else None

    def _engine_weights(self, name: str) -> str:
        """The weights of one of the engine's ways: its own, or those that were chosen for the scorer."""
        return WEIGHTS.get(name, self.scorer.packed.weights)

    def _weights_of(self, name: str) -> str:
        """In how many bits a way's weights are, `4bit` or `16bit`. The libraries multiply with the base's."""
        return (self._packing_of(name) or "4bit") if self._quantised else "16bit"

    def _applicable(self, ways: list[str], say: Say) -> list[str]:
        """The ways that this base and machine allow. Says which ways are left out, and why."""
        for name in WEIGHTS:
            if name in ways and (reason := self._pack(name)):
                say(f"{name} is left out: {reason}")
                ways = [other for other in ways if other != name]
        if DECISION in ways and (reason := self.baselines.why_no_pipeline()):
            say(f"{DECISION} is left out: {reason}")
            ways = [other for other in ways if other != DECISION]
        if DECISION in ways and any(question.task_hint for question in self.questions):
            say(f"{DECISION} is asked without the rows' hints, for which it has no place")
        if not ways:
            raise RunError("none of the ways to measure applies here; expected one that does, such as --ways engine")
        return ways

    def _pack(self, name: str) -> str:
        """Make layers with a way's weights, beside the scorer's. Returns why they cannot be made; "" where they can."""
        weights, model = WEIGHTS[name], self.scorer.model
        if weights == "4bit" and not self._quantised:
            return "the base is not quantised, so that there are no weights in 4 bits"
        if weights in self.packings:
            return ""
        wanted = "4bit" if weights == "4bit" else "auto"  # which takes 16 bits where there is room
        in_use = unwrap(self.network.model)
        try:
            packed = PackedModel(model, self.scorer.adapters, self.scorer.plan.policy, wanted)
        finally:
            layers = unwrap(self.network.model)
            put_back(in_use)
        if packed.weights != weights:
            return "there is no room for the weights in 16 bits"
        self.packings[weights], self.spare_layers[weights] = packed, layers
        return ""

    @contextmanager
    def _packed(self, weights: str) -> Iterator[BatchScorer]:
        """A scorer that multiplies with such weights. Inside, the network has their layers."""
        scorer = copy(self.scorer)
        scorer.packed = self.packings[weights]
        if weights not in self.spare_layers:
            yield scorer
            return
        in_use = unwrap(self.network.model)
        put_back(self.spare_layers[weights])
        try:
            yield scorer
        finally:
            unwrap(self.network.model)
            put_back(in_use)

    def _share_compilation(self, name: str) -> bool:
        """Mark a way's packing as compiled where another one is, because a layer is compiled once for all its weights.

        Returns whether this packing's layers have yet to run with that compilation.
        """
        weights = self._packing_of(name)
        packed = self.packings.get(weights) if weights else None
        if packed is None or packed.compiled or not self.compiled:
            return False
        packed.compiled = True
        return True

    def _unneeded_bytes(self, name: str) -> int:
        """Bytes on the device that a way does not need: weights and adapters of engines with other weights."""
        base = {parameter.untyped_storage().data_ptr() for parameter in self.network.parameters()}
        needed, total = self._packing_of(name), 0
        for weights, packed in self.packings.items():
            for linear in packed.linears if weights != needed else []:
                tensors = [linear.weight, *(tensor for pair in linear.adapters.values() for tensor in pair)]
                added = [tensor for tensor in tensors if tensor is not None]
                total += sum(tensor.nbytes for tensor in added if tensor.untyped_storage().data_ptr() not in base)
        return total

    # ------------------------------------------------------------ the engine
    def _answer_by_engine(self, name: str, questions: list[Question], advance: Advance) -> TimedAnswers:
        """Answer by a complete `score`, files included; without the right answers, so that it computes no metrics."""
        plan = self.plans[name]
        table = replace(self.table, questions=[replace(question, answer="") for question in questions])
        clock = _Clock(advance)
        with TemporaryDirectory(dir=self.work) as folder, self._packed(self._engine_weights(name)) as scorer:
            result = run(
                table,
                scorer.with_plan(plan),
                Path(folder) / "scores",
                replace(self.options, orders=ORDERS[name]),
                RunContext(clock.start, silent),
            )
        logits = result.logits
        assert logits is not None  # a single process has them
        log_p = pooled_log_probabilities(logits, plan.calibrations, [question.task_type for question in questions])
        letters, top_tokens = predictions(logits, log_p), logits.top_token[:, 0, 0]
        answers = [
            Answer(letter, int(top), p=np.exp(row[: len(question.options)]).tolist() if letter else None)
            for question, letter, top, row in zip(questions, letters, top_tokens, log_p)
        ]
        planning = result.seconds["planning"]
        row_seconds = [planning / len(questions) + seconds for seconds in clock.row_seconds]
        return TimedAnswers(answers, row_seconds, planning + result.seconds["scoring"])


def _base_layer(linear: MergedLinear) -> torch.nn.Module:
    """The base's own layer, also where PEFT has put a layer around it."""
    layer: torch.nn.Module = linear.inner
    if hasattr(linear.inner, "get_base_layer"):
        layer = linear.inner.get_base_layer()
    return layer


def _ignore(rows: int) -> None:
    """Advances no progress bar."""


class _Clock:
    """A progress bar for a run that measures it: each batch's seconds, shared among its rows."""

    def __init__(self, advance: Advance):
        self.advance = advance
        self.row_seconds: list[float] = []
        self._last = 0.0

    def start(self, total: int, done: int = 0, /) -> "_Clock":
        self._last = time.perf_counter()
        return self

    def update(self, count: int, /) -> None:
        now = time.perf_counter()
        self.row_seconds += [(now - self._last) / count] * count
        self._last = now
        self.advance(count)

    def show(self, **values: str) -> None:
        """Nothing: the bar is the benchmark's."""

    def close(self) -> None:
        """Nothing: the benchmark's bar goes on."""
