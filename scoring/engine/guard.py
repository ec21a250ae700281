"""A guard at load: one row also goes through the libraries' own forward, before thousands go through the fast one.

The fast way packs prompts, adds adapters to weights, and projects the letters by itself. The libraries' way is
transformers' network with PEFT's layers, one prompt, nothing packed or added. Where the two disagree by more than
their arithmetic explains, no score of this run could be trusted.
"""

from dataclasses import dataclass

import numpy as np
import torch

from scoring.engine.batches import make_ready
from scoring.engine.loading import out_of_memory
from scoring.engine.reference import last_logits
from scoring.engine.scorer import Scorer
from scoring.inputs.pictures import PictureError
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.inputs.tokens import TokenSequence

# Label logits may differ by so much, their mean taken off: roundings, with room (measured: benchmarks/LOG.md).
TOLERANCES = {torch.float32: 0.01, torch.bfloat16: 1.0, torch.float16: 0.5}


class DisagreementError(RuntimeError):
    """The fast forward and the libraries' own give different answers."""


@dataclass
class Comparison:
    """Of one row. largest: |Δ label logit| over members; nan where the libraries' own gave no finite logits."""

    row: str
    largest: float
    tolerance: float

    def to_json(self) -> dict:
        largest = round(self.largest, 6) if np.isfinite(self.largest) else None
        return {"row": self.row, "largest_difference": largest, "tolerance": self.tolerance}


def compare_first(scorer: Scorer, questions: list[Question]) -> Comparison | None:
    """Hold the first of the questions whose picture can be read against the libraries' own forward, member by member.

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
    return None  # whether a row fits is found out where it is scored


def _compare(scorer: Scorer, question: Question, sequence: TokenSequence, patches: np.ndarray) -> Comparison:
    letters = len(question.options)
    answers = scorer.answer(make_ready(scorer.prepare, [question], "1"), letters)
    tolerance, largest = TOLERANCES[scorer.model.dtype], 0.0
    for member, adapter, answer in zip(scorer.plan.members, scorer.adapters, answers):
        scorer.model.use(adapter)
        ours = answer.labels[0].float().cpu().numpy()
        theirs = last_logits(scorer.model, sequence, patches)[scorer.label_ids[:letters]].cpu().numpy()
        difference = float(np.abs((ours - ours.mean()) - (theirs - theirs.mean())).max())
        if not np.isfinite(theirs).all() and not np.isfinite(ours).all():
            largest = float("nan")  # neither way has an answer: the row's status says so
            continue
        if not np.isfinite(theirs).all() and scorer.model.dtype == torch.float16:
            largest = float("nan")  # the libraries' own overflows in float16, where the fast way does not
        elif not difference <= tolerance:
            raise DisagreementError(
                f"{member}: row {question.id!r} has {_listed(ours)} by the packed forward, but {_listed(theirs)} by "
                f"the libraries' own: {difference:.4g} apart, where roundings explain {tolerance}. Nothing was scored. "
                "--no-verify goes on all the same"
            )
        else:
            largest = max(largest, difference)
    return Comparison(question.id, largest, tolerance)


def _listed(logits: np.ndarray) -> str:
    return ", ".join(f"{letter} {value:.4f}" for letter, value in zip(LETTERS, logits))
