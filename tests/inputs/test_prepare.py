"""What the model takes of a question."""

import pytest

from scoring.inputs.pictures import PictureError
from scoring.inputs.prepare import Preparer
from scoring.inputs.questions import Question


def test_a_question_without_a_picture_is_refused():
    with pytest.raises(PictureError, match="no picture"):
        Preparer.picture(Question("1", 1, None, "q", ("x", "y")))
