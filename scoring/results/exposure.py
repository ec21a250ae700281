"""Which rows a checkpoint has met before it scored them: in training, in validation, or in its calibration.

A row is recognised by the digest of its picture's content, its question and its options (`inputs/digests.py`), so
that other ids, file names or orders of options hide nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.inputs.objects import FileError
from scoring.results.files import write_table

TRAINING, VALIDATION, CALIBRATION = 1, 2, 4  # flags: a row may have been met in several ways
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
