"""Bodies that the `typesafe-sdk` package makes and reads, and whatever else may be sent."""

import json
import math
import re
from email import message_from_bytes
from typing import Any

import httpx2
import pytest

from scoring.serving import systemone
from scoring.serving.request import AskedRequest, Limits, QuestionAnswer, RequestError, Usage
from scoring.serving.systemone import parse, render
from tests.shared.serving import kinds_of_damaged

typesafe = pytest.importorskip("typesafe_sdk")
ANSWERS = [
    QuestionAnswer((0.25, 0.75), 0.9, 0.5),
    QuestionAnswer((0.75, 0.25), 0.9, math.nan),
    QuestionAnswer((0.5, 0.5), 0.9, 0.0),
]
QUESTIONS: dict[str, Any] = {
    "n": {"type": "noul", "instructions": "Is it?", "criteria": {"true": "it is", "false": None}},
    "c": {"type": "choice", "criteria": {"a": None, "b": {"why": 1}}},
    "s": {"type": "score", "instructions": ["How?"], "criteria": ["low", {"level": "high"}]},
}


class Server:
    """Answers the SDK's client as the server would, and keeps what it parsed."""

    def __init__(self, answers: list[QuestionAnswer]):
        self.answers = answers
        self.asked: AskedRequest | None = None
        self.body: dict[str, Any] = {}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        content, parts = request.read(), {}
        if (kind := request.headers["content-type"]).startswith("multipart/form-data"):
            form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
            for part in form.get_payload():  # type: ignore[union-attr]
                parts[part.get_param("name", header="content-disposition")] = part.get_payload(decode=True)
            content = parts.pop("request")
        try:
            self.asked = parse(json.loads(content), Limits(), parts)
            self.body = render(self.asked, self.answers[: len(self.asked.questions)], Usage(12), "mine")
        except RequestError as error:
            return httpx2.Response(error.status, json=error.body())
        return httpx2.Response(200, json=self.body)


def ask(server: Server, state: Any, questions: Any = QUESTIONS, **fields: Any) -> Any:
    transport = httpx2.MockTransport(server)
    retry = typesafe.RetryPolicy(max_retries=0)
    with typesafe.TypeSafeClient(
        api_key="k", model="m", base_url="http://x", transport=transport, compression=False, retry=retry
    ) as client:
        return client.system_one(state=state, questions=questions, **fields)


def body(state: Any = "text", questions: Any = QUESTIONS, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "state": state, "questions": questions} | fields


def refusal(given: object, parts: Any = None, limits: Limits | None = None) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse(given, limits or Limits(), parts)
    return caught.value


def test_the_client_asks_and_reads_the_answers():
    server = Server(ANSWERS)
    response = ask(server, {"message": "naïve", "n": None})
    assert server.asked and server.asked.input == ('{"message":"naïve","n":null}',)
    noul, choice, score = server.asked.questions
    assert (noul.name, noul.kind, noul.values, noul.options) == ("n", "predicate", (True, False), ("Yes: it is", "No"))
    assert (choice.values, choice.options, choice.instructions) == (("a", "b"), ("a", 'b: {"why":1}'), ())
    assert (score.options, score.instructions) == (("low", '{"level":"high"}'), ('["How?"]',))
    assert response.model == "mine" and (response.usage.input_tokens, response.usage.output_tokens) == (12, 0)
    assert response.nouls["n"].noul == 0.25
    assert (response.choices["c"].choice, response.choices["c"].confidence) == ("a", 0.5)
    assert response.choices["c"].probabilities == {"a": 0.75, "b": 0.25}
    assert response.scores["s"].score == 0.5
    assert server.body["answers"]["s"]["legend"] == {"0": "low", "1": {"level": "high"}} and response.scores["s"].legend
    assert server.body["answers"]["n"] == {"type": "noul", "noul": 0.25, "label_mass": 0.9, "margin": 0.5}


