"""Option orders: the data's own first, none twice, the same in every run."""

import pytest

from scoring.inputs.orders import OrdersError, option_orders, parse_orders, refer_to_each_other, reordered
from scoring.inputs.questions import Question


def test_cyclic_orders_put_each_option_at_each_letter_once():
    assert option_orders(4, "cyclic") == ["abcd", "bcda", "cdab", "dabc"]
    assert all(sorted(column) == list("abcdef") for column in zip(*option_orders(6, "cyclic")))


@pytest.mark.parametrize(
    "count, orders, expected",
    [
        (4, "1", 1),
        (4, "all", 24),
        (3, "all", 6),
        (2, "cyclic", 2),
        (5, "all", 24),
        (4, "7", 7),
        (3, "24", 6),
        (26, "24", 24),
    ],
)
def test_how_many(count, orders, expected):
    found = option_orders(count, orders)
    assert len(found) == len(set(found)) == expected and found[0] == "abcdefghijklmnopqrstuvwxyz"[:count]
    assert all(sorted(order) == sorted(found[0]) for order in found) and option_orders(count, orders) == found


@pytest.mark.parametrize("text, expected", [("1", "1"), (" Cyclic ", "cyclic"), ("all", "all"), ("07", "7")])
def test_what_is_understood(text, expected):
    assert parse_orders(text) == expected


@pytest.mark.parametrize("text", ["0", "25", "-1", "some", "", "1.5"])
def test_what_is_refused(text):
    with pytest.raises(OrdersError, match="expected 1, cyclic, all, adaptive, pride, or a number up to 24"):
        parse_orders(text)


@pytest.mark.parametrize(
    "option",
    [
        *("all of the above", "None of these", "both a and b", "(a), (c)", "a & d", "other options", "A or B"),
        *("위의 모두", "위 보기 모두", "a와 b", "A, C", "정답 없음", "해당 사항 없음", "모두 해당", "보기 중 없음"),
    ],
)
def test_options_that_refer_to_each_other(option):
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
def test_options_that_do_not(options):
    assert not refer_to_each_other(options)


def test_the_answer_moves_with_its_option():
    question = Question("1", 1, None, "q", ("w", "x", "y", "z"), answer="c")
    moved = reordered(question, "cabd")
    assert moved.options == ("y", "w", "x", "z") and moved.answer == "a"
    assert reordered(Question("1", 1, None, "q", ("w", "x")), "ba").answer == ""
