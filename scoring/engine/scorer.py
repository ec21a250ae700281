"""`Scorer`: one base, its adapters, one prompt — questions in, label logits out."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scoring.engine.checkpoint import (
    Checkpoint,
    Manifest,
    base_fingerprint,
    check_base,
    file_fingerprint,
    read_checkpoint,
)
from scoring.engine.forward import answer_states, collate, project
from scoring.engine.model import Model, default_device, default_dtype, why_no_4bit
from scoring.inputs.pictures import PictureError, PixelPolicy, read_picture
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import LETTERS, PromptTemplate
from scoring.inputs.questions import Question
from scoring.results.logits import OptionLogits
from scoring.results.probabilities import pooled_log_probabilities


class MismatchError(ValueError):
    """Settings that differ from what a checkpoint was made with; names the field and both values."""


@dataclass
class Plan:
    """Everything about a run's model that is known before it is loaded."""

    checkpoints: list[Checkpoint]
    members: list[str]  # names, made distinct
    base: Path
    template: PromptTemplate
    policy: PixelPolicy
    quantization: str
    temperatures: list[float]
    identity: dict  # what the logits depend on, for resuming and for calibration
    notes: list[str]

    @cached_property
    def preparer(self) -> Preparer:
        """The base's tokenizer and the run's prompt and pixels, read once: planning and scoring share it."""
        return Preparer.of_base(self.base, self.template, self.policy)


def plan_members(
    names: Sequence[str],
    base: str | None = None,
    template: PromptTemplate | None = None,
    pixels: int | None = None,
    quantization: str | None = None,
    allow_mismatch: bool = False,
) -> Plan:
    """Read the checkpoints, and hold their settings against each other and against what was asked for.

    Raises CheckpointError, or MismatchError naming a field and both values (unless `allow_mismatch`).
    """
    checkpoints = [read_checkpoint(name, base) for name in names]
    notes = [note for checkpoint in checkpoints for note in checkpoint.notes]
    first = checkpoints[0]
    folders = [checkpoint.base_folder() for checkpoint in checkpoints]
    check_base(folders[0])
    fingerprints = {folder: base_fingerprint(folder) for folder in set(folders)}
    prints = [fingerprints[folder] for folder in folders]
    asked = {
        "base": prints[0],
        "template": (template or first.manifest.prompt).fingerprint,
        "pixels": pixels or first.manifest.policy(folders[0]).max_pixels,
        "quantization": quantization or first.manifest.quantization,
    }
    members = _distinct_names(checkpoints)
    adapters = [checkpoint.fingerprint() for checkpoint in checkpoints]
    for checkpoint, member, folder, fingerprint, adapter in zip(checkpoints, members, folders, prints, adapters):
        manifest = checkpoint.manifest
        if fingerprint != asked["base"]:  # adapters of one run share their base's weights
            raise MismatchError(
                f"{checkpoint.folder}: base is {fingerprint} ({manifest.base}), but {first.folder} has "
                f"{asked['base']} ({first.manifest.base}); score them apart"
            )
        made_with = {
            "base": manifest.base_fingerprint or fingerprint,
            "template": manifest.prompt.fingerprint,
            "pixels": manifest.policy(folder).max_pixels,
            "quantization": manifest.quantization,
        }
        asked_for = {**asked, "base": fingerprint}
        if checkpoint.calibration:
            made_with |= {f"calibration's {key}": value for key, value in checkpoint.calibration["fingerprint"].items()}
            asked_for |= {f"calibration's {key}": value for key, value in asked_for.items()} | {
                "calibration's adapter": adapter,
                "calibration's letters": manifest.letters,
                "calibration's orders": "1",
            }
        for key, value in made_with.items():
            if value != asked_for[key]:
                problem = f"{checkpoint.folder}: {key} is {value}, but this run has {asked_for[key]}"
                if not allow_mismatch:
                    raise MismatchError(f"{problem}; use the checkpoint's own setting, or add --allow-mismatch")
                notes.append(problem)
        if not checkpoint.calibration:
            notes.append(f"{member}: no calibration, so its probabilities are raw (temperature 1)")
    identity = {**asked, "adapters": dict(zip(members, adapters))}
    return Plan(
        checkpoints,
        members,
        folders[0],
        template or first.manifest.prompt,
        PixelPolicy.of_base(folders[0], asked["pixels"]),
        asked["quantization"],
        [(checkpoint.calibration or {}).get("temperature", 1.0) for checkpoint in checkpoints],
        identity,
        notes,
    )


def calibration_fingerprint(manifest: Manifest, adapter: Path) -> dict[str, str]:
    """What a calibration belongs to: all that label logits depend on."""
    return {
        "base": manifest.base_fingerprint,
        "adapter": file_fingerprint(adapter),
        "template": manifest.prompt.fingerprint,
        "letters": manifest.letters,
        "pixels": manifest.pixels["max_pixels"],
        "quantization": manifest.quantization,
        "orders": "1",
    }


