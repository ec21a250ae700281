"""Whatever the shape of a body, what is wrong with it is told in words of JSON."""

import re
from typing import Any

import pytest

from scoring.serving import decisions, systemone
from scoring.serving.request import Limits, RequestError
from scoring.serving.shapes import Fields, path, validated

CHOICE = {"type": "choice", "instructions": "?", "choices": [{"value": "a"}, {"value": "b"}]}
IMAGE = {"type": "input_image", "image_url": {"url": "x"}}


def user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


def refusal(module: Any, **fields: Any) -> RequestError:
    body = {"model": "m", "input": "t", "questions": [CHOICE]}
    if module is systemone:
        body = {"model": "m", "state": "t", "questions": {"q": {"type": "noul"}}}
    with pytest.raises(RequestError) as caught:
        module.parse(body | fields, Limits())
    return caught.value


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"questions": [CHOICE | {"choices": ["a"]}]}, "choices[0]: found 'a'; expected an object with value"),
        ({"questions": [CHOICE | {"choices": {}}]}, "choices: found an object; expected a list of choices"),
        ({"questions": [CHOICE | {"instructions": None}]}, "found null; expected a text or a list of parts"),
        ({"questions": [CHOICE | {"hint": 5}]}, "questions[0].hint: found 5; expected a text"),
        ({"questions": ["x"]}, "found 'x'; expected an object with the type choice, predicate or score"),
        ({"questions": [{"type": "box"}]}, "found type 'box'; expected choice, predicate or score"),
        ({"questions": None}, "questions: found null; expected a list of questions"),
        ({"input": None}, "input: found null; expected a text or a list of messages"),
        ({"input": {}}, "input: found an object; expected a text or a list of messages"),
        ({"input": 5}, "input: found 5; expected a text or a list of messages"),
        ({"input": [{"role": "tool"}]}, "found role 'tool'; expected user, developer, system or assistant"),
        ({"input": [{"type": "x"}]}, "input[0]: found type 'x'; expected message, function_call"),
        ({"input": user([IMAGE])}, "input[0].content[0].image_url: found an object; expected a text"),
        ({"input": user([{}])}, "found no type; expected input_text, input_image or input_json"),
        ({"model": None}, "model: found null; expected a text"),
        ({"members": 1}, "members: found 1; expected true or false"),
        ({"stream": True}, "stream: not supported: an answer comes at once"),
        ({"store": True}, "store: not supported: no answer is kept here"),
        ({"previous_response_id": "x"}, "previous_response_id: not supported: no answer is kept here"),
    ],
)
def test_decisions_of_another_shape_are_told_in_words_of_json(fields, message):
    found = refusal(decisions, **fields).message
    assert message in found and "Input" not in found and not re.search(r"\b_[A-Z]", found)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"questions": []}, "questions: found a list; expected an object of questions, each under its name"),
        ({"questions": {"q": {"type": "choice", "criteria": ["a"]}}}, "found a list; expected an object of criteria"),
        ({"questions": {"q": {"type": "noul", "criteria": ["a"]}}}, "expected an object that may have true and false"),
        ({"questions": {"q": {"type": "score", "criteria": {}}}}, "found an object; expected a list of criteria"),
        ({"state": None}, "state: found null; expected a text, an object or a list"),
        ({"assets": {"a": {"type": "video"}}}, "assets.a.type: found 'video'; expected 'image'"),
        ({"questions": {"": {"type": "box"}}}, "questions.'': box questions are not supported"),
        ({"state": "a <image 1>"}, "put the name of an asset there"),
    ],
)
def test_states_of_another_shape_are_told_in_words_of_json(fields, message):
    assert message in refusal(systemone, **fields).message


def test_a_field_that_does_not_exist_hides_nothing_else():
    question = CHOICE | {"choices": [], "nmae": 1, "hint": 5}
    error = refusal(decisions, questions=[CHOICE, question], model=5, orders="foo", more=1, input=user([{"a": 1}]))
    assert [line.split(":")[0] for line in error.message.splitlines()] == [
        "model", "input[0].content[0]", "questions[1].hint", "questions[1].nmae", "more"
    ]  # fmt: skip
    error = refusal(decisions, questions=[CHOICE, question], model=5, orders="foo", more=1, store=True)
    assert [line.split(":")[0] for line in error.message.splitlines()] == [
        "model", "store", "questions[1].hint", "questions[1].nmae", "more", "questions[1].choices", "orders"
    ]  # fmt: skip
    assert question["nmae"] == 1  # the body is as it was
    names = {"(choice)": 1, "(a list of parts)": {}, "nmae": 1}  # like those of kinds
    assert refusal(decisions, questions=[CHOICE | names]).message.count("no such field") == 3


def test_fields_about_users_and_those_without_a_value_are_read_over():
    fields = {"user": "u", "metadata": {"a": 1}, "store": False, "stream": None, "previous_response_id": None}
    question = CHOICE | {"hint": None, "task_type": None}
    body = {"model": "m", "input": "t", "questions": [question]} | fields
    (asked,) = decisions.parse(body, Limits()).questions
    assert (asked.hint, asked.task_type) == ("", "")


def test_a_body_is_an_object():
    with pytest.raises(RequestError, match="the body is null; expected a JSON object"):
        validated(Fields, None, [])
    assert path("questions", 0, "name") == "questions[0].name"
