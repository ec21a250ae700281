"""Files of numbers as others write them: what is read, how it is read, and what is refused with its row."""

import hashlib
import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax

from scoring.errors import InputError
from scoring.scores import number_files
from scoring.scores.folder import RunError
from scoring.scores.members import read_members
from scoring.scores.number_files import NAME_IT, is_number_file, read_number_file
from scoring.stats.calibration import Calibration
from scoring.stats.pools import EnsembleError
from scoring.tables.answers import AnswerTable

pytestmark = pytest.mark.filterwarnings("error")
NAN = float("nan")


def csv_file(tmp_path, text, name="file.csv"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def parquet_file(tmp_path, columns, name="file.parquet"):
    pq.write_table(pa.table(columns), tmp_path / name)
    return tmp_path / name


def read_one(path, *arguments):
    (source,) = read_members(path, *arguments)
    return source


def refusal(path, *arguments):
    """The message without the file's name, which must come first."""
    with pytest.raises(EnsembleError) as error:
        read_members(path, *arguments)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


# ------------------------------------------------------------------ what the numbers become
@pytest.mark.parametrize(
    "header, rows, form, expected, note",
    [
        ("p_a,p_b,p_c", "0.2,0.3,0.5", "auto", [0.2, 0.3, 0.5], "p_a … p_c read as probabilities, by their names"),
        (
            "logprob_a,logprob_b,logprob_c",
            "-1.6094379,-1.2039728,-0.6931472",
            "auto",
            [0.2, 0.3, 0.5],
            "logprob_a … logprob_c read as log-probabilities, by their names",
        ),
        ("l_a,l_b", "1.0986123,0", "auto", [0.75, 0.25], "l_a … l_b read as logits, by their names"),
        ("logit_a,logit_b", "1.0986123,0", "auto", [0.75, 0.25], "logit_a … logit_b read as logits, by their names"),
        ("a,b,c", "0.2,0.3,0.5", "auto", [0.2, 0.3, 0.5], "a … c read as probabilities, since each row sums to 1"),
        (
            "a,b",
            "-1.3862944,-0.2876821",
            "auto",
            [0.25, 0.75],
            "a … b read as log-probabilities, since the exponentials of each row sum to 1",
        ),
        (
            "a,b",
            "5,3.9013877",
            "auto",
            [0.75, 0.25],
            "a … b read as logits, since rows do not sum to 1, and neither do their exponentials",
        ),
        ("a,b", ",", "auto", [NAN, NAN], "a … b read as logits, since there is no number"),
        ("p_a,p_b,p_c", "20,30,50", "shares", [0.2, 0.3, 0.5], "p_a … p_c read as shares, as --format says"),
        ("p_a,p_b", "1.0986123,0", "logits", [0.75, 0.25], "p_a … p_b read as logits, as --format says"),
        ("l_a,l_b", "0.75,0.25", "probabilities", [0.75, 0.25], "l_a … l_b read as probabilities, as --format says"),
        (
            "A, B ",
            "-0.2876821,-1.3862944",
            "log-probabilities",
            [0.75, 0.25],
            "A …  B  read as log-probabilities, as --format says",
        ),
    ],
)
def test_each_format_gives_the_logarithms_of_its_probabilities_and_says_how_it_was_read(
    tmp_path, header, rows, form, expected, note
):
    path = csv_file(tmp_path, f"id,{header}\nx,{rows}\n")
    source = read_one(path, form)
    assert np.allclose(np.exp(source.logits), [expected], atol=1e-7, equal_nan=True)
    assert source.notes == [f"{path}: {note}"]


def test_shares_are_divided_by_the_sum_of_their_own_row_and_empty_cells_do_not_count(tmp_path):
    source = read_one(csv_file(tmp_path, "id,a,b,c\nx,3,1,\ny,10,20,70\nz,0,5,15\n"), "shares")
    expected = [[0.75, 0.25, NAN], [0.1, 0.2, 0.7], [0, 0.25, 0.75]]
    assert np.allclose(np.exp(source.logits), expected, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("form, row", [("probabilities", "1,0,"), ("shares", "8,0,"), ("shares", "0.125,0,")])
def test_probability_zero_is_an_option_that_is_hardly_likely(tmp_path, form, row):
    other = "500,500," if form == "shares" else "0.5,0.5,"
    source = read_one(csv_file(tmp_path, f"id,a,b,c\nx,{row}\ny,{other}\n"), form)
    assert np.allclose(source.logits[0], [0, np.log(1e-12), NAN], atol=1e-9, equal_nan=True)


@pytest.mark.parametrize(
    "header, rows, expected",
    [
        ("l_a,l_b,l_c", "3,-inf,1", [3, -47, 1]),
        ("l_a,l_b,l_c", ",-inf,7", [NAN, -43, 7]),
        ("logprob_a,logprob_b,logprob_c", "0,-inf,", [0, -50, NAN]),
    ],
)
def test_minus_infinity_lies_fifty_nats_below_the_highest_of_its_row(tmp_path, header, rows, expected):
    source = read_one(csv_file(tmp_path, f"id,{header}\nx,{rows}\n"))
    finite = np.isfinite(expected)
    assert np.allclose(source.logits[0, finite], log_softmax(np.array(expected)[finite]), atol=1e-9)
    assert np.isnan(source.logits[0, ~finite]).all()


def test_a_row_of_minus_infinities_has_no_score(tmp_path):
    source = read_one(csv_file(tmp_path, "id,l_a,l_b\nx,-inf,-inf\ny,1,1\n"))
    assert np.isnan(source.logits[0]).all() and source.status == ["no number in the file", "ok"]
    assert np.allclose(source.logits[1], np.log(0.5)) and source.questions["options"] == [0, 2]


# ------------------------------------------------------------------ what numbers without a name may be
@pytest.mark.parametrize(
    "rows, form",
    [
        (["0.495,0.5", "0.5,0.505"], "probabilities"),
        (["1,0", "0,1"], "probabilities"),
        (["0.4,0.6", ",", "1,"], "probabilities"),
        (["0,-inf"], "log-probabilities"),
        (["-0.7,-0.7"], "log-probabilities"),
        (["0,-inf,", "-0.6931472,-0.6931472,"], "log-probabilities"),
        (["-0.5,-0.5"], "logits"),
        (["-0.8,-0.8"], "logits"),
        (["1.5,-0.5"], "logits"),
        (["0.5,0.5", "0.7,-3"], "logits"),
        (["-0.6931472,-0.6931472", "-3,-3"], "logits"),
        (["-0.6931472,-0.6931472", "0.5,-0.9327521"], "logits"),
        (["0.005,-8"], "logits"),
        (["1.5,0.3", "0.2,0.1"], "logits"),
        (["40,60"], "logits"),
        (["40,60", "30,72"], "logits"),
        (["5,-5", "7,-7"], "logits"),
        (["900,2", "-900,4"], "logits"),
    ],
)
def test_numbers_without_a_name_show_what_they_are(tmp_path, rows, form):
    letters = "abc"[: rows[0].count(",") + 1]
    text = "\n".join([f"id,{','.join(letters)}", *(f"r{row},{cells}" for row, cells in enumerate(rows)), ""])
    assert f" … {letters[-1]} read as {form}, since " in read_one(csv_file(tmp_path, text)).notes[0]


@pytest.mark.parametrize(
    "rows, row, total",
    [
        (["x,40,60", "y,30,70"], "x", "100.0000"),
        (["x,40,60", "y,31,70"], "y", "101.0000"),
        (["x,0,100", "y,30,70"], "x", "100.0000"),
        (["x,,", "y,0.5,0.4", "z,0.5,0.1"], "z", "0.6000"),
        (["x,0.9,0.8", "y,0.3,0.6"], "x", "1.7000"),
        (["x,0.5,0.5", "y,0.5,0.48"], "y", "0.9800"),
        (["x,0.5,0.2", "y,,"], "x", "0.7000"),
    ],
)
def test_numbers_that_could_be_shares_are_refused_with_the_row_farthest_from_one(tmp_path, rows, row, total):
    message = refusal(csv_file(tmp_path, "\n".join(["id,a,b", *rows, ""])))
    assert message == (
        f"the columns of letters are neither probabilities (row '{row}' sums to {total}, not to 1) nor like logits. "
        f"{NAME_IT}"
    )


# ------------------------------------------------------------------ rows that are not what the format says
@pytest.mark.parametrize(
    "form, rows, named",
    [
        ("probabilities", ["x,0.5,0.5", "y,0.5,0.48", "z,0.5,0.52"], "'y' (0.9800), 'z' (1.0200)"),
        ("probabilities", ["x,,", "y,0,0"], "'y' (0.0000)"),
        ("log-probabilities", ["x,-1,-1", "y,-0.6931,-0.6931", "z,,"], "'x' (0.7358)"),
        ("log-probabilities", ["x,900,0"], f"'x' ({np.exp(50.0) + 1:.4f})"),
    ],
)
def test_rows_that_do_not_sum_to_one_are_refused_with_their_sums(tmp_path, form, rows, named):
    message = refusal(csv_file(tmp_path, "\n".join(["id,a,b", *rows, ""])), form)
    assert message == f"{form} of a row must sum to 1; not so in {named}. {NAME_IT}"


def test_shares_that_sum_to_nothing_are_refused(tmp_path):
    message = refusal(csv_file(tmp_path, "id,a,b\nx,0,0\ny,1,3\nz,,\n"), "shares")
    assert message == f"shares of a row must sum to more than 0; not so in 'x' (0.0000). {NAME_IT}"


@pytest.mark.parametrize("form, cells", [("probabilities", "1.5,-0.5"), ("shares", "5,-1")])
def test_negative_probabilities_and_shares_are_refused_whatever_they_sum_to(tmp_path, form, cells):
    message, negative = refusal(csv_file(tmp_path, f"id,a,b\nx,1,0\ny,{cells}\n"), form), cells.split(",")[1]
    assert message == f"{form} must not be negative; they are in 'y' ({negative}). {NAME_IT}"


@pytest.mark.parametrize(
    "form, cells, half",
    [("probabilities", "0.75,0.5", "0.5,0.5"), ("log-probabilities", "-inf,0.22314355131420976", "0,-inf")],
)
def test_a_sum_may_differ_from_one_by_the_tolerance_and_no_more(tmp_path, monkeypatch, form, cells, half):
    path = csv_file(tmp_path, f"id,a,b\nx,{cells}\ny,{half}\n")
    monkeypatch.setattr(number_files, "OFF", 0.25 + 1e-12)
    assert read_one(path, form).status == ["ok", "ok"]
    monkeypatch.setattr(number_files, "OFF", 0.25 - 1e-12)
    assert "not so in 'x' (1.2500)." in refusal(path, form)


@pytest.mark.parametrize(
    "form, cells, read_as",
    [
        ("probabilities", "1,1,0", "probabilities"),
        ("log-probabilities", "0,0,-1000", "log-probabilities"),
        ("auto", "1,1,0", "probabilities"),
        ("auto", "0,0,-1000", "log-probabilities"),
    ],
)
def test_a_sum_that_differs_by_the_tolerance_itself_is_one(tmp_path, monkeypatch, form, cells, read_as):
    monkeypatch.setattr(number_files, "OFF", 1.0)  # the sums are 2, exactly
    assert f"read as {read_as}, " in read_one(csv_file(tmp_path, f"id,a,b,c\nx,{cells}\n"), form).notes[0]


def test_sums_that_are_alike_to_the_tolerance_itself_could_be_shares(tmp_path, monkeypatch):
    monkeypatch.setattr(number_files, "OFF", 0.5)  # the sums are 100 and 60, half of their median apart
    assert "row 'x' sums to 100.0000" in refusal(csv_file(tmp_path, "id,a,b\nx,40,60\ny,30,30\n"))


# ------------------------------------------------------------------ columns
@pytest.mark.parametrize(
    "header, cells, form",
    [
        ("id,p_a,p_b,l_a,l_b", "x,0.75,0.25,5,5", "p_a … p_b read as probabilities"),
        ("id,a,b,logit_a,logit_b", "x,5,5,1.0986123,0", "logit_a … logit_b read as logits"),
        ("p_b,id,p_a", "0.25,x,0.75", "p_a … p_b read as probabilities"),
        ("id,p_a,p_b,p_d", "x,0.75,0.25,9", "p_a … p_b read as probabilities"),
        ("id,p_a,l_a,l_b", "x,0.5,1.0986123,0", "l_a … l_b read as logits"),
        (" ID ,P_A,\u200bp_b", "x,0.75,0.25", "P_A … \u200bp_b read as probabilities"),
    ],
)
def test_the_letters_columns_are_those_of_one_kind_without_a_gap(tmp_path, header, cells, form):
    source = read_one(csv_file(tmp_path, f"{header}\n{cells}\n"))
    assert source.ids == ["x"] and np.allclose(np.exp(source.logits), [[0.75, 0.25]]) and form in source.notes[0]


@pytest.mark.parametrize("header", ["p_a,p_b", "id,p_a", "id,p_b,p_c", "id,x", "id,p_a,b"])
def test_a_file_without_ids_or_letters_is_refused_with_its_columns(tmp_path, header):
    message = refusal(csv_file(tmp_path, f"{header}\n{','.join('1' for _ in header.split(','))}\n"))
    columns = header.replace(",", ", ")
    assert message == f"columns {columns}; expected `id` and a column for each letter, such as p_a, p_b or a, b"


def test_what_is_known_of_a_files_rows_are_its_own_columns(tmp_path):
    path = csv_file(
        tmp_path,
        "id,p_a,p_b,p_c,answer,Task_Type\nx,0.2,0.3,0.5, (C) , count \ny,0.5,0.5,,b.,\nz,,,,,object\n",
        "mine.csv",
    )
    source = read_one(path)
    digests = [hashlib.sha256(repr(("", id, [])).encode()).hexdigest()[:16] for id in "xyz"]
    assert source.questions == {
        "id": ["x", "y", "z"],
        "answer": ["c", "b", ""],
        "task_type": ["count", "", "object"],
        "picture": ["", "", ""],
        "picture_digest": ["", "", ""],
        "question": ["", "", ""],
        "options": [3, 2, 0],
        "digest": digests,
        "choices": [[], [], []],
        "exposed": [[], [], []],
    }
    assert source.name == "mine" and source.ids == ["x", "y", "z"] and source.path == path
    assert source.status == ["ok", "ok", "no number in the file"]
    assert source.entry == {"orders": "1", "file": str(path)} and source.data == {"file": str(path)}
    assert source.exposed.tolist() == [0, 0, 0] and source.exposed.dtype == np.uint8
    assert source.calibration.to_json() == Calibration().to_json()
    assert source.label_mass is None and source.fingerprint == ""


def test_members_of_one_file_each_have_their_own_rows(tmp_path):
    path = csv_file(
        tmp_path,
        "id,member,p_a,p_b,answer,task_type\nx,m,0.2,0.8,a,s\nx,n,0.3,0.7,b,t\ny,n,,,,u\ny,m,0.4,0.6,b,v\nz,,1,0,a,w\n",
        "three.csv",
    )
    m, n, nameless = read_members(path)
    assert [source.name for source in (m, n, nameless)] == ["m", "n", "three"]
    assert [source.ids for source in (m, n, nameless)] == [["x", "y"], ["x", "y"], ["z"]]
    assert np.allclose(np.exp(m.logits), [[0.2, 0.8], [0.4, 0.6]]) and np.allclose(np.exp(n.logits[0]), [0.3, 0.7])
    assert (m.questions["answer"], n.questions["answer"]) == (["a", "b"], ["b", ""])
    assert (m.questions["task_type"], n.questions["task_type"]) == (["s", "v"], ["t", "u"])
    assert m.questions["options"] == [2, 2] and n.questions["options"] == [2, 0]
    assert m.status == ["ok", "ok"] and n.status == ["ok", "no number in the file"]
    assert [len(source.exposed) for source in (m, n, nameless)] == [2, 2, 1]
    note = f"{path}: p_a … p_b read as probabilities, by their names"
    assert [source.notes for source in (m, n, nameless)] == [[note]] * 3


# ------------------------------------------------------------------ answers
def known(**changes):
    columns = {"answer": {"x": "b", "y": "a"}, "task_type": {"x": "count", "z": "object"}} | changes
    return AnswerTable(Path("answers.csv"), **columns)


@pytest.mark.parametrize(
    "columns, answers, types",
    [
        (["", "", "", ""], ["b", "a", ""], ["count", "", "object"]),
        ([",answer", ",", ",", ","], ["b", "a", ""], ["count", "", "object"]),
        ([",answer", ",", ",a", ","], ["b", "a", ""], ["count", "", "object"]),
        ([",task_type", ",", ",t", ","], ["b", "a", ""], ["count", "t", "object"]),
    ],
)
def test_another_tables_answers_serve_where_the_file_has_none(tmp_path, columns, answers, types):
    lines = ["id,p_a,p_b", "x,0.5,0.5", "y,0.5,0.5", "z,0.5,0.5"]
    path = csv_file(tmp_path, "".join(f"{line}{more}\n" for line, more in zip(lines, columns)))
    source = read_one(path, "auto", known())
    assert source.questions["answer"] == answers and source.questions["task_type"] == types


def test_without_answers_anywhere_their_column_is_empty(tmp_path):
    questions = read_one(csv_file(tmp_path, "id,p_a,p_b\nx,0.5,0.5\ny,1,0\n")).questions
    assert questions["answer"] == ["", ""] and questions["task_type"] == ["", ""]


@pytest.mark.parametrize("cell", ["a", "A", "(a)", "[A]", "a.", " a "])
def test_answers_are_letters_in_any_of_the_usual_spellings(tmp_path, cell):
    path = csv_file(tmp_path, f"id,p_a,p_b,answer\nx,0.5,0.5,{cell}\n")
    assert read_one(path).questions["answer"] == ["a"]


@pytest.mark.parametrize("cell", ["c", "d", "z", "1", "blue", "ab", "abc", "X"])
def test_answers_that_are_no_option_of_their_row_are_refused(tmp_path, cell):
    path = csv_file(tmp_path, f"id,p_a,p_b,p_c,answer\nw,0.2,0.3,0.5,c\nx,0.5,0.5,,{cell}\n")
    assert refusal(path) == (
        f"answers that are no letter of an option with a number: 'x' ('{cell}'); expected letters, such as a"
    )


def test_an_answer_whose_own_option_has_no_number_is_refused_though_the_next_one_has(tmp_path):
    path = csv_file(tmp_path, "id,p_a,p_b,p_c,answer\nx,0.5,,0.5,b\n")
    assert "with a number: 'x' ('b'); expected letters" in refusal(path)


def test_the_first_ten_wrong_answers_are_named_and_the_others_counted(tmp_path):
    path = csv_file(tmp_path, "id,p_a,p_b,answer\n" + "".join(f"r{row},0.5,0.5,c\n" for row in range(12)))
    named = ", ".join(f"'r{row}' ('c')" for row in range(10))
    assert f"with a number: {named} … and 2 more; expected letters" in refusal(path)


def test_the_answer_of_a_row_without_numbers_may_be_any_letter(tmp_path):
    assert read_one(csv_file(tmp_path, "id,p_a,p_b,answer\nx,,,d\n")).questions["answer"] == ["d"]


# ------------------------------------------------------------------ cells
@pytest.mark.parametrize("cell", ["0.25", " 0.25 ", "+0.25", "2.5e-1", ".25"])
def test_numbers_may_be_spelled_in_any_usual_way(tmp_path, cell):
    source = read_one(csv_file(tmp_path, f"id,p_a,p_b\nx,0.75,{cell}\ny,0.5,0.5\n"))
    assert np.allclose(np.exp(source.logits), [[0.75, 0.25], [0.5, 0.5]])


@pytest.mark.parametrize("cell", ["", " ", "nan", "NaN"])
def test_empty_cells_and_nan_are_no_option(tmp_path, cell):
    source = read_one(csv_file(tmp_path, f"id,p_a,p_b,p_c\nx,+0.5,0.5,{cell}\ny,0.5,0.25,+0.25\n"))
    assert source.questions["options"] == [2, 3] and np.isnan(source.logits[0, 2])


def test_cells_that_are_no_numbers_are_refused_with_row_and_column(tmp_path):
    path = csv_file(tmp_path, "id,P_a,p_b\nx,half,0.5\ny,0.5,n/a\nz,inf,\nw,0.5,\n")
    assert refusal(path) == ("expected numbers; rows 'x' (P_a is 'half'), 'y' (p_b is 'n/a'), 'z' (P_a is infinite)")


def test_infinite_cells_are_refused_with_their_columns(tmp_path):
    path = csv_file(tmp_path, "b,id,a\ninf,x,1\n2,y,3\n1,z,inf\n")
    assert refusal(path) == "expected numbers; rows 'x' (b is infinite), 'z' (a is infinite)"


@pytest.mark.parametrize(
    "values, problem",
    [
        ([[0.5], [0.5]], "column p_b holds list<element: double>; expected numbers"),
        ([{"p": 0.5}, {"p": 0.5}], "column p_b holds struct<p: double>; expected numbers"),
        ([date(2026, 1, 1), None], "expected numbers; row 'x' (p_b is '2026-01-01')"),
    ],
)
def test_columns_that_hold_something_else_are_refused_by_what_they_hold(tmp_path, values, problem):
    path = parquet_file(tmp_path, {"id": ["x", "y"], "p_a": [0.5, 0.5], "p_b": values})
    assert refusal(path) == problem


def test_empty_lines_are_no_rows(tmp_path):
    source = read_one(csv_file(tmp_path, "id,p_a,p_b\nx,0.75,0.25\n\n\ny,0.5,0.5\n\n"))
    assert source.ids == ["x", "y"] and np.allclose(np.exp(source.logits[0]), [0.75, 0.25])


def test_columns_of_one_name_are_refused(tmp_path):
    path = csv_file(tmp_path, "id,p_a,p_b,P_A,answer,Answer\nx,0.75,0.25,0.1,a,b\n")
    assert refusal(path) == "columns more than once: 'p_a', 'answer'; expected each name once"


def test_names_of_members_are_read_without_the_spaces_around_them(tmp_path):
    read = read_members(csv_file(tmp_path, "id,member,p_a,p_b\nx,m ,0.75,0.25\ny, m,0.5,0.5\n"))
    assert [(source.name, source.ids) for source in read] == [("m", ["x", "y"])]


@pytest.mark.parametrize(
    "kind, values",
    [
        (pa.float64(), [0.75, None]),
        (pa.float32(), [0.75, float("nan")]),
        (pa.string(), [" 0.75", ""]),
        (pa.large_string(), ["+0.75", None]),
        (pa.string(), ["0.75", " "]),
        (pa.dictionary(pa.int32(), pa.string()), ["0.75", None]),
        (pa.decimal128(5, 2), [Decimal("0.75"), None]),
    ],
)
def test_columns_of_parquet_may_be_numbers_or_texts(tmp_path, kind, values):
    columns = {"id": ["x", "y"], "p_a": pa.array(values, kind), "p_b": [0.25, 1.0]}
    source = read_one(parquet_file(tmp_path, columns))
    assert np.allclose(np.exp(source.logits), [[0.75, 0.25], [NAN, 1]], equal_nan=True)
    assert source.status == ["ok", "ok"] and source.questions["options"] == [2, 1]


def test_whole_numbers_of_parquet_may_be_larger_than_floats_hold_exactly(tmp_path):
    source = read_one(parquet_file(tmp_path, {"id": [1, None], "l_a": [2**53 + 1, 3], "l_b": [0, 3]}))
    assert source.ids == ["1", ""] and source.logits.tolist() == [[0, -(2.0**53)], pytest.approx([np.log(0.5)] * 2)]


# ------------------------------------------------------------------ files
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["file.csv", "FILE.TSV"])
def test_cells_are_separated_by_what_the_header_has_most_of(tmp_path, delimiter, name):
    text = 'id|p_a|p_b|"XXXX,;"\n"r,;\t1"|0.75|0.25|\n007|0.5|0.5|\n'.replace("|", delimiter)
    source = read_one(csv_file(tmp_path, text, name))
    assert source.ids == ["r,;\t1", "007"] and np.allclose(np.exp(source.logits), [[0.75, 0.25], [0.5, 0.5]])


@pytest.mark.parametrize("mark, delimiter", [("", ","), ("\ufeff", ","), ("", ";")])
@pytest.mark.parametrize("name", ["001", "NA", "null", "", "1.50", "true", "line\n2", 'a"b', "ä"])
def test_ids_are_texts_as_they_stand(tmp_path, mark, delimiter, name):
    quoted = '"' + name.replace('"', '""') + '"'
    text = f"{mark}id|p_a|p_b|answer\n{quoted}|0.5|0.5|a\n".replace("|", delimiter)
    source = read_one(csv_file(tmp_path, text))
    assert source.ids == [name] and source.questions["id"] == [name]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ids_are_texts_though_their_columns_name_ends_with_a_line(tmp_path, end):
    assert read_one(csv_file(tmp_path, f'"id{end}",p_a,p_b\n007,0.5,0.5\n')).ids == ["007"]


def test_a_file_shows_what_it_holds_where_nothing_is_asked_for(tmp_path):
    path = csv_file(tmp_path, "id,a,b\nx,0.75,0.25\n")
    (member,), note = read_number_file(path)
    assert np.exp(member.log_p) == pytest.approx(np.array([[0.75, 0.25]]))
    assert note == f"{path}: a … b read as probabilities, since each row sums to 1"


def test_cells_with_line_ends_may_lie_anywhere_in_a_large_file(tmp_path):
    """Arrow reads a megabyte at a time, and must not take a line end within quotes for that of a row."""
    ids = [f"{row}" + "\n" * 5000 for row in range(500)]
    source = read_one(csv_file(tmp_path, "id,p_a,p_b\n" + "".join(f'"{id}",0.5,0.5\n' for id in ids)))
    assert source.ids == ids and np.allclose(source.logits, np.log(0.5))


def test_rows_with_more_or_fewer_cells_are_refused_with_their_lines(tmp_path):
    path = csv_file(tmp_path, "id,p_a,p_b\nx,0.5,0.5\ny,0.5\nz,0.5,0.5\nw,0.2,0.3,0.5\n")
    assert refusal(path) == "expected 3 cells in every row, not so in line 3 (2), line 5 (4)"


@pytest.mark.parametrize(
    "content",
    [None, b"", "id,p_a,p_b,Größe\nx,0.5,0.5,1\n".encode("latin-1"), "id,p_a,p_b\nä,0.5,0.5\n".encode("latin-1")],
)
def test_a_csv_that_cannot_be_read_is_refused_with_the_reason(tmp_path, content):
    if content is not None:
        (tmp_path / "file.csv").write_bytes(content)
    message = refusal(tmp_path / "file.csv")
    assert re.fullmatch(
        r"cannot be read \((?!None).+\); expected a CSV with an id and a column a letter", message, re.S
    )


@pytest.mark.parametrize("content", [None, b"PAR1", b"id,p_a,p_b\n"])
def test_a_parquet_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path, content):
    if content is not None:
        (tmp_path / "file.parquet").write_bytes(content)
    message = refusal(tmp_path / "file.parquet")
    assert re.fullmatch(r"cannot be read \((?!None).+\); expected a Parquet file of numbers", message, re.S)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("a.csv", True),
        ("a.TSV", True),
        ("a.Parquet", True),
        ("a", False),
        ("csv", False),
        ("a.jsonl", True),
        ("a.txt", False),
    ],
)
def test_files_are_recognised_by_their_endings(name, expected):
    assert is_number_file(Path(name)) is expected


