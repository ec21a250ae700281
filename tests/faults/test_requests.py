"""Damaged requests against a running server: refused by name, while good ones are answered as before."""

import gc

import pytest

from benchmarks.damaged_requests import MULTIPART, Sent, as_parts, damaged_requests, decision, dumped, exchange, serving
from benchmarks.faults import damaged, good_pictures
from scoring.errors import ScoringError

pytest.importorskip("uvicorn")


def test_whatever_is_sent_the_server_answers_others_as_before(asked):
    found = damaged_requests(asked, good_pictures(), damaged, 300, seed=1)
    assert found["requests"] == 300 and not found["faults"], found
    assert not found["hung"] and not found["other_bits"] and not found["too_much_memory"], found
    assert {"200", "400", "413", "415", "422"} <= found["statuses"].keys(), found


def test_errors_let_go_of_the_body_at_once(asked):
    """A server's collector runs rarely: an error that leads back to itself would keep bodies of megabytes."""
    picture = good_pictures()[0]
    broken, none = picture[:200] + bytes(50_000), b"none" + bytes(50_000)
    sent = [
        (200, Sent("/v1/decisions", dumped(decision(picture)))),
        (400, Sent("/v1/decisions", dumped(decision(picture))[:-1])),
        (400, Sent("/v1/decisions", dumped(decision(none)))),
        (400, Sent("/v1/systemone", as_parts({}, broken), MULTIPART)),
        (404, Sent("/v1/decisions", dumped(decision(picture) | {"model": "x"}))),
        (422, Sent("/v1/decisions", dumped(decision(broken)))),
    ]
    with serving(asked) as port:
        gc.collect()
        gc.disable()
        try:
            assert [exchange(port, each)[0] for _, each in sent] == [status for status, _ in sent]
            assert exchange(port, sent[0][1])[0] == 200  # what was at work has ended
            left = [each for each in gc.get_objects() if issubclass(type(each), ScoringError)]
            assert not left, left
        finally:
            gc.enable()
