"""What a run is about to do, held against what its checkpoints were made with. No torch: mistakes are told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scoring.engine.checkpoint import (
    Checkpoint,
    Manifest,
    base_fingerprint,
    check_base,
    file_fingerprint,
    folds_of,
    read_checkpoint,
)
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate


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
    orders: str = "1",
) -> Plan:
    """Read the checkpoints, and hold their settings against each other and against what was asked for.

    A folder of folds stands for all of them. Raises CheckpointError, or MismatchError naming a field and both values
    (unless `allow_mismatch`).
    """
    checkpoints = [read_checkpoint(fold, base) for name in names for fold in folds_of(name)]
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
                "calibration's orders": checkpoint.calibration["fingerprint"]["orders"],
            }
            if (fitted_on := checkpoint.calibration["fingerprint"]["orders"]) != orders:
                notes.append(
                    f"{member}: its temperature was fitted for orders {fitted_on}; it is applied to each of the "
                    f"{orders} orders before they are averaged"
                )
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
