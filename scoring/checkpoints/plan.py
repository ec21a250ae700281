"""What a run is about to load, compared with what its checkpoints were made with. No torch: mistakes show at once."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scoring.checkpoints.checkpoint import Checkpoint, Flags, LogitSettings
from scoring.checkpoints.compatibility import (
    Difference,
    Member,
    MismatchError,
    base_differences,
    declared_differences,
    quantization_of,
    read_members,
    undeclared_settings,
)
from scoring.checkpoints.member_calibration import CalibrationSource
from scoring.checkpoints.weights import CheckpointError, base_fingerprint
from scoring.inputs.families.registry import policy_of
from scoring.inputs.pixels import PixelPolicy
from scoring.inputs.prepare import Preparer
from scoring.inputs.prompt import PromptTemplate
from scoring.scores.members import distinct_names
from scoring.stats.calibration import Calibration


@dataclass(frozen=True)
class MemberRecord:
    """What `run.json` says of a member: all that its logits and probabilities depend on."""

    member: str
    folder: str
    fingerprint: str
    base: str | None
    template: str
    pixels: int | None
    quantization: str
    orders: str
    trained_on: str | None  # SHA-256 of the training table
    temperature: float
    calibration: dict[str, Any]


@dataclass
class Plan:
    """Everything about a run's model that is known before it is loaded."""

    checkpoints: list[Checkpoint]
    members: list[str]  # names, made distinct
    base: Path
    template: PromptTemplate
    policy: PixelPolicy
    settings: LogitSettings
    adapters: dict[str, str]  # member -> fingerprint
    calibrations: list[Calibration]
    notes: list[str]
    orders: str = "1"

    @property
    def quantization(self) -> str:
        """Of the base: nf4, fp4 or none."""
        return self.settings.quantization

    @property
    def identity(self) -> dict[str, Any]:
        """What the logits depend on, as `plan.json` and `run.json` record it."""
        return {**self.settings.to_json(), "adapters": self.adapters}

    @cached_property
    def preparer(self) -> Preparer:
        """The base's tokenizer and the run's prompt and pixels, read once: planning and scoring share it."""
        return Preparer.of_base(self.base, self.template, self.policy)

    def exposed(self, columns: dict[str, list[str]], table: str) -> Flags:
        """(N, M) how each member has met each row before: see `Checkpoint.exposed`."""
        by_member = [
            checkpoint.exposed(columns, table, calibration)
            for checkpoint, calibration in zip(self.checkpoints, self.calibrations)
        ]
        return np.stack(by_member, 1)

    def records(self) -> list[MemberRecord]:
        """What `run.json` says of each member."""
        return [
            MemberRecord(
                member=member,
                folder=str(checkpoint.folder),
                fingerprint=self.adapters[member],
                **self.settings.to_json(),
                orders=self.orders,
                trained_on=checkpoint.manifest.data.get("sha256"),
                temperature=calibration.temperature,
                calibration=calibration.stripped(),
            )
            for checkpoint, member, calibration in zip(self.checkpoints, self.members, self.calibrations)
        ]

    def about(self) -> dict[str, Any]:
        """What `run.json` says of base and checkpoints."""
        base = str(self.checkpoints[0].manifest.base)
        return {"base": base, "checkpoints": [asdict(record) for record in self.records()]}


