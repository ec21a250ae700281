"""Limits, pictures and texts, each with its own clear error."""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest

from scoring.serving import decisions, systemone
from scoring.serving.checking import Checks
from scoring.serving.request import Limits, RemotePicture, RequestError

SMALL = Limits(questions=3, choices=4, text_chars=60, pictures=2, picture_bytes=9)
QUESTION = {"type": "predicate", "instructions": "Is it?"}


def ask(content: Any = "text", *questions: Any, **fields: Any) -> dict[str, Any]:
    given = content if isinstance(content, str) else [{"role": "user", "content": content}]
    return {"model": "m", "input": given, "questions": list(questions) or [QUESTION]} | fields


def picture(content: bytes = b"picture") -> dict[str, Any]:
    return {"type": "input_image", "image_url": f"data:image/png;base64,{base64.b64encode(content).decode()}"}


def words(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def refusal(body: object, parse: Callable[..., Any] = decisions.parse, **more: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(body, SMALL, **more)
    return caught.value


def choice(*values: Any) -> dict[str, Any]:
    return {"type": "choice", "instructions": "?", "choices": [{"value": value} for value in values]}


@pytest.mark.parametrize(
    "body, status, code, message",
    [
        (ask("x" * 55), 400, "string_above_max_length", "61 characters of text in all; expected at most 60"),
        (ask([picture()] * 3), 400, "too_many_pictures", "3 pictures in all; expected at most 2"),
        (ask([picture(b"x" * 10)]), 413, "picture_too_large", r"of 10 bytes; expected at most 9: send a smaller"),
        (ask([picture(b"x" * 11)]), 413, "picture_too_large", r"of 11 bytes"),
        (ask([picture(b"")]), 400, "empty_picture", "without a byte"),
        (ask("t", *[QUESTION] * 4), 400, "too_many_questions", "4 questions; expected 1 to 3"),
        (ask("t", choice(*"abcde")), 400, "too_many_choices", r"questions\[0\].choices: 5 choices; .* at most 4"),
        (ask("t", choice("a")), 400, "too_few_choices", "1 choice; expected 2 to 4"),
        (ask("t", choice(*map(str, range(256)))), 400, "too_many_items", "256 items; expected at most 255"),
        (ask("t", choice("true", True)), 400, "duplicate_choice", "0 and 1 both read 'true'"),
        (ask("t", choice("", "b")), 400, "empty", "an empty text"),
        (ask("t", choice(1, "b")), 400, "invalid_value", "found 1; expected a text or true or false"),
        (
            ask("a <image 2> b"),
            400,
            "invalid_text",
            "'<image 2>', which no text may hold.*put an input_image part there",
        ),
        (ask([words("<ima"), words("ge>")]), 400, "invalid_text", "'<image>', which no text may hold"),
        (ask("\0"), 400, "invalid_text", "NUL"),
        (ask("\ud83d"), 400, "invalid_text", "surrogate"),
        (ask("t", QUESTION | {"name": "\ud83d"}), 400, "invalid_text", r"questions\[0\].name: .*surrogate"),
        (ask(" ", {"type": "predicate", "instructions": ""}), 400, "empty", "are empty; send a text or a picture"),
        (ask("t", QUESTION | {"nmae": "x"}), 400, "unknown_parameter", r"questions\[0\].nmae: there is no such field"),
        (ask(qestions=[]), 400, "unknown_parameter", "qestions: there is no such field"),
        (ask(members="yes"), 400, "invalid_type", "members: found 'yes'"),
        (ask([{"type": "input_json", "data": {"x": float("nan")}}]), 400, "invalid_json", "cannot be written as JSON"),
        (ask([{"type": "input_image"}]), 400, "missing_required_parameter", "image_url"),
        (
            ask([{"type": "input_image", "file_id": "f"}]),
            400,
            "unsupported_parameter",
            "file_id: not supported: no file",
        ),
        ([], 400, "invalid_type", "the body is a list; expected a JSON object"),
    ],
)
def test_each_limit_and_fault_has_its_own_error(body, status, code, message):
    error = refusal(body)
    assert (error.status, error.code) == (status, code)
    assert re.search(message, error.message), error.message


def test_all_that_is_wrong_is_told_at_once():
    message = refusal(
        ask("<image>", choice("a"), choice(*"abcde"), {"type": "score", "instructions": "", "levels": []})
    )
    assert [line.split(":")[0] for line in message.message.splitlines()] == [
        "input", "questions[0].choices", "questions[1].choices", "questions[2].levels"
    ]  # fmt: skip
    message = refusal({"model": 3, "input": [{"role": "usr"}], "questions": [{"type": "box"}], "more": 1})
    assert [line.split(":")[0] for line in message.message.splitlines()] == [
        "model",
        "input[0]",
        "questions[0]",
        "more",
    ]


def test_what_is_too_large_is_refused_before_it_is_decoded_or_looked_at():
    url = "data:image/png;base64," + "?" * 100
    assert refusal(ask([{"type": "input_image", "image_url": url}])).code == "picture_too_large"
    assert "more than 100 fields" in refusal(ask() | {str(number): 1 for number in range(200)}).message
    assert "20,000 items" in refusal({**ask(), "input": [1] * 20_000}).message
    assert refusal(ask([1] * 9_999)).message.count("\n") == 0


def test_deep_json_is_refused_without_recursion():
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": [deep]}
    assert refusal(ask([{"type": "input_json", "data": deep}])).code == "json_too_deep"
    body = {"model": "m", "state": deep, "questions": {"a": {"type": "noul", "instructions": deep}}}
    assert refusal(body, systemone.parse).message.count("100 levels") == 2
    for place in ("input", "questions", "model", "members"):
        assert refusal(ask() | {place: [deep]}).status == 400
    while deep:  # an interpreter that frees it at once could end
        deep = deep["a"][0]


@pytest.mark.parametrize(
    "url",
    ["data:text/plain;base64,QUJD", "data:image/png,QUJD", "ftp://x", "QUJD", "", "https://a b", "http://x/\ud800"],
)
def test_what_is_no_picture_address_is_refused(url):
    assert refusal(ask([{"type": "input_image", "image_url": url}])).code == "invalid_image_url"


@pytest.mark.parametrize("data", ["QUJ", "QUJD=", "QU JD", "Q-_D", "é", "data:,QUJD"])
def test_base64_is_read_strictly(data):
    body = ask([{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}])
    assert refusal(body).code == "invalid_base64"


def test_base64_may_be_broken_into_lines_and_a_data_url_need_not_name_a_type():
    for head in ("data:;base64,", "data:image/jpeg;charset=utf-8;base64,", "DATA:image/svg+xml;a=b;c=d;base64,"):
        assert decisions.parse(ask([{"type": "input_image", "image_url": f"{head}QU\r\nJD\n"}]), SMALL).input == (
            b"ABC",
        )
    assert Checks(SMALL, "a picture").base64("", "data:;base64,QUJD") == b"ABC"


@pytest.mark.parametrize("orders", [True, 2.5, 0, 25, "foo", "x" * 9_000, "²", 10**400, [], {}])
def test_orders_that_do_not_exist_are_told_shortly(orders):
    error = refusal(ask(orders=orders))
    assert (error.param, error.code) == ("orders", "invalid_orders") and len(error.message) < 200
    assert error.message.endswith("expected 1, cyclic, all, adaptive, or a number up to 24")
    assert "'pride', which needs the rows of a table" in refusal(ask(orders="pride")).message


def test_choices_differ_in_their_values_and_as_the_model_reads_them():
    def choices(*pairs: Any) -> dict[str, Any]:
        found = [{"value": value, "description": text} for value, text in pairs]
        return ask("t", {"type": "choice", "instructions": "?", "choices": found})

    (question,) = decisions.parse(choices((True, "x"), ("true", "y")), Limits()).questions
    assert (question.values, question.options) == ((True, "true"), ("true: x", "true: y"))
    assert "0 and 1 both have the value 'a'" in refusal(choices(("a", "x"), ("a", "y"))).message
    assert "0 and 1 both read 'a: b'" in refusal(choices(("a", "b"), ("a: b", None))).message


def test_pictures_of_the_web_are_left_to_be_fetched_and_9_bytes_are_not_too_many():
    asked = decisions.parse(ask([{"type": "input_image", "image_url": "HTTPS://x/a.png"}, picture(b"x" * 9)]), SMALL)
    assert asked.input == (RemotePicture("HTTPS://x/a.png"), b"x" * 9)
