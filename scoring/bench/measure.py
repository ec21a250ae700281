"""Generating a text against reading logits: ten ways to answer, on the same rows, in one run.

Every way takes each row from its file to its letter with the same loaded model. Ways take turns, forth in one repeat
and back in the next, so that a machine's drift hits all alike; warm-up and compilation are not timed.

The engine is measured with its weights in 4 bits too, as the libraries multiply: its speed is compared with theirs
where weights, batches and orders are alike.
"""

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

import scoring
from scoring.bench.baselines import Baselines
from scoring.bench.meter import Meter
from scoring.bench.summary import (
    ENGINE,
    ENGINE_4BIT,
    ENGINE_16BIT,
    WAYS,
    Answer,
    Measured,
    Repeat,
    summarise,
)
from scoring.checkpoints.plan import Plan, plan_members
from scoring.engine.batches import READERS
from scoring.engine.linear import MergedLinear
from scoring.engine.loading import device_name
from scoring.engine.packed import PackedModel, put_back, unwrap
from scoring.engine.scorer import Scorer
from scoring.files.writing import write_json
from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question, Table
from scoring.messages import silent
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.scores.folder import RunError
from scoring.scores.probabilities import pooled_log_probabilities, predictions

WARM_UP = 8
ORDERS = {ENGINE_4BIT: "1", ENGINE_16BIT: "1", ENGINE: "1", "cyclic": "cyclic"}  # of the engine's ways
WEIGHTS = {ENGINE_4BIT: "4bit", ENGINE_16BIT: "16bit"}  # of those that do not take the weights that were chosen


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
    """Measure the ways (all that apply where none are named) and write `bench.json` into `out`; its content.

    model: `base`, `template`, `pixels`, `quantization` and `allow_mismatch` where they are not the checkpoint's. price:
    of an hour of this machine. size: rows of the data set whose cost is told. Raises CheckpointError, MismatchError,
    PictureError, or RunError where none of the ways applies.
    """
    ways = [name for name in WAYS if not ways or name in ways]
    by_orders = {orders: plan_members([ckpt], orders=orders, **model) for orders in set(ORDERS.values())}
    plans = {name: by_orders[orders] for name, orders in ORDERS.items()}
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
    job = Bench(scorer, table, plans, options, out)
    passes = job.measure(ways, repeats, progress, say)
    for number, measured in enumerate(passes, 1):  # written after each: a call that is stopped leaves the others
        found = summarise(table.questions, measured, scorer.label_ids, price, size)
        report = told | {"compiled": job.compiled, "repeats": number} | found
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
        self.network, self.device = self.scorer.model.network, self.scorer.model.device
        self.baselines = Baselines(self.scorer, self.table)
        self.packings = {self.scorer.packed.weights: self.scorer.packed}
        self.spare_layers: dict[str, list] = {}  # of packings that are not in the network, for `put_back`

    @property
    def compiled(self) -> bool:
        return any(packed.compiled for packed in self.packings.values())

    def measure(
        self, ways: list[str], repeats: int, progress: Callable, say: Callable
    ) -> Iterator[dict[str, Measured]]:
        """Every way `repeats` times over all rows; what is known after each repeat.

        Raises PictureError, naming all rows with a picture that fails, and RunError where none of the ways applies.
        """
        ways = self._applicable(ways, say)
        self._look_at_pictures()
        few = self.questions[:WARM_UP]
        say("warming up …")
        for name in ways:
            self._share_compilation(name)
            self._answer(name, few, lambda count: None)
        about = {name: {"weights": self._weights_of(name)} for name in ways}
        with self._as_the_libraries():
            for name, chosen in self.baselines.choose_batches(ways).items():
                about[name] |= chosen
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
        if self._share_compilation(name):
            self._answer(name, self.questions[:WARM_UP], lambda count: None)
        with Meter(self.device) as meter:
            answers, each, seconds = self._answer(name, self.questions, done)
        if meter.device_bytes is not None:
            meter.device_bytes -= self._unneeded_bytes(name)
        repeat = Repeat(seconds or meter.seconds, each, meter.device_bytes, meter.host_bytes, meter.joules)
        measured.repeats.append(repeat)
        before = [answer.letter for answer in measured.answers]
        measured.unsteady += sum(old != new.letter for old, new in zip(before, answers))
        measured.answers = measured.answers or answers

    def _answer(self, name: str, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float], float]:
        """Answers, seconds of each row, and all seconds where the meter's are not to be taken (0 else)."""
        if name in ORDERS:
            return self._engine(name, questions, done)
        with self._as_the_libraries():
            return *self.baselines.answer(name, questions, done), 0.0

    @contextmanager
    def _as_the_libraries(self):
        """Inside, the network multiplies as transformers and PEFT do: not compiled, the adapter beside its layer."""
        self.scorer.model.use(self.scorer.adapters[0])
        with torch.compiler.set_stance("force_eager") if self.compiled else nullcontext():
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

    # ------------------------------------------------------------ weights
    @property
    def _quantised(self) -> bool:
        """Whether the base has weights in 4 bits."""
        bases = (_base_layer(linear) for linear in self.scorer.packed.linears)
        return any(getattr(layer.weight, "quant_state", None) is not None for layer in bases)

    def _packing_of(self, name: str) -> str | None:
        """Which of `packings` a way needs; None: it is one of the libraries'."""
        return WEIGHTS.get(name, self.scorer.packed.weights) if name in ORDERS else None

    def _weights_of(self, name: str) -> str:
        """In how many bits the weights are that a way multiplies with: the libraries' layers are the base's."""
        return (self._packing_of(name) or "4bit") if self._quantised else "16bit"

    def _applicable(self, ways: list[str], say: Callable) -> list[str]:
        """Those of the ways that this base and machine allow; what is left out is said."""
        for name in WEIGHTS:
            if name in ways and (reason := self._pack(name)):
                say(f"{name} is left out: {reason}")
                ways = [other for other in ways if other != name]
        if not ways:
            raise RunError("none of the ways to measure applies here; expected one that does, such as --ways engine")
        return ways

    def _pack(self, name: str) -> str:
        """Make the layers with a way's weights, beside those of the scorer; why they cannot be, "" where they can."""
        weights, model = WEIGHTS[name], self.scorer.model
        if weights == "4bit" and not self._quantised:
            return "the base is not quantised, so that there are no weights in 4 bits"
        if weights in self.packings:
            return ""
        wanted = "4bit" if weights == "4bit" else "auto"  # that looks whether there is room
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
    def _packed(self, weights: str):
        """A scorer that multiplies with such weights: inside, their layers stand in the network."""
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
        """Whether a way's layers are compiled by now but not yet run: one block is compiled for all its weights."""
        packed = self.packings.get(self._packing_of(name))
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
                tensors = [linear.weight, *(part for pair in linear.adapters.values() for part in pair)]
                added = [each for each in tensors if each is not None]
                total += sum(each.nbytes for each in added if each.untyped_storage().data_ptr() not in base)
        return total

    # ------------------------------------------------------------ the engine
    def _engine(self, name: str, questions: list[Question], done: Callable) -> tuple[list[Answer], list[float], float]:
        """A whole `score`, files included; without answers, so that no metrics are computed beside it."""
        plan = self.plans[name]
        unanswered = [replace(question, answer="") for question in questions]
        table = replace(self.table, questions=unanswered)
        clock = _Clock(done)
        with TemporaryDirectory(dir=self.work) as folder, self._packed(self._packing_of(name)) as scorer:
            finished = run(
                table,
                scorer.with_plan(plan),
                Path(folder) / "scores",
                replace(self.options, orders=ORDERS[name]),
                RunContext(clock.start, silent),
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


def _base_layer(linear: MergedLinear) -> torch.nn.Module:
    """The library's own layer, inside of PEFT's where that is around it."""
    return linear.inner.get_base_layer() if hasattr(linear.inner, "get_base_layer") else linear.inner


class _Clock:
    """A run's progress: each batch's seconds, shared among its rows."""

    def __init__(self, done: Callable[[int], None]):
        self.done, self.row_seconds = done, []

    def start(self, total: int, done: int = 0, /) -> "_Clock":
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
