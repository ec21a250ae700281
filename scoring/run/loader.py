"""The model of a run: loaded, verified and compiled when the first batch needs it."""

import time
from typing import Any

from scoring.checkpoints.plan import Plan
from scoring.engine.batch_scorer import BatchScorer, machine
from scoring.engine.batches import prepare_batch
from scoring.engine.guard import compare_first
from scoring.messages import Say
from scoring.run.options import RunOptions
from scoring.run.scheduler import Batch

WARM_UP_ROWS = 8
STEPS = ("tokenizer", "libraries", "weights", "adapters", "layers")  # of loading


class ModelLoader:
    """Loads the model of a plan once, in this process, and measures what that takes.

    steps: the seconds of each step of loading. comparison: how far the first row was from the libraries' own forward;
    None before that was asked, {} where it could not be found out.
    """

    def __init__(self, plan: Plan, options: RunOptions, letters: int, say: Say, scorer: BatchScorer | None = None):
        """letters: the largest number of options of a row. scorer: of the plan, where it is loaded already."""
        self.plan, self.options, self.letters, self.say, self.scorer = plan, options, letters, say, scorer
        start = time.monotonic()
        self.label_ids = self.plan.preparer.label_ids(letters)
        self.steps = dict.fromkeys(STEPS, 0.0) | {"tokenizer": time.monotonic() - start}
        self.machine = machine()
        self.steps["libraries"] = time.monotonic() - start - self.steps["tokenizer"]
        self.comparison: dict[str, Any] | None = None
        self.verifying_seconds = self.compiling_seconds = 0.0

    @property
    def loading_seconds(self) -> float:
        """What loading has taken so far."""
        return sum(self.steps.values())

    def load(self) -> BatchScorer:
        """The scorer, loaded at the first call."""
        if self.scorer is None:
            start = time.monotonic()
            options = self.options
            device = "auto" if options.device_map == "auto" else None
            self.scorer = BatchScorer(self.plan, device, weights=options.weights)
            read = self.scorer.model.seconds
            self.steps |= read | {"layers": time.monotonic() - start - sum(read.values())}
            for note in self.scorer.model.notes:
                self.say(note)
            self.plan.notes += self.scorer.model.notes
        return self.scorer

    def batch_tokens(self) -> int:
        """Tokens of a batch that fits into the memory; the model is loaded for that."""
        return self.load().packed.batch_tokens()

    @property
    def weights(self) -> str | None:
        """How the linear layers are held; None before they are loaded."""
        return self.scorer.packed.weights if self.scorer else None

    @property
    def compiled(self) -> bool:
        """Whether the layers are compiled already."""
        return self.scorer is not None and self.scorer.packed.compiled

    def prepare(self, batch: Batch, compiled: bool) -> BatchScorer:
        """Load, verify on the first row of `batch`, and compile where that was decided."""
        scorer = self.load()
        if not scorer.packed.compiled:  # what is compiled was verified before, and the other way would compile it again
            if self.options.verify and self.comparison is None:
                self._verify(scorer, batch)
            if compiled:
                self._compile(scorer, batch)
        return scorer

    def _verify(self, scorer: BatchScorer, batch: Batch) -> None:
        """Compare one row with the libraries' own forward. Raises DisagreementError."""
        start = time.monotonic()
        comparison = compare_first(scorer, batch.questions)
        self.comparison = comparison.to_json() if comparison else {}
        self.verifying_seconds = time.monotonic() - start

    def _compile(self, scorer: BatchScorer, batch: Batch) -> None:
        """Compile the layers with a few rows whose results are dropped."""
        start = time.monotonic()
        self.say("compiling the layers for this card (the next run finds most of it on disk) …")
        scorer.packed.compile()
        prepared = prepare_batch(self.plan.preparer, batch.questions[:WARM_UP_ROWS], batch.orders)
        scorer.answer(prepared, self.letters)
        self.compiling_seconds += time.monotonic() - start
