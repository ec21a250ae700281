"""The notebook's extractor, to the letter, failures included."""

import pytest

from scoring.engine.generate import extract_choice


@pytest.mark.parametrize(
    "text, letter, fallback",
    [
        ("a", "a", False),
        ("b", "b", False),
        (" C \n", "c", False),
        ("d\n\n", "d", False),
        ("assistant\nb", "b", False),
        ("x\ny\nc", "c", False),
        ("the answer is b", "b", False),
        ("it is a dog", "a", False),
        ("b c", "b", False),
        ("", "a", True),
        ("   \n ", "a", True),
        ("(b)", "a", True),
        ("b.", "a", True),
        ("answer: c", "c", False),
        ("e", "a", True),
        ("assistant", "a", True),
        ("b\nnone", "a", True),
        ("bd", "a", True),
        ("정답은 d", "d", False),
        ("정답은 d입니다", "a", True),
        ("B\tC", "b", False),
        ("a,b", "a", True),
        ("\u3000d", "d", False),
    ],
)
def test_the_extractor(text, letter, fallback):
    assert extract_choice(text) == (letter, fallback)
