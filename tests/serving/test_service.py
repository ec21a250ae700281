"""Requests become questions that are asked together, and answers with what this product adds."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import httpx2
import pytest

from scoring.inputs.pictures import PictureLimits
from scoring.library.ask_limits import CancelToken
from scoring.serving.request import AskedQuestion, AskedRequest, RemotePicture, RequestError
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings
from tests.shared.serving import close_to, data_url, decision_of, system_of


@pytest.fixture(scope="module")
def service(asked):
    return DecisionService(asked, ServeSettings(("fold0",)))


def request_of(*parts, options=("one", "two"), **fields) -> AskedRequest:
    questions = tuple(
        AskedQuestion(None, "choice", (text,), options, options) for text in fields.pop("texts", ("Which?",))
    )
    return AskedRequest("fold0", parts, questions, **fields)


def test_questions_about_one_picture_share_it(served, rows, scores):
    row = rows[0]
    body = decision_of(row)
    alone = httpx2.post(f"{served}/v1/decisions", json=body).json()
    body["questions"] *= 5
    together = httpx2.post(f"{served}/v1/decisions", json=body).json()
    assert len(together["answers"]) == 5
    for answer in together["answers"]:
        assert [each["probability"] for each in answer["probabilities"]] == close_to(row, scores)
    assert together["usage"]["input_tokens"] < 4 * alone["usage"]["input_tokens"]


@pytest.mark.parametrize("orders", ["cyclic", "adaptive", 2])
def test_a_request_may_choose_its_option_orders(asked, served, rows, orders):
    expected = {answer.id: list(answer.values()) for answer in asked.score(rows[:2], orders=orders)}
    for row in rows[:2]:
        for path, body in (("decisions", decision_of(row)), ("systemone", system_of(row))):
            answers = httpx2.post(f"{served}/v1/{path}", json=body | {"orders": orders, "members": True}).json()
            answer = answers["answers"]["it"] if path == "systemone" else answers["answers"][0]
            (member,) = answer["members"]
            assert member["name"] == "fold0"
            assert member["probabilities"] == pytest.approx(expected[row.id][: len(row.options)], abs=1e-5)
            assert answer["label_mass"] > 0 and 0 <= answer["margin"] <= 1


def test_orders_that_need_a_table_or_do_not_exist_are_refused(service):
    for orders in ("pride", "upwards", "0"):
        with pytest.raises(RequestError) as caught:
            service.answer(request_of("A text.", orders=orders))
        assert caught.value.status == 400 and caught.value.param == "orders"


def test_texts_that_list_their_options_are_refused_in_other_orders_by_their_question(service):
    request = request_of("A text.", texts=("Which?", "(a) one (b) two"), orders="cyclic")
    questions = (request.questions[0], replace(request.questions[1], place="questions.q"))
    with pytest.raises(RequestError, match="^questions.q: the text lists the options too.*send the orders 1") as caught:
        service.answer(replace(request, questions=questions))
    assert caught.value.param == "orders" and "--" not in caught.value.message


def test_a_picture_and_options_without_instructions_are_a_question(served, rows):
    picture = {"type": "input_image", "image_url": data_url(rows[0].picture)}
    body = decision_of(rows[0])
    alone = [body["questions"][0] | {"instructions": each} for each in ("", [], [picture])]
    answers = httpx2.post(f"{served}/v1/decisions", json=body | {"questions": alone}).json()["answers"]
    assert [answer["type"] for answer in answers] == ["choice"] * 3
    answers = httpx2.post(f"{served}/v1/decisions", json=body | {"input": "", "questions": alone[2:]}).json()["answers"]
    assert answers[0]["type"] == "choice"
    body = system_of(rows[0])
    body["questions"] = {"a": {"type": "noul", "criteria": {"true": "It is a violin"}}}
    assert 0 <= httpx2.post(f"{served}/v1/systemone", json=body).json()["answers"]["a"]["noul"] <= 1


def test_a_text_that_is_longer_than_the_model_reads_is_the_requests_fault(service):
    long = request_of("word " * 3_000, place="state")
    with pytest.raises(
        RequestError, match=r"^\d,\d{3} tokens; this model reads at most 2,048: shorten the input$"
    ) as caught:
        service.answer(long)
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")
    assert caught.value.param == "state"
    questions = request_of("A text.", texts=("Which?", "word " * 3_000)).questions
    answers, _ = service.answer(replace(long, input=("A text.",), questions=questions))
    assert answers[0].status == "ok" and answers[1].status.endswith("tokens; expected at most 2,048")


def test_a_picture_that_cannot_be_read_is_named(service, rows):
    content = rows[0].picture.read_bytes()
    cut = content[: len(content) // 2]
    places = ("assets.a", "assets.b")
    with pytest.raises(RequestError, match=r"^assets.b: text, 'no picture'; expected a picture") as caught:
        service.answer(request_of(content, b"no picture", picture_places=places))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "invalid_image", "assets.b")
    for parts, place in (((cut,), "assets.a"), ((content, cut), "assets.b")):
        with pytest.raises(RequestError, match=rf"^no answer: {place}: broken pixels \(") as caught:
            service.answer(request_of(*parts, picture_places=places))
        assert (caught.value.status, caught.value.param) == (422, place)
    request = request_of("A text.", texts=("Which?", "And now?"))
    broken = replace(
        request.questions[1], instructions=(cut,), picture_places=("questions[1].instructions[0].image_url",)
    )
    answers, _ = service.answer(replace(request, questions=(request.questions[0], broken)))
    assert answers[0].status == "ok" and answers[1].status.startswith("questions[1].instructions[0].image_url: broken")
    assert service.picture_limits == PictureLimits(50_000_000, 20 * 2**20)


def test_a_picture_at_an_address_is_fetched_once_for_all_questions(service, rows, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        service.fetcher, "fetch", lambda url, seconds: fetched.append(url) or rows[0].picture.read_bytes()
    )
    picture = RemotePicture("https://images.example/a.jpg")
    answers, usage = service.answer(request_of(picture, texts=("Which?", "And now?")))
    assert len(answers) == 2 and fetched == [picture.url] and usage.input_tokens > 50


def test_a_slow_picture_holds_nobody_up(service, rows, monkeypatch):
    begun, go_on = Event(), Event()

    def fetch(url, seconds):
        begun.set()
        assert go_on.wait(20)
        return rows[0].picture.read_bytes()

    monkeypatch.setattr(service.fetcher, "fetch", fetch)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(service.answer, request_of(RemotePicture("https://images.example/a.jpg")))
        assert begun.wait(20)
        answers, _ = service.answer(request_of(rows[1].picture.read_bytes()))  # asked later, answered first
        assert answers[0].status == "ok" and not slow.done()
        go_on.set()
        assert slow.result(20)[0][0].status == "ok"


def test_addresses_that_nobody_allowed_are_not_fetched(service):
    with pytest.raises(RequestError, match="^assets.a: pictures are not fetched from images.example") as caught:
        service.answer(request_of(RemotePicture("https://images.example/a.jpg"), picture_places=("assets.a",)))
    assert (caught.value.status, caught.value.param) == (400, "assets.a")


def test_much_text_is_refused_before_it_is_encoded(asked):
    service = DecisionService(asked, ServeSettings(("fold0",), most_tokens=100))
    with pytest.raises(RequestError, match="4,0.. characters.*expected at most 100 tokens"):
        service.answer(request_of("x" * 2_000, texts=("Which?", "What?")))
    with pytest.raises(RequestError, match="tokens or more.*expected at most 100"):
        service.answer(request_of("word " * 100, texts=("Which?", "What?")))


def test_a_cancelled_request_is_not_answered(service):
    from concurrent.futures import CancelledError

    token = CancelToken()
    token.cancel()
    with pytest.raises(CancelledError):
        service.answer(request_of("A text."), token)
