"""Sample submissions: what is read of them, which are refused, and how their ids meet those of a table."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring.errors import InputError
from scoring.inputs.sample import read_sample


def sample_of(folder, text, name="sample.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return read_sample(path)


@pytest.mark.parametrize(
    "text, header, ids",
    [
        ("id,answer\nr2,a\nr1,\n", ["id", "answer"], ["r2", "r1"]),
        ("\ufeffID , Réponse\n7,?\n", ["ID ", " Réponse"], ["7"]),  # kept as they are
        ('"no, or name",label\n"x,1",a\n 1,b\n1,b\n', ["no, or name", "label"], ["x,1", " 1", "1"]),
        ("same,same\na,b\n\nb,a\n", ["same", "same"], ["a", "b"]),
    ],
)
def test_header_ids_and_their_order_are_those_of_the_file(tmp_path, text, header, ids):
    sample = sample_of(tmp_path, text)
    assert (sample.header, sample.ids, sample.delimiter) == (header, ids, ",")


@pytest.mark.parametrize("sign", [";", "\t"])
def test_another_separator_is_found_whatever_the_columns_are_called(tmp_path, sign):
    sample = sample_of(tmp_path, f"Nummer{sign}Antwort\nr1{sign}a,b\n")
    assert (sample.header, sample.ids, sample.delimiter) == (["Nummer", "Antwort"], ["r1"], sign)


def test_encodings_and_packed_files_are_those_of_tables(tmp_path):
    text = "번호,답\r\n하나,a\r\n"
    plain = sample_of(tmp_path, text)
    packed = sample_of(tmp_path, gzip.compress(text.encode()), "sample.csv.gz")
    assert packed.ids == ["하나"] and packed.digest == plain.digest and len(plain.digest) == 64
    assert sample_of(tmp_path, text, encoding="utf-16").header == ["번호", "답"]
    assert plain.about() == {"file": str(tmp_path / "sample.csv"), "sha256": plain.digest, "rows": 1}


@pytest.mark.parametrize(
    "text, problem",
    [
        (
            "id,answer,confidence\nr1,a,1\n",
            "found 3 columns: 'id', 'answer', 'confidence'; expected two: the ids, and the answers; name the sample "
            "submission, or cut it to two",
        ),
        ("id\nr1\n", "found 1 column: 'id'; expected two"),
        ("id;answer;x\nr1;a;x\n", "found 1 column: 'id;answer;x'; expected two"),
        ("id,answer\n", "found no rows; expected a header and a row for each id"),
        ("", "found an empty file"),
        (
            "id,answer\nr1,a\nr2,b\nr1,c\n",
            "row 3 (line 4, id 'r1'), column id: found 'r1' again (first in row 1); expected each id once",
        ),
        ("id,answer\nr1,a\nr2\nr3,a,b\n", "row 2 (line 3), found 1 cells; expected 2, as in the header"),
    ],
)
def test_files_that_are_no_sample_are_refused(tmp_path, text, problem):
    with pytest.raises(InputError) as error:
        sample_of(tmp_path, text)
    assert problem in str(error.value) and str(error.value).startswith(f"{tmp_path / 'sample.csv'}: ")


def test_all_faults_of_a_sample_are_listed_at_once(tmp_path):
    with pytest.raises(InputError) as error:
        sample_of(tmp_path, "id,answer\nr1,a\nr1,b\nr2\nr1,c\n")
    assert [(problem.row, problem.id) for problem in error.value.problems] == [(2, "r1"), (3, ""), (4, "r1")]


# ------------------------------------------------------------------ the ids of a table
def test_rows_are_found_by_id_and_those_that_the_sample_lacks_are_named(tmp_path):
    sample = sample_of(tmp_path, "id,answer\nc,a\na,a\n")
    assert sample.rows_in(["a", "b", "c"]) == [2, 0] and sample.rows_in(["c", "a"]) == [0, 1]
    assert sample.left_out(["c", "a"]) == ""
    assert sample.left_out(["a", "b", "c"]) == f"1 of 3 ids of the table is not in {sample.file}: 'b'"
    others = [f"x{number}" for number in range(7)]
    told = f"7 of 9 ids of the table are not in {sample.file}: 'x0', 'x1', 'x2', 'x3', 'x4' …"
    assert sample.left_out([*others, "a", "c"]) == told


def test_ids_that_the_table_lacks_are_an_error_with_what_both_lack(tmp_path):
    sample = sample_of(tmp_path, "id,answer\n01,a\n02,a\n3,a\n")
    with pytest.raises(InputError) as error:
        sample.rows_in(["1", "2", "3"])
    assert str(error.value) == (
        f"{sample.file}: found 2 of 3 ids that no row of the table has: '01', '02'; 2 of 3 ids of the table are not in "
        f"{sample.file}: '1', '2'; expected ids of the table in the first column; name the sample of this table, and "
        "leave no row of the table out"
    )
    with pytest.raises(InputError, match="found 3 of 3 ids that no row of the table has: '01', '02', '3'; expected"):
        sample.rows_in([])


def test_a_sample_may_be_json_or_parquet_and_end_in_empty_rows(tmp_path):
    rows = [{"id": "r2", "label": "a"}, {"id": "r1", "label": ""}]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "s.parquet")
    (tmp_path / "s.csv").write_text("id,label\nr2,a\nr1,\n,\n,\n")
    for name in ("s.json", "s.parquet", "s.csv"):
        sample = read_sample(tmp_path / name)
        assert (sample.header, sample.ids, sample.delimiter) == (["id", "label"], ["r2", "r1"], ",")
