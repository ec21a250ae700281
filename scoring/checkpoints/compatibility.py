"""Whether checkpoints fit their bases and the settings of a run, and what to say where they do not. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from scoring.checkpoints.adapter import ADAPTER_FILE, file_fingerprint
from scoring.checkpoints.checkpoint import Checkpoint, LogitSettings, Manifest, folds_of, read_checkpoint
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
    base_fingerprint,
    check_base,
    nf4_codes,
    same_codes,
    stored_bits,
)
from scoring.errors import ScoringError
from scoring.files.reading import FileError
from scoring.inputs.families.registry import pixel_limit_of, policy_of
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.tokens import TokenError, read_chat_template

UNREAD = "unread weights"
BaseRelation = Literal["same", "other precision", "other"]


class MismatchError(ScoringError):
    """Settings that differ from what a checkpoint was made with; names the field and both values."""


@dataclass(frozen=True)
class Difference:
    """A setting in which a checkpoint differs from what it is used with. text: its name and both values."""

    setting: str  # such as `base` or `pixels`; UNREAD for files that nothing reads
    text: str

    @property
    def remedy(self) -> str:
        """What to do, for a message."""
        if self.setting == UNREAD:
            return "add --allow-mismatch"
        return "use the checkpoint's own setting, or add --allow-mismatch"


@dataclass(frozen=True)
class Member:
    """A checkpoint in a run. base: the folder of its base; adapter: the adapter's (or model's) fingerprint."""

    name: str  # distinct in the run
    checkpoint: Checkpoint
    base: Path
    base_fingerprint: str
    adapter: str

    @cached_property
    def first_adapter(self) -> str | None:
        """The first version of the adapter's fingerprint, which old calibrations record; None for a whole model."""
        if self.checkpoint.adapter is None:
            return None
        return file_fingerprint(self.checkpoint.folder / ADAPTER_FILE)

    @cached_property
    def base_relation(self) -> BaseRelation:
        """See `base_relation`."""
        return base_relation(self.checkpoint.manifest, self.base)


# ------------------------------------------------------------------ reading checkpoints with their bases
def read_members(names: Sequence[str], base: str | None = None) -> tuple[list[Checkpoint], list[Path]]:
    """The checkpoints of all names, and the folder of each one's base. A folder of folds stands for its folds.

    Raises CheckpointError with everything that is wrong with any of them. Each base is checked once.
    """
    checkpoints: list[Checkpoint] = []
    folders: list[Path] = []
    faults: list[str] = []
    bases: dict[Path, BaseWeights] = {}
    for fold in (fold for name in names for fold in folds_of(name)):
        try:
            checkpoint = read_checkpoint(fold, base)
            folder = checkpoint.base_folder()
            if folder not in bases:
                check_base(folder)
                bases[folder] = BaseWeights.of(folder)
                policy_of(folder)
            checkpoint.check(bases[folder])
        except FileError as error:
            faults.append(str(error))
            continue
        checkpoints.append(checkpoint.renewed(folder))
        folders.append(folder)
    if faults:
        raise CheckpointError("\n".join(dict.fromkeys(faults)))
    return checkpoints, folders


def read_sound(names: Sequence[str], base: str | None = None) -> tuple[list[Checkpoint], list[Path]]:
    """As `read_members`, but raises MismatchError where a checkpoint and its base do not belong together.

    Raises CheckpointError too where a checkpoint's prompt is not known.
    """
    checkpoints, folders = read_members(names, base)
    for checkpoint, folder in zip(checkpoints, folders):
        if checkpoint.prompt_fault:
            raise CheckpointError(checkpoint.prompt_fault)
        for difference in base_differences(checkpoint, folder, base_relation(checkpoint.manifest, folder)):
            raise MismatchError(f"{checkpoint.folder}: {difference.text}")
    return checkpoints, folders


# ------------------------------------------------------------------ a checkpoint and its base
def base_relation(manifest: Manifest, base: Path) -> BaseRelation:
    """How a base relates to the one that a checkpoint was made on.

    It is the same one (also where the manifest names none), the same model in 16 bits where that was in 4 or the
    reverse, or another one.
    """
    if manifest.base_fingerprint in (None, "", base_fingerprint(base)):
        return "same"
    return "other precision" if same_model(manifest, base) else "other"