def test_a_folder_is_no_file_of_numbers_whatever_its_name(tmp_path):
    (tmp_path / "test.csv").mkdir()
    assert not is_number_file(tmp_path / "test.csv")


def test_a_folder_without_scores_is_refused(tmp_path):
    with pytest.raises(RunError, match="not a finished SCORES folder"):
        read_members(tmp_path)


@pytest.mark.parametrize(
    "header, rows, problem",
    [
        ("id,p_a,p_b", ["x,40,60", "y,30,70"], "row must sum to 1; not so in 'x' (100.0000), 'y' (100.0000)"),
        ("id,p_a,p_b", ["x,0.4,0.5", "y,0.3,0.6"], "not so in 'x' (0.9000), 'y' (0.9000)"),
        (
            "id,a,b",
            ["x,40,60", "y,30,70"],
            "neither probabilities (row 'x' sums to 100.0000, not to 1) nor like logits",
        ),
        ("id,a,b", ["x,0.9,0.8", "y,0.3,0.6"], "neither probabilities (row 'x' sums to 1.7000"),
        ("id,logprob_a,logprob_b", ["x,-1,-1"], "log-probabilities of a row must sum to 1; not so in 'x' (0.7358)"),
        ("id,p_a,p_b", ["x,0.5,0.5", "y,-0.4,1.4"], "probabilities must not be negative; they are in 'y' (-0.4)"),
        ("id,p_a,p_b", ["x,-0.4,1.5"], "probabilities must not be negative; they are in 'x' (-0.4)"),
        ("id,l_a,l_b", ["x,inf,1", "y,1,inf"], "expected numbers; rows 'x' (l_a is infinite), 'y' (l_b is infinite)"),
        ("id,l_a,l_b", ["x,inf,1"], "expected numbers; row 'x' (l_a is infinite)"),
    ],
)
def test_columns_that_are_no_distribution_are_refused_with_row_and_sum(tmp_path, header, rows, problem):
    path = csv_file(tmp_path, "\n".join([header, *rows, ""]))
    with pytest.raises(EnsembleError) as error:
        read_members(path)
    assert problem in str(error.value)
    if "infinite" not in problem:
        assert "--format" in str(error.value) and "shares" in str(error.value)


