"""What the model takes of a question."""

from dataclasses import replace

import pytest

from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question
from tests.shared.templates import THEIRS


def test_a_question_without_a_picture_is_refused(preparer):
    with pytest.raises(PictureError, match="no picture"):
        preparer.picture(Question("1", 1, None, "q", ("x", "y")))


def test_label_tokens_are_those_of_the_letters_that_the_template_shows(preparer):
    theirs = replace(preparer, template=THEIRS)
    assert preparer.chat.decode(preparer.label_ids(3)) == "abc" and theirs.chat.decode(theirs.label_ids(3)) == "ABC"
    assert len(theirs.label_ids()) == 26
