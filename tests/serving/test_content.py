"""Texts and pictures in their places, as `image_marks` reads them back."""

import random

import pytest

from scoring.inputs.image_marks import number_marks, parts_of
from scoring.serving.content import merged, question_text
from scoring.serving.request import RemotePicture, RequestError


@pytest.mark.parametrize(
    "given, instructions, text, pictures",
    [
        (["a"], ["b"], "a\n\nb", b""),
        ([b"1", "a"], ["b"], "a\n\nb", b"1"),
        (["a", b"1"], ["b"], "a<image 1>\n\nb", b"1"),
        ([b"1"], [b"2", "b"], "b", b"12"),
        ([b"1", b"2", " a ", b"3"], [b"4", "b"], " a <image 3>\n\n<image 4>b", b"1234"),
        ([], ["b", b"1"], "b<image 1>", b"1"),
        ([b"1"], [], "", b"1"),
        ([" "], ["b"], "b", b""),
    ],
)
def test_pictures_before_all_text_are_not_named_and_others_have_marks(given, instructions, text, pictures):
    found, read = question_text(given, instructions)
    assert (found, b"".join(read)) == (text, pictures)


def test_the_model_sees_texts_and_pictures_in_the_order_of_the_request():
    chance = random.Random(3)
    for _ in range(500):
        parts = [chance.choice([bytes([number]), f"t{number}\n ", "é"]) for number in range(chance.randint(1, 7))]
        text, pictures = question_text(parts, ["ask"])
        (marked,) = number_marks([text], len(pictures))
        assert marked == text
        read = [pictures[part] if isinstance(part, int) else part for part in parts_of(text, len(pictures))]
        words = any(isinstance(part, str) for part in parts)
        assert merged(read) == merged([*parts, "\n\nask" if words else "ask"])


def test_nothing_at_all_is_refused():
    with pytest.raises(RequestError, match="are empty") as caught:
        question_text([" "], [])
    assert caught.value.status == 400
    with pytest.raises(ValueError, match="not fetched"):
        question_text([RemotePicture("https://x")], ["b"])
