"""Errors as OpenAI's error object, with all that is wrong."""

import copy
import pickle
import subprocess
import sys

import pytest

from scoring.serving.request import MAX_MESSAGE, RequestError, Wrong, refuse


@pytest.mark.parametrize(
    "status, kind",
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
def test_an_error_is_openais_error_object(status, kind):
    error = RequestError(status, "found x; expected y", "input", "wrong")
    assert error.body() == {
        "error": {"message": "found x; expected y", "type": kind, "param": "input", "code": "wrong"}
    }
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.body(), other.status) == (str(error), error.body(), status)


def test_whatever_a_message_quotes_it_can_be_sent_and_is_not_endless():
    error = RequestError(400, "\ud800" + "x" * 10_000, "\udfff" * 300)
    assert len(error.message) < MAX_MESSAGE + 10
    assert all(text is None or text.encode() for text in error.body()["error"].values())


def test_all_that_is_wrong_is_told_up_to_ten():
    refuse([])
    with pytest.raises(RequestError) as caught:
        refuse([Wrong("a", "first", "one", 413), *[Wrong(f"b[{number}]", "x") for number in range(20)]])
    assert (caught.value.status, caught.value.param, caught.value.code) == (413, "a", "one")
    assert caught.value.message.startswith("a: first\nb[0]: x\n") and "… and 11 more problems" in caught.value.message


def test_reading_and_writing_bodies_loads_no_torch():
    code = (
        "import sys, scoring.serving.decisions, scoring.serving.systemone\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
