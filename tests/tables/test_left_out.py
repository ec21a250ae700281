"""What is left out of a table's texts is told, each text with its number of rows."""

from pathlib import Path

from scoring.tables.layouts import RawQuestion
from scoring.tables.left_out import LeftOut


def test_instructions_and_system_turns_are_told_with_their_rows():
    left_out = LeftOut()
    for instruction, system in (
        ("Answer:", "Be\n brief."),
        ("Answer:", ""),
        ("Answer with the letter.", ""),
        ("", " "),
    ):
        left_out.add(RawQuestion("1", [], "q", ["x", "y"], None, instruction=instruction, system=system))
    assert left_out.notices(Path("t")) == [
        "t: an instruction behind the options was cut off in 2 rows: 'Answer:'",
        "t: an instruction behind the options was cut off in 1 row: 'Answer with the letter.'",
        "t: a system turn was left out (the prompt template has its own) in 1 row: 'Be brief.'",
    ]
    assert LeftOut().notices(Path("t")) == []


def test_marks_of_pictures_are_told():
    left_out = LeftOut()
    for question, options in (
        ("<image>\nWhat?", ["x", "y"]),
        ("Like <image 1>?", ["x", "y"]),
        ("<image> What?", ["<image>", "y"]),
        ("an <images> tag", ["x", "y"]),
    ):
        left_out.add(RawQuestion("1", [], question, options, None))
    assert left_out.notices(Path("t")) == [
        "t: 2 questions begin with marks such as <image>; such pictures come first in any case",
        "t: marks such as <image> in the texts of 2 rows: pictures stand there",
    ]


def test_of_many_texts_the_most_frequent_are_told_and_the_others_counted():
    left_out = LeftOut()
    for number in range(7):
        for _ in range(10 - number):
            left_out.add(RawQuestion("1", [], "q", ["x", "y"], None, instruction=f"Answer {number}"))
    notices = left_out.notices(Path("t"))
    assert len(notices) == 6 and notices[0].endswith("in 10 rows: 'Answer 0'")
    assert notices[-1] == "t: an instruction behind the options was cut off in 9 rows more, 2 other texts"


def test_of_very_many_texts_the_first_are_remembered_and_the_rows_of_others_counted(monkeypatch):
    monkeypatch.setattr("scoring.tables.left_out.MOST_COUNTED", 6)
    parts = [LeftOut(), LeftOut()]
    for number in range(20):
        parts[number > 9].add(RawQuestion("1", [], "q", ["x", "y"], None, system=f"You are number {number}."))
    parts[0].update(parts[1])
    assert len(parts[0].systems) == 7
    assert parts[0].notices(Path("t"))[-1].endswith("in 15 rows more, over 1 other text")
