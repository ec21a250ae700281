"""What a run is about to do, held against what its checkpoints were made with. No torch: mistakes are told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from scoring.engine.checkpoint import (
    CALIBRATION,
    Checkpoint,
    CheckpointError,
    Manifest,
    base_fingerprint,
    check_base,
    folds_of,
    read_checkpoint,
)
from scoring.inputs.pictures import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from scoring.results.calibration import Calibration, read_calibration


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
    calibrations: list[Calibration]
    identity: dict  # what the logits depend on, for resuming and for calibration
    notes: list[str]
    orders: str = "1"

    @cached_property
    def preparer(self) -> Preparer:
        """The base's tokenizer and the run's prompt and pixels, read once: planning and scoring share it."""
        return Preparer.of_base(self.base, self.template, self.policy)

    def exposed(self, columns: dict[str, list], table: str) -> np.ndarray:
        """(N, M) how each member has met each row before: see `Checkpoint.exposed`."""
        parts = [
            checkpoint.exposed(columns, table, calibration)
            for checkpoint, calibration in zip(self.checkpoints, self.calibrations)
        ]
        return np.stack(parts, 1)

    def about(self) -> dict:
        """What `run.json` tells of base and checkpoints; of each member all that its logits depend on."""
        adapters = self.identity["adapters"].items()
        settings = {key: self.identity[key] for key in ("base", "template", "pixels", "quantization")}
        return {
            "base": str(self.checkpoints[0].manifest.base),
            "checkpoints": [
                {
                    "member": member,
                    "folder": str(checkpoint.folder),
                    "fingerprint": fingerprint,
                    **settings,
                    "orders": self.orders,
                    "trained_on": checkpoint.manifest.data.get("sha256"),
                    "temperature": calibration.temperature,
                    "calibration": calibration.stripped(),
                }
                for checkpoint, (member, fingerprint), calibration in zip(self.checkpoints, adapters, self.calibrations)
            ],
        }


def plan_members(
    names: Sequence[str],
    base: str | None = None,
    template: PromptTemplate | None = None,
    pixels: int | None = None,
    quantization: str | None = None,
    allow_mismatch: bool = False,
    orders: str = "1",
    calibration: str = "auto",
    noted: Sequence[str] = (),
) -> Plan:
    """Read the checkpoints, and hold their settings against each other and against what was asked for.

    calibration: `auto` (each checkpoint's own), `none`, or a file, which must fit one of the checkpoints. A folder of
    folds stands for all of them. noted: settings whose difference is told, and no error. Raises CheckpointError, or
    MismatchError naming a field and both values (unless `allow_mismatch`).
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
    given, given_to, calibrations = None, "", []
    pooled = _folds_calibration(names, orders, adapters) if calibration == "auto" else None
    if calibration not in ("auto", "none"):
        given = read_calibration(Path(calibration))
        if given is None:
            raise CheckpointError(f"{calibration}: no such file; expected auto, none, or a file that `calibrate` wrote")
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
        here = {**asked, "base": fingerprint, "adapter": adapter, "letters": manifest.letters, "orders": orders}
        here["adapters"] = adapters
        problems = _differences(made_with, here)
        found = None if calibration == "none" else pooled or own_calibration(checkpoint, orders)
        if given and adapter_of(given) in (adapter, adapters):
            found, given_to = given, member
        if found:
            fitted = found.fingerprint
            if fitted["orders"] != orders:
                found = found.temperature_alone()
                if calibration == "auto":
                    notes.append(
                        f"{member}: it has no calibration for orders {orders}; the temperature for orders "
                        f"{fitted['orders']} alone is used. For their own: score labelled rows with --orders {orders}, "
                        "and `calibrate`"
                    )
                    fitted = fitted | {"orders": orders}
            problems |= _differences(fitted, here, "calibration's ")
        else:
            why = "none, as asked" if calibration == "none" else "no calibration"
            notes.append(f"{member}: {why}, so its probabilities are raw (temperature 1)")
        for problem, key in problems.items():
            if not allow_mismatch and key not in noted:
                raise MismatchError(
                    f"{checkpoint.folder}: {problem}; use the checkpoint's own setting, or add --allow-mismatch"
                )
            notes.append(f"{checkpoint.folder}: {problem}")
        calibrations.append(found or Calibration())
    if given and not given_to:
        raise MismatchError(
            f"{calibration}: it is for adapter {adapter_of(given)}, but this run has "
            f"{', '.join(f'{adapter} ({member})' for member, adapter in zip(members, adapters))}"
        )
    identity = {**asked, "adapters": dict(zip(members, adapters))}
    return Plan(
        checkpoints,
        members,
        folders[0],
        template or first.manifest.prompt,
        PixelPolicy.of_base(folders[0], asked["pixels"]),
        asked["quantization"],
        calibrations,
        identity,
        notes,
        orders,
    )


def _differences(made_with: dict, here: dict, whose: str = "") -> dict[str, str]:
    """What differs, in words -> the setting."""
    return {
        f"{whose}{key} is {value}, but this run has {here.get(key)}": key
        for key, value in made_with.items()
        if value != here.get(key)
    }


def calibration_path(folder: Path, orders: str) -> Path:
    """A checkpoint's calibration for those option orders."""
    return folder / (CALIBRATION if orders == "1" else CALIBRATION.replace(".json", f".{orders}.json"))


def own_calibration(checkpoint: Checkpoint, orders: str) -> Calibration | None:
    """The checkpoint's calibration for those orders, else that for one order."""
    return read_calibration(calibration_path(checkpoint.folder, orders)) or checkpoint.calibration


def adapter_of(calibration: Calibration) -> str | list[str] | None:
    """The adapter that a calibration was fitted for, or those of all folds."""
    return calibration.fingerprint.get("adapters") or calibration.fingerprint.get("adapter")


def _folds_calibration(names: Sequence[str], orders: str, adapters: list[str]) -> Calibration | None:
    """What was fitted on the out-of-fold rows of a folder of folds, where that folder alone is scored."""
    if len(names) != 1 or folds_of(names[0]) == [names[0]]:
        return None
    folder = Path(names[0])
    found = read_calibration(calibration_path(folder, orders)) or read_calibration(folder / CALIBRATION)
    return found if found and adapter_of(found) == adapters else None


def calibration_fingerprint(manifest: Manifest, adapter: str, orders: str = "1") -> dict[str, str]:
    """What a calibration belongs to: all that label logits depend on. adapter: its fingerprint."""
    return {**manifest.settings, "adapter": adapter, "letters": manifest.letters, "orders": orders}


def _distinct_names(checkpoints: list[Checkpoint]) -> list[str]:
    """Folder names; with their parents' where two are equal, and numbered where even those are."""
    names = [checkpoint.name for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{checkpoint.folder.resolve().parent.name}-{checkpoint.name}" for checkpoint in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, 1)]
    return names
