"""Options that refer to each other, in English and Korean: recognised, and not confused with similar ones."""

import unicodedata
from pathlib import Path

import pytest

from scoring.inputs.orders import orders_of
from scoring.inputs.questions import Question
from scoring.inputs.referring import count_referring, refer_to_each_other

PLAIN = {"en": ("a cat", "a dog", "a hen"), "ko": ("고양이", "강아지", "닭")}  # options beside those of the list
CASES = [
    line.split("\t")
    for line in (Path(__file__).parent.parent / "cases" / "referring_options.tsv").read_text("utf-8").splitlines()[1:]
]


@pytest.mark.parametrize(
    "option",
    [
        *("all of the above", "None of these", "both a and b", "(a), (c)", "a & d", "other options", "A or B"),
        *("위의 모두", "위 보기 모두", "a와 b", "A, C", "정답 없음", "해당 사항 없음", "모두 해당", "보기 중 없음"),
    ],
)
def test_options_that_refer_to_each_other_are_recognised(option):
    assert refer_to_each_other(("a cat", "a dog", "a hen", option))


@pytest.mark.parametrize(
    "options",
    [
        ("a dog and a cat", "a cow", "an apple or a pear", "none"),
        ("고양이와 개", "위쪽", "나무 위", "모두"),
        ("3", "4", "5", "all"),
        ("vitamin A", "B", "c", "d-flat"),
    ],
)
def test_options_with_similar_words_do_not_refer_to_each_other(options):
    assert not refer_to_each_other(options)


@pytest.mark.parametrize("language", PLAIN)
@pytest.mark.parametrize("refers", ["1", "0"])
def test_every_option_of_the_labelled_list_is_recognised(refers, language):
    texts = [text for label, lang, text in CASES if (label, lang) == (refers, language)]
    assert len(texts) == len(set(texts)) >= 60
    assert [text for text in texts if refer_to_each_other((*PLAIN[language], text)) != (refers == "1")] == []


@pytest.mark.parametrize(
    "options",
    [
        ("1", "2", "1 and 2", "nothing"),
        ("1 and 2", "1, 2 and 3", "2 and 3", "3"),
        ("a cat", "a dog", "1 and 2"),
        ("1", "2", "3", "1 or 2"),
        ("고양이", "강아지", "1과 2"),
    ],
)
def test_numbers_that_are_those_of_options_refer(options):
    assert refer_to_each_other(options)


@pytest.mark.parametrize(
    "options",
    [
        ("1 and 3", "2 and 5", "4 and 9", "6 and 8"),  # as on jerseys: there is no option 9
        ("1 or 2", "3 or 4", "5 or 6", "more"),
        ("none", "1 or 2", "3 or 4", "many"),
        ("1", "2", "3", "4"),
        ("(1, 2)", "(2, 1)", "(3, 1)", "(1, 1)"),
        ("1, 2", "10, 20", "3, 4", "0, 1"),
        ("고양이", "강아지", "3번과 4번"),
        ("a cat", "C and D"),  # there is no option c
        ("a cat", "options 1 and 3"),
    ],
)
def test_numbers_and_letters_that_no_option_has_do_not_refer(options):
    assert not refer_to_each_other(options)


def test_an_option_that_refers_may_stand_anywhere_in_any_writing():
    for text in ("ALL OF THE\u00a0ABOVE", "  both  A   and B. ", "'none of these'", "둘다\n아니다", "A 와B"):
        assert refer_to_each_other((text, "a cat", "a dog")) and refer_to_each_other(("a cat", text, "a dog"))
    assert refer_to_each_other(("고양이", unicodedata.normalize("NFD", "위의 모두")))


def test_rows_that_keep_their_order_are_counted():
    options = [("cat", "dog", "both"), ("책상 위의 책", "two of them are red"), ("1", "2", "1 and 2"), ("ㄱ", "ㄱ, ㄴ")]
    questions = [Question(str(row), row, (), "q", texts) for row, texts in enumerate(options)]
    assert count_referring(questions) == 3 and count_referring([]) == 0
    assert count_referring(iter(questions)) == sum(len(orders_of(each, "cyclic")) == 1 for each in questions)
