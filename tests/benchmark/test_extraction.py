"""The notebook's extractor to the letter, failures included; and the stronger one."""

import pytest

from scoring.benchmark.extraction import extract_choice, extract_stated
from tests.shared.templates import THEIRS

# Right values: the notebook's rules applied by hand.
NOTEBOOK = [
    ("a", "a", False),
    ("b", "b", False),
    (" C \n", "c", False),
    ("d\n\n", "d", False),
    ("D", "d", False),
    ("assistant\nb", "b", False),
    ("x\ny\nc", "c", False),
    ("system\n…\nuser\n질문: 무엇인가요?\n\n보기:\n(a) 고양이\n(b) 강아지\nassistant\nd", "d", False),
    ("system\n…\nuser\n정답은 반드시 a, b, c, d 중 하나로만 답하세요.\nassistant\nⓑ", "a", True),
    ("the answer is b", "b", False),
    ("it is a dog", "a", False),
    ("b c", "b", False),
    ("c or d", "c", False),
    ("I say b because a is wrong", "b", False),
    ("", "a", True),
    ("   \n ", "a", True),
    ("(b)", "a", True),
    ("[c]", "a", True),
    ("b.", "a", True),
    ("b)", "a", True),
    ("d:", "a", True),
    ("'c'", "a", True),
    ("**b**", "a", True),
    ("answer: c", "c", False),
    ("answer:c", "a", True),
    ("e", "a", True),
    ("2", "a", True),
    ("assistant", "a", True),
    ("b\nnone", "a", True),
    ("none\nb", "b", False),
    ("bd", "a", True),
    ("정답은 d", "d", False),
    ("정답은 d입니다", "a", True),
    ("정답: B", "b", False),
    ("ㅁ", "a", True),
    ("Ｂ", "a", True),
    ("B\tC", "b", False),
    ("a,b", "a", True),
    ("\u3000d", "d", False),
    ("b\u2028c", "c", False),
    ("c\x0bd", "d", False),
    ("d\r\n", "d", False),
    ("<|im_end|>\nc", "c", False),
    ("a a a", "a", False),
]


@pytest.mark.parametrize("text, letter, fallback", NOTEBOOK)
def test_the_notebooks_extractor_is_reproduced_with_its_failures(text, letter, fallback):
    assert extract_choice(text) == (letter, fallback)


def test_the_table_of_texts_has_forty_rows_and_every_outcome():
    assert len({text for text, _, _ in NOTEBOOK}) >= 40
    assert {(letter, fallback) for _, letter, fallback in NOTEBOOK} == {
        ("a", False), ("b", False), ("c", False), ("d", False), ("a", True)
    }  # fmt: skip


OPTIONS = ["dog", "black cat", "cat", "hen house"]


@pytest.mark.parametrize(
    "text, letter",
    [
        ("b", "b"),
        (" B. ", "b"),
        ("(c)", "c"),
        ("**d**", "d"),
        ("a", "a"),
        ("a)", "a"),
        ("answer: b", "b"),
        ("The answer is (c).", "c"),
        ("Answer: d because (a) is wrong", "d"),
        ("정답은 d입니다", "d"),
        ("정답: (b)", "b"),
        ("(b) because (a) is wrong", "b"),
        ("b) black cat", "b"),
        ("c: cat", "c"),
        ("I think it is (d)", "d"),
        ("(a) or (b)? (a) perhaps", "a"),
        ("either (c) or (b)", ""),
        ("a cat", "c"),
        ("a black cat", "b"),
        ("the black cat and the cat", ""),
        ("a hen house.", "d"),
        ("dogs", ""),
        ("dog or hen house", ""),
        ("it is b", "b"),
        ("it is a", ""),
        ("b or c", ""),
        ("b, c", ""),
        ("e", ""),
        ("(e)", ""),
        ("", ""),
        ("nothing", ""),
        ("answer: b, or answer: c", ""),
        ("answer: because", ""),
        ("Ⓑ", ""),
    ],
)
def test_the_stronger_extractor_takes_stated_letters_and_texts_of_options(text, letter):
    assert extract_stated(text, OPTIONS) == letter


def test_korean_options_and_more_letters_are_extracted():
    options = ["고양이", "양동이", "배", "지렁이", "나무"]
    assert extract_stated("이것은 양동이입니다", options) == "b"
    assert extract_stated("(e)", options) == "e"
    assert extract_stated("고양이와 나무", options) == ""


def test_options_alike_stay_unanswered():
    assert extract_stated("yes", ["yes", "no", "yes", "no"]) == ""


@pytest.mark.parametrize(
    "text, options, letter",
    [
        ("a black cat", ["cat", "black cat"], "b"),  # the longer text first, wherever it stands
        ("an ox", ["    ", "ox"], "b"),  # an option of spaces ends nothing
        ("a cat", ["at", "ox"], ""),  # inside a word
        ("그것은고양이", ["고양이", "개"], "a"),  # Korean puts particles and words together
        ("'a'", ["cat", "dog"], "a"),  # a letter in quotes is no article
        ("upward!down", ["upward!", "down"], ""),  # both, without a space
    ],
)
def test_repeated_options_are_whole_words_and_the_longest_counts(text, options, letter):
    assert extract_stated(text, options) == letter


@pytest.mark.parametrize(
    "text, letter",
    [
        ("B", "b"),
        ("B.", "b"),
        ("(A)", "a"),
        ("A", "a"),
        ("The answer is A", "a"),
        ("A. dog", "a"),
        ("I choose D", "d"),
        ("it must be A", "a"),  # in lower case it would be an article
        ("A hen is there", ""),
        ("Look. A hen is there", ""),
        ("a hen is there", ""),
        ("it must be b", ""),  # no capital
        ("A or B", "b"),
        ("C or B", ""),
    ],
)
def test_capital_letters_are_extracted_as_options(text, letter):
    assert extract_stated(text, OPTIONS, THEIRS.labels) == letter


def test_the_pronoun_is_no_letter():
    assert extract_stated("so I see nothing", list("qrstuvwxyz"), THEIRS.labels) == ""
    assert extract_stated("so J fits", list("qrstuvwxyz"), THEIRS.labels) == "j"


def test_the_notebooks_extractor_takes_capital_letters_too():
    assert extract_choice("user\nReply with A, B, C, D and nothing else.\nassistant\nC") == ("c", False)
