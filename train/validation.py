"""What an epoch is worth: raw label logits of the rows that training does not see, as `score` computes them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from scoring.bench.extraction import extract_choice
from scoring.bench.generate import generate_batch
from scoring.engine.batches import Cost, plan_batches, read_ahead, tokens_in
from scoring.files.writing import write_csv
from scoring.inputs.digests import picture_digests
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.scores.folder import columns_of
from scoring.scores.held_out import MEMBER, write_held_out
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import Calibration, LabelledRows, calibrate, log_probabilities, nll
from scoring.stats.resampling import clusters_of
from train.distributed import Together
from train.model import LearningModel, Memory

GENERATED_AT_ONCE = 16


@dataclass
class Validation:
    """One epoch's: loss over the vocabulary, and what the label logits (N, K) give.

    generated: accuracy by generating a text and extracting the letter; NaN where that was not asked for.
    """

    ARRAYS: ClassVar = ("logits", "label_mass", "top_token")

    epoch: int
    loss: float
    accuracy: float
    nll: float
    calibration: Calibration
    generated: float = float("nan")
    logits: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    label_mass: np.ndarray = field(default_factory=lambda: np.empty(0))
    top_token: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def calibrated_nll(self) -> float:
        """What epochs are compared by; the raw NLL where there were too few rows to fit a temperature."""
        return self.calibration.nll_after if np.isfinite(self.calibration.nll_after) else self.nll

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in self.ARRAYS}

    def to_json(self) -> dict:
        """The numbers without the arrays."""
        values = {name: getattr(self, name) for name in ("epoch", "loss", "accuracy", "nll")}
        generated = self.generated if np.isfinite(self.generated) else None
        return values | {"generated": generated, "calibration": self.calibration.to_json()}

    @classmethod
    def from_json(cls, values: dict, arrays: dict[str, np.ndarray]) -> "Validation":
        def number(value):
            return float("nan") if value is None else value

        calibration = Calibration.from_json(values["calibration"], "the state")
        values = values | {"generated": number(values["generated"]), "calibration": calibration}
        return cls(**values, **arrays)


def best(results: list[Validation]) -> Validation:
    """The lowest validation NLL after calibration; the earlier epoch where two are equal."""
    return min(results, key=lambda result: result.calibrated_nll)


@torch.no_grad()
def validate(
    model: LearningModel,
    prepare: Preparer,
    rows: list[Question],
    costs: list[Cost],
    memory: Memory,
    together: Together,
    epoch: int,
    generate: bool = False,
) -> Validation:
    """All rows by the packed forward, each process its share. Raises PictureError where one cannot be read."""
    device, letters = model.model.device, len(model.label_ids)
    found = np.zeros((len(rows), letters + 3))  # logits, of all tokens together, share of the letters, likeliest token
    batches = plan_batches(costs, memory.tokens)
    batches = [batches[at] for at in together.own([tokens_in(costs[row] for row in batch) for batch in batches])]
    ahead = read_ahead(prepare, (([rows[row] for row in batch], "1") for batch in batches), device.type)
    for batch, ready in zip(batches, ahead):
        ready.raise_for_faults()
        answers = model.packed.answer(ready.tensors.to(device), model.label_ids)[0]
        parts = (part.float().cpu().numpy() for part in (answers.labels, answers.log_total, answers.top))
        for row, values, total, top in zip(batch, *parts):
            count = len(rows[row].options)
            share = np.exp(np.logaddexp.reduce(values[:count].astype(np.float64)) - total)
            found[row] = *values[:count], *[0] * (letters - count), total, share, top
    found = together.add(found)
    logits, (total, mass, top) = found[:, :letters].astype(np.float32), found[:, letters:].T
    logits[np.arange(letters) >= np.array([len(row.options) for row in rows])[:, None]] = np.nan
    y = answers_of(rows)
    generated = by_generating(model, prepare, rows, together) if generate else float("nan")
    return Validation(
        epoch,
        float((total - logits[np.arange(len(rows)), y]).mean()),
        float((np.nanargmax(logits, 1) == y).mean()),
        nll(logits, y),
        calibrate(LabelledRows(logits, y, clusters=picture_clusters(rows)), more=False),
        generated,
        logits,
        mass.astype(np.float32),
        top.astype(np.int64),
    )


def picture_clusters(rows: list[Question]) -> np.ndarray | None:
    """(N,) numbers of the rows' pictures; None where each has a picture of its own."""
    return clusters_of([digest or f"row {row}" for row, digest in enumerate(picture_digests(rows))])


def by_generating(model: LearningModel, prepare: Preparer, rows: list[Question], together: Together) -> float:
    """Accuracy as the notebook measured it: two tokens of text, and the letter dug out of them."""
    right, network = 0, model.model.network
    parts = [rows[at : at + GENERATED_AT_ONCE] for at in range(0, len(rows), GENERATED_AT_ONCE)]
    for at in together.own([len(part) for part in parts]):
        part = parts[at]
        texts = generate_batch(network, prepare.chat, [prepare(question) for question in part])
        right += sum(extract_choice(found.text)[0] == question.answer for found, question in zip(texts, part))
    return float(together.add(np.array([float(right)]))[0]) / len(rows)


def answers_of(rows: list[Question]) -> np.ndarray:
    """(N,) the right option's index."""
    return np.array([LETTERS.index(question.answer) for question in rows])


# ------------------------------------------------------------------ files
def write_epochs(path: Path, rows: list[Question], results: list[Validation]) -> None:
    """`validation.csv`: what every row got in every epoch."""
    letters = LETTERS[: results[0].logits.shape[1]]
    lines = [["id", "gold", "pred", *(f"p_{letter}" for letter in letters), "epoch"]]
    for result in results:
        for question, p in zip(rows, np.exp(log_probabilities(result.logits))):
            cells = ["" if np.isnan(value) else f"{value:.6f}" for value in p]
            lines.append([question.id, question.answer, letters[int(np.nanargmax(p))], *cells, str(result.epoch)])
    write_csv(path, lines)


def write_scores(
    out: Path,
    rows: list[Question],
    parts: dict[str, Validation],
    places: list[np.ndarray],
    adapters: list[str],
    settings: dict,
) -> None:
    """Validation rows as a SCORES folder: raw logits, so temperature 1; `evaluate` and `calibrate` read it.

    parts: the adapters' folders and what each gave; places: which of `rows` those were; adapters: their
    fingerprints; settings: base, template, pixels and quantization, as a run tells them of a member.
    """
    letters = next(iter(parts.values())).logits.shape[1]
    logits = OptionLogits.empty([question.id for question in rows], [MEMBER], letters)
    fold = np.zeros(len(rows), int)
    for number, (result, place) in enumerate(zip(parts.values(), places)):
        logits.logits[place, 0, 0] = result.logits
        logits.label_mass[place, 0, 0], logits.top_token[place, 0, 0] = result.label_mass, result.top_token
        fold[place] = number
        for row in place:
            logits.status[row] = "ok"
    columns = columns_of(rows) | ({"fold": fold.tolist()} if len(parts) > 1 else {})
    write_held_out(out, columns, logits, {"folder": ", ".join(parts), "adapters": adapters, **settings})
