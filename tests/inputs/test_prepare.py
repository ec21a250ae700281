"""What the model takes of a question."""

import pytest

from scoring.inputs.pictures import PictureError
from scoring.inputs.questions import Question


def test_a_question_without_a_picture_is_refused(preparer):
    with pytest.raises(PictureError, match="no picture"):
        preparer.picture(Question("1", 1, None, "q", ("x", "y")))
