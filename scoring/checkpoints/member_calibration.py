"""Which calibration a member of a run uses: its own, that of its folder of folds, or a file. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scoring.checkpoints.checkpoint import CALIBRATION, Checkpoint, Manifest, folds_of
from scoring.checkpoints.compatibility import Difference, Member, MismatchError, setting_differences
from scoring.checkpoints.weights import CheckpointError, base_fingerprint, sampled_fingerprint
from scoring.stats.calibration import Calibration, read_calibration


def calibration_path(folder: Path, orders: str) -> Path:
    """A checkpoint's calibration for those option orders."""
    return folder / (CALIBRATION if orders == "1" else CALIBRATION.replace(".json", f".{orders}.json"))


def calibration_fingerprint(manifest: Manifest, adapter: str, orders: str = "1") -> dict[str, Any]:
    """What a calibration belongs to: all that label logits depend on. adapter: its fingerprint."""
    return {**manifest.settings.to_json(), "adapter": adapter, "letters": manifest.letters, "orders": orders}


def calibrated_adapter(calibration: Calibration) -> str | list[str] | None:
    """The adapter that a calibration was fitted for, or those of all folds."""
    adapter: str | list[str] | None = calibration.fingerprint.get("adapters") or calibration.fingerprint.get("adapter")
    return adapter


@dataclass(frozen=True)
class MemberCalibration:
    """A member's calibration, with what differs between it and the run, and notes for the user."""

    calibration: Calibration
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CalibrationSource:
    """Where the members of a run find their calibrations.

    choice: `auto` (their own), `none`, or a file. shared: the calibration of that file; with `auto`, that of the folder
    of folds that is scored.
    """

    choice: str
    orders: str
    members: Sequence[Member]
    shared: Calibration | None = None

    @classmethod
    def read(cls, choice: str, orders: str, names: Sequence[str], members: Sequence[Member]) -> "CalibrationSource":
        """names: as given for the members. Raises CheckpointError where `choice` is no such file."""
        shared = None
        if choice == "auto":
            shared = _read_folds_calibration(names, orders, members)
        elif choice != "none":
            shared = _renewed(read_calibration(Path(choice)), members, members[0].base)
            if shared is None:
                raise CheckpointError(f"{choice}: no such file; expected auto, none, or a file that `calibrate` wrote")
        return cls(choice, orders, members, shared)

    def choose(self, member: Member, settings: Mapping[str, object]) -> MemberCalibration:
        """The calibration of a member. settings: what its logits depend on in this run."""
        calibration = self._find(member)
        if calibration is None:
            reason = "--calibration none" if self.choice == "none" else "no calibration"
            note = f"{member.name}: {reason}, so its probabilities are raw (temperature 1)"
            return MemberCalibration(Calibration(), notes=[note])
        recorded = {key: value for key, value in calibration.fingerprint.items() if key in settings}
        notes = []
        if recorded["orders"] != self.orders:
            calibration = calibration.temperature_alone()
            if self.choice == "auto":
                notes.append(
                    f"{member.name}: it has no calibration for orders {self.orders}; only the temperature for orders "
                    f"{recorded['orders']} is used. For a calibration of its own: score labelled rows with --orders "
                    f"{self.orders}, and `calibrate`"
                )
                recorded["orders"] = self.orders
        return MemberCalibration(calibration, setting_differences(recorded, settings, "calibration's "), notes)

    def check_used(self) -> None:
        """Raises MismatchError where the calibration of a file fits no member."""
        if self.choice in ("auto", "none") or any(self._fits(member) for member in self.members):
            return
        adapter = calibrated_adapter(self.shared) if self.shared else None
        fitted_for = f"it is for adapter {adapter}" if adapter else "it names no adapter"
        raise MismatchError(
            f"{self.choice}: {fitted_for}, but this run has "
            f"{', '.join(f'{member.adapter} ({member.name})' for member in self.members)}"
        )

    def _find(self, member: Member) -> Calibration | None:
        if self.choice == "none":
            return None
        if self.shared and (self.choice == "auto" or self._fits(member)):
            return self.shared
        return _renewed(_read_own(member.checkpoint, self.orders), self.members, member.base)

    def _fits(self, member: Member) -> bool:
        """Whether the calibration of a file was fitted for this member, or for all members as folds."""
        if self.shared is None:
            return False
        adapter = calibrated_adapter(self.shared)
        return adapter == member.adapter or adapter == [other.adapter for other in self.members]


def _read_own(checkpoint: Checkpoint, orders: str) -> Calibration | None:
    """The checkpoint's calibration for those orders, else that for one order."""
    return read_calibration(calibration_path(checkpoint.folder, orders)) or checkpoint.calibration


def _read_folds_calibration(names: Sequence[str], orders: str, members: Sequence[Member]) -> Calibration | None:
    """What was fitted on the out-of-fold rows of a folder of folds, where only that folder is scored."""
    if len(names) != 1 or folds_of(names[0]) == [names[0]]:
        return None
    folder = Path(names[0])
    calibration = read_calibration(calibration_path(folder, orders)) or read_calibration(folder / CALIBRATION)
    calibration = _renewed(calibration, members, members[0].base)
    fits = calibration and calibrated_adapter(calibration) == [member.adapter for member in members]
    return calibration if fits else None


def _renewed(calibration: Calibration | None, members: Sequence[Member], base: Path) -> Calibration | None:
    """A calibration with current fingerprints, where it records first versions of those of these members and base."""
    if calibration is None:
        return None
    recorded = dict(calibration.fingerprint)
    if recorded.get("base") == sampled_fingerprint(base):
        recorded["base"] = base_fingerprint(base)
    if all(member.checkpoint.adapter for member in members):
        current = {member.first_adapter: member.adapter for member in reversed(members)}
        if recorded.get("adapters") == [member.first_adapter for member in members]:
            recorded["adapters"] = [member.adapter for member in members]
        adapter = recorded.get("adapter")
        if isinstance(adapter, str):
            recorded["adapter"] = current.get(adapter, adapter)
    return replace(calibration, fingerprint=recorded)
