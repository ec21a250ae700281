"""Letters that options carry themselves: taken off where a whole table has them, told where some rows do."""

from pathlib import Path

from scoring.tables.own_letters import LetterSurvey


def survey_of(*rows):
    survey = LetterSurvey()
    texts = [survey.add(number, options) for number, options in enumerate(rows, 1)]
    return survey, texts


def test_letters_of_all_rows_are_taken_off_and_told():
    survey, texts = survey_of(["A. cat", "B. dog"], ["(a) one", "(b) two", "(c) three"], ["alone"])
    assert survey.in_all_rows and texts == [["cat", "dog"], ["one", "two", "three"], ["alone"]]
    assert survey.notices(Path("t.csv")) == [
        "t.csv: the options of all 2 rows begin with their letters, such as 'A. cat'; they were taken off"
    ]


def test_letters_of_some_rows_are_told_with_the_first_and_left():
    survey, _ = survey_of(["cat", "dog"], ["A. cat", "B. dog"], ["B. cat", "A. dog"])
    assert not survey.in_all_rows
    assert survey.notices(Path("t.csv")) == [
        "t.csv: the options of 1 of 3 rows begin with letters of their own, such as 'A. cat' (first: row 2); nothing "
        "was taken off; write the options of all rows with such letters, or those of none"
    ]


def test_options_without_letters_are_as_they_are():
    survey, texts = survey_of(["A cat", "B dog"], ["a", "b"])
    assert texts == [["A cat", "B dog"], ["a", "b"]] and not survey.in_all_rows
    assert survey.notices(Path("t.csv")) == [] and not LetterSurvey().in_all_rows