def test_how_numbers_were_read_is_always_noted(tmp_path):
    cases = {
        "id,a,b\nx,0.4,0.6\n": "a … b read as probabilities, since each row sums to 1",
        "id,a,b\nx,-0.693147,-0.693147\n": "read as log-probabilities, since the exponentials",
        "id,a,b\nx,21.5,3\ny,20,-2\n": "read as logits, since rows do not sum to 1",
        "id,p_a,p_b\nx,0.4,0.6\n": "p_a … p_b read as probabilities, by their names",
        "id,l_a,l_b\nx,0.4,0.6\n": "l_a … l_b read as logits, by their names",
    }
    for text, note in cases.items():
        assert note in read_members(csv_file(tmp_path, text))[0].notes[0]
    shares = read_members(csv_file(tmp_path, "id,a,b\nx,30,70\n"), "shares")[0]
    assert np.allclose(np.exp(shares.logits), [[0.3, 0.7]]) and "as --format says" in shares.notes[0]


def test_a_certain_zero_is_an_option_and_a_missing_cell_is_none(tmp_path):
    member = read_members(csv_file(tmp_path, "id,logprob_a,logprob_b,logprob_c\nx,0,-inf,\n"))[0]
    assert np.exp(member.logits[0, 0]) == pytest.approx(1) and np.isfinite(member.logits[0, 1])
    assert np.isnan(member.logits[0, 2])
    zeros = read_members(csv_file(tmp_path, "id,p_a,p_b\nx,1,0\n"))[0]
    assert np.isfinite(zeros.logits).all() and np.exp(zeros.logits[0]).tolist() == pytest.approx([1, 0])


