"""Files of numbers where a command takes a SCORES folder; answers and calibrations from other files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scoring.files.reading import FileError, read_json
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.messages import Say
from scoring.scores.evaluation import FittedRows, calibrate_folder, exposure_warnings
from scoring.scores.exposure import TRAINING
from scoring.scores.folder import Scores, Source, open_scores, opened, path_of
from scoring.scores.members import Member, holds_scores, read_members, settings_of
from scoring.scores.number_files import is_number_file
from scoring.scores.pooling import PoolOptions, import_file
from scoring.stats.calibration import Calibration, LabelledRows, calibrate
from scoring.stats.pools import EnsembleError
from scoring.tables.answers import AnswerTable, read_answers
from scoring.tables.reading import read_columns

SCORES = Path("scores")  # folder for the results of files that are evaluated


def read_files(answers: Path | None, calibrations: Sequence[Path]) -> tuple[AnswerTable | None, list[Calibration]]:
    """The answers and calibrations in the files that --answers and --calibration name. Raises InputError, FileError."""
    table = read_answers(answers) if answers else None
    return table, [calibration for path in calibrations for calibration in read_calibrations(path)]


def table_columns(scores: Scores, names: Sequence[str], data: Path | None = None) -> dict[str, list[str]]:
    """name -> (N,) cells in the rows' order, of a table or else of the one that was scored; "" for ids that it lacks.

    The results must record that table, or `data` be given. Raises InputError where it lacks a column.
    """
    table = scores.run_json.get("data", {})
    id_column, split = table.get("columns", {}).get("id", "id"), table.get("split")
    cells = read_columns(data or Path(table["file"]), names, id_column, None if data else split)
    return {name: [cells[name].get(id, "") for id in scores.logits.ids] for name in names}


def open_or_import(
    path: Path, out: Path | None, form: str, answers: Path | None, calibrations: Sequence[Path]
) -> tuple[Scores, list[str]]:
    """Open a SCORES folder, or make one of a file of numbers (`out`, default scores/NAME); and notes about it.

    A folder with further answers or calibrations becomes another folder, too. The notes include rows that a member has
    met before. Raises EnsembleError, RunError.
    """
    table, given = read_files(answers, calibrations)
    if not is_number_file(path) and not given and table is None:
        scores = open_scores(path)
        return scores, [f"warning: {text}" for text in exposure_warnings(scores.logits.members, scores.exposed)]
    folder = out or SCORES / (path.stem if is_number_file(path) else f"{path.name}-calibrated")
    pooled = import_file(path, folder, PoolOptions(form=form, calibrations=given, answers=table))
    return pooled.scores, [*pooled.notes, f"folder: {folder}"]


def calibrate_file(
    path: Path, out: Path, form: str = "auto", answers: Path | None = None, say: Say | None = None
) -> dict[str, Calibration]:
    """A calibration for each member of a file or SCORES folder, by the members' names; written to the file `out`.

    say: prints notes about the file and the answers. Raises EnsembleError where a member has no scored row with an
    answer that it was not trained on.
    """
    result = calibrate_members(path, form, read_answers(answers) if answers else None, say)
    values = [calibration.to_json() for calibration in result.values()]
    write_json(out, values[0] if len(values) == 1 else {"calibrations": values})
    return result


def calibrate_members(
    source: Source, form: str = "auto", answers: AnswerTable | None = None, say: Say | None = None
) -> dict[str, Calibration]:
    """What `calibrate_file` writes. Raises the same errors."""
    scores, members = read_labelled(source, form, answers, say)
    result = {}
    for index, member in enumerate(members):
        scored = np.isfinite(member.logits).any(1)
        answered = np.array([bool(letter) for letter in member.questions["answer"]])
        rows = np.flatnonzero(scored & answered & (member.flags & TRAINING == 0))
        if not len(rows):
            raise EnsembleError(
                f"{path_of(source)}: {member.name} has no scored row with an answer that it was not trained on; name a "
                "table with answers by --answers"
            )
        settings = settings_of(member)
        if scores:
            result[member.name] = calibrate_folder(scores, index, member.flags, settings, member.orders)
        else:
            result[member.name] = _calibrate_member(member, rows, settings)
    return result


def read_labelled(
    source: Source, form: str, answers: AnswerTable | None, say: Say | None = None
) -> tuple[Scores | None, list[Member]]:
    """A SCORES folder (None for a file of numbers) and its members, with a table's answers where they have none."""
    members = read_members(source, form, answers)
    if say:
        for note in dict.fromkeys(note for member in members for note in member.notes):
            say(note)
    return replace(opened(source), questions=members[0].questions) if holds_scores(source) else None, members


def _calibrate_member(member: Member, rows: np.ndarray, settings: dict[str, Any]) -> Calibration:
    """A calibration of a member of a file of numbers, which names no pictures. rows: (R,) its labelled rows."""
    questions = member.questions
    fitted = calibrate(
        LabelledRows(
            member.logits[rows],
            np.array([LETTERS.index(questions["answer"][row]) for row in rows]),
            [questions["task_type"][row] for row in rows],
        ),
        fingerprint=settings,
    )
    return FittedRows(rows, member.logits, questions, np.zeros(len(member.ids), np.uint8)).recorded_in(fitted)


def read_calibrations(path: Path) -> list[Calibration]:
    """The calibrations in a file that `calibrate` wrote, for one member or for several. Raises FileError."""
    values = read_json(path)
    if values is None:
        raise FileError(f"{path}: no such file; expected one that `calibrate` wrote")
    entries = values.get("calibrations", [values])
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("fingerprint"), dict) for entry in entries
    ):
        raise FileError(f"{path}: found no calibration; expected a file that `calibrate` wrote")
    return [Calibration.from_json(entry, path) for entry in entries]
