"""The folder of a training: what it holds, and whether a training may write there. Loads no model."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from scoring.checkpoints.adapter import ADAPTER_CONFIG, ADAPTER_FILE
from scoring.checkpoints.checkpoint import CALIBRATION, MANIFEST, Manifest
from scoring.checkpoints.decision_files import DECISION_FILES
from scoring.errors import ScoringError
from scoring.files.differences import changed, describe
from scoring.files.reading import read_object
from scoring.files.writing import write_json
from scoring.scores.exposure import ROWS

STATE = "training_state.safetensors"  # of an unfinished training
FAULT = "training_fault.json"  # beside a state: the unusable row that stopped the training
CHECKPOINT_FILES = (ADAPTER_FILE, ADAPTER_CONFIG, MANIFEST, CALIBRATION, ROWS, *DECISION_FILES, "train.jsonl")
RUN = "run.json"  # of a SCORES folder
REMEDY = "Choose another --out, or start anew with --overwrite"
# The part of a training's identity (see `train.identity`) that depends on its rows: it changes where a row is repaired.
ROW_KEYS = ("training rows", "validation rows", "content of training rows", "content of validation rows")
# Choices that a resumed training may change.
CHANGEABLE = ("save_every", "patience", "memory", "compile", "batch_tokens")


class FolderError(ScoringError):
    """A folder that holds something other than the training that is to be written there."""


def finished(folder: Path) -> bool:
    """Whether the folder holds a finished training."""
    return (folder / ADAPTER_FILE).exists() and not (folder / STATE).exists()


def fold_folders(out: Path) -> list[Path]:
    """OUT/fold0, OUT/fold1 … with a training, finished or not, in the order of their numbers."""
    folders = [path for path in out.glob("fold*") if re.fullmatch(r"fold\d+", path.name) and _is_training(path)]
    return sorted(folders, key=lambda path: int(path.name[4:]))


def check_out(out: Path, folds: int | None) -> None:
    """Raises FolderError where `out` holds results of another kind, or of more folds."""
    if conflict := _conflict(out, folds):
        raise FolderError(f"{out} holds {conflict}; choose another --out, or add --overwrite")


def _conflict(out: Path, folds: int | None) -> str:
    """What `out` holds that a training in so many folds (None: without folds) would overwrite; "" for nothing."""
    present = fold_folders(out)
    if not folds:
        if finished(out):
            return "a checkpoint"
        return f"folds ({_names(present)})" if present else ""
    if surplus := [path for path in present if int(path.name[4:]) >= folds]:
        return f"{_names(surplus)} of a training in more folds than {folds}"
    if (out / ADAPTER_CONFIG).exists():
        return "a checkpoint"
    return "an unfinished training without folds" if (out / STATE).exists() else ""


def check_finished(folder: Path, identity: dict[str, Any]) -> None:
    """Raises FolderError where the finished training in `folder` has another identity, naming what differs.

    Compares what the checkpoint's manifest records; those of older versions record less. The machine may differ.
    """
    manifest = read_object(Manifest, folder / MANIFEST)
    if manifest is None:
        raise FolderError(f"{folder} holds an adapter without {MANIFEST}, made by another program. {REMEDY}")
    rows = [manifest.data.get(name) for name in ("train_rows", "valid_rows", "train_digest", "valid_digest")]
    before = {name: value for name, value in manifest.training.items() if name not in CHANGEABLE} | {
        "base": manifest.base_fingerprint,
        "template": manifest.prompt.fingerprint,
        "pixels": manifest.pixels.get("max_pixels"),
        **dict(zip(ROW_KEYS, rows)),
    }
    before = {name: value for name, value in before.items() if value is not None}
    if changes := changed(before, identity, [name for name in sorted(identity) if name in before]):
        raise FolderError(f"{folder} holds a finished training with other choices: {describe(changes)}. {REMEDY}")


# ------------------------------------------------------------------ rows that stopped a training
def write_fault(folder: Path, fault: str) -> None:
    """Record that an unusable row stopped the training, so that it may start anew without that row."""
    write_json(folder / FAULT, {"fault": fault})


def read_fault(folder: Path) -> str | None:
    """The message of the unusable row that stopped the training in `folder`; None where no row did."""
    try:
        return str(json.loads((folder / FAULT).read_text("utf-8"))["fault"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "a row that could not be used"


# ------------------------------------------------------------------ starting anew
def discard(out: Path) -> None:
    """Delete a training that is to be replaced: the checkpoint, its state, and all of its folds."""
    for name in (STATE, FAULT, *CHECKPOINT_FILES):
        (out / name).unlink(missing_ok=True)
    for folder in fold_folders(out):
        shutil.rmtree(folder)
    for name, trace in (("last", ADAPTER_CONFIG), ("validation", RUN), ("out-of-fold", RUN)):
        if (out / name / trace).exists():
            shutil.rmtree(out / name)


def _is_training(folder: Path) -> bool:
    return any((folder / name).exists() for name in (STATE, *CHECKPOINT_FILES))


def _names(folders: list[Path]) -> str:
    return ", ".join(path.name for path in folders)
