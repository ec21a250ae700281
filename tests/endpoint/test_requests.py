"""Rows as bodies: what is sent of the question, its options and its pictures, and where."""

from dataclasses import replace

import pytest
from pydantic import ConfigDict, TypeAdapter, with_config

from scoring.endpoint.pictures import EncodedPicture
from scoring.endpoint.requests import INSTRUCTIONS, Server, body_of, word
from scoring.inputs.questions import Question

FIRST = "answer_1"
PICTURES = [EncodedPicture("png", b"first"), EncodedPicture("jpeg", b"second"), EncodedPicture("png", b"third")]


def question(text="Which?", options=("a cat", "a dog", "a hen"), pictures=0, **more):
    return Question("q1", 1, tuple(each.content for each in PICTURES[:pictures]), text, options, "b", **more)


def body(asked, api="decisions", is_ours=False, orders=None):
    orders = orders or ["abcdefg"[: len(asked.options)]]
    row = word(asked, orders, PICTURES[: len(asked.pictures)], is_ours)
    return body_of(row, Server(api, "small", is_ours), asked)


def test_a_question_in_words_is_the_input():
    found = body(question())
    assert found == {
        "model": "small",
        "input": "Which?",
        "questions": [
            {
                "type": "choice",
                "name": FIRST,
                "instructions": INSTRUCTIONS,
                "choices": [{"value": "a cat"}, {"value": "a dog"}, {"value": "a hen"}],
            }
        ],
    }
    found = body(question(), "systemone")
    assert found["state"] == "Which?" and "assets" not in found
    assert found["questions"][FIRST]["criteria"] == {"a cat": None, "a dog": None, "a hen": None}


def test_a_picture_before_the_question_is_the_input_and_others_stay_in_their_places():
    asked = question("Left <image 2> or <image 3>?", pictures=3)
    found = body(asked)
    [message] = found["input"]
    assert message == {"role": "user", "content": [{"type": "input_image", "image_url": PICTURES[0].data_url}]}
    assert found["questions"][0]["instructions"] == [
        {"type": "input_text", "text": "Left "},
        {"type": "input_image", "image_url": PICTURES[1].data_url},
        {"type": "input_text", "text": " or "},
        {"type": "input_image", "image_url": PICTURES[2].data_url},
        {"type": "input_text", "text": "?"},
    ]


def test_a_placeholder_stands_for_each_picture():
    found = body(question("Left <image 2> or <image 3>?", pictures=3), "systemone")
    first, second, third = found["assets"]
    assert found["state"] == first
    assert found["questions"][FIRST]["instructions"] == f"Left {second} or {third}?"
    assert [asset["format"] for asset in found["assets"].values()] == ["png", "jpg", "png"]
    assert found["assets"][second]["data_base64"] == PICTURES[1].base64


def test_the_options_are_shown_in_the_order_that_is_asked_for():
    values = [choice["value"] for choice in body(question(), orders=["cab"])["questions"][0]["choices"]]
    assert values == ["a hen", "a cat", "a dog"]
    assert list(body(question(), "systemone", orders=["cab"])["questions"][FIRST]["criteria"]) == values


@pytest.mark.parametrize("options", [("same", "same ", "other"), ("one", " ", "two")])
def test_options_that_read_alike_or_are_blank_are_named_by_letters(options):
    asked = question(options=options)
    choices = body(asked, orders=["bca"])["questions"][0]["choices"]
    assert [choice["value"] for choice in choices] == ["a", "b", "c"]
    shown = [options[1], options[2], options[0]]
    assert [choice.get("description", " ") for choice in choices] == shown
    assert list(body(asked, "systemone", orders=["bca"])["questions"][FIRST]["criteria"].values()) == shown


@pytest.mark.parametrize("api", ["decisions", "systemone"])
def test_options_that_are_pictures_stand_behind_the_question_after_their_letters(api):
    asked = question("Which is red?", ("<image 2>", "<image 3>"), pictures=3)
    row = word(asked, ["ab", "ba"], PICTURES, False)
    assert row.input == [PICTURES[0]] and [order.values for order in row.orders] == [("a", "b")] * 2
    shown = [order.instructions for order in row.orders]
    assert shown[0] == ["Which is red?\n\na: ", PICTURES[1], "\nb: ", PICTURES[2]]
    assert shown[1] == ["Which is red?\n\na: ", PICTURES[2], "\nb: ", PICTURES[1]]
    assert "<image" not in str(body(asked, api))
    alone = replace(asked, pictures=asked.pictures[:2], options=("<image 1>", "<image 2>"))
    row = word(alone, ["ab", "ba"], PICTURES[:2], False)
    assert row.input == [INSTRUCTIONS] and row.orders[0].instructions != row.orders[1].instructions


@pytest.mark.parametrize("api", ["decisions", "systemone"])
def test_all_orders_are_questions_about_one_input(api):
    found = body(question("Look <image 2>.", pictures=2), api, orders=["abc", "bca"])
    questions = found["questions"] if api == "decisions" else list(found["questions"].values())
    assert len(questions) == 2 and questions[0]["instructions"] == questions[1]["instructions"]
    shown = [[c["value"] for c in q["choices"]] if api == "decisions" else list(q["criteria"]) for q in questions]
    assert shown == [["a cat", "a dog", "a hen"], ["a dog", "a hen", "a cat"]]
    assert str(found).count(PICTURES[0].base64) == 1


def test_our_own_server_gets_hints_and_types_in_fields_and_shows_one_order():
    asked = question(task_hint="Look left.", task_type="colour", pictures=1)
    ours, other = body(asked, is_ours=True), body(asked)
    assert ours["orders"] == "1"
    assert (ours["questions"][0]["hint"], ours["questions"][0]["task_type"]) == ("Look left.", "colour")
    assert ours["questions"][0]["instructions"] == "Which?"
    assert "orders" not in other and "hint" not in other["questions"][0]
    assert other["questions"][0]["instructions"] == "Which?\n\nLook left."
    assert body(question(), is_ours=True)["questions"][0]["instructions"] == ""
    assert body(question(), "systemone", is_ours=True)["questions"][FIRST]["instructions"] is None


ROWS = [
    question(),
    question("Left <image 2> or <image 3>?", pictures=3, task_hint="Look."),
    question("Which is red?", ("<image 1>", "<image 2>"), pictures=2),
    question(options=("same", "same")),
]


@pytest.mark.parametrize("asked", ROWS)
def test_bodies_are_as_the_packages_of_both_interfaces_type_them(asked):
    params = pytest.importorskip("openai.types").decision_create_params
    models = pytest.importorskip("typesafe_sdk._schemas.models")
    orders = ["abcdefg"[: len(asked.options)]]
    strict = ConfigDict(extra="forbid")
    given = body(asked, orders=orders)
    assert given.keys() <= params.DecisionCreateParams.__annotations__.keys()
    TypeAdapter(params.DecisionCreateParams).validate_python(given)
    for each in given["questions"]:
        TypeAdapter(with_config(strict)(params.QuestionQuestionParamChoice)).validate_python(each)
    models.SystemOneRequest.model_validate(body(asked, "systemone", orders=orders), strict=False)
