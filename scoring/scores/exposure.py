"""Which rows a checkpoint has met before it scored them: in training, in validation, or in its calibration.

A row is recognised by the digest of its picture's content, its question and its options (`inputs/digests.py`),
whatever its id, its picture's file name or the order of its options. For a row of a file of numbers only the id and the
numbers are known: it is recognised by both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.files.reading import FileError
from scoring.files.writing import write_table

TRAINING, VALIDATION, CALIBRATION = 1, 2, 4  # flags: a row may have been met in several ways
DECIMALS = 6  # of a row's numbers in a calibration
TOLERANCE = 1e-4  # between two readings of one number, absolute and relative
ROWS = "rows.parquet"  # of a checkpoint: the digest of each row that it was made from, and the flag


def write_rows(folder: Path, training: Sequence[str], validation: Sequence[str]) -> None:
    """A checkpoint's record of the rows that it was trained on, and of those that its epoch was chosen on."""
    flags = [TRAINING] * len(training) + [VALIDATION] * len(validation)
    columns = {"digest": pa.array([*training, *validation], pa.string()), "part": pa.array(flags, pa.uint8())}
    write_table(folder / ROWS, pa.table(columns))


def read_rows(folder: Path) -> dict[str, int] | None:
    """digest -> flags of the rows that a checkpoint was made from; None where it keeps no record. Raises FileError."""
    path = folder / ROWS
    if not path.exists():
        return None
    try:
        table = pq.read_table(path, columns=["digest", "part"])
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path}: {error}; expected the rows of a training; the file is damaged") from None
    flags: dict[str, int] = {}
    for digest, flag in zip(table["digest"].to_pylist(), table["part"].to_pylist()):
        flags[digest] = flags.get(digest, 0) | flag
    return flags


def exposure(digests: Sequence[str], rows: dict[str, int] | None, calibrated: Sequence[str] = ()) -> np.ndarray:
    """(N,) uint8 flags of rows by their digests. rows: see `read_rows`. calibrated: digests of a calibration's rows."""
    known, fitted = rows or {}, set(calibrated)
    return np.array(
        [known.get(digest, 0) | (CALIBRATION if digest and digest in fitted else 0) for digest in digests], np.uint8
    )


# ------------------------------------------------------------------ rows of files of numbers
def known_by_content(questions: dict[str, list[Any]], row: int) -> bool:
    """Whether the row's digest is that of a question, not of an id alone. questions: columns of questions.parquet."""
    return bool(questions["digest"][row] and (questions["picture_digest"][row] or questions["question"][row]))


def numbers_of(logits: np.ndarray) -> list[float]:
    """The log-probabilities of a row's options, as a calibration keeps them; logits: (K,), NaN where it has fewer."""
    finite = logits[np.isfinite(logits)].astype(np.float64)
    return np.round(finite - np.logaddexp.reduce(finite), DECIMALS).tolist() if len(finite) else []


def calibrated_rows(
    questions: dict[str, list[Any]], logits: np.ndarray, digests: Sequence[str], numbers: Sequence[Sequence[float]]
) -> np.ndarray:
    """(N,) bool: rows that a calibration was fitted on, by their content; where that is unknown by id and numbers.

    questions, logits: columns and (N, K) of the rows. digests, numbers: of the calibration's rows.
    """
    by_content = {digest for row, digest in enumerate(digests) if digest and not (numbers and numbers[row])}
    by_number = {digest: values for digest, values in zip(digests, numbers) if values}

    def met(row: int, digest: str) -> bool:
        if known_by_content(questions, row):
            return digest in by_content
        calibrated, scored = by_number.get(digest), numbers_of(logits[row])
        if not calibrated or len(calibrated) != len(scored):
            return False
        return all(
            abs(first - second) <= TOLERANCE + TOLERANCE * abs(second) for first, second in zip(scored, calibrated)
        )

    return np.array([met(row, digest) for row, digest in enumerate(questions["digest"])], bool)
