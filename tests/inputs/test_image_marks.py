"""Marks of pictures in texts: which are places, which are left out, which are faults."""

import pytest

from scoring.inputs.image_marks import number_marks, parts_of
from scoring.inputs.pictures import PictureError


@pytest.mark.parametrize(
    "texts, pictures, expected",
    [
        (["no mark", "x"], 2, ["no mark", "x"]),
        (["<image>\nWhat?", "x"], 1, ["What?", "x"]),  # the picture comes first in any case
        (["What?\n<image>", "x"], 1, ["What?\n<image 1>", "x"]),
        (["<image> and <image>?"], 2, ["and <image 2>?"]),
        (["Which?", "<image>", "<image>"], 2, ["Which?", "<image 1>", "<image 2>"]),
        (["<image 1> <image 2>\nWhich is larger?"], 2, ["Which is larger?"]),
        (["<image 2> after <image 1>?"], 2, ["<image 2> after <image 1>?"]),
        (["<image 1> What does <image 1> show?"], 1, ["<image 1> What does <image 1> show?"]),
        (["Like <image1>?", "<image 02>"], 2, ["Like <image 1>?", "<image 2>"]),
        (["one of three: <image 2>"], 3, ["one of three: <image 2>"]),
        (["the tags <images> and <image src='x'>"], 1, ["the tags <images> and <image src='x'>"]),
    ],
)
def test_marks_become_places(texts, pictures, expected):
    assert number_marks(texts, pictures) == expected


@pytest.mark.parametrize(
    "texts, pictures, message",
    [
        (["<image>"], 0, "1 <image> mark and 0 pictures"),
        (["<image> <image>"], 1, "2 <image> marks and 1 picture"),
        (["What?", "<image>"], 2, "1 <image> mark and 2 pictures"),
        (["<image 3>"], 2, "the mark <image 3>, but 2 pictures"),
        (["<image 0>"], 2, "the mark <image 0>"),
        (["<image> and <image 2>"], 2, "marks <image> and <image N> in one row"),
    ],
)
def test_marks_that_do_not_fit_are_faults(texts, pictures, message):
    with pytest.raises(PictureError) as caught:
        number_marks(texts, pictures)
    assert message in caught.value.found


@pytest.mark.parametrize(
    "text, pictures, parts",
    [
        ("text", 0, ("text",)),
        ("text", 2, (0, 1, "text")),
        ("a <image 2> b", 3, (0, 2, "a ", 1, " b")),
        ("<image 1><image 1>", 1, (0, 0)),
        ("x\n(a) <image 2>\n(b) <image 1>", 2, ("x\n(a) ", 1, "\n(b) ", 0)),
    ],
)
def test_a_text_is_cut_at_its_places(text, pictures, parts):
    assert parts_of(text, pictures) == parts


@pytest.mark.parametrize("text", ["<image 1>", "<image>"])
def test_no_mark_is_left_in_a_text(text):
    with pytest.raises(PictureError):
        parts_of(text, 0)
