"""A calibration for a checkpoint from rows that it scored: held against what the checkpoint is. No torch."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scoring.checkpoints.checkpoint import Checkpoint, find_base, folds_of, read_checkpoint
from scoring.checkpoints.plan import MismatchError, calibration_fingerprint, calibration_path
from scoring.files.reading import FileError
from scoring.files.writing import write_json
from scoring.scores.evaluation import calibrate_folder, calibrate_out_of_fold
from scoring.scores.external import read_labelled
from scoring.scores.folder import RunError, Scores, open_scores
from scoring.stats.calibration import Calibration

SETTINGS = ("base", "template", "pixels", "quantization")


def calibrate_checkpoint(
    folder: Path,
    ckpt: str,
    out: Path | None = None,
    answers: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Calibration, Path]:
    """Fit on a SCORES folder and write into the checkpoint's folder (or `out`); the calibration and its path.

    answers: a table with answers for rows of the folder that have none. say: takes how many it has. Rows that the
    checkpoint was trained on are left out. Raises MismatchError where the folder was scored by another checkpoint or
    with other settings, RunError where it has no row that may be used.
    """
    if folds_of(ckpt) != [ckpt]:
        return calibrate_folds(folder, Path(ckpt), out, answers, say)
    scores, checkpoint = _labelled(folder, answers, say), _with_renewed_base(ckpt)
    adapter = checkpoint.fingerprint()
    entries = scores.about["checkpoints"]
    known = [entry.get("fingerprint") for entry in entries]
    if adapter not in known:
        by = ", ".join(f"{entry['member']} ({entry.get('fingerprint')})" for entry in entries)
        raise MismatchError(
            f"{folder} was scored by {by}, but {ckpt} is {adapter}; score the rows with this checkpoint"
        )
    if known.count(adapter) > 1:
        raise MismatchError(
            f"{folder}: {known.count(adapter)} members are this checkpoint at other settings; name the folder of one, "
            "such as its runs/1"
        )
    member = known.index(adapter)
    entry = scores.about["identity"] | entries[member]
    orders = entry.get("orders", "1")
    fingerprint = calibration_fingerprint(checkpoint.manifest, adapter, orders)
    for key in SETTINGS:
        if entry.get(key) and fingerprint[key] and entry[key] != fingerprint[key]:
            raise MismatchError(
                f"{folder} was scored with {key} {entry[key]}, but {ckpt} has {fingerprint[key]}; score the "
                "rows with the checkpoint's own settings"
            )
    exposed = checkpoint.exposed(scores.questions, scores.about.get("data", {}).get("sha256", ""))
    found = calibrate_folder(scores, member, exposed | scores.exposed[:, member], fingerprint, orders)
    path = out or calibration_path(checkpoint.folder, orders)
    write_json(path, found.to_json())
    return found, path


def _with_renewed_base(name: str) -> Checkpoint:
    """A checkpoint, its base's first fingerprint renewed where that base is on this machine."""
    checkpoint = read_checkpoint(name)
    if checkpoint.adapter and checkpoint.manifest.base_fingerprint:
        manifest = checkpoint.manifest
        with suppress(FileError):
            checkpoint.renew(find_base(manifest.base, checkpoint.folder, manifest.revision, local_only=True))
    return checkpoint


def _labelled(folder: Path, answers: Path | None, say: Callable[[str], None] | None) -> Scores:
    return open_scores(folder) if answers is None else read_labelled(folder, "auto", answers, say)[0]


def calibrate_folds(
    folder: Path,
    folds: Path,
    out: Path | None = None,
    answers: Path | None = None,
    say: Callable[[str], None] | None = None,
) -> tuple[Calibration, Path]:
    """One temperature for all folds of a folder, from their out-of-fold rows, written into that folder (or `out`).

    `score` uses it where it scores the folder of folds, and sets of options rest on it. answers, say: see
    `calibrate_checkpoint`. Raises MismatchError where the
    rows were not scored by these folds, RunError where they are no out-of-fold rows, or none has an answer.
    """
    scores = _labelled(folder, answers, say)
    entry = scores.about["checkpoints"][0]
    checkpoints = [_with_renewed_base(name) for name in folds_of(str(folds))]
    adapters = [checkpoint.fingerprint() for checkpoint in checkpoints]
    if not entry.get("adapters"):
        raise RunError(
            f"{folder}: not out-of-fold rows; expected {folds / 'out-of-fold'}, or what "
            f"`score TRAIN.csv --ckpt {folds} --out-of-fold` wrote"
        )
    if entry["adapters"] != adapters:
        raise MismatchError(
            f"{folder} was scored by {', '.join(entry['adapters'])}, but {folds} has {', '.join(adapters)}; score the "
            "training table with these folds"
        )
    if not len(scores.answered):
        raise RunError(f"{folder}: no scored row has an answer, so that nothing can be fitted on it")
    orders = entry.get("orders") or scores.logits.orders
    fingerprint = calibration_fingerprint(checkpoints[0].manifest, "", orders)
    del fingerprint["adapter"]
    fitted = calibrate_out_of_fold(scores, fingerprint | {"adapters": adapters})
    path = out or calibration_path(folds, orders)
    write_json(path, fitted.to_json())
    return fitted, path