def test_semicolons_parquet_and_several_members_in_one_file_are_read(tmp_path):
    semicolons = read_members(csv_file(tmp_path, "id;a;b\nx;0.4;0.6\n"))[0]
    assert semicolons.ids == ["x"] and np.allclose(np.exp(semicolons.logits), [[0.4, 0.6]])
    columns = {
        "id": [1, 2, 1, 2],
        "a": [3.0, 1.0, 0.5, 4.0],
        "b": [1.0, 2.0, 2.5, None],
        "member": ["m", "m", "n", "n"],
    }
    pq.write_table(pa.table(columns | {"answer": ["A", "b", "(a)", "a."]}), tmp_path / "f.parquet")
    first, second = read_members(tmp_path / "f.parquet")
    assert (first.name, second.name) == ("m", "n") and first.ids == ["1", "2"]
    assert first.questions["answer"] == ["a", "b"] and second.questions["answer"] == ["a", "a"]
    assert np.isnan(second.logits[1, 1])
    pq.write_table(pa.table(columns | {"answer": ["c", "b", "a", "b"]}), tmp_path / "f.parquet")
    with pytest.raises(EnsembleError, match=r"answers that are no letter of an option with a number: '1' \('c'\)"):
        read_members(tmp_path / "f.parquet")
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(EnsembleError, match="cannot be read"):
        read_members(tmp_path / "f.parquet")


