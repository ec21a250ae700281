"""Which rows a checkpoint has met: its record, and the flags of rows by their digests."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.files.reading import FileError
from scoring.scores.exposure import (
    CALIBRATION,
    TRAINING,
    VALIDATION,
    calibrated_rows,
    exposure,
    numbers_of,
    read_rows,
    write_rows,
)


def test_the_record_of_a_training_is_a_table_of_digests_and_flags(tmp_path):
    write_rows(tmp_path, ["t1", "both", "t1"], ["v1", "both"])
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.schema.equals(pa.schema([("digest", pa.string()), ("part", pa.uint8())]))
    assert table.to_pydict() == {"digest": ["t1", "both", "t1", "v1", "both"], "part": [1, 1, 1, 2, 2]}
    assert read_rows(tmp_path) == {"t1": 1, "both": 3, "v1": 2}
    write_rows(tmp_path, [], [])
    assert read_rows(tmp_path) == {} and pq.read_table(tmp_path / "rows.parquet").schema.equals(table.schema)


def test_a_checkpoint_without_a_record_and_one_with_a_damaged_record_are_told_apart(tmp_path):
    assert read_rows(tmp_path) is None
    path = tmp_path / "rows.parquet"
    for damage in (lambda: path.write_bytes(b"cut"), lambda: pq.write_table(pa.table({"digest": ["x"]}), path)):
        damage()
        with pytest.raises(FileError) as error:
            read_rows(tmp_path)
        pattern = f"{re.escape(str(path))}: .+; expected the rows of a training; the file is damaged"
        assert re.fullmatch(pattern, str(error.value), re.DOTALL)


def test_a_row_has_the_flags_of_all_ways_in_which_it_was_met():
    rows = {"t": TRAINING, "v": VALIDATION, "both": TRAINING | VALIDATION}
    flags = exposure(["t", "v", "both", "new", "c", ""], rows, ["v", "both", "c", ""])
    assert flags.tolist() == [1, 2 + 4, 1 + 2 + 4, 0, 4, 0] and flags.dtype == np.uint8
    assert exposure(["t", "c"], None, ["c"]).tolist() == [0, 4]
    assert exposure(["t", "c"], rows).tolist() == [1, 0]
    assert (TRAINING, VALIDATION, CALIBRATION) == (1, 2, 4)


def test_numbers_of_a_row_are_its_log_probabilities_whatever_was_added_to_its_logits():
    logits = np.array([1.0, 3.0, np.nan, 2.0])
    expected = np.log(np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum())
    assert numbers_of(logits) == pytest.approx(expected, abs=1e-6)
    assert numbers_of(logits.astype(np.float32) + 5) == pytest.approx(expected, abs=1e-6)
    assert numbers_of(np.full(4, np.nan)) == []
    small = np.array([0.0, -3.0], np.float32)  # in double precision, to the last of the digits that are kept
    assert numbers_of(small) == np.round(small.astype(float) - np.log(1 + np.exp(-3.0)), 6).tolist()


def test_rows_of_a_calibration_are_known_by_content_or_by_id_and_numbers():
    questions = {
        "digest": ["content", "other", "id", "id2", "id3", ""],
        "picture_digest": ["p", "p", "", "", "", ""],
        "question": ["q", "q", "", "", "", ""],
    }
    logits = np.array([[0.0, 1.0]] * 6)
    numbers = numbers_of(logits[0])
    known = ["content", "id", "id2", "id3"]
    met = calibrated_rows(questions, logits, known, [[], numbers, [number + 0.01 for number in numbers], [0.0]])
    assert met.tolist() == [True, False, True, False, False, False]
    assert calibrated_rows(questions, logits, ["content", "id"], []).tolist() == [True] + [False] * 5
