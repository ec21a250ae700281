"""Columns' names from a file."""

import pytest
from PIL import Image

from scoring.errors import InputError
from scoring.files.reading import FileError
from scoring.inputs.column_names import read_column_names
from scoring.inputs.questions import TableOptions, read_table


@pytest.fixture
def names(tmp_path):
    def read(text: str, **options):
        (tmp_path / "columns.toml").write_text(text, "utf-8")
        return read_column_names(tmp_path / "columns.toml", **options)

    return read


def test_names_stand_alone_or_in_a_section_of_their_own(names):
    given = {"question": "질문", "a": "first one"}
    assert names('Question = "질문"\na = " first one "') == given
    assert names('rank = 8\n[columns]\nquestion = "질문"\na = "first one"') == given
    assert names('[columns]\nid = "no"', section_only=True) == {"id": "no"}
    assert names("rank = 8", section_only=True) == {} == names("")


@pytest.mark.parametrize(
    "text, message",
    [
        ('colour = "Q"', r"found a column 'colour'; expected some of id, path, question, .*choices, .*a, b, …"),
        ("question = 3", 'question is 3; expected the column\'s name in the table, such as question = "Q"'),
        ('question = " "', "question is ' '; expected"),
        ('columns = "Q"', r"columns is 'Q'; expected a section \[columns\]"),
        ("question = Q", "not a TOML file"),
    ],
)
def test_wrong_names_are_refused_with_the_file(names, text, message):
    with pytest.raises(FileError, match=rf"columns\.toml: {message}"):
        names(text)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.toml: cannot be read \(No such file"):
        read_column_names(tmp_path / "none.toml")


# ------------------------------------------------------------------ in a table
@pytest.fixture
def table(tmp_path):
    def read(header: str, cells: str, **columns: str):
        Image.new("RGB", (40, 30), "red").save(tmp_path / "p.png")
        (tmp_path / "t.csv").write_text(f"{header}\n{cells}\n")
        return read_table(tmp_path / "t.csv", TableOptions(columns=columns))

    return read


def test_a_column_that_a_table_may_lack_is_read_under_its_usual_names_or_not_at_all(table, tmp_path):
    names = {"id": "no", "answer": "label", "task_type": "kind", "task_hint": "tip", "question": "Q"}
    read = table("qid,path,Q,a,b,TIP", "x,p.png,what?,w,v,look", **names)
    (row,) = read.questions
    assert (row.id, row.question, row.answer, row.task_hint) == ("x", "what?", "", "look") and not read.problems
    assert read.columns == {"task_hint": "tip", "question": "Q", "id": "qid"}  # those that the table has
    assert read.notices == [
        f"{tmp_path / 't.csv'}: no column 'no' for id; read from 'qid'",
        f"{tmp_path / 't.csv'}: no column 'label' for answer; read without it",
        f"{tmp_path / 't.csv'}: no column 'kind' for task_type; read without it",
    ]
    numbered = table("path,question,a,b", "p.png,what?,w,v", id="no")
    assert numbered.notices[0].endswith("no column 'no' for id; rows are named by their numbers")
    assert numbered.questions[0].id == "1"


@pytest.mark.parametrize("name", ["path", "question", "a", "choices"])
def test_a_column_that_every_table_needs_is_missed(table, name):
    with pytest.raises(InputError, match=f"column {name}: found no column 'none' among"):
        table("path,question,a,b", "p.png,what?,w,v", **{name: "none"})
