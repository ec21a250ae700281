"""A calibration for a checkpoint from rows that it scored: held against what the checkpoint is. No torch."""

import csv
from pathlib import Path

from scoring.engine.checkpoint import Checkpoint, read_checkpoint
from scoring.engine.plan import MismatchError, calibration_fingerprint, calibration_path
from scoring.results.calibration import Calibration
from scoring.results.files import write_json
from scoring.results.folder import RunError, Scores, open_scores
from scoring.results.judging import calibrate_folder


def calibrate_checkpoint(folder: Path, ckpt: str, out: Path | None = None) -> tuple[Calibration, Path]:
    """Fit on a SCORES folder and write into the checkpoint's folder (or `out`); the calibration and its path.

    Raises MismatchError where the folder was scored by another checkpoint or with other settings, RunError where it has
    no row that may be used.
    """
    scores, checkpoint = open_scores(folder), read_checkpoint(ckpt)
    adapter, orders = checkpoint.fingerprint(), scores.logits.orders
    entries = scores.about["checkpoints"]
    known = [entry.get("fingerprint") for entry in entries]
    if adapter not in known:
        by = ", ".join(f"{entry['member']} ({entry.get('fingerprint')})" for entry in entries)
        raise MismatchError(
            f"{folder} was scored by {by}, but {ckpt} is {adapter}; score the rows with this checkpoint"
        )
    fingerprint = calibration_fingerprint(checkpoint.manifest, adapter, orders)
    identity = scores.about["identity"]
    for key in ("base", "template", "pixels", "quantization"):
        if key in identity and fingerprint[key] and identity[key] != fingerprint[key]:
            raise MismatchError(
                f"{folder} was scored with {key} {identity[key]}, but {ckpt} has {fingerprint[key]}; score the "
                "rows with the checkpoint's own settings"
            )
    found = calibrate_folder(scores, known.index(adapter), held_out(scores, checkpoint), fingerprint)
    path = out or calibration_path(checkpoint.folder, orders)
    write_json(path, found.to_json())
    return found, path


def held_out(scores: Scores, checkpoint: Checkpoint) -> set[str] | None:
    """Ids of the checkpoint's validation rows, where the scored table is the one it was trained on; else None."""
    digest = scores.about.get("data", {}).get("sha256")
    if not digest or digest != checkpoint.manifest.data.get("sha256"):
        return None
    path = checkpoint.folder / "validation.csv"
    if not path.exists():
        raise RunError(
            f"{scores.folder}: {checkpoint.folder} was trained on this table, and has no validation.csv that says "
            "which rows it did not see"
        )
    with open(path, encoding="utf-8", newline="") as file:
        return {row["id"] for row in csv.DictReader(file)}
