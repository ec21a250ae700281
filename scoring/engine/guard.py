"""A guard at load: one row also goes through the libraries' own forward, before thousands go through the packed one.

In: a loaded scorer and questions. Out: a `Comparison`, or DisagreementError.

The packed forward packs prompts, adds adapters to weights, and projects the letters by itself. The libraries' own is
transformers' network with PEFT's layers: one prompt, nothing packed or added (`reference`). Where the two differ by
more than rounding explains, no score of this run could be trusted.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.batches import prepare_batch
from scoring.engine.loading import out_of_memory
from scoring.engine.reference import last_logits
from scoring.errors import ScoringError
from scoring.inputs.pictures import PictureError
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

# How far label logits may differ, less their mean: rounding, with room (measured: benchmarks/LOG.md).
TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 1.0, torch.float16: 0.5}


class DisagreementError(ScoringError, RuntimeError):
    """The packed forward and the libraries' own give different answers: a fault of the program or the machine."""


@dataclass
class Comparison:
    """Of one row. largest: |Δ label logit| over members; nan where the libraries' own gave no finite logits."""

    row: str
    largest: float
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        largest = round(self.largest, 6) if np.isfinite(self.largest) else None
        return {"row": self.row, "largest_difference": largest, "tolerance": self.tolerance}


def compare_first(scorer: BatchScorer, questions: list[Question]) -> Comparison | None:
    """Compare the first question whose picture can be read with the libraries' own forward, member by member.

    None where no picture can be read, or memory does not suffice. Raises DisagreementError with both answers.
    """
    for question in questions:
        try:
            sequence, patches = scorer.prepare(question)
            break
        except PictureError:
            continue
    else:
        return None
    try:
        return _compare(scorer, question, sequence, patches)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    return None  # scoring finds out whether the row fits


def _compare(scorer: BatchScorer, question: Question, sequence: TokenSequence, patches: NDArray[Any]) -> Comparison:
    letters = len(question.options)
    answers = scorer.answer(prepare_batch(scorer.prepare, [question], "1"), letters)
    tolerance, largest = TOLERANCES[scorer.model.dtype], 0.0
    for member, adapter, answer in zip(scorer.plan.members, scorer.adapters, answers):
        scorer.model.use(adapter)
        packed = answer.labels[0].float().numpy()
        reference = last_logits(scorer.model, sequence, patches)[scorer.label_ids[:letters]].cpu().numpy()
        difference = float(np.abs((packed - packed.mean()) - (reference - reference.mean())).max())
        if not np.isfinite(reference).all() and not np.isfinite(packed).all():
            largest = float("nan")  # neither has an answer: the row's status says so
            continue
        if not np.isfinite(reference).all() and scorer.model.dtype == torch.float16:
            largest = float("nan")  # the libraries' own overflows in float16, where the packed forward does not
        elif not difference <= tolerance:
            raise DisagreementError(
                f"{member}: row {question.id!r} has {_listed(packed)} by the packed forward, but {_listed(reference)} "
                f"by the libraries' own. They differ by {difference:.4g}; rounding explains at most {tolerance}. "
                "Nothing was scored. --no-verify scores without this check"
            )
        else:
            largest = max(largest, difference)
    return Comparison(question.id, largest, tolerance)


def _listed(logits: NDArray[Any]) -> str:
    return ", ".join(f"{letter} {value:.4f}" for letter, value in zip(LETTERS, logits))