def plan_members(  # noqa: PLR0913 - the library's call to plan a run: its parameters are the run's options
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
    """Read the checkpoints, and compare their settings with each other and with what was asked for.

    names: checkpoints; a folder of folds stands for all of them. base, template, pixels, quantization: in place of the
    first checkpoint's. calibration: `auto` (each checkpoint's own), `none`, or a file, which must fit one of the
    checkpoints. noted: settings that may differ, with a note. Raises CheckpointError, or MismatchError naming a field
    and both values (unless `allow_mismatch`).
    """
    checkpoints, bases = read_members(names, base)
    members = _members(checkpoints, bases)
    first = checkpoints[0]
    faults = [checkpoint.prompt_fault for checkpoint in checkpoints if checkpoint.prompt_fault]
    if faults and template is None:
        raise CheckpointError("\n".join(faults))
    template = template or first.manifest.prompt
    policy = policy_of(bases[0], pixels or first.manifest.policy(bases[0]).budget)
    settings = LogitSettings(
        members[0].base_fingerprint,
        template.fingerprint,
        policy.budget,
        quantization_of(first, bases[0], quantization),
    )
    source = CalibrationSource.read(calibration, orders, names, members)
    notes = [note for checkpoint in checkpoints for note in checkpoint.notes]
    calibrations = []
    for member in members:
        _check_shared_base(member, members[0])
        choice = source.choose(member, _run_settings(member, members, settings, orders))
        notes += undeclared_settings(member.checkpoint, member.base, policy.budget)
        notes += _precision_notes(member) + choice.notes
        differences = _differences(member, template, settings, choice.differences)
        notes += _accepted(member, differences, noted, allow_mismatch)
        calibrations.append(choice.calibration)
    source.check_used()
    adapters = {member.name: member.adapter for member in members}
    return Plan(
        checkpoints, list(adapters), bases[0], template, policy, settings, adapters, calibrations, notes, orders
    )


def _members(checkpoints: Sequence[Checkpoint], bases: Sequence[Path]) -> list[Member]:
    """The checkpoints with distinct names and their fingerprints; each base is read once."""
    fingerprints = {folder: base_fingerprint(folder) for folder in set(bases)}
    return [
        Member(name, checkpoint, folder, fingerprints[folder], checkpoint.fingerprint())
        for name, checkpoint, folder in zip(_distinct_names(checkpoints), checkpoints, bases)
    ]


def _check_shared_base(member: Member, first: Member) -> None:
    """Raises MismatchError where two members have different bases: the adapters of a run share one base's weights."""
    if member.base_fingerprint != first.base_fingerprint:
        raise MismatchError(
            f"{member.checkpoint.folder}: base is {member.base_fingerprint} ({member.checkpoint.manifest.base}), but "
            f"{first.checkpoint.folder} has {first.base_fingerprint} ({first.checkpoint.manifest.base}); score them in "
            "separate runs"
        )


def _run_settings(member: Member, members: Sequence[Member], settings: LogitSettings, orders: str) -> dict[str, object]:
    """What a member's logits depend on in this run, by the names in a calibration's fingerprint."""
    return {
        **settings.to_json(),
        "adapter": member.adapter,
        "letters": member.checkpoint.manifest.letters,
        "orders": orders,
        "adapters": [other.adapter for other in members],
    }


def _precision_notes(member: Member) -> list[str]:
    """A note where a member was made on the same model in another precision."""
    if member.base_relation != "other precision":
        return []
    made_on = member.checkpoint.manifest.base_fingerprint
    return [
        f"{member.name}: made on {made_on}, the same model at another precision by samples of its "
        "weights: answers may differ a little, and a calibration with them"
    ]


def _differences(
    member: Member, template: PromptTemplate, settings: LogitSettings, of_calibration: Iterable[Difference]
) -> list[Difference]:
    """All that differs between a member and the run, its calibration included. template: the run's."""
    checkpoint, base = member.checkpoint, member.base
    differences = [
        *base_differences(checkpoint, base, member.base_relation),
        *declared_differences(checkpoint, base, template, settings),
        *of_calibration,
    ]
    if member.base_relation == "other precision":  # which is a note
        differences = [difference for difference in differences if difference.setting != "base"]
    return differences


def _accepted(
    member: Member, differences: Iterable[Difference], noted: Sequence[str], allow_mismatch: bool
) -> list[str]:
    """The differences as notes. Raises MismatchError at the first one that is neither noted nor allowed."""
    notes = []
    for difference in differences:
        if not allow_mismatch and difference.setting not in noted:
            raise MismatchError(f"{member.checkpoint.folder}: {difference.text}; {difference.remedy}")
        notes.append(f"{member.checkpoint.folder}: {difference.text}")
    return notes


def _distinct_names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Folder names; with their parents' where two are equal, and numbered where even those are."""
    names = [checkpoint.name for checkpoint in checkpoints]
    with_parents = [f"{checkpoint.folder.resolve().parent.name}-{checkpoint.name}" for checkpoint in checkpoints]
    return distinct_names([names, with_parents], with_parents)
