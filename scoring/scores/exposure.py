"""Which rows a checkpoint has met before it scored them: in training, in validation, or in its calibration.

A row is recognised by the digest of its picture's content, its question and its options (`inputs/digests.py`), so
that other ids, file names or orders of options hide nothing. Of a row of anyone's file nothing is known but its id
and its numbers: it is recognised by both.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.files.reading import FileError
from scoring.files.writing import write_table

TRAINING, VALIDATION, CALIBRATION = 1, 2, 4  # flags: a row may have been met in several ways
DECIMALS, SAME = 6, 1e-4  # of a row's numbers in a calibration, and how far apart the same ones may be read
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
    found: dict[str, int] = {}
    for digest, part in zip(table["digest"].to_pylist(), table["part"].to_pylist()):
        found[digest] = found.get(digest, 0) | part
    return found


def exposure(digests: Sequence[str], rows: dict[str, int] | None, calibrated: Sequence[str] = ()) -> np.ndarray:
    """(N,) uint8 flags of rows by their digests. rows: see `read_rows`. calibrated: digests of a calibration's rows."""
    known, fitted = rows or {}, set(calibrated)
    return np.array(
        [known.get(digest, 0) | (CALIBRATION if digest and digest in fitted else 0) for digest in digests], np.uint8
    )


# ------------------------------------------------------------------ rows of anyone's files
def known_by_content(questions: dict[str, list], row: int) -> bool:
    """Whether the row's digest is that of a question, not of an id alone. questions: columns of questions.parquet."""
    return bool(questions["digest"][row] and (questions["picture_digest"][row] or questions["question"][row]))


def numbers_of(logits: np.ndarray) -> list[float]:
    """The log-probabilities of a row's options, as a calibration keeps them; logits: (K,), NaN where it has fewer."""
    there = logits[np.isfinite(logits)].astype(np.float64)
    return np.round(there - np.logaddexp.reduce(there), DECIMALS).tolist() if len(there) else []


def calibrated_rows(
    questions: dict[str, list], logits: np.ndarray, digests: Sequence[str], numbers: Sequence[Sequence[float]]
) -> np.ndarray:
    """(N,) bool: rows that a calibration was fitted on, by content, or where that is not known by id and numbers.

    questions, logits: columns and (N, K) of the rows. digests, numbers: of the calibration's rows.
    """
    by_content = {digest for row, digest in enumerate(digests) if digest and not (numbers and numbers[row])}
    by_number = {digest: values for digest, values in zip(digests, numbers) if values}

    def met(row: int, digest: str) -> bool:
        if known_by_content(questions, row):
            return digest in by_content
        theirs, ours = by_number.get(digest), numbers_of(logits[row])
        if not theirs or len(theirs) != len(ours):
            return False
        return all(abs(mine - its) <= SAME + SAME * abs(its) for mine, its in zip(ours, theirs))

    return np.array([met(row, digest) for row, digest in enumerate(questions["digest"])], bool)
