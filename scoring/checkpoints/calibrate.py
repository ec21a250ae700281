"""Calibrates a checkpoint, or a folder of folds, on labelled rows that it scored. No torch."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring.checkpoints.checkpoint import Checkpoint, folds_of, read_checkpoint
from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.decision_files import update_temperature
from scoring.checkpoints.member_calibration import calibration_fingerprint, calibration_path
from scoring.files.reading import FileError
from scoring.files.writing import write_json
from scoring.scores.evaluation import calibrate_folder, calibrate_out_of_fold
from scoring.scores.external import read_labelled
from scoring.scores.folder import RunError, Scores, Source, opened
from scoring.stats.calibration import Calibration
from scoring.tables.answers import read_answers

SETTINGS = ("base", "template", "pixels", "quantization")


@dataclass(frozen=True)
class CalibrateOptions:
    """How a calibration is made.

    out: the file to write; None: a file in the checkpoint's folder. answers: a table with answers for rows of the
    SCORES folder that have none. say: prints how many answers it gave, and what transformers' pipeline lacks.
    """

    out: Path | None = None
    answers: Path | None = None
    say: Callable[[str], None] | None = None


def calibrate_checkpoint(
    source: Source, ckpt: str, options: CalibrateOptions | None = None
) -> tuple[Calibration, Path]:
    """Fit on a SCORES folder (opened or not) and write into the checkpoint's folder; the calibration and its path.

    Rows that the checkpoint was trained on are left out. A folder of folds gets one calibration: see `calibrate_folds`.
    Raises MismatchError where the folder was scored by another checkpoint or with other settings, RunError where it has
    no row that may be used.
    """
    if folds_of(ckpt) != [ckpt]:
        return calibrate_folds(source, Path(ckpt), options)
    options = options or CalibrateOptions()
    scores, checkpoint = _read_scores(source, options), _with_renewed_base(ckpt)
    adapter = checkpoint.fingerprint()
    member = _member_number(scores, adapter, ckpt)
    entry = scores.run_json["identity"] | scores.run_json["checkpoints"][member]
    orders = entry.get("orders", "1")
    fingerprint = calibration_fingerprint(checkpoint.manifest, adapter, orders)
    _check_settings(scores, entry, fingerprint, ckpt)
    exposed = checkpoint.exposed(scores.questions, scores.run_json.get("data", {}).get("sha256", ""))
    calibration = calibrate_folder(scores, member, exposed | scores.exposed[:, member], fingerprint, orders)
    path = options.out or calibration_path(checkpoint.folder, orders)
    write_json(path, calibration.to_json())
    if options.out is None and orders == "1":
        for note in update_temperature(checkpoint.folder, calibration):
            if options.say:
                options.say(note)
    return calibration, path


def _member_number(scores: Scores, adapter: str, ckpt: str) -> int:
    """The member of a SCORES folder that is this checkpoint. Raises MismatchError where it is none, or several."""
    entries = scores.run_json["checkpoints"]
    adapters = [entry.get("fingerprint") for entry in entries]
    if adapter not in adapters:
        scored_by = ", ".join(f"{entry['member']} ({entry.get('fingerprint')})" for entry in entries)
        raise MismatchError(
            f"{scores.folder} was scored by {scored_by}, but {ckpt} is {adapter}; score the rows with this checkpoint"
        )
    if adapters.count(adapter) > 1:
        raise MismatchError(
            f"{scores.folder}: {adapters.count(adapter)} members are this checkpoint at other settings; name the "
            "folder of one, such as its runs/1"
        )
    return adapters.index(adapter)


def _check_settings(scores: Scores, entry: dict[str, Any], fingerprint: dict[str, Any], ckpt: str) -> None:
    """Raises MismatchError where the rows were scored with other settings than the checkpoint's."""
    for key in SETTINGS:
        if entry.get(key) and fingerprint[key] and entry[key] != fingerprint[key]:
            raise MismatchError(
                f"{scores.folder} was scored with {key} {entry[key]}, but {ckpt} has {fingerprint[key]}; score the "
                "rows with the checkpoint's own settings"
            )


def _with_renewed_base(name: str) -> Checkpoint:
    """A checkpoint, with its base's current fingerprint where it records the first version and the base is local."""
    checkpoint = read_checkpoint(name)
    if checkpoint.adapter and checkpoint.manifest.base_fingerprint:
        with suppress(FileError):
            return checkpoint.renewed(checkpoint.base_folder(local_only=True))
    return checkpoint


def _read_scores(source: Source, options: CalibrateOptions) -> Scores:
    """The SCORES folder, with the answers of the table that the options name."""
    if options.answers is None:
        return opened(source)
    scores, _ = read_labelled(source, "auto", read_answers(options.answers), options.say)
    if scores is None:
        raise RunError(f"{source}: a file; expected a SCORES folder. To calibrate a file, leave out --ckpt")
    return scores


def calibrate_folds(source: Source, folds: Path, options: CalibrateOptions | None = None) -> tuple[Calibration, Path]:
    """One temperature for all folds of a folder, from their out-of-fold rows, written into that folder.

    `score` uses it where it scores the folder of folds, and sets of options rest on it. Raises MismatchError where the
    rows were not scored by these folds, RunError where they are no out-of-fold rows, or none has an answer.
    """
    options = options or CalibrateOptions()
    scores = _read_scores(source, options)
    entry = scores.run_json["checkpoints"][0]
    checkpoints = [_with_renewed_base(name) for name in folds_of(str(folds))]
    adapters = [checkpoint.fingerprint() for checkpoint in checkpoints]
    _check_folds(scores, entry, folds, adapters)
    orders = entry.get("orders") or scores.logits.orders
    fingerprint = calibration_fingerprint(checkpoints[0].manifest, "", orders)
    del fingerprint["adapter"]
    calibration = calibrate_out_of_fold(scores, fingerprint | {"adapters": adapters})
    path = options.out or calibration_path(folds, orders)
    write_json(path, calibration.to_json())
    return calibration, path


def _check_folds(scores: Scores, entry: dict[str, Any], folds: Path, adapters: Sequence[str]) -> None:
    """Raises RunError or MismatchError where these are not the folds' labelled out-of-fold rows."""
    if not entry.get("adapters"):
        raise RunError(
            f"{scores.folder}: not out-of-fold rows; expected {folds / 'out-of-fold'}, or what "
            f"`score TRAIN.csv --ckpt {folds} --out-of-fold` wrote"
        )
    if entry["adapters"] != adapters:
        raise MismatchError(
            f"{scores.folder} was scored by {', '.join(entry['adapters'])}, but {folds} has {', '.join(adapters)}; "
            "score the training table with these folds"
        )
    if not len(scores.answered):
        raise RunError(f"{scores.folder}: no scored row has an answer, so that nothing can be fitted on it")
