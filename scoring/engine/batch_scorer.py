"""`BatchScorer`: one base, its adapters, one prompt. Questions in, label logits out.

In: N questions, in P option orders each. Out: an `OptionLogits` with logits (N, members, P, K) by the data's options.
The rest of `engine` serves it: `batches` prepares, `packed` answers, `collect` sorts the answers by option.
"""

import itertools
from collections.abc import Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoring.checkpoints.plan import Plan, plan_members
from scoring.checkpoints.quantization import why_no_4bit
from scoring.engine.batches import PreparedBatch, prepare_batch
from scoring.engine.capabilities import device_has_kernels
from scoring.engine.forward import AnswerLogits, PendingAnswers
from scoring.engine.graphs import Graphs
from scoring.engine.loading import Model, default_device, default_dtype
from scoring.engine.packed import PackedModel
from scoring.inputs.orders import CYCLIC_SUBSETS, OrdersError, check_orders, option_orders, parse_orders
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.scores.logits import SCORED, OptionLogits


class BatchScorer:
    """Scores questions with the members of a `Plan`: one packed forward pass a member.

    It is for one thread. Programs use `scoring.library.scorer.Scorer`, whose thread owns such a scorer.
    """

    def __init__(
        self,
        plan: Plan,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        weights: str = "auto",
        model: Model | None = None,
    ):
        """device: "auto": over all cards, where there are several. weights: `auto`, `4bit` or `16bit`.

        model: the plan's base, where it is loaded already.
        """
        self.plan = plan
        self.prepare = plan.preparer
        self.label_ids = self.prepare.label_ids()
        self.adapters = [
            f"member{number}" if checkpoint.adapter else None for number, checkpoint in enumerate(plan.checkpoints)
        ]
        self.model = model or Model.load(plan.base, plan.quantization, device, dtype)
        for checkpoint, name in zip(plan.checkpoints, self.adapters):
            if name and name not in self.model.adapters:
                self.model.add_adapter(checkpoint, name)
        self.packed = PackedModel(self.model, self.adapters, plan.policy, weights)

    @classmethod
    def load(  # noqa: PLR0913 - a public call whose parameters are its options
        cls,
        ckpt: str | Sequence[str],
        base: str | None = None,
        *,
        template: PromptTemplate | None = None,
        pixels: int | None = None,
        quantization: str | None = None,
        device: str | None = None,
        allow_mismatch: bool = False,
    ) -> "BatchScorer":
        """From one checkpoint or several over one base: folders or hub ids. Raises CheckpointError or MismatchError."""
        names = [ckpt] if isinstance(ckpt, (str, Path)) else list(ckpt)
        plan = plan_members([str(name) for name in names], base, template, pixels, quantization, allow_mismatch)
        return cls(plan, device)

    @property
    def packed(self) -> PackedModel:
        """What computes answers. Another one begins without graphs."""
        return self.graphs.packed

    @packed.setter
    def packed(self, packed: PackedModel) -> None:
        self.graphs = Graphs(packed)

    def fits(self, plan: Plan) -> bool:
        """Whether a plan needs this very model: the same base, in as many bits, with the same adapters."""
        loaded, needed = (
            (each.identity["base"], each.quantization, list(each.identity["adapters"].values()))
            for each in (self.plan, plan)
        )
        return loaded == needed

    def with_plan(self, plan: Plan) -> "BatchScorer":
        """The loaded model with the prompt, pixels and names of a plan that it `fits`."""
        scorer = copy(self)
        scorer.plan, scorer.prepare = plan, plan.preparer
        scorer.label_ids = scorer.prepare.label_ids()
        return scorer

    def begin(self, batch: PreparedBatch, letters: int) -> PendingAnswers:
        """Begin the forward passes of a batch. letters: the largest number of options of a row."""
        return PendingAnswers.of(self.graphs.answer(batch, self.label_ids[:letters]) if batch.sequences else [])

    def answer(self, batch: PreparedBatch, letters: int) -> list[AnswerLogits]:
        """For each member the answers of the batch's sequences, on the host; nothing for a batch without a sequence."""
        return self.begin(batch, letters).wait()

    def collect(self, batch: PreparedBatch, pending: PendingAnswers, letters: int, orders: str = "1") -> OptionLogits:
        """The logits of a batch's rows by the data's options, from what `begin` gave for it; waits for the device.

        letters, orders: of the table of logits. The `status` of a row whose picture could not be read is the reason.
        """
        result = OptionLogits.empty([question.id for question in batch.questions], self.plan.members, letters, orders)
        for row, fault in batch.faults.items():
            result.status[row] = fault
        answers = pending.wait()
        if not answers:
            return result
        rows = np.array(batch.rows)
        order_index = np.array([option_orders(len(order), orders).index(order) for order in batch.orders])
        option_at = np.full((len(rows), letters), -1)  # (S, K) the data's option at each letter of each sequence
        for number, options in enumerate(batch.orders):
            option_at[number, : len(options)] = [LETTERS.index(name) for name in options]
        present = option_at >= 0
        sequence, letter = np.nonzero(present)  # of every letter that a sequence shows; below, its option and order
        option, order = option_at[sequence, letter], order_index[sequence]
        for member, answer in enumerate(answers):
            labels = answer.labels.float().numpy()
            with np.errstate(invalid="ignore"):  # below, NaN logits become the row's status
                total = np.logaddexp.reduce(np.where(present, labels, -np.inf), axis=1)
            result.logits[rows[sequence], member, order, option] = labels[sequence, letter]
            result.label_mass[rows, member, order_index] = np.exp(total - answer.log_total.numpy())
            result.top_token[rows, member, order_index] = answer.top.numpy()
        expected = np.zeros(result.logits.shape, bool)  # (N, M, O, K) where a finite logit must be
        expected[rows[sequence], :, order, option] = True
        for row in np.unique(rows).tolist():
            finite = bool(np.isfinite(result.logits[row][expected[row]]).all())
            result.status[row] = SCORED if finite else "the model gave no finite logits"
            if not finite:
                result.logits[row], result.label_mass[row], result.top_token[row] = np.nan, np.nan, -1
        return result

    def score_batch(self, questions: list[Question], letters: int, orders: str = "1") -> OptionLogits:
        """All questions in one batch, whatever its size."""
        batch = prepare_batch(self.prepare, questions, orders)
        return self.collect(batch, self.begin(batch, letters), letters, orders)

    def score(self, questions: Iterable[Question], orders: str = "1", batch_rows: int = 64) -> OptionLogits:
        """All questions in their order; orders: `1`, `cyclic`, `all` or a number of option orders each.

        Raises OrdersError for orders that are not the same for all rows, which need a schedule, and where questions
        cannot be shown in other orders.
        """
        questions, orders = list(questions), parse_orders(orders)
        if orders in CYCLIC_SUBSETS:
            raise OrdersError(f"orders {orders!r} are not the same for all rows; expected a run of a table")
        check_orders(questions, orders)
        letters = max((len(question.options) for question in questions), default=2)
        parts = [
            self.score_batch(questions[start : start + batch_rows], letters, orders)
            for start in range(0, len(questions), batch_rows)
        ]
        result = OptionLogits.empty([question.id for question in questions], self.plan.members, letters, orders)
        if parts:
            result.logits, result.label_mass, result.top_token = (
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("logits", "label_mass", "top_token")
            )
            result.status = list(itertools.chain.from_iterable(part.status for part in parts))
        return result


def machine() -> dict[str, Any]:
    """What the bits of the logits depend on in this machine: part of a run's identity."""
    device = default_device()
    dtype = default_dtype(device)
    return {
        "device": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "bitsandbytes": not why_no_4bit(),
        **({"kernels": device_has_kernels(device, dtype)} if device.type == "cuda" else {}),
    }
