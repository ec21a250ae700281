"""What a run is about to do, held against what its checkpoints were made with. No torch: mistakes are told at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from scoring.checkpoints.adapter import ADAPTER_FILE, file_fingerprint
from scoring.checkpoints.checkpoint import CALIBRATION, Checkpoint, Manifest, folds_of, read_checkpoint
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
    base_fingerprint,
    check_base,
    nf4_codes,
    same_codes,
    sampled_fingerprint,
    stored_bits,
)
from scoring.files.reading import FileError
from scoring.inputs.pictures import PixelPolicy, pixel_limit_of
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.tokens import TokenError, read_chat_template
from scoring.stats.calibration import Calibration, read_calibration


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
    checkpoints, folders = read_members(names, base)
    notes = [note for checkpoint in checkpoints for note in checkpoint.notes]
    first = checkpoints[0]
    fingerprints = {folder: base_fingerprint(folder) for folder in set(folders)}
    prints = [fingerprints[folder] for folder in folders]
    asked = {
        "base": prints[0],
        "template": (template or first.manifest.prompt).fingerprint,
        "pixels": pixels or first.manifest.policy(folders[0]).max_pixels,
        "quantization": quantization_of(first, folders[0], quantization),
    }
    members = _distinct_names(checkpoints)
    adapters = [checkpoint.fingerprint() for checkpoint in checkpoints]
    given, given_to, calibrations = None, "", []
    pooled = _folds_calibration(names, orders, checkpoints, adapters, folders[0]) if calibration == "auto" else None
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
        made_with = {}
        if checkpoint.declared:  # else there is nothing that a choice could differ from
            made_with |= {
                "template": manifest.prompt.fingerprint,
                "pixels": manifest.policy(folder).max_pixels,
                "quantization": manifest.quantization,
            }
        else:
            notes += _other_settings(checkpoint, folder, asked["pixels"])
        here = {**asked, "base": fingerprint, "adapter": adapter, "letters": manifest.letters, "orders": orders}
        here["adapters"] = adapters
        differing = base_differences(checkpoint, folder)
        if other_bits := manifest.base_fingerprint not in (None, "", fingerprint) and "base" not in differing.values():
            notes.append(
                f"{member}: made on {manifest.base_fingerprint}, the same model at another precision by samples of its "
                "weights: answers may differ a little, and a calibration with them"
            )
        problems = differing | _differences(made_with, here)
        found = (
            None
            if calibration == "none"
            else pooled or _renewed(own_calibration(checkpoint, orders), checkpoints, adapters, folder)
        )
        if given and adapter_of(_renewed(given, checkpoints, adapters, folder)) in (adapter, adapters):
            found, given_to = given, member
        if found:
            fitted = {key: value for key, value in found.fingerprint.items() if key in here}
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
        if other_bits:
            problems = {problem: key for problem, key in problems.items() if key != "base"}
        for problem, key in problems.items():
            if not allow_mismatch and key not in noted:
                remedy = (
                    "add --allow-mismatch"
                    if key == "beside"
                    else "use the checkpoint's own setting, or add --allow-mismatch"
                )
                raise MismatchError(f"{checkpoint.folder}: {problem}; {remedy}")
            notes.append(f"{checkpoint.folder}: {problem}")
        calibrations.append(found or Calibration())
    if given and not given_to:
        whose = f"it is for adapter {adapter_of(given)}" if adapter_of(given) else "it names no adapter"
        raise MismatchError(
            f"{calibration}: {whose}, but this run has "
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


def read_members(names: Sequence[str], base: str | None = None) -> tuple[list[Checkpoint], list[Path]]:
    """The checkpoints of all names, a folder of folds standing for its folds, and the folder of each one's base.

    Raises CheckpointError with all that is wrong with any of them; a base is looked at once.
    """
    checkpoints, folders, faults = [], [], []
    bases: dict[Path, BaseWeights] = {}
    for fold in (fold for name in names for fold in folds_of(name)):
        try:
            checkpoint = read_checkpoint(fold, base)
            folder = checkpoint.base_folder()
            if folder not in bases:
                check_base(folder)
                bases[folder] = BaseWeights.of(folder)
                PixelPolicy.of_base(folder)
            checkpoint.check(bases[folder])
        except FileError as error:
            faults.append(str(error))
            continue
        checkpoints.append(checkpoint)
        folders.append(folder)
    if faults:
        raise CheckpointError("\n".join(dict.fromkeys(faults)))
    return checkpoints, folders


def quantization_of(checkpoint: Checkpoint, base: Path, asked: str | None) -> str:
    """In how many bits the base is used: as it is stored where that is in 4 bits, else as asked, else as the checkpoint
    was made. Raises MismatchError where a base that is in 4 bits already is asked for in others."""
    stored = stored_bits(base)
    if asked and stored and asked != stored:
        raise MismatchError(
            f"{base}: its weights are in 4 bits ({stored}) already, but this call asks for --quantization {asked}; "
            "leave it out, or name the model in 16 bits with --base"
        )
    return stored or asked or checkpoint.manifest.quantization


def base_differences(checkpoint: Checkpoint, base: Path) -> dict[str, str]:
    """What keeps a checkpoint from being used on a base without more ado, in words -> `base` or `beside`."""
    checkpoint.renew(base)
    manifest, differing = checkpoint.manifest, {}
    fingerprint = base_fingerprint(base)
    if manifest.base_fingerprint not in (None, "", fingerprint) and not same_model(manifest, base):
        differing[f"base is {manifest.base_fingerprint}, but this run has {fingerprint}"] = "base"
    if checkpoint.beside:
        differing[
            f"{', '.join(checkpoint.beside)} beside the adapter: weights that nothing reads. If they were trained with "
            "it, merge all into a whole model and score that; if not, move them away"
        ] = "beside"
    return differing


def read_sound(names: Sequence[str], base: str | None = None) -> tuple[list[Checkpoint], list[Path]]:
    """As `read_members`; raises MismatchError too, where a checkpoint and its base do not belong together."""
    checkpoints, folders = read_members(names, base)
    for checkpoint, folder in zip(checkpoints, folders):
        for problem in base_differences(checkpoint, folder):
            raise MismatchError(f"{checkpoint.folder}: {problem}")
    return checkpoints, folders


def same_model(manifest: Manifest, folder: Path) -> bool:
    """Whether a base and the one that a checkpoint was made on are one model, the one in 16 and the other in 4 bits."""
    if bool(manifest.base_stored) == bool(stored_bits(folder)):
        return False
    return same_codes(manifest.base_codes, nf4_codes(BaseWeights.of(folder)))


def _renewed(
    calibration: Calibration | None, checkpoints: Sequence[Checkpoint], adapters: Sequence[str], base: Path
) -> Calibration | None:
    """A calibration with today's fingerprints in the place of first ones, which saw less, of these very files."""
    if calibration is None:
        return None
    recorded = calibration.fingerprint
    if recorded.get("base") == sampled_fingerprint(base):
        recorded["base"] = base_fingerprint(base)
    if not any(checkpoint.adapter is None for checkpoint in checkpoints):
        first = [file_fingerprint(checkpoint.folder / ADAPTER_FILE) for checkpoint in checkpoints]
        if recorded.get("adapters") == first:
            recorded["adapters"] = list(adapters)
        if recorded.get("adapter") in first:
            recorded["adapter"] = adapters[first.index(recorded["adapter"])]
    return calibration


