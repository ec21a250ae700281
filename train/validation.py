"""How good an epoch is: raw label logits of the rows that training does not see, computed as `score` computes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.benchmark.extraction import extract_choice
from scoring.benchmark.generate import generate_batch
from scoring.engine.batches import read_ahead
from scoring.engine.costs import TokenCost, plan_batches, tokens_in
from scoring.files.writing import write_csv
from scoring.inputs.digests import picture_digests
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.scores.folder import columns_of, open_scores
from scoring.scores.held_out import MEMBER, write_held_out
from scoring.scores.logits import SCORED, OptionLogits
from scoring.stats.calibration import Calibration, LabelledRows, calibrate, log_probabilities, nll
from scoring.stats.resampling import clusters_of
from train.distributed import TrainingGroup
from train.model import LearningModel

GENERATION_BATCH = 16  # rows that generate their texts together
FOLDER = "validation"  # of the validation rows' scores, in a checkpoint


@dataclass(frozen=True)
class LabelLogits:
    """What one adapter answers to N rows of at most K options.

    logits: (N, K) float32, raw; NaN where a row has fewer options. label_mass: (N,) float32, the share of the full
    softmax that falls on the row's letters. top_token: (N,) int64, the id of the vocabulary's argmax.
    """

    logits: NDArray[np.float32]
    label_mass: NDArray[np.float32]
    top_token: NDArray[np.int64]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in self.names()}

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


@dataclass
class Validation:
    """One epoch's validation: its logits, and the metrics of its N rows.

    loss: mean cross-entropy over the vocabulary. nll: mean NLL over the letters, raw. generated: the accuracy by
    generating a text and extracting the letter; NaN where that was not asked for.
    """

    epoch: int
    loss: float
    accuracy: float
    nll: float
    calibration: Calibration
    scores: LabelLogits
    generated: float = float("nan")

    @property
    def calibrated_nll(self) -> float:
        """What epochs are compared by; the raw NLL where there were too few rows to fit a temperature."""
        return self.calibration.nll_after if np.isfinite(self.calibration.nll_after) else self.nll

    def to_json(self) -> dict[str, Any]:
        """Everything but the logits."""
        values = {name: getattr(self, name) for name in ("epoch", "loss", "accuracy", "nll")}
        generated = self.generated if np.isfinite(self.generated) else None
        return values | {"generated": generated, "calibration": self.calibration.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any], scores: LabelLogits) -> "Validation":
        """As `to_json` made the values."""
        generated = float("nan") if values["generated"] is None else values["generated"]
        calibration = Calibration.from_json(values["calibration"], "the state")
        return cls(**values | {"generated": generated, "calibration": calibration, "scores": scores})


def best(results: list[Validation]) -> Validation:
    """The lowest validation NLL after calibration; the earlier epoch where two are equal."""
    return min(results, key=lambda result: result.calibrated_nll)


@dataclass(frozen=True)
class Validator:
    """Validates a model as it is now, each process on its share of the rows.

    costs: the rows' tokens, in the rows' order. token_budget: the most tokens of one forward.
    """

    model: LearningModel
    preparer: Preparer
    rows: list[Question]
    costs: list[TokenCost]
    token_budget: int
    group: TrainingGroup

    @torch.no_grad()
    def validate(self, epoch: int, generate: bool = False) -> Validation:
        """All rows by the packed forward. Raises PictureError where a picture cannot be read."""
        rows, letters = self.rows, len(self.model.label_ids)
        table = self.group.sum(self._score_share())
        logits, (log_totals, masses, tokens) = table[:, :letters].astype(np.float32), table[:, letters:].T
        logits[np.arange(letters) >= np.array([len(row.options) for row in rows])[:, None]] = np.nan
        y = answers_of(rows)
        generated = self._accuracy_by_generating() if generate else float("nan")
        return Validation(
            epoch=epoch,
            loss=float((log_totals - logits[np.arange(len(rows)), y]).mean()),
            accuracy=float((np.nanargmax(logits, 1) == y).mean()),
            nll=nll(logits, y),
            calibration=calibrate(LabelledRows(logits, y, clusters=picture_clusters(rows)), temperature_only=True),
            scores=LabelLogits(logits, masses.astype(np.float32), tokens.astype(np.int64)),
            generated=generated,
        )

    def _score_share(self) -> NDArray[np.float64]:
        """(N, K + 3) label logits, log of the sum over all tokens, label mass and top token; 0 in others' rows."""
        letters = len(self.model.label_ids)
        table = np.zeros((len(self.rows), letters + 3))
        batches = plan_batches(self.costs, self.token_budget)
        tokens = [tokens_in(self.costs[row] for row in batch) for batch in batches]
        batches = [batches[index] for index in self.group.assign_batches(tokens)]
        for row, labels, log_total, top_token in self._answers(batches):
            count = len(self.rows[row].options)
            mass = np.exp(np.logaddexp.reduce(labels[:count].astype(np.float64)) - log_total)
            table[row, :count] = labels[:count]
            table[row, letters:] = log_total, mass, top_token
        return table

    def _answers(self, batches: list[list[int]]) -> Iterator[tuple[int, NDArray[np.float32], float, int]]:
        """(row, label logits, log of the sum over all tokens, top token) of every row of the batches."""
        device = self.model.model.device
        questions = (([self.rows[row] for row in batch], "1") for batch in batches)
        for batch, ready in zip(batches, read_ahead(self.preparer, questions, device.type)):
            ready.raise_for_faults()
            assert ready.tensors is not None  # a batch without faults has all of its rows
            answers = self.model.packed.answer(ready.tensors.to(device), self.model.label_ids)[0]
            arrays = (values.float().cpu().numpy() for values in (answers.labels, answers.log_total, answers.top))
            yield from zip(batch, *arrays)

    def _accuracy_by_generating(self) -> float:
        """The accuracy as the notebook measured it: two tokens of text, and the letter extracted from them."""
        correct, network = 0, self.model.network
        starts = range(0, len(self.rows), GENERATION_BATCH)
        batches = [self.rows[start : start + GENERATION_BATCH] for start in starts]
        for index in self.group.assign_batches([len(batch) for batch in batches]):
            batch = batches[index]
            texts = generate_batch(network, self.preparer.chat, [self.preparer(question) for question in batch])
            choices = [extract_choice(generation.text)[0] for generation in texts]
            correct += sum(choice == question.answer for choice, question in zip(choices, batch))
        return float(self.group.sum(np.array([float(correct)]))[0]) / len(self.rows)


