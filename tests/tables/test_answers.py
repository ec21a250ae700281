"""Answers from a table, by id."""

import pytest

from scoring.errors import InputError
from scoring.tables.answers import read_answers


def answers_of(folder, text):
    path = folder / "answers.csv"
    path.write_text(text, "utf-8")
    return read_answers(path)


def test_answers_and_types_are_found_by_id(tmp_path):
    table = answers_of(tmp_path, "answer,ID,task_type\nB,r1,count\n,r2, color \n(c),r3,\n")
    assert table.answer == {"r1": "b", "r2": "", "r3": "c"}
    assert table.task_type == {"r1": "count", "r2": "color", "r3": ""}
    assert table.file == tmp_path / "answers.csv"


def test_an_answer_may_be_the_text_of_an_option(tmp_path):
    table = answers_of(tmp_path, "id,a,b,answer\nr1,cat,dog,dog\nr2,x,y,B\n")
    assert table.answer["r1"] == "b" and table.task_type == {"r1": "", "r2": ""}


@pytest.mark.parametrize(
    "text, problem",
    [
        ("id,x\nr1,a\n", "found columns id, x; expected a column answer"),
        ("answer\na\n", "expected a column id"),
        ("id,answer\nr1,a\nr2\n", "1 cells in line 3"),
        ("id,a,b,answer\nr1,cat,dog,bird\n", "the answer 'bird' in line 2"),
        ("id,a,b,answer\nr1,b,a,b\n", "the answer 'b', which is a letter and the text of option a in line 2"),
    ],
)
def test_tables_that_give_no_answers_are_refused(tmp_path, text, problem):
    with pytest.raises(InputError) as error:
        answers_of(tmp_path, text)
    assert problem in str(error.value)
