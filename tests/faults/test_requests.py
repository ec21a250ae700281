"""Damaged requests against a running server: refused by name, while good ones are answered as before."""

import pytest

from benchmarks.damaged_requests import damaged_requests
from benchmarks.faults import damaged, good_pictures

pytest.importorskip("uvicorn")


def test_whatever_is_sent_the_server_answers_others_as_before(asked):
    found = damaged_requests(asked, good_pictures(), damaged, 300, seed=1)
    assert found["requests"] == 300 and not found["faults"], found
    assert not found["hung"] and not found["other_bits"] and not found["too_much_memory"], found
    assert {"200", "400", "413", "415", "422"} <= found["statuses"].keys(), found
