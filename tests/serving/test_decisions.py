"""Bodies that the `openai` and `langchain-openai` packages make and read, and whatever else may be sent."""

import json
import math
from typing import Any

import httpx2
import pytest

from scoring.serving import decisions
from scoring.serving.decisions import parse, render
from scoring.serving.request import AskedRequest, Limits, QuestionAnswer, RequestError, Usage
from tests.shared.serving import kinds_of_damaged

openai = pytest.importorskip("openai")
PICTURE = "data:image/png;base64,QUJD"
QUESTIONS: list[dict[str, Any]] = [
    {"type": "predicate", "name": "p", "instructions": "Is it?"},
    {
        "type": "choice",
        "instructions": [{"type": "input_text", "text": "Like "}, {"type": "input_image", "image_url": PICTURE}],
        "choices": [{"value": True}, {"value": "no", "description": "not so"}],
    },
    {"type": "score", "name": "s", "instructions": "How?", "levels": [{"label": "low"}, {"label": "high"}]},
]
ANSWERS = [
    QuestionAnswer((0.25, 0.75), 0.9, 0.5, {"fold0": (0.25, 0.75)}),
    QuestionAnswer((0.75, 0.25), 0.9, math.nan),
    QuestionAnswer((0.5, 0.5), 0.9, 0.0),
]


class Server:
    """Answers a client of openai's as the server would, and keeps what it parsed."""

    def __init__(self, answers: list[QuestionAnswer]):
        self.answers = answers
        self.asked: AskedRequest | None = None

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        try:
            self.asked = parse(json.loads(request.content), Limits())
        except RequestError as error:
            return httpx2.Response(error.status, json=error.body())
        return httpx2.Response(200, json=render(self.asked, self.answers, Usage(12), "mine"))

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self))


def ask(server: Server, given: Any, questions: Any = QUESTIONS, **fields: Any) -> Any:
    client = openai.OpenAI(api_key="k", base_url="http://x/v1", http_client=server.client(), max_retries=0)
    return client.decisions.create(model="m", input=given, questions=questions, **fields)


def test_openais_client_asks_and_reads_the_answers():
    server = Server(ANSWERS)
    decision = ask(server, "text", prompt_cache_key="k", safety_identifier="u", extra_body={"members": True})
    assert server.asked and server.asked.members and server.asked.input == ("text",)
    predicate, choice, score = server.asked.questions
    assert (predicate.name, predicate.values, predicate.options) == ("p", (True, False), ("Yes", "No"))
    assert (choice.name, choice.instructions) == (None, ("Like ", b"ABC"))
    assert (choice.values, choice.options) == ((True, "no"), ("true", "no: not so"))
    assert score.values == score.options == ("low", "high")
    assert decision.model == "mine" and decision.usage.input_tokens == decision.usage.total_tokens == 12
    assert [answer.type for answer in decision.answers] == ["predicate", "choice", "score"]
    predicate, choice, score = decision.answers
    assert (predicate.name, predicate.probability, predicate.margin) == ("p", 0.25, 0.5)
    assert predicate.members == [{"name": "fold0", "probabilities": [0.25, 0.75]}]
    assert (choice.name, choice.choice, choice.confidence, choice.margin) == (None, True, 0.5, None)
    assert [(each.value, each.probability) for each in choice.probabilities] == [(True, 0.75), ("no", 0.25)]
    assert (score.score, [(each.value, each.label) for each in score.probabilities]) == (0.5, [(0, "low"), (1, "high")])


def test_a_question_without_an_answer_is_a_refusal_with_its_reason():
    server = Server([*ANSWERS[:2], QuestionAnswer((), math.nan, math.nan, status="picture: broken")])
    refusal = ask(server, "text").answers[2]
    assert (refusal.type, refusal.name, refusal.reason) == ("refusal", "s", "picture: broken")


def test_openais_client_raises_what_is_wrong():
    with pytest.raises(openai.BadRequestError, match="this model tells at most 26 apart") as caught:
        many = {"type": "choice", "instructions": "?", "choices": [{"value": str(value)} for value in range(27)]}
        ask(Server([]), "text", [many])
    assert (caught.value.param, caught.value.code) == ("questions[0].choices", "too_many_choices")