def test_quoted_empty_and_signed_cells_are_read(tmp_path):
    text = '\ufeffid,p_a,p_b,p_c\n"a,1",0.5, 0.25 ,0.25\n"line\n2",0.5,0.5,\n"x",,,\n"",,,\n'
    (tmp_path / "a.csv").write_text(text, "utf-8")
    member = read_members(tmp_path / "a.csv")[0]
    assert member.ids == ["a,1", "line\n2", "x"] and member.status == ["ok", "ok", "no number in the file"]
    assert np.allclose(np.exp(member.logits[0]), [0.5, 0.25, 0.25]) and np.isnan(member.logits[1, 2])
    (tmp_path / "a.csv").write_text("id,p_a,p_b\nx,+0.5,0.5\n")
    assert np.allclose(np.exp(read_members(tmp_path / "a.csv")[0].logits), 0.5)
    (tmp_path / "a.csv").write_text("id,p_a,p_b\nx,0.5,0.5\ny,0.5\nz,0.2,0.3,0.5\n")
    with pytest.raises(EnsembleError, match=r"expected 3 cells in every row, not so in line 3 \(2\), line 4 \(4\)"):
        read_members(tmp_path / "a.csv")


def write_forms(folder: Path) -> list[Path]:
    """The same two rows of numbers in files as people have them."""
    text = "id,p_a,p_b\n1,0.25,0.75\n2,0.5,0.5\n"
    rows = [{"id": "1", "p_a": 0.25, "p_b": 0.75}, {"id": "2", "p_a": 0.5, "p_b": 0.5}]
    forms = {
        "sep.csv": ("sep=;\n" + text.replace(",", ";")).encode(),
        "blank.csv": (text + ",,\n , ,\n").encode(),
        "marks.csv": b"\xef\xbb\xbf\xef\xbb\xbf" + text.replace("p_b", "p\u200b_b").encode(),
        "wide.csv": text.encode("utf-16"),
        "rows.json": json.dumps(rows).encode(),
        "rows.jsonl": "\n".join(map(json.dumps, rows)).encode(),
    }
    for name, data in forms.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in forms]


def test_files_as_people_have_them_hold_the_same_numbers(tmp_path):
    for path in write_forms(tmp_path):
        (member,), _ = read_number_file(path)
        assert member.ids == ["1", "2"], path
        assert np.allclose(np.exp(member.log_p), [[0.25, 0.75], [0.5, 0.5]]), path


def test_what_holds_no_numbers_is_named_by_what_it_is(tmp_path):
    (tmp_path / "lfs.csv").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid x\n")
    (tmp_path / "book.csv").write_bytes(b"PK\x03\x04" + b"\0" * 50)
    with pytest.raises(InputError, match="a Git LFS pointer"):
        read_number_file(tmp_path / "lfs.csv")
    with pytest.raises(InputError, match="an Excel workbook"):
        read_number_file(tmp_path / "book.csv")
