"""`show`: everything about a checkpoint as text, from its small files and the headers of its weights."""

import textwrap

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from scoring.checkpoints.checkpoint import Checkpoint, find_base, is_hub_id
from scoring.checkpoints.plan import base_differences
from scoring.checkpoints.weights import (
    BaseWeights,
    CheckpointError,
    base_fingerprint,
    check_base,
    read_header,
    stored_bits,
)
from scoring.files.reading import FileError, read_json
from scoring.inputs.pictures import PixelPolicy
from scoring.stats.calibration import Calibration, read_calibration


def describe(checkpoint: Checkpoint) -> tuple[str, bool]:
    """(text, whether the checkpoint can be scored)."""
    manifest, rows, faults = checkpoint.manifest, [("checkpoint", str(checkpoint.folder))], []
    adapter = read_json(checkpoint.folder / ADAPTER_CONFIG)
    if adapter is None:
        rows.append(("kind", "whole model"))
    else:
        header = read_header(checkpoint.folder / ADAPTER_FILE)
        size = (checkpoint.folder / ADAPTER_FILE).stat().st_size
        rows.append(("kind", f"{adapter.get('peft_type', '?')} adapter, {len(header)} tensors, {size / 1e6:.1f} MB"))
        rows.append(
            (
                "adapter",
                f"rank {adapter.get('r')}, alpha {adapter.get('lora_alpha')}, dropout {adapter.get('lora_dropout')}, "
                f"on {_names(adapter.get('target_modules'))}",
            )
        )
    rows += _base_rows(checkpoint, faults)
    rows.append(("fingerprint", checkpoint.fingerprint()))
    rows.append(("template", manifest.prompt.fingerprint))
    rows += [
        ("  system", manifest.prompt.system),
        ("  user", manifest.prompt.user),
        ("  option", manifest.prompt.option),
        ("  hint", manifest.prompt.hint),
    ]
    rows.append(("letters", manifest.letters))
    rows.append(
        (
            "pixels",
            f"{manifest.pixels['max_pixels']:,}" if manifest.pixels else "448x448 within the base's limits (default)",
        )
    )
    rows.append(("quantization", manifest.quantization + (f", trained in {manifest.dtype}" if manifest.dtype else "")))
    rows.append(("calibration", _calibration(checkpoint)))
    for name, values in (
        ("metrics", manifest.metrics),
        ("data", manifest.data),
        ("training", manifest.training),
        ("versions", manifest.versions),
    ):
        if values:
            rows.append((name, ", ".join(f"{key} {_short(value)}" for key, value in values.items())))
    lines = []
    for name, value in rows:
        wrapped = textwrap.wrap(value.replace("\n", "⏎"), 96, break_long_words=False, drop_whitespace=True) or [""]
        lines += [f"{name:<14}{wrapped[0]}", *(f"{'':<14}{line}" for line in wrapped[1:])]
    lines += [f"note          {note}" for note in checkpoint.notes] + [f"FAULT         {fault}" for fault in faults]
    return "\n".join(lines), not faults


def _base_rows(checkpoint: Checkpoint, faults: list[str]) -> list[tuple[str, str]]:
    """The base, and how the adapter's keys fit it, where the base is on this machine."""
    manifest = checkpoint.manifest
    name = manifest.base + (f"@{manifest.revision}" if manifest.revision else "")
    try:
        folder = (
            checkpoint.folder
            if checkpoint.adapter is None
            else find_base(manifest.base, checkpoint.folder, manifest.revision, local_only=True)
        )
    except FileError as error:
        if is_hub_id(manifest.base):  # `score` fetches it
            return [("base", name), ("checks", f"not made, since the base is not on this machine: {error}")]
        faults.append(str(error))
        return [("base", name or "none named")]
    rows = [("base", name or str(folder))]
    try:
        check_base(folder)
        weights, fingerprint = BaseWeights.of(folder), base_fingerprint(folder)
        stored = stored_bits(folder)
        PixelPolicy.of_base(folder)
    except FileError as error:
        faults.append(str(error))
        return rows
    rows = [("base", f"{name or folder} ({fingerprint}{f', in 4 bits: {stored}' if stored else ''})")]
    for problem, kind in base_differences(checkpoint, folder).items():
        if kind == "base":
            problem = f"the base is {fingerprint}, but the adapter was trained on {manifest.base_fingerprint}"
        faults.append(problem)
    if checkpoint.adapter is not None:
        try:
            check = checkpoint.check(weights)
        except CheckpointError as error:
            faults.append(str(error))
        else:
            count = f"all {len(check.keys)} keys match the base ({len(check.modules)} modules)"
            rows.append(("checks", f"{count}; the adapter has an effect"))
    return rows


def _calibration(checkpoint: Checkpoint) -> str:
    found = [read_calibration(path) for path in sorted(checkpoint.folder.glob("calibration*.json"))]
    return "; ".join(map(_one_calibration, found)) or "none: probabilities are raw"


def _one_calibration(found: Calibration) -> str:
    text = f"orders {found.fingerprint['orders']}: temperature {found.temperature:.3f} on {found.rows} rows"
    text += ", letter bias" * bool(found.letters) + ", temperatures by task type" * bool(found.groups)
    if found.nll_before == found.nll_before:  # a number
        text += f", NLL {found.nll_before:.3f} → {found.nll_after:.3f}"
    return text + f" ({found.note})" * bool(found.note)


def _names(targets) -> str:
    if not isinstance(targets, list):
        return str(targets)
    return ", ".join(targets) if len(targets) <= 10 else f"{len(targets)} modules"


def _short(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "/".join(map(str, value))
    return str(value)[:16] if isinstance(value, str) and len(value) > 40 else str(value)
