"""Label logits: parts are written and read back in the order of the data."""

import re

import numpy as np
import pytest

from scoring.files.reading import FileError
from scoring.scores.logits import Layout, OptionLogits, part_path, read_parts, write_part
from tests.shared.scores_folders import random_logits


def test_parts_come_back_in_the_order_of_the_data(tmp_path):
    logits = random_logits()
    logits.logits[1, ..., 2:] = np.nan
    logits.status[3], logits.logits[3], logits.label_mass[3], logits.top_token[3] = "picture: gone", np.nan, np.nan, -1
    for number, rows in enumerate(([4, 0], [3], [1])):
        write_part(
            tmp_path,
            number,
            OptionLogits(
                [logits.ids[row] for row in rows],
                logits.members,
                logits.logits[rows],
                logits.label_mass[rows],
                logits.top_token[rows],
                [logits.status[row] for row in rows],
            ),
        )
    read = read_parts(tmp_path, Layout(logits.ids, logits.members, 4))
    written = [0, 1, 3, 4]
    assert np.array_equal(read.logits[written], logits.logits[written], equal_nan=True)
    assert np.array_equal(read.label_mass[written], logits.label_mass[written], equal_nan=True)
    assert (
        read.status == ["ok", "ok", "not scored", "picture: gone", "ok"]
        and (read.top_token[written] == logits.top_token[written]).all()
    )


def test_a_part_has_a_row_for_each_member_and_a_column_for_each_letter(tmp_path):
    import pyarrow.parquet as pq

    logits = random_logits(2)
    logits.logits[1, ..., 3] = np.nan
    write_part(tmp_path, 0, logits)
    table = pq.read_table(part_path(tmp_path, 0))
    assert table.column_names == [
        "id",
        "member",
        "order",
        "l_a",
        "l_b",
        "l_c",
        "l_d",
        "label_mass",
        "top_token",
        "status",
    ]
    assert table["order"].to_pylist() == ["abcd", "abcd", "abc", "abc"] and table["l_d"].to_pylist()[2] is None
    assert str(table.schema.field("l_a").type) == "float"


def test_foreign_parts_are_refused(tmp_path):
    write_part(tmp_path, 0, random_logits())
    with pytest.raises(ValueError, match="id0"):
        read_parts(tmp_path, Layout(["other"], ["m0", "m1"], 4))


def test_an_empty_table_has_the_types_of_a_full_one():
    table = OptionLogits.empty(["x", "y"], ["m"], 3, "cyclic")
    assert (table.logits.shape, table.logits.dtype) == ((2, 1, 3, 3), np.float32) and np.isnan(table.logits).all()
    for array, dtype in ((table.label_mass, np.float32), (table.top_token, np.int64)):
        assert (array.shape, array.dtype) == ((2, 1, 3), dtype)
    assert np.isnan(table.label_mass).all() and (table.top_token == -1).all()
    assert table.status == ["not scored"] * 2 and not table.scored.any()


def test_a_table_takes_over_rows_with_a_score_or_a_reason_and_keeps_the_others():
    table, part = random_logits(4), random_logits(4, seed=1)
    before = random_logits(4)
    part.status = ["ok", "not scored", "picture: gone", "ok"]
    table.add(part)
    assert table.status == ["ok", "ok", "picture: gone", "ok"]
    for name in ("logits", "label_mass", "top_token"):
        taken, kept, given = (getattr(values, name) for values in (table, before, part))
        assert np.array_equal(taken[[0, 2, 3]], given[[0, 2, 3]]) and np.array_equal(taken[1], kept[1])


def test_what_a_row_without_a_score_lacks_is_null_in_its_part(tmp_path):
    import pyarrow.parquet as pq

    logits = random_logits(2, ("m",))
    logits.status[1], logits.logits[1], logits.label_mass[1], logits.top_token[1] = "picture: gone", np.nan, np.nan, -1
    write_part(tmp_path, 0, logits)
    row = pq.read_table(part_path(tmp_path, 0)).to_pylist()[1]
    numbers = dict.fromkeys(("l_a", "l_b", "l_c", "l_d", "label_mass"))
    assert row == numbers | {"id": "id1", "member": "m", "order": "abcd", "top_token": -1, "status": "picture: gone"}


def test_the_types_of_a_part_do_not_depend_on_its_rows(tmp_path):
    import pyarrow.parquet as pq

    write_part(tmp_path, 0, random_logits(2))
    write_part(tmp_path, 1, random_logits(0))
    full, empty = (pq.read_table(part_path(tmp_path, number)) for number in (0, 1))
    assert full.num_rows == 4 and empty.num_rows == 0 and empty.schema.equals(full.schema)


def test_a_part_with_a_mark_leaves_the_temporary_file_of_another_process_alone(tmp_path):
    other = tmp_path / "part-000003.parquet.tmp"
    other.write_bytes(b"half")
    logits = random_logits()
    write_part(tmp_path, 3, logits, mark="-1")
    assert other.read_bytes() == b"half" and sorted(tmp_path.iterdir()) == [part_path(tmp_path, 3), other]
    assert np.array_equal(read_parts(tmp_path, Layout(logits.ids, logits.members, 4)).logits, logits.logits)


def test_a_row_that_the_run_does_not_have_is_named(tmp_path):
    write_part(tmp_path, 0, random_logits(2, ("m",)))
    with pytest.raises(FileError) as error:
        read_parts(tmp_path, Layout(["id0"], ["m"], 4))
    assert (
        str(error.value) == f"{tmp_path}: found a row (id 'id1', member 'm', order 'abcd') that this run does not have"
    )


def test_a_damaged_part_is_named_in_one_line_with_what_to_do(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = part_path(tmp_path, 0)
    pq.write_table(pa.table({"id": ["id0"], "member": ["m0"]}), path)
    with pytest.raises(FileError) as error:
        read_parts(tmp_path, Layout(["id0", "id1"], ["m0", "m1"], 4))
    pattern = re.escape(f"{path}: damaged (") + r".*label_mass.*\); delete it, and repeat the command that scored it"
    assert re.fullmatch(pattern, str(error.value))  # a dot is no line end
