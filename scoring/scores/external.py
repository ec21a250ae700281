"""Anyone's numbers: a file with an id and a column for each letter, taken wherever a SCORES folder is."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scoring.files.reading import FileError, read_json
from scoring.files.writing import write_json
from scoring.inputs.answers import AnswerTable, read_answers
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import calibrate_folder, exposure_warnings, note_rows
from scoring.scores.exposure import TRAINING
from scoring.scores.folder import Scores, open_scores
from scoring.scores.members import Source, is_file, read_sources, settings_of
from scoring.scores.pooling import PoolOptions, import_file
from scoring.stats.calibration import Calibration, LabelledRows, calibrate
from scoring.stats.pools import EnsembleError

SCORES = Path("scores")  # where files are put that are evaluated


def read_files(answers: Path | None, calibrations: Sequence[Path]) -> tuple[AnswerTable | None, list[Calibration]]:
    """What --answers and --calibration name, read. Raises InputError or FileError."""
    return read_answers(answers) if answers else None, [
        part for path in calibrations for part in read_calibrations(path)
    ]


def opened(
    path: Path, out: Path | None, form: str, answers: Path | None, calibrations: Sequence[Path]
) -> tuple[Scores, list[str]]:
    """A SCORES folder, or anyone's file made into one (`out`, default scores/NAME), and what there is to say of it.

    A folder with answers or calibrations from elsewhere becomes another folder, too. What there is to say includes the
    rows that a member has met before. Raises EnsembleError, RunError.
    """
    known, given = read_files(answers, calibrations)
    if not is_file(path) and not given and known is None:
        scores = open_scores(path)
        return scores, [f"warning: {text}" for text in exposure_warnings(scores.logits.members, scores.exposed)]
    name = path.stem if is_file(path) else f"{path.name}-calibrated"
    folder = out or SCORES / name
    pooled = import_file(path, folder, PoolOptions(form=form, calibrations=given, answers=known))
    return pooled.scores, [*pooled.told, f"folder: {folder}"]


def calibrate_file(
    path: Path, out: Path, form: str = "auto", answers: Path | None = None, say: Callable[[str], None] | None = None
) -> dict[str, Calibration]:
    """A calibration for each member of a file or SCORES folder, written into `out`; by the members' names.

    say: takes what there is to say of the file and of the answers. Raises EnsembleError where no row has an answer, or
    all were trained on.
    """
    scores, sources = read_labelled(path, form, answers, say)
    result = {}
    for member, source in enumerate(sources):
        scored = np.isfinite(source.logits).any(1)
        exposed = np.zeros(len(scored), np.uint8) if source.exposed is None else source.exposed
        known = np.flatnonzero(scored & np.array([bool(letter) for letter in source.questions["answer"]]))
        rows = known[exposed[known] & TRAINING == 0]
        if not len(rows):
            raise EnsembleError(
                f"{path}: {source.name} has no scored row with an answer that it was not trained on; name a table with "
                "answers by --answers"
            )
        settings = settings_of(source)
        if scores:
            fitted = calibrate_folder(scores, member, exposed, settings, settings["orders"])
        else:
            fitted = _calibrate_source(source, rows, settings)
        result[source.name] = fitted
    values = [fitted.to_json() for fitted in result.values()]
    write_json(out, values[0] if len(values) == 1 else {"calibrations": values})
    return result


def read_labelled(
    path: Path, form: str, answers: Path | None, say: Callable[[str], None] | None = None
) -> tuple[Scores | None, list[Source]]:
    """A SCORES folder (None for anyone's file) and its members, with the answers of a table where they have none."""
    sources = read_sources(path, form, read_answers(answers) if answers else None)
    if say:
        for note in dict.fromkeys(note for source in sources for note in source.notes):
            say(note)
    return None if is_file(path) else replace(open_scores(path), questions=sources[0].questions), sources


def _calibrate_source(source: Source, rows: np.ndarray, settings: dict) -> Calibration:
    """A calibration of a member of anyone's file, on its labelled rows (R,). The file names no pictures."""
    questions = source.questions
    fitted = calibrate(
        LabelledRows(
            source.logits[rows],
            np.array([LETTERS.index(questions["answer"][row]) for row in rows]),
            [questions["task_type"][row] for row in rows],
        ),
        fingerprint=settings,
    )
    note_rows(fitted, rows, source.logits, questions, np.zeros(len(source.ids), np.uint8))
    return fitted


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
