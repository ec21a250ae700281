"""What a call goes on with of a table, and what it tells of the rest."""

from dataclasses import replace

import pytest

from scoring.errors import InputError
from scoring.inputs.families.registry import FamilyError
from scoring.tables.reading import read_table
from scoring.tables.usable import answered, for_bases, usable


@pytest.fixture
def table(tmp_path):
    """Three rows in words alone, of which the second has no question and the third no answer."""
    (tmp_path / "t.csv").write_text("id,question,a,b,answer\n1,Which?,x,y,a\n2,,x,y,b\n3,Who?,x,y,\n")
    return read_table(tmp_path / "t.csv")


def test_notices_are_told_and_faulty_rows_refused_or_left_out(table):
    said = []
    with pytest.raises(InputError, match="row 2"):
        usable(table, False, said.append)
    assert said[0].startswith(f"{table.file}: read as CSV") and any("have no answer" in line for line in said)
    assert usable(table, True, said.append) is table
    assert "row 2 (line 3, id '2'), column question" in said[-2] and said[-1] == "going on without 1 of 3 rows"


def test_a_table_without_a_good_row_is_refused_all_the_same(table):
    with pytest.raises(InputError, match="row 2"):
        usable(replace(table, questions=table.questions[1:2]), True, lambda text: None)


def test_all_good_rows_have_answers_or_are_named(table):
    with pytest.raises(InputError, match="row 3 .*found no answer"):
        answered(table)
    assert [row.id for row in answered(replace(table, questions=table.questions[:2]))] == ["1"]


def test_rows_that_no_base_can_take_are_refused_or_left_out(table, base, demo, monkeypatch, tmp_path):
    said, pictures = [], read_table(demo / "test.csv").questions[0].pictures
    questions = [replace(row, pictures=pictures if row.id == "3" else ()) for row in table.questions]
    table = replace(table, questions=questions)
    assert for_bases(table, [base], False, said.append) is table
    monkeypatch.setattr("scoring.inputs.families.family.Family.sees_pictures", False)
    with pytest.raises(InputError, match="does not see"):
        for_bases(table, [base], False, said.append)
    assert not said
    left = for_bases(table, [base, base], True, said.append)
    assert [row.id for row in left.good] == ["1"] and said[-1] == "going on without 1 of 3 rows, which have pictures"
    with pytest.raises(FamilyError, match="no config.json"):
        for_bases(table, [tmp_path], True, said.append)
