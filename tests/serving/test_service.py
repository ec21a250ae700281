"""Requests become questions that are asked together, and answers with what this product adds."""

import httpx2
import pytest

from scoring.inputs.pictures import PictureLimits
from scoring.library.ask_limits import CancelToken
from scoring.serving.request import AskedQuestion, AskedRequest, RemotePicture, RequestError
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings
from tests.shared.serving import close_to, decision_of, system_of


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


def test_a_picture_that_cannot_be_read_is_named(service, rows):
    with pytest.raises(RequestError, match=r"questions\[0\]: .*picture") as caught:
        service.answer(request_of(b"no picture"))
    assert caught.value.status == 400 and caught.value.code == "invalid_image"
    content = rows[0].picture.read_bytes()
    cut = content[: len(content) // 2]
    with pytest.raises(RequestError, match="no answer: picture: ") as caught:
        service.answer(request_of(cut))
    assert caught.value.status == 422
    assert service.picture_limits == PictureLimits(50_000_000, 20 * 2**20)


def test_a_picture_at_an_address_is_fetched_once_for_all_questions(service, rows, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        service.fetcher, "fetch", lambda url, seconds: fetched.append(url) or rows[0].picture.read_bytes()
    )
    picture = RemotePicture("https://images.example/a.jpg")
    answers, usage = service.answer(request_of(picture, texts=("Which?", "And now?")))
    assert len(answers) == 2 and fetched == [picture.url] and usage.input_tokens > 50


def test_addresses_that_nobody_allowed_are_not_fetched(service):
    with pytest.raises(RequestError, match="not fetched from images.example") as caught:
        service.answer(request_of(RemotePicture("https://images.example/a.jpg")))
    assert caught.value.status == 400


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
