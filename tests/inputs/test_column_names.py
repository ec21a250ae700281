"""Columns' names from a file."""

import pytest

from scoring.files.reading import FileError
from scoring.inputs.column_names import read_column_names


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
        ('colour = "Q"', r"found a column 'colour'; expected some of id, path, question, .*choices, a, b, …"),
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