def same_model(manifest: Manifest, base: Path) -> bool:
    """Whether a base and the one that a checkpoint was made on are one model, one in 16 and the other in 4 bits."""
    if bool(manifest.base_stored) == bool(stored_bits(base)):
        return False
    return same_codes(manifest.base_codes, nf4_codes(BaseWeights.of(base)))


def base_differences(checkpoint: Checkpoint, base: Path, relation: BaseRelation) -> list[Difference]:
    """Another base than the checkpoint was made on, and weights in its folder that nothing reads.

    relation: `base_relation` of the two.
    """
    differences = []
    if relation == "other":
        text = f"base is {checkpoint.manifest.base_fingerprint}, but this run has {base_fingerprint(base)}"
        differences.append(Difference("base", text))
    if checkpoint.unread:
        text = (
            f"{', '.join(checkpoint.unread)} beside the adapter: weights that nothing reads. If they were trained with "
            "it, merge all into a whole model and score that; if not, move them away"
        )
        differences.append(Difference(UNREAD, text))
    return differences


def quantization_of(checkpoint: Checkpoint, base: Path, requested: str | None) -> str:
    """The quantization in which the base is used: as it is stored, as requested, or as the checkpoint was made.

    Raises MismatchError where a base that is stored in 4 bits is requested in another quantization.
    """
    stored = stored_bits(base)
    if requested and stored and requested != stored:
        raise MismatchError(
            f"{base}: its weights are in 4 bits ({stored}) already, but this call asks for --quantization {requested}; "
            "leave it out, or name the model in 16 bits with --base"
        )
    return stored or requested or checkpoint.manifest.quantization


# ------------------------------------------------------------------ a checkpoint and a run
def setting_differences(
    recorded: Mapping[str, object], current: Mapping[str, object], owner: str = ""
) -> list[Difference]:
    """The recorded settings whose current value is another. owner: of the recorded ones, such as "calibration's "."""
    return [
        Difference(key, f"{owner}{key} is {value}, but this run has {current.get(key)}")
        for key, value in recorded.items()
        if value != current.get(key)
    ]


def declared_settings(checkpoint: Checkpoint, base: Path) -> dict[str, object]:
    """What the checkpoint's manifest says that it was made with; {} where it has none."""
    if not checkpoint.declared:
        return {}
    manifest = checkpoint.manifest
    return {
        "template": manifest.prompt.fingerprint,
        "pixels": manifest.policy(base).budget,
        "quantization": manifest.quantization,
    }


def declared_differences(
    checkpoint: Checkpoint, base: Path, template: PromptTemplate, settings: LogitSettings
) -> list[Difference]:
    """What a run has otherwise than the checkpoint's manifest says; of the template also in which fields.

    template, settings: the run's.
    """
    fields = ", ".join(checkpoint.manifest.prompt.differing(template))
    return [
        replace(difference, text=f"{difference.text} (they differ in {fields})")
        if difference.setting == "template"
        else difference
        for difference in setting_differences(declared_settings(checkpoint, base), settings.to_json())
    ]


def undeclared_settings(checkpoint: Checkpoint, base: Path, pixels: int | None) -> list[str]:
    """Notes on a checkpoint without a manifest whose folder has a chat template or pixel budget that is not used."""
    if checkpoint.declared or not checkpoint.adapter:
        return []
    try:
        template, budget = read_chat_template(checkpoint.folder), pixel_limit_of(checkpoint.folder, base)
    except (FileError, TokenError) as error:
        return [f"{error} (in the adapter's folder; ignored)"]
    notes: list[str] = []
    if template and template.strip() != (read_chat_template(base) or "").strip():
        notes.append(
            f"{checkpoint.folder}: its chat template is not the base's, which is used; if it was trained with its own, "
            "put that into a copy of the base"
        )
    if budget and pixels and budget != pixels:
        notes.append(
            f"{checkpoint.folder}: its own picture settings allow {budget:,} pixels, scored with {pixels:,} (--pixels)"
        )
    return notes