def _other_settings(checkpoint: Checkpoint, base: Path, pixels: int) -> list[str]:
    """What a stranger's folder itself says of chat template and pixels, where that is not what it is scored with."""
    if not checkpoint.adapter:
        return []
    notes: list[str] = []
    try:
        template, budget = read_chat_template(checkpoint.folder), pixel_limit_of(checkpoint.folder)
    except (FileError, TokenError) as error:
        return [f"{error} (of the adapter's folder, passed over)"]
    if template and template.strip() != (read_chat_template(base) or "").strip():
        notes.append(
            f"{checkpoint.folder}: its chat template is not the base's, which is used; if it was trained with its own, "
            "put that into a copy of the base"
        )
    if budget and budget != pixels:
        notes.append(
            f"{checkpoint.folder}: its own picture settings allow {budget:,} pixels, scored with {pixels:,} (--pixels)"
        )
    return notes


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


def _folds_calibration(
    names: Sequence[str], orders: str, checkpoints: list[Checkpoint], adapters: list[str], base: Path
) -> Calibration | None:
    """What was fitted on the out-of-fold rows of a folder of folds, where that folder alone is scored."""
    if len(names) != 1 or folds_of(names[0]) == [names[0]]:
        return None
    folder = Path(names[0])
    found = read_calibration(calibration_path(folder, orders)) or read_calibration(folder / CALIBRATION)
    found = _renewed(found, checkpoints, adapters, base)
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
