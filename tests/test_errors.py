"""Problems as a person reads them."""

from scoring.errors import MAX_LISTED, InputError, Problem, ScoringError, quoted


def problem(row: int = 2, column: str = "answer", **values) -> Problem:
    values = {
        "file": "t.csv",
        "line": row + 1,
        "id": "x",
        "found": "'e'",
        "expected": "a or b",
        "fix": "correct it",
    } | values
    return Problem(row=row, column=column, **values)


def test_a_problem_says_where_it_is_what_was_found_what_was_expected_and_what_to_do():
    assert problem().text == "row 2 (line 3, id 'x'), column answer: found 'e'; expected a or b; correct it"
    assert problem(id="").text.startswith("row 2 (line 3), column answer: ")
    assert problem(row=0, column="").text == "found 'e'; expected a or b; correct it"


def test_problems_of_one_kind_stand_together_and_a_long_list_is_cut_with_the_number_of_the_others():
    listed = [problem(row) for row in range(1, MAX_LISTED + 4)]
    error = InputError([listed[0], problem(column="path", expected="a file"), *listed[1:]])
    lines = str(error).splitlines()
    assert isinstance(error, ScoringError) and len(error.problems) == MAX_LISTED + 4
    assert lines[:MAX_LISTED] == [f"t.csv: {one.text}" for one in listed[:MAX_LISTED]]
    assert lines[MAX_LISTED] == "t.csv: … and 3 more rows with such a problem in column answer"
    assert lines[MAX_LISTED + 1 :] == [f"t.csv: {problem(column='path', expected='a file').text}"]


def test_a_cell_is_quoted_without_control_characters_and_cut():
    assert quoted("a\x1b[31m\n가") == "'a\\x1b[31m\\n가'"
    assert quoted("x" * 60) == f"'{'x' * 60}'" and quoted("x" * 61) == f"'{'x' * 60}…'"
