"""Anyone's numbers: a file with an id and a column for each letter, taken wherever a SCORES folder is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoring.inputs.answers import read_answers
from scoring.inputs.objects import FileError, read_json
from scoring.inputs.prompt import LETTERS
from scoring.results.calibration import Calibration, calibrate
from scoring.results.ensemble import EnsembleError
from scoring.results.exposure import TRAINING
from scoring.results.files import write_json
from scoring.results.folder import Scores, open_scores
from scoring.results.pooling import PoolOptions, import_file
from scoring.results.resampling import clusters_of
from scoring.results.sources import is_file, read_sources

SCORES = Path("scores")  # where files are put that are evaluated


def read_files(
    answers: Path | None, calibrations: Sequence[Path]
) -> tuple[dict[str, dict[str, str]] | None, list[Calibration]]:
    """What --answers and --calibration name, read. Raises InputError or FileError."""
    return read_answers(answers) if answers else None, [
        part for path in calibrations for part in read_calibrations(path)
    ]


def opened(
    path: Path, out: Path | None, form: str, answers: Path | None, calibrations: Sequence[Path]
) -> tuple[Scores, list[str]]:
    """A SCORES folder, or anyone's file made into one (`out`, default scores/NAME), and what there is to say of it.

    A folder with answers or calibrations from elsewhere becomes another folder, too. Raises EnsembleError, RunError.
    """
    known, given = read_files(answers, calibrations)
    if not is_file(path) and not given and known is None:
        return open_scores(path), []
    name = path.stem if is_file(path) else f"{path.name}-calibrated"
    folder = out or SCORES / name
    pooled = import_file(path, folder, PoolOptions(form=form, calibrations=given, answers=known))
    return pooled.scores, [*pooled.told, f"folder: {folder}"]


def calibrate_file(path: Path, out: Path, form: str = "auto", answers: Path | None = None) -> dict[str, Calibration]:
    """A calibration for each member of a file or SCORES folder, written into `out`; by the members' names.

    Raises EnsembleError where no row has an answer, or all were trained on.
    """
    sources = read_sources(path, form, read_answers(answers) if answers else None)
    result = {}
    for source in sources:
        scored = np.isfinite(source.logits).any(1)
        exposed = np.zeros(len(scored), np.uint8) if source.exposed is None else source.exposed
        answer = source.questions["answer"]
        rows = np.flatnonzero(scored & (exposed & TRAINING == 0) & np.array([bool(letter) for letter in answer]))
        if not len(rows):
            raise EnsembleError(
                f"{path}: {source.name} has no scored row with an answer that it was not trained on; name a table with "
                "answers by --answers"
            )
        pictures = [source.questions["picture_digest"][row] or f"row {row}" for row in rows]
        orders = source.entry.get("orders", "1")
        fitted = calibrate(
            source.logits[rows],
            np.array([LETTERS.index(answer[row]) for row in rows]),
            [source.questions["task_type"][row] for row in rows],
            clusters_of(pictures),
            one_order=orders == "1",
            fingerprint={"member": source.name, "adapter": source.fingerprint or None, "orders": orders},
        )
        fitted.digests = [source.questions["digest"][row] for row in rows]
        result[source.name] = fitted
    values = [fitted.to_json() for fitted in result.values()]
    write_json(out, values[0] if len(values) == 1 else {"calibrations": values})
    return result


def read_calibrations(path: Path) -> list[Calibration]:
    """Those of a file that `calibrate` wrote, of one member or of several. Raises FileError."""
    values = read_json(path)
    if values is None:
        raise FileError(f"{path}: no such file; expected one that `calibrate` wrote")
    parts = values.get("calibrations", [values])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and isinstance(part.get("fingerprint"), dict) for part in parts
    ):
        raise FileError(f"{path}: found no calibration; expected a file that `calibrate` wrote")
    return [Calibration.from_json(part, path) for part in parts]