def picture_clusters(rows: list[Question]) -> NDArray[np.int64] | None:
    """(N,) numbers of the rows' pictures; None where each has a picture of its own."""
    return clusters_of([digest or f"row {row}" for row, digest in enumerate(picture_digests(rows))])


def answers_of(rows: list[Question]) -> NDArray[np.int64]:
    """(N,) the correct option's index."""
    return np.array([LETTERS.index(question.answer) for question in rows])


# ------------------------------------------------------------------ files
@dataclass(frozen=True)
class HeldOutRows:
    """Rows of a table that one adapter was validated on.

    name: of the adapter's folder. fingerprint: of the adapter. indices: of the rows in the table.
    """

    name: str
    fingerprint: str
    indices: NDArray[np.int64]
    scores: LabelLogits


def write_epochs(path: Path, rows: list[Question], results: list[Validation]) -> None:
    """`validation.csv`: the probabilities of every row in every epoch."""
    letters = LETTERS[: results[0].scores.logits.shape[1]]
    lines = [["id", "gold", "pred", *(f"p_{letter}" for letter in letters), "epoch"]]
    for result in results:
        for question, p in zip(rows, np.exp(log_probabilities(result.scores.logits))):
            cells = ["" if np.isnan(value) else f"{value:.6f}" for value in p]
            lines.append([question.id, question.answer, letters[int(np.nanargmax(p))], *cells, str(result.epoch)])
    write_csv(path, lines)


def write_scores(out: Path, rows: list[Question], adapters: Sequence[HeldOutRows], settings: dict[str, Any]) -> None:
    """Validation rows as a SCORES folder: raw logits, so temperature 1; `evaluate` and `calibrate` read it.

    adapters: which of `rows` each scored, every row once. settings: base, template, pixels and quantization, as a run
    records them.
    """
    letters = adapters[0].scores.logits.shape[1]
    logits = OptionLogits.empty([question.id for question in rows], [MEMBER], letters)
    fold = np.zeros(len(rows), int)
    for number, adapter in enumerate(adapters):
        for name, values in adapter.scores.arrays.items():
            getattr(logits, name)[adapter.indices, 0, 0] = values
        fold[adapter.indices] = number
        for row in adapter.indices:
            logits.status[row] = SCORED
    columns = columns_of(rows) | ({"fold": fold.tolist()} if len(adapters) > 1 else {})
    folders = ", ".join(adapter.name for adapter in adapters)
    entry = {"folder": folders, "adapters": [adapter.fingerprint for adapter in adapters], **settings}
    write_held_out(out, columns, logits, entry)


def read_scores(checkpoint: Path) -> LabelLogits:
    """The validation logits of the epoch that a finished training left in its folder."""
    logits = open_scores(checkpoint / FOLDER).logits
    return LabelLogits(**{name: getattr(logits, name)[:, 0, 0] for name in LabelLogits.names()})
