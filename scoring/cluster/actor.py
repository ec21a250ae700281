"""A model in a process of the cluster: it reads the pictures of a batch where it runs, and answers it."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from scoring.checkpoints.plan import Plan
from scoring.checkpoints.weights import base_fingerprint
from scoring.engine.batch_scorer import machine
from scoring.engine.batches import READERS, prepare_batch, with_tensors
from scoring.engine.exclusive import computing
from scoring.run.batch_loop import answer_in_pieces, part_of
from scoring.run.loader import ModelLoader
from scoring.run.options import RunOptions
from scoring.run.scheduler import Batch
from scoring.scores.folder import RunError
from scoring.scores.logits import OptionLogits


@dataclass(frozen=True)
class Loaded:
    """What a loaded model is and took. steps: seconds of loading."""

    batch_tokens: int
    weights: str | None
    notes: list[str]
    steps: dict[str, float]


@dataclass(frozen=True)
class Answered:
    """A batch's logits. split: into how many pieces batches are cut. seconds: of this answer, with its pictures."""

    number: int
    part: OptionLogits
    split: int
    seconds: float
    verified: dict[str, Any] | None
    peak_bytes: int
    process: str


class ModelActor:
    """Holds a model. Several threads prepare batches; one at a time begins a batch on the device."""

    def __init__(self, *given: Any):
        """given: the arguments of `adopt`; none where they are not known yet, and only libraries are imported."""
        if torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // torch.cuda.device_count()))
        self.name = f"{os.uname().nodename}, process {os.getpid()}"
        self.readers = ThreadPoolExecutor(READERS)
        self.turn, self.loading = threading.Lock(), threading.Lock()
        self.loader: ModelLoader | None = None
        self.given = given
        machine()  # imports what every model needs

    def adopt(self, plan: Plan, options: RunOptions, letters: int, compiled: bool = False) -> None:
        """Answer for another plan from now on; the model stays where that needs the same.

        letters: the largest number of options of a row. compiled: whether the layers are to be compiled.

        Raises RunError where this machine's files are not those of the plan.
        """
        _check_files(plan)
        self.notes: list[str] = []
        scorer = self.loader.scorer if self.loader else None
        if scorer is not None:
            scorer = scorer.with_plan(plan) if scorer.fits(plan) else None
        self.compiled, self.split = compiled, 1
        self.loader = ModelLoader(plan, options, letters, self.notes.append, scorer)

    def machine(self) -> dict[str, Any]:
        """What the bits of this actor depend on."""
        return self._loader().machine

    def load(self) -> Loaded:
        """Load the model, and measure how much fits into a batch."""
        loader = self._loader()
        tokens = loader.batch_tokens()
        return Loaded(tokens, loader.weights, self.notes, loader.steps)

    def prepare(self, batch: Batch) -> float:
        """Load, verify and compile, with a batch that is not answered; the seconds that it took."""
        start = time.monotonic()
        with self.turn:
            self._loader().prepare(batch, self.compiled)
        return time.monotonic() - start

    def answer(self, batch: Batch, orders: str, split: int = 1) -> Answered:
        """The logits of a batch.

        orders: those of the run's table of logits. split: into how many pieces an earlier batch had to be cut, here or
        in another process.
        """
        start, loader = time.monotonic(), self._loader()
        prepared = prepare_batch(loader.plan.preparer, batch.questions, batch.orders, self.readers)
        with self.loading:
            scorer = loader.load()
        device = scorer.model.device
        prepared = with_tensors(prepared, device.type)
        with self.turn:
            scorer = loader.prepare(batch, self.compiled)
            with computing():
                pieces, self.split = answer_in_pieces(scorer, prepared, loader.letters, max(split, self.split))
        part = part_of(scorer, prepared, pieces, loader.letters, orders)
        peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
        seconds = time.monotonic() - start
        return Answered(batch.number, part, self.split, seconds, loader.comparison, peak, self.name)

    def _loader(self) -> ModelLoader:
        """For the last plan that was given. Raises as `adopt`: Ray would pass on no error of a constructor as it is."""
        with self.loading:
            if self.loader is None:
                self.adopt(*self.given)
            assert self.loader is not None
            return self.loader


def _check_files(plan: Plan) -> None:
    """Raises RunError where base or checkpoints are not those that the plan was made of."""
    base: Path = plan.base
    if not base.is_dir():
        raise RunError(f"{base}: not on {os.uname().nodename}; expected the same path on every node of the cluster")
    found = {"base": base_fingerprint(base)}
    wanted = {"base": plan.settings.base}
    for checkpoint, member in zip(plan.checkpoints, plan.members):
        found[member], wanted[member] = checkpoint.fingerprint(), plan.adapters[member]
    differing = [name for name, value in found.items() if value != wanted[name]]
    if differing:
        raise RunError(
            f"{', '.join(differing)}: other files on {os.uname().nodename} than where the run was started; expected "
            "the same on every node"
        )