def test_pictures_of_the_client_come_in_their_places():
    server = Server(ANSWERS)
    first, second = typesafe.Image(b"\x89PNG 1"), typesafe.Image(b"\xff\xd8\xff 2")
    questions = {"n": typesafe.Noul(instructions=["Like", second])}
    ask(server, {"photo": first, "text": f"as {second}"}, questions)
    assert server.asked and server.asked.input == (
        '{"photo":"', b"\x89PNG 1", '","text":"as ', b"\xff\xd8\xff 2", '"}'
    )  # fmt: skip
    assert server.asked.questions[0].instructions == ('["Like","', b"\xff\xd8\xff 2", '"]')
    server = Server(ANSWERS)
    ask(server, "see photo", {"n": typesafe.Noul(instructions="?")}, assets={"photo": first})
    assert server.asked and server.asked.input == ("see ", b"\x89PNG 1")


def test_the_longest_placeholder_comes_first_and_only_strings_have_them():
    assets = {"img": {"type": "image", "format": "png", "data_base64": "QUJD"}, 'img"2\n': {"part": "p"}}
    asked = parse(body({"img": 1, "x": 'a img"2\n img'}, assets=assets), Limits(), {"p": b"2"})
    assert asked.input == ('{"img":1,"x":"a ', b"2", " ", b"ABC", '"}')
    asked = parse(body("<image 1>?", assets={"<image 1>": {"data_base64": "QUJD"}}), Limits())
    assert asked.input == (b"ABC", "?")


def test_pictures_that_are_lost_or_missing_are_named():
    picture = {"data_base64": "QUJD"}
    assert "assets.p: this placeholder is nowhere" in refusal(body("x", assets={"p": picture})).message
    assert "has no part named 'q'" in refusal(body("p", assets={"p": {"part": "q"}})).message
    assert "no asset names this part" in refusal(body(), {"q": b"x"}).message
    assert "assets.p: no picture" in refusal(body("p", assets={"p": {}})).message
    criteria = {"c": {"type": "choice", "criteria": {"yes": "like @", "no": None}}}
    error = refusal(body("@", criteria, assets={"@": picture}))
    assert error.code == "unsupported_picture" and error.param == "questions.c.criteria.yes"
    error = refusal(body("p", assets={"p": {"part": "q"}}), {"q": b"x" * 9}, Limits(picture_bytes=8))
    assert (error.status, error.code) == (413, "picture_too_large")
    assert refusal(body("p" * 3, assets={"p": picture}), limits=Limits(pictures=2)).code == "too_many_pictures"
    assert refusal(body("pqr", assets=dict.fromkeys("pqr", picture)), limits=Limits(pictures=2)).param == "assets"


@pytest.mark.parametrize(
    "question, code, message",
    [
        ({"type": "box"}, "unsupported_question", "questions.q: box questions are not supported"),
        ({"type": "choice", "criteria": {"a": None}}, "too_few_choices", "1 choice; expected 2 to 26"),
        ({"type": "score", "criteria": ["a"]}, "too_few_levels", "1 level; expected 2 to 26"),
        ({"type": "score", "criteria": ["a", "a"]}, "duplicate_choice", "0 and 1 both read 'a'"),
        ({"type": "choice", "criteria": dict.fromkeys(map(str, range(27)))}, "too_many_choices", "27 choices; .* 26 "),
        ({"type": "choice", "criteria": {"a: b": None, "a": "b"}}, "duplicate_choice", "both read 'a: b'"),
        ({"type": "noul", "criteria": {"maybe": "x"}}, "unknown_parameter", "criteria.maybe: there is no such field"),
        ({"type": "noul", "intsructions": "x"}, "unknown_parameter", "intsructions"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(question, code, message):
    error = refusal(body("x", {"q": question}))
    assert error.code == code and re.search(message, error.message), error.message


def test_a_question_without_an_answer_is_an_error_that_names_it():
    with pytest.raises(typesafe.TypeSafeUnprocessableEntityError, match="c: picture: broken"):
        ask(Server([ANSWERS[0], QuestionAnswer((), math.nan, math.nan, status="picture: broken"), ANSWERS[2]]), "x")


def test_whatever_is_sent_is_a_request_or_an_error_that_can_be_sent():
    given = body({"a": ["@", {"b": 1}]}, assets={"@": {"type": "image", "data_base64": "QUJD"}})
    kinds = kinds_of_damaged(systemone, given)
    assert min(kinds.values()) > 50, kinds