def _distinct_names(checkpoints: list[Checkpoint]) -> list[str]:
    """Folder names; with their parents' where two are equal, and numbered where even those are."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{checkpoint.folder.resolve().parent.name}-{checkpoint.name}" for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, 1)]
    return names


class Scorer:
    """Scores questions with the members of a `Plan`, one forward pass a member.

    >>> scorer = Scorer.load("demo/checkpoints/fold0")
    >>> scorer.ask("cat.jpg", "What is shown?", ["dog", "cat", "cow", "hen"])
    {'a': 0.02, 'b': 0.95, 'c': 0.02, 'd': 0.01}
    """

    def __init__(self, plan: Plan, device: str | None = None, dtype: torch.dtype | None = None):
        self.plan = plan
        self.prepare = plan.preparer
        self.label_ids = self.prepare.chat.label_ids(LETTERS)
        self.model = Model.load(plan.base, plan.quantization, device, dtype)
        self.adapters = []
        for number, checkpoint in enumerate(plan.checkpoints):
            self.adapters.append(f"member{number}" if checkpoint.adapter else None)
            if checkpoint.adapter:
                self.model.add_adapter(checkpoint, f"member{number}")

    @classmethod
    def load(
        cls,
        ckpt: str | Sequence[str],
        base: str | None = None,
        *,
        template: PromptTemplate | None = None,
        pixels: int | None = None,
        quantization: str | None = None,
        device: str | None = None,
        allow_mismatch: bool = False,
    ) -> "Scorer":
        """From one checkpoint or several over one base: folders or hub ids. Raises CheckpointError or MismatchError."""
        names = [ckpt] if isinstance(ckpt, (str, Path)) else list(ckpt)
        plan = plan_members([str(name) for name in names], base, template, pixels, quantization, allow_mismatch)
        return cls(plan, device)

    @torch.no_grad()
    def score_batch(self, questions: list[Question], letters: int) -> OptionLogits:
        """One batch; a question whose picture cannot be read gets its reason as `status`, the others their logits."""
        result = OptionLogits.empty([question.id for question in questions], self.plan.members, letters)
        rows, sequences, patches = [], [], []
        for row, question in enumerate(questions):
            try:
                sequence, pixels = self.prepare(question)
            except PictureError as error:
                result.status[row] = f"picture: {error.found}"
                continue
            rows.append(row)
            sequences.append(sequence)
            patches.append(pixels)
        if not rows:
            return result
        batch = collate(sequences, patches).to(self.model.device)
        present = np.array([[letter < len(questions[row].options) for letter in range(letters)] for row in rows])
        for member, adapter in enumerate(self.adapters):
            self.model.use(adapter)
            found = project(answer_states(self.model.network, batch), self.model.head, self.label_ids[:letters])
            labels = found.labels.cpu().numpy()
            labels[~present] = np.nan
            with np.errstate(invalid="ignore"):  # NaN logits are told below, as the row's status
                total = np.logaddexp.reduce(np.where(present, labels, -np.inf), axis=1)
            result.logits[rows, member] = labels
            result.label_mass[rows, member] = np.exp(total - found.log_total.cpu().numpy())
            result.top_token[rows, member] = found.top.cpu().numpy()
        finite = np.isfinite(result.logits[rows]) | ~present[:, None]
        for row, good in zip(rows, finite.all((1, 2))):
            result.status[row] = "ok" if good else "the model gave no finite logits"
            if not good:
                result.logits[row] = np.nan
        return result

    def score(self, questions: Iterable[Question], batch_rows: int = 16) -> OptionLogits:
        """All questions, in batches of `batch_rows` in their order."""
        questions = list(questions)
        letters = max((len(question.options) for question in questions), default=2)
        parts = [
            self.score_batch(questions[at : at + batch_rows], letters) for at in range(0, len(questions), batch_rows)
        ]
        result = OptionLogits.empty([question.id for question in questions], self.plan.members, letters)
        if parts:
            result.logits, result.label_mass, result.top_token = (
                np.concatenate([getattr(part, name) for part in parts])
                for name in ("logits", "label_mass", "top_token")
            )
            result.status = list(itertools.chain.from_iterable(part.status for part in parts))
        return result

    def ask(
        self, picture: str | Path | Image.Image, question: str, options: Sequence[str], hint: str = ""
    ) -> dict[str, float]:
        """Letter -> calibrated probability of one question. Raises PictureError."""
        if isinstance(picture, (str, Path)):
            picture = read_picture(picture)
        logits = self.score([Question("1", 1, picture, question, tuple(options), task_hint=hint)])
        if logits.status[0] != "ok":
            raise PictureError(logits.status[0], "a picture and a prompt that the model can take", "see above")
        p = np.exp(pooled_log_probabilities(logits, self.plan.temperatures)[0])
        return {letter: float(value) for letter, value in zip(LETTERS, p)}


def machine() -> dict:
    """What of this machine the bits of the logits depend on: part of a run's identity."""
    device = default_device()
    return {
        "device": device.type,
        "dtype": str(default_dtype(device)).removeprefix("torch."),
        "bitsandbytes": not why_no_4bit(),
    }
