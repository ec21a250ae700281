"""Option orders: the data's own first, none twice, the same in every run."""

from dataclasses import replace

import pytest

from scoring.inputs.orders import OrdersError, check_orders, option_orders, orders_of, parse_orders, reordered
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
def test_orders_are_distinct_permutations_and_at_most_24(count, orders, expected):
    names = option_orders(count, orders)
    assert len(names) == len(set(names)) == expected and names[0] == "abcdefghijklmnopqrstuvwxyz"[:count]
    assert all(sorted(order) == sorted(names[0]) for order in names) and option_orders(count, orders) == names


@pytest.mark.parametrize("text, expected", [("1", "1"), (" Cyclic ", "cyclic"), ("all", "all"), ("07", "7")])
def test_usual_spellings_of_orders_are_understood(text, expected):
    assert parse_orders(text) == expected


@pytest.mark.parametrize("text", ["0", "25", "-1", "some", "", "1.5"])
def test_other_texts_than_orders_are_refused(text):
    with pytest.raises(OrdersError, match="expected 1, cyclic, all, adaptive, pride, or a number up to 24"):
        parse_orders(text)


def test_half_and_rest_are_the_cyclic_orders_together():
    question = Question("1", 1, (), "q", ("w", "x", "y", "z"))
    assert orders_of(question, "half") == ["abcd", "cdab"] and orders_of(question, "rest") == ["bcda", "dabc"]
    assert orders_of(Question("1", 1, (), "q", ("w", "x")), "rest") == []


def test_a_question_whose_options_refer_to_each_other_keeps_its_order():
    question = Question("1", 1, (), "q", ("w", "x", "both"))
    assert orders_of(question, "all") == orders_of(question, "half") == ["abc"] and orders_of(question, "rest") == []


def test_a_question_that_lists_its_options_is_refused_in_other_orders():
    plain = Question("1", 1, (), "Which?", ("cat", "dog"))
    repeating = Question("2", 2, (), "Which? (A) cat (B) dog", ("cat", "dog"))
    check_orders([plain, repeating], "1")
    check_orders([plain, replace(repeating, fault="no picture")], "cyclic")
    with pytest.raises(OrdersError) as caught:
        check_orders([plain, repeating], "cyclic")
    assert str(caught.value) == (
        "--orders cyclic: the questions of 1 row list their options too (first: row 2), and would contradict them in "
        "another order; leave it out, or take the options out of the questions (--layout inline reads them from there)"
    )
    with pytest.raises(OrdersError, match="^--shuffle-options: "):
        check_orders([repeating], "all", "--shuffle-options")


def test_the_answer_moves_with_its_option():
    question = Question("1", 1, (), "q", ("w", "x", "y", "z"), answer="c")
    moved = reordered(question, "cabd")
    assert moved.options == ("y", "w", "x", "z") and moved.answer == "a"
    assert reordered(Question("1", 1, (), "q", ("w", "x")), "ba").answer == ""
