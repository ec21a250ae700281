"""A `Question` that a program made has every fault of a table's row, and comes out so that a table can hold it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scoring.inputs.pictures import DEFAULT_LIMITS, PictureError
from scoring.inputs.questions import Question
from scoring.library.checked_questions import SizedPicture, checked

GOOD = Question("x", 1, (), "q?", ("w", "v"), "b", "t", "h")
PICTURE = SizedPicture(Image.new("RGB", (4, 3)), (4, 3))
BROKEN = PictureError("a list", "a picture", "give one")


def faults_of(pictures=(), **changes) -> list[tuple[str, str]]:
    """(field, what was found) of each fault of a question with these changes."""
    question, faults = checked(replace(GOOD, **changes), pictures)
    assert isinstance(question.question, str) and all(isinstance(option, str) for option in question.options)
    return [(fault.column, fault.found) for fault in faults]


def test_a_good_question_stays_as_it_is():
    assert checked(GOOD, []) == (GOOD, [])
    question, faults = checked(replace(GOOD, options=["w", "v"]), [PICTURE, PICTURE])
    assert not faults and question.pictures == (PICTURE.picture,) * 2 and question.sizes == ((4, 3), (4, 3))
    assert question.options == ("w", "v") and checked(question, [PICTURE, PICTURE])[0] == question
    assert checked(replace(GOOD, options=np.array(["w", "v"])), [])[0].options == ("w", "v")


@pytest.mark.parametrize(
    "options, found",
    [
        ((), "0 options"),
        (["w"], "1 option"),
        ([str(number) for number in range(27)], "27 options"),
        ({"w": 1, "v": 2}, "a dict"),
        ({"w", "v"}, "a set"),
        ("wv", "a str"),
        (None, "None"),
        ((text for text in "wv"), "a generator"),
        (["w", 5], "an int as option b"),
        (["w", None, "v"], "None as option b"),
        (["w", " "], "an empty text as option b"),
        (["w", "\0"], "a NUL character"),
        (["w", "\ud800"], "half of a character (a lone surrogate)"),
    ],
)
def test_options_that_cannot_be_asked_are_a_fault(options, found):
    assert faults_of(options=options, answer="a") == [("options", found)]
    assert checked(replace(GOOD, options=options), [])[0].options == ()


@pytest.mark.parametrize("answer", ["c", "ab", "B", " ", "1"])
def test_an_answer_is_a_letter_of_an_option(answer):
    assert faults_of(answer=answer) == [("answer", f"'{answer}'")]


def test_all_that_is_wrong_is_found_at_once():
    found = faults_of(id=7, question=None, options={}, answer=0, task_type=1.5, task_hint=b"", limits=5)
    assert found == [
        ("id", "an int"),
        ("question", "None"),
        ("task_type", "a float"),
        ("task_hint", "a bytes"),
        ("answer", "an int"),
        ("options", "a dict"),
        ("limits", "an int"),
    ]
    assert faults_of(id=" ", question="x" * 200_001) == [("question", "200,001 characters"), ("id", "an empty text")]
    assert checked(replace(GOOD, limits=None), [])[0].limits == DEFAULT_LIMITS


def test_a_question_may_be_empty_where_a_picture_says_it_all():
    assert faults_of(question=" ") == [("question", "an empty text")]
    assert faults_of([PICTURE], question="") == []  # as a table leaves a question that was `<image>` alone


def test_pictures_that_cannot_be_used_are_faults_by_their_place():
    assert faults_of([BROKEN]) == [("pictures", "a list")]
    assert faults_of([PICTURE, BROKEN]) == [("pictures", "picture 2 of 2: a list")]
    question, _ = checked(GOOD, [BROKEN, PICTURE])
    assert question.pictures == (PICTURE.picture,) and question.sizes == ((4, 3),)


def test_marks_are_numbered_and_must_fit_the_pictures():
    question, faults = checked(replace(GOOD, question="is <image> in", options=("<image>", "no")), [PICTURE, PICTURE])
    assert not faults and question.question == "is <image 1> in" and question.options == ("<image 2>", "no")
    assert faults_of([PICTURE], question="<image 2>") == [("question", "the mark <image 2>, but 1 picture")]


def test_a_question_that_was_faulty_keeps_its_fault():
    given = replace(GOOD, fault="row 3: no picture", options=(), pictures=("what", PICTURE.picture))
    question, faults = checked(given, [PICTURE])
    assert question == replace(given, pictures=(PICTURE.picture,))
    assert [(fault.found, fault.expected) for fault in faults] == [("row 3: no picture", "a question without a fault")]
