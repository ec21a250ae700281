"""Tries, waits and ends of requests, against a server that misbehaves."""

import threading
import time

import pytest

from scoring.endpoint.address import parse_address
from scoring.endpoint.client import MOST_BYTES, Client, Patience
from scoring.endpoint.errors import EndpointError, NoAnswerError, StoppedError
from tests.shared.endpoint_server import QUICK, Reply, falling

BODY = {"questions": [{"choices": [{"value": "a"}, {"value": "b"}]}]}
BUSY = Reply({"error": {"message": "busy", "code": "rate_limit_exceeded"}}, 429)


@pytest.mark.parametrize("bad", [Reply(status=500), Reply({}, 503), BUSY, Reply({}, 408), Reply(closes=True)])
def test_what_can_be_better_the_next_time_is_tried_again(serving, client_of, bad):
    server = serving(lambda asked: bad if asked.number < 2 else falling(asked))
    assert "answers" in client_of(server).ask(BODY)
    assert len(server.asked) == 3


def test_tries_end_and_the_last_reason_is_told(serving, client_of):
    server = serving(lambda asked: Reply({"error": {"message": "out\nof memory"}}, 500))
    with pytest.raises(NoAnswerError, match=r"no answer after 4 tries: HTTP 500 \(out of memory\)") as error:
        client_of(server).ask(BODY)
    assert error.value.overloaded and len(server.asked) == 4


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_request_that_is_wrong_is_not_tried_again(serving, client_of, status):
    server = serving(lambda asked: Reply({"error": {"message": "no such field"}}, status))
    with pytest.raises(NoAnswerError, match=rf"HTTP {status} \(no such field\)") as error:
        client_of(server).ask(BODY)
    assert not error.value.overloaded and len(server.asked) == 1


@pytest.mark.parametrize(
    "reply, told",
    [
        (Reply({"error": {"message": "wrong key sk-secret-1"}}, 401), "--token-env"),
        (Reply({"detail": "Not Found"}, 404), r"Not Found.*--model"),
        (Reply({"error": {"message": "pay", "code": "insufficient_quota"}}, 429), "no row can be answered"),
        (Reply(status=302, headers={"location": "https://elsewhere.example/"}), "leads to https://elsewhere"),
    ],
)
def test_what_would_fail_for_every_row_ends_the_run_and_shows_no_token(serving, client_of, reply, told):
    server = serving(lambda asked: reply)
    with pytest.raises(EndpointError, match=told) as error:
        client_of(server, token="sk-secret-1").ask(BODY)
    assert "sk-secret-1" not in str(error.value) and len(server.asked) == 1


def test_the_token_goes_with_each_request_and_none_without(serving, client_of):
    server = serving()
    client_of(server, token="sk-1").ask(BODY)
    client_of(server).ask(BODY)
    assert [asked.headers.get("authorization") for asked in server.asked] == ["Bearer sk-1", None]


@pytest.mark.parametrize(
    "content, told", [(b"<html>\nlogin", "'?<html> login"), (b"[" * 100_000, "in JSON"), (b"", "found an empty answer")]
)
def test_an_answer_that_is_no_json_is_none(serving, client_of, content, told):
    with pytest.raises(NoAnswerError, match=told):
        client_of(serving(lambda asked: Reply(content))).ask(BODY)


def test_an_answer_without_end_is_not_read_to_its_end(serving, client_of):
    with pytest.raises(NoAnswerError, match="more than"):
        client_of(serving(lambda asked: Reply(b" " * (MOST_BYTES + 1)))).ask(BODY)


def test_a_slow_server_is_waited_for_no_longer_than_said(serving, client_of):
    server = serving(lambda asked: Reply({}, seconds=0.5))
    start = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"no answer after 2 tries: no answer in 0.1 s"):
        client_of(server, patience=Patience(1, 0.1, 0.01)).ask(BODY)
    assert time.monotonic() - start < 0.45


def test_all_requests_wait_as_long_as_the_server_asks_for(serving, client_of):
    busy = Reply({}, 429, {"retry-after": "0.3"})
    server = serving(lambda asked: busy if asked.number == 0 else falling(asked))
    client = client_of(server)
    start = time.monotonic()
    first = threading.Thread(target=client.ask, args=(BODY,))
    first.start()
    while not server.asked:
        time.sleep(0.005)
    time.sleep(0.05)
    client.ask(BODY)
    assert time.monotonic() - start > 0.29
    first.join()
    assert len(server.asked) == 3


def test_a_wait_may_be_until_a_date_and_no_longer_than_minutes(serving, client_of):
    later = "Wed, 01 Jan 2200 00:00:00 GMT"
    server = serving(lambda asked: Reply({}, 503, {"retry-after": later}))
    with pytest.raises(NoAnswerError, match="the server asks to wait"):
        client_of(server).ask(BODY)
    past = "Wed, 01 Jan 2020 00:00:00 GMT"
    server = serving(lambda asked: falling(asked) if asked.number else Reply({}, 503, {"retry-after": past}))
    assert client_of(server).ask(BODY)


def test_a_run_that_stops_waits_for_no_other_try(serving, client_of):
    stop = threading.Event()
    server = serving(lambda asked: Reply({}, 503))
    client = client_of(server, patience=Patience(5, 5, 30), stop=stop)
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(StoppedError):
        client.ask(BODY)


def test_our_own_server_is_told_from_others_by_its_list_of_models(serving, client_of):
    server = serving()
    assert not client_of(server).is_ours()
    server.models = Reply({"data": []}, headers={"server": "uvicorn"})
    assert not client_of(server).is_ours()
    server.models = Reply({"data": []}, headers={"server": "logit-scoring"})
    assert client_of(server).is_ours()
    server.models = Reply({"data": [{"id": "m", "owned_by": "logit-scoring"}]}, headers={"server": "a proxy"})
    assert client_of(server).is_ours()


def test_a_wrong_token_or_a_missing_server_is_found_out_at_once(serving, client_of):
    server = serving()
    server.models = Reply({"error": {"message": "no token"}}, 401)
    with pytest.raises(EndpointError, match="the token is missing or wrong"):
        client_of(server).is_ours()
    for address in ("http://a..b", "http://xn--é"):
        with Client(parse_address(address, "decisions"), patience=QUICK) as client:
            with pytest.raises(EndpointError, match="expected the address of a server"):
                client.is_ours()
    with Client(parse_address("http://127.0.0.1:9", "decisions"), patience=QUICK) as client:
        with pytest.raises(
            EndpointError, match=r"models: no answer after 3 tries: ConnectError.*is the server running"
        ):
            client.is_ours()
