"""What the model takes of a question."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from scoring.inputs.pictures import PictureError, PictureLimits
from scoring.inputs.prepare import TOO_LONG, TooLongError, status_of
from scoring.inputs.questions import Question
from tests.shared.pictures import noise
from tests.shared.templates import THEIRS


def test_pictures_and_texts_are_in_their_places(preparer):
    """The last option is a picture: in every order it stands at its letter."""
    wide, square = Image.new("RGB", (96, 32)), Image.new("RGB", (64, 64), "red")
    question = Question("1", 1, (wide, square), "Like <image 1>?", ("x", "<image 2>"), sizes=((96, 32), (64, 64)))
    both = preparer.encode_many([(question, question.sizes, order) for order in ("ab", "ba")])
    for sequence, pieces in zip(both, (["(a) x", "(b) "], ["(a) ", "(b) x"])):
        first, second = sequence.pictures
        assert (first.index, second.index) == (0, 1) and sequence.head < first.tokens.start
        assert first.grid == preparer.policy.grid(96, 32) and second.grid == preparer.policy.grid(64, 64)
        text = preparer.chat.tokenizer.decode(sequence.ids.tolist(), skip_special_tokens=False)
        question_text, options_text = text.split("<|vision_start|>")[0], text.split("<|image_pad|>")[-1]
        assert question_text.endswith("Like ") and "<image" not in text and "".join(pieces)
        assert ("(b) x" in options_text) == (pieces[1] == "(b) x")
    sequence, patches = preparer(question)
    expected = [preparer.policy.patches(picture) for picture in (wide, square)]
    assert np.array_equal(patches, np.concatenate(expected)) and sequence.ids.tolist() == both[0].ids.tolist()


def test_a_question_may_hold_the_bytes_of_a_picture(preparer, tmp_path):
    noise("RGB", (96, 64)).save(tmp_path / "p.png")
    file = Question("1", 1, (tmp_path / "p.png",), "q", ("x", "y"))
    held = replace(file, pictures=((tmp_path / "p.png").read_bytes(),))
    for first, second in zip(preparer(file), preparer(held)):
        assert np.array_equal(getattr(first, "ids", first), getattr(second, "ids", second))
    limits = PictureLimits(pixels=100)
    for picture in (*file.pictures, *held.pictures, Image.new("RGB", (96, 64))):
        with pytest.raises(PictureError, match="over 100 pixels"):
            preparer(replace(file, pictures=(picture,), limits=limits))


def test_a_question_in_words_has_no_patches(preparer):
    sequence, patches = preparer(Question("1", 1, (), "q", ("x", "y")))
    assert patches.shape == (0, 1536) and not sequence.pictures and preparer.chat.image_token_id not in sequence.ids


def test_marks_that_fit_no_picture_are_a_fault(preparer):
    for text in ("<image 2>", "<image>"):
        with pytest.raises(PictureError, match="mark"):
            preparer.encode(Question("1", 1, (), text, ("x", "y")), [(32, 32)])


def test_a_prompt_that_is_too_long_has_a_fault_of_its_own(preparer):
    short = replace(preparer, context=8)
    with pytest.raises(TooLongError, match="tokens; expected at most 8; shorten the question") as caught:
        short.encode(Question("1", 1, (), "q", ("x", "y")))
    status = status_of(caught.value)
    assert TOO_LONG.fullmatch(status) and status.endswith("tokens; expected at most 8")
    assert status_of(PictureError("an empty file", "a picture", "drop it")) == "picture: an empty file"


def test_label_tokens_are_those_of_the_letters_that_the_template_shows(preparer):
    theirs = replace(preparer, template=THEIRS)
    assert preparer.chat.decode(preparer.label_ids(3)) == "abc" and theirs.chat.decode(theirs.label_ids(3)) == "ABC"
    assert len(theirs.label_ids()) == 26
