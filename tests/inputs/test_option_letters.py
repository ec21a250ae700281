"""Letters before options: taken off where all have their own, and found again in a question."""

import pytest

from scoring.inputs.option_letters import repeats_options, strip_letters


@pytest.mark.parametrize(
    "options, texts",
    [
        (["A. cat", "B. dog"], ["cat", "dog"]),
        (["(a) cat", "(b) dog", "(c) cow"], ["cat", "dog", "cow"]),
        (["A: cat", " B: dog"], ["cat", "dog"]),
        (["① cat", "② dog"], ["cat", "dog"]),
        (["Ａ．cat", "Ｂ．dog"], ["cat", "dog"]),
        (["A. cat", "C. dog"], None),
        (["A. cat", "(B) dog"], None),
        (["A. cat", "dog"], None),
        (["A cat", "B dog"], None),
        (["A.", "B."], None),
        (["a. cat"], None),
        (["(B) is A.", "(A) is B."], None),
    ],
)
def test_letters_before_options_are_taken_off_where_all_have_their_own(options, texts):
    assert strip_letters(options) == texts


@pytest.mark.parametrize(
    "question, repeated",
    [
        ("Which?\nA. cat\nB. dog\nSay why.", True),
        ("Which? (A) cat (B) dog", True),
        ("Which? ① cat, ② dog", True),
        ("Which of B: dog and A: cat?", True),
        ("Which? (A) dog (B) cat", False),
        ("Which? (A) cats (B) dogs", False),
        ("Which? A. cat (B) dog", False),
        ("Is it a cat or a dog?", False),
        ("Which? (A) cat", False),
    ],
)
def test_a_question_that_lists_its_options_with_their_letters_is_recognised(question, repeated):
    assert repeats_options(question, ["cat", "dog"]) is repeated
