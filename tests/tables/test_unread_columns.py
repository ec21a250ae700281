"""What is told of a table's columns before anybody wonders."""

from pathlib import Path

import pytest

from scoring.tables.unread_columns import column_notices

FIELDS = ["id", "path", "question", "answer", "task_type", "task_hint"]


def told(header: list[str], fields: list[str]) -> list[str]:
    """Notices without the file's name. The columns of the fields' names are read."""
    used = [index for index, name in enumerate(header) if name in fields]
    return [notice.removeprefix("t.csv: ") for notice in column_notices(Path("t.csv"), header, fields, used)]


def test_a_table_with_every_column_has_nothing_to_tell():
    assert told([*FIELDS, "note", "Answer_2", "hints"], FIELDS) == []


def test_made_up_ids_are_told():
    assert told(FIELDS[1:], FIELDS[1:]) == ["no column of ids; the rows are called 1, 2, 3 and so on"]


@pytest.mark.parametrize(
    "column, ours",
    [
        ("ID_", "id"),
        ("Question-ID", "id"),
        ("번호", "id"),
        ("Image Path", "path"),
        ("anwser", "answer"),
        ("Answers", "answer"),
        ("GT", "answer"),
        ("정답", "answer"),
        ("Task-Type", "task_type"),
        ("taskType", "task_type"),
        ("hints", "task_hint"),
        (" Task.Hint ", "task_hint"),
    ],
)
def test_a_column_that_looks_like_a_missing_one_is_named_with_what_to_add(column, ours):
    fields = [name for name in FIELDS if name != ours]
    column_told = told([*fields, column], fields)[-1]
    assert column_told.startswith(f"column '{column.strip()}' is not read; if it is the {ours}, add --column '{ours}=")


@pytest.mark.parametrize(
    "column", ["note", "split", "width", "a1", "image_1", "images_count", "comment", "", "identity"]
)
def test_other_columns_are_not_named(column):
    assert told(["question", column], ["id", "question"]) == []


def test_of_ten_thousand_columns_only_the_first_are_looked_at():
    header = ["question", *[f"answer{number}" for number in range(10_000)]]
    assert len(told(header, ["id", "question"])) == 50
