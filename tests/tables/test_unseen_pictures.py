"""Rows with pictures are faulty for a base that sees none, all of them at once."""

from dataclasses import replace
from pathlib import Path

from scoring.errors import describe
from scoring.inputs.families.qwen3_vl import QWEN3_VL
from scoring.inputs.families.text import QWEN3
from scoring.inputs.questions import Question
from scoring.tables.table import Table
from scoring.tables.unseen_pictures import mark_unseen

UNSEEN = "which a Qwen3 base does not see; expected"


def table(*pictures: int) -> Table:
    """A row for each number of pictures."""
    questions = [
        Question(f"q{row}", row, (Path("p.png"),) * count, "What?", ("x", "y")) for row, count in enumerate(pictures, 1)
    ]
    return Table(Path("t.csv"), "", questions)


def test_a_base_that_sees_pictures_takes_all_rows():
    given = table(1, 0)
    assert mark_unseen(given, QWEN3_VL) is given


def test_a_text_model_takes_a_table_without_pictures():
    given = table(0, 0)
    assert mark_unseen(given, QWEN3) is given


def test_each_row_with_pictures_has_a_fault_that_names_it_and_says_what_to_do():
    marked = mark_unseen(table(1, 0, 2), QWEN3)
    assert [bool(question.fault) for question in marked.questions] == [True, False, True]
    fix = "a question in words alone; name a base that sees pictures, or drop the row"
    assert describe(marked.problems).splitlines() == [
        f"t.csv: row 1 (id 'q1'), column path: found 1 picture, {UNSEEN} {fix}",
        f"t.csv: row 3 (id 'q3'), column path: found 2 pictures, {UNSEEN} {fix}",
    ]


def test_a_table_of_pictures_alone_has_one_problem():
    marked = mark_unseen(table(1, 1, 1), QWEN3)
    assert not marked.good
    assert describe(marked.problems) == (
        f"t.csv: column path: found pictures in all 3 rows, {UNSEEN} questions in words alone; name a base that sees "
        "pictures, or leave the column out"
    )


def test_other_faults_of_rows_stay():
    given = table(1, 0, 1)
    given.questions[0] = replace(given.questions[0], fault="no answer")
    marked = mark_unseen(given, QWEN3)
    assert [question.fault[:9] for question in marked.questions] == ["no answer", "", "row 3 (id"]
    assert len(marked.problems) == 1
