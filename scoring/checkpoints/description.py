"""`show`: everything about a checkpoint as text, from its small files and the headers of its weights."""

import math
import textwrap
from dataclasses import dataclass, field, replace
from typing import Any

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from scoring.checkpoints.checkpoint import Checkpoint, is_hub_id
from scoring.checkpoints.compatibility import base_differences, base_relation
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
    base_fingerprint,
    check_base,
    read_header,
    stored_bits,
)
from scoring.files.reading import FileError, read_json
from scoring.inputs.families.registry import family_of, policy_of
from scoring.stats.calibration import Calibration, read_calibration

Row = tuple[str, str]  # a name and its value


@dataclass(frozen=True)
class Description:
    """What a checkpoint is. faults: what keeps it from being scored."""

    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Two columns, long values wrapped."""
        lines = []
        for name, value in self.rows:
            wrapped = textwrap.wrap(value.replace("\n", "⏎"), 96, break_long_words=False, drop_whitespace=True) or [""]
            lines += [f"{name:<14}{wrapped[0]}", *(f"{'':<14}{line}" for line in wrapped[1:])]
        lines += [f"{'note':<14}{note}" for note in self.notes]
        lines += [f"{'FAULT':<14}{fault}" for fault in self.faults]
        return "\n".join(lines)


def describe(checkpoint: Checkpoint) -> Description:
    """Everything about a checkpoint, its base included where that is on this machine."""
    rows = [("checkpoint", str(checkpoint.folder)), *_adapter_rows(checkpoint)]
    base = _describe_base(checkpoint)
    rows += [*base.rows, ("fingerprint", checkpoint.fingerprint()), *_setting_rows(checkpoint)]
    faults = [*base.faults, checkpoint.prompt_fault] if checkpoint.prompt_fault else base.faults
    return replace(base, rows=rows, notes=checkpoint.notes, faults=faults)


def _adapter_rows(checkpoint: Checkpoint) -> list[Row]:
    config = read_json(checkpoint.folder / ADAPTER_CONFIG)
    if config is None:
        return [("kind", "whole model")]
    file = checkpoint.folder / ADAPTER_FILE
    kind = f"{config.get('peft_type', '?')} adapter, {len(read_header(file))} tensors"
    return [
        ("kind", f"{kind}, {file.stat().st_size / 1e6:.1f} MB"),
        (
            "adapter",
            f"rank {config.get('r')}, alpha {config.get('lora_alpha')}, dropout {config.get('lora_dropout')}, "
            f"on {_list_modules(config.get('target_modules'))}",
        ),
    ]


def _describe_pixels(checkpoint: Checkpoint) -> str:
    """The budget of a picture, as far as the checkpoint and its base, where that is on this machine, say."""
    if checkpoint.manifest.pixels:
        return f"{checkpoint.manifest.pixels['max_pixels']:,}"
    try:
        sees_pictures = family_of(checkpoint.base_folder(local_only=True)).sees_pictures
    except FileError:  # which the base's row tells
        sees_pictures = True
    return "448x448 within the base's limits (default)" if sees_pictures else "none: its base sees no pictures"


def _setting_rows(checkpoint: Checkpoint) -> list[Row]:
    """Prompt, pixels, quantization and calibration, and what the training recorded."""
    manifest = checkpoint.manifest
    prompt = manifest.prompt
    rows = [
        ("template", prompt.fingerprint),
        ("  system", prompt.system or "none: the conversation begins with the user's turn"),
        ("  user", prompt.user),
        ("  option", prompt.option),
        ("  hint", prompt.hint),
        ("letters", f"{manifest.letters}{', shown and answered in upper case' if prompt.letters == 'upper' else ''}"),
        ("pixels", _describe_pixels(checkpoint)),
        ("quantization", manifest.quantization + (f", trained in {manifest.dtype}" if manifest.dtype else "")),
        ("calibration", _describe_calibrations(checkpoint)),
    ]
    records = {
        "metrics": manifest.metrics,
        "data": manifest.data,
        "training": manifest.training,
        "versions": manifest.versions,
    }
    for name, values in records.items():
        if values:
            rows.append((name, ", ".join(f"{key} {_short(value)}" for key, value in values.items())))
    return rows


def _describe_base(checkpoint: Checkpoint) -> Description:
    """The base, and how the adapter's keys fit it, where the base is on this machine."""
    manifest = checkpoint.manifest
    name = manifest.base + (f"@{manifest.revision}" if manifest.revision else "")
    try:
        folder = checkpoint.base_folder(local_only=True)
    except FileError as error:
        if is_hub_id(manifest.base):  # `score` fetches it
            return Description([("base", name), ("checks", f"not made: the base is not on this machine: {error}")])
        return Description([("base", name or "none named")], faults=[str(error)])
    try:
        check_base(folder)
        weights, fingerprint = BaseWeights.of(folder), base_fingerprint(folder)
        stored = stored_bits(folder)
        policy_of(folder)
    except FileError as error:
        return Description([("base", name or str(folder))], faults=[str(error)])
    rows = [("base", f"{name or folder} ({fingerprint}{f', in 4 bits: {stored}' if stored else ''})")]
    checkpoint = checkpoint.renewed(folder)
    faults = []
    for difference in base_differences(checkpoint, folder, base_relation(checkpoint.manifest, folder)):
        if difference.setting == "base":
            faults.append(f"the base is {fingerprint}, but the adapter was trained on {manifest.base_fingerprint}")
        else:
            faults.append(difference.text)
    if checkpoint.adapter is not None:
        try:
            check = checkpoint.check(weights)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            count = f"all {len(check.keys)} keys match the base ({len(check.modules)} modules)"
            rows.append(("checks", f"{count}; the adapter has an effect"))
    return Description(rows, faults=faults)


def _describe_calibrations(checkpoint: Checkpoint) -> str:
    calibrations = (read_calibration(path) for path in sorted(checkpoint.folder.glob("calibration*.json")))
    texts = [_describe_calibration(calibration) for calibration in calibrations if calibration]
    if not texts and checkpoint.calibration:
        return _describe_calibration(checkpoint.calibration)
    return "; ".join(texts) or "none: probabilities are raw"


def _describe_calibration(calibration: Calibration) -> str:
    orders = calibration.fingerprint["orders"]
    text = f"orders {orders}: temperature {calibration.temperature:.3f} on {calibration.rows} rows"
    if calibration.letters:
        text += ", letter bias"
    if calibration.groups:
        text += ", temperatures by task type"
    if not math.isnan(calibration.nll_before):
        text += f", NLL {calibration.nll_before:.3f} → {calibration.nll_after:.3f}"
    return f"{text} ({calibration.note})" if calibration.note else text


def _list_modules(targets: object) -> str:
    if not isinstance(targets, list):
        return str(targets)
    return ", ".join(targets) if len(targets) <= 10 else f"{len(targets)} modules"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "/".join(map(str, value))
    return str(value)[:16] if isinstance(value, str) and len(value) > 40 else str(value)