def test_a_conversation_becomes_one_text_with_pictures_in_their_places():
    conversation = [
        {"role": "developer", "content": "Be brief.", "type": "message"},
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "See "},
                {"type": "input_image", "image_url": PICTURE, "detail": "low"},
                {"type": "input_text", "text": "and", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "input_json", "data": {"naïve": [1, None]}},
                {"type": "input_text", "text": "?"},
            ],
        },
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"x":1}', "status": "completed"},
        {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "image_url": PICTURE}]},
        {"type": "custom_tool_call", "call_id": "1", "name": "run", "input": "ls"},
        {"type": "custom_tool_call_output", "call_id": "1", "output": "files"},
        {
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": "Well."}, {"type": "refusal", "refusal": " No."}],
        },
    ]
    server = Server(ANSWERS)
    ask(server, conversation)
    assert server.asked and server.asked.input == (
        "developer:\nBe brief.\n\nuser:\nSee ",
        b"ABC",
        'and\n{"naïve":[1,null]}\n?\n\ncall of look:\n{"x":1}\n\noutput of look:\n',
        b"ABC",
        "\n\ncall of run:\nls\n\noutput of run:\nfiles\n\nassistant:\nWell. No.",
    )
    for wrong in (conversation[3], conversation[3] | {"call_id": "2"}):
        with pytest.raises(openai.BadRequestError, match="no earlier call with this id"):
            ask(server, [wrong])
    with pytest.raises(openai.BadRequestError, match="no earlier call"):
        ask(server, [conversation[2], conversation[5]])  # a function's call, another tool's output


def test_a_single_user_message_is_its_parts_alone():
    parsed = parse({"model": "m", "input": [{"role": "user", "content": " a "}], "questions": QUESTIONS}, Limits())
    assert parsed.input == (" a ",)
    parsed = parse({"model": "m", "input": [{"role": "assistant", "content": "a"}], "questions": QUESTIONS}, Limits())
    assert parsed.input == ("assistant:\na",)


def test_fields_of_its_own():
    question = {"type": "predicate", "instructions": "?", "hint": "look", "task_type": "vqa"}
    body = {"model": "m", "input": "x", "questions": [question], "orders": 2, "members": True}
    asked = parse(body, Limits())
    assert (asked.orders, asked.members) == ("2", True)
    assert (asked.questions[0].hint, asked.questions[0].task_type) == ("look", "vqa")
    assert parse(body | {"orders": "cyclic"}, Limits()).orders == "cyclic"
    with pytest.raises(RequestError):
        parse(body | {"orders": True}, Limits())


def test_langchains_client_asks_and_reads_the_answers():
    decisions = pytest.importorskip("langchain_openai.decisions")
    messages = pytest.importorskip("langchain_core.messages")
    server = Server([ANSWERS[0], ANSWERS[1], ANSWERS[2]])
    client = decisions.OpenAIDecisions(
        model="m", api_key="k", base_url="http://x/v1", http_client=server.client(), max_retries=0
    )
    picture = {"type": "image_url", "image_url": {"url": PICTURE}}
    questions = {
        "p": decisions.Predicate(instructions="?"),
        "c": decisions.Choice(instructions="?", choices={True: None, "no": "not so"}),
        "s": decisions.Score(instructions="?", levels=["low", "high"]),
    }
    message = messages.HumanMessage([{"type": "text", "text": "See "}, picture])
    response = client.invoke({"input": [message], "questions": questions})
    assert server.asked and server.asked.input == ("See ", b"ABC")
    assert response.predicates["p"].probability == 0.25 and response.choices["c"].choice is True
    assert response.scores["s"].score == 0.5
    client.invoke({"input": [message, messages.AIMessage("hm")], "questions": questions})
    assert [part if isinstance(part, bytes) else type(part) for part in server.asked.input] == [str, b"ABC", str]


def test_whatever_is_sent_is_a_request_or_an_error_that_can_be_sent():
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_json", "data": {"a": [1]}}]
    conversation = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ]
    kinds = kinds_of_damaged(decisions, {"model": "m", "input": conversation, "questions": QUESTIONS})
    assert min(kinds.values()) > 50, kinds
