"""Cells as text, and names of columns as they are compared."""

import pytest

from scoring.readers.records import as_text, normalized, table_fault, visible


@pytest.mark.parametrize(
    "value, text",
    [
        ("001", "001"),
        (None, ""),
        (7, "7"),
        (1.5, "1.5"),
        (float("nan"), ""),
        ("nan", "nan"),
        (True, "true"),
        (["고양이", 1], '["고양이", 1]'),
        ({"a": None}, '{"a": null}'),
        ("가".encode(), "가"),
        (b"\xff", "\ufffd"),
        ([{"bytes": b"x"}], '[{"bytes": "x"}]'),
    ],
)
def test_a_cell_of_any_type_has_one_text(value, text):
    assert as_text(value) == text


def test_names_are_compared_without_case_blanks_and_quotation_marks():
    assert normalized([" Question ", '"PATH"', "Straße"]) == ["question", "path", "strasse"]


def test_names_are_compared_without_what_cannot_be_seen():
    invisible = ["\ufeff\ufeffid", "ques\u200btion", "\u2060path\u00a0", '\ufeff"a"', "\u200eb\u200f", "Ａnswer"]
    assert normalized(invisible) == ["id", "question", "path", "a", "b", "answer"]
    assert visible("\ufeff Ques\u200btion ") == " Question "


def test_a_fault_of_the_table_names_no_row(tmp_path):
    error = table_fault(tmp_path / "t.csv", "x", "y", "z")
    assert str(error) == f"{tmp_path / 't.csv'}: found x; expected y; z" and error.problems[0].row == 0
