"""Label logits: parts are written and read back in the order of the data."""

import numpy as np
import pytest

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
