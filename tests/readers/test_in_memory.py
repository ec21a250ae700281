"""Rows that a program holds have the cells that a file of these rows would have."""

import datetime
import io
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scoring.errors import InputError
from scoring.readers.in_memory import table_of_dicts, table_of_frame
from scoring.readers.opening import open_table
from scoring.readers.records import ObjectCell


def cells_of(*values):
    """The cells of one row with these values."""
    (row,) = table_of_dicts([(1, {f"c{number}": value for number, value in enumerate(values)})], "rows").rows()
    return row.cells


def test_rows_have_the_columns_and_cells_of_json(tmp_path):
    rows = [{"id": "x", "question": "q", "choices": ["a", "b"]}, {"answer": 1, "id": "y", "image": {"path": "p"}}, {}]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    read, table = open_table(tmp_path / "t.json", set()), table_of_dicts(enumerate(rows, 1), "rows")
    assert table.header == read.header == ["id", "question", "choices", "answer", "image"]
    assert [row.cells for row in table.rows()] == [row.cells for row in read.rows()]
    assert [*table.rows()] == [*table.rows()] and table.count == 3 and table.file == Path("rows")
    assert table.place_of(3) == (Path("rows"), 3) and table.format == "rows" and not table.notices


@pytest.mark.parametrize("after", [0, 1, 2, 4, 5, 8, 9])
def test_a_reading_from_a_later_row_on_gives_what_a_whole_one_gives(after):
    table = table_of_dicts([(number, {"id": number}) for number in (1, 2, 5, 8)], "rows")
    assert list(table.rows(after=after)) == [row for row in table.rows() if row.number > after]


def test_a_frame_has_the_cells_of_the_file_that_pandas_writes(tmp_path):
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "choices": [["a", "b"], ["c"]],
            "answer": pd.array([1, None], "Int64"),
            "share": [0.5, float("nan")],
            "question": pd.array(["q", None], "string"),
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    for given in (frame, pd.read_parquet(tmp_path / "t.parquet")):  # pandas makes arrays of lists
        table, read = table_of_frame(given, "DataFrame"), open_table(tmp_path / "t.parquet", set())
        assert table.header == read.header and table.format == "DataFrame"
        first, second = (row.cells for row in table.rows())
        assert first == next(read.rows()).cells and second[:3] == [2, ["c"], None] and second[4] is None


def test_an_index_with_a_name_is_a_column(tmp_path):
    frame = pd.DataFrame({"question": ["q", "r"]}, index=pd.Index(["x", "y"], name="id"))
    assert [row.cells for row in table_of_frame(frame, "DataFrame").rows()] == [["x", "q"], ["y", "r"]]
    frame["id"] = ["1", "2"]  # as `set_index("id", drop=False)` leaves it
    assert table_of_frame(frame, "DataFrame").header == ["question", "id"]
    plain = frame.reset_index(drop=True)[["question"]]
    assert table_of_frame(plain, "DataFrame").header == ["question"]


def test_missing_values_are_empty_and_scalars_of_numpy_are_plain():
    assert cells_of(None, pd.NA, pd.NaT) == [None, None, None]
    found = cells_of(np.int64(3), np.float32(0.5), np.bool_(True), np.str_("x"), np.array(7), np.array(["a", "b"]))
    assert found == [3, 0.5, True, "x", 7, ["a", "b"]]
    assert [type(cell) for cell in found[:3]] == [int, float, bool] and np.isnan(cells_of(np.float64("nan"))[0])
    day = datetime.date(2026, 1, 2)
    assert cells_of(("a", 1), Decimal("1.5"), day, Path("x/y.png")) == [["a", 1], Decimal("1.5"), day, "x/y.png"]
    assert cells_of(bytearray(b"x"), memoryview(b"y"), {"a", "b"}) == [b"x", b"y", {"a", "b"}]


def test_objects_are_kept_also_within_lists_and_one_object_is_one_cell():
    picture, file, array, odd = Image.new("L", (2, 2)), io.BytesIO(b"x"), np.zeros((2, 2), np.uint8), object()
    encoded = np.frombuffer(b"\xff\xd8", np.uint8)
    cells = cells_of(picture, [file, {"bytes": file}], array, odd, encoded, picture)
    assert [cell.value for cell in cells[::2]] == [picture, array, encoded] and cells[3].value is odd
    assert cells[0] is cells[5] and cells[1][0] is cells[1][1]["bytes"] and cells[1][0].value is file
    assert str(cells[0]) == "<PIL.Image>" and str(cells[2]) == "<numpy.ndarray>"
    assert isinstance(cells[0], ObjectCell) and ObjectCell(array) not in (None, "", [])


def test_columns_whose_names_are_no_texts_or_the_same_are_refused():
    with pytest.raises(InputError, match="rows: found a column named 3, int; expected columns whose names are texts"):
        table_of_dicts([(1, {"a": 1, 3: 4})], "rows")
    with pytest.raises(InputError, match="a column named 0, int"):
        table_of_frame(pd.DataFrame([["x"]]), "DataFrame")
    with pytest.raises(InputError, match="DataFrame: found two columns 'a'"):
        table_of_frame(pd.DataFrame([["x", "y"]], columns=["a", "a"]), "DataFrame")


def test_pictures_in_a_frame_are_those_of_the_file(tmp_path):
    image = pa.array([{"bytes": b"x", "path": "p"}])
    pq.write_table(pa.table({"image": image, "images": pa.array([[{"bytes": b"x", "path": None}]])}), tmp_path / "t")
    frame = pd.read_parquet(tmp_path / "t")
    assert next(table_of_frame(frame, "DataFrame").rows()).cells == next(open_table(tmp_path / "t", set()).rows()).cells
