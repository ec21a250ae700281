"""A row in all its orders, and several rows at a time."""

import threading
import time

import numpy as np
import pytest

from scoring.endpoint.asking import Asker, RowAnswer, Usage, ask_rows
from scoring.endpoint.errors import EndpointError, StoppedError
from scoring.endpoint.requests import Server
from scoring.inputs.questions import Question
from tests.shared.endpoint_server import Reply, answer_of

TEXTS = ("a", "bb", "cccc")


def row(options=TEXTS, **more):
    return Question("q", 1, more.pop("pictures", ()), "Which?", options, **more)


@pytest.mark.parametrize("api", ["decisions", "systemone"])
def test_all_orders_are_asked_at_once_and_its_numbers_are_those_of_the_datas_options(serving, client_of, api):
    server = serving()
    asker = Asker(client_of(server, api), Server(api, "small"), "cyclic")
    found = asker.ask(7, row())
    [asked] = server.asked
    assert asked.values == [["a", "bb", "cccc"], ["bb", "cccc", "a"], ["cccc", "a", "bb"]]
    weights = np.array([2 + 1 / 7, 3, 5])
    assert found.row == 7 and found.status == "ok" and np.isnan(found.label_mass).all()
    assert np.allclose(np.exp(found.logits), np.tile(weights / weights.sum(), (3, 1)))
    assert found.usage == Usage(1, 100, 0, {"small-1": 1})


def test_options_that_refer_to_each_other_are_asked_in_one_order(serving, client_of):
    server = serving()
    found = Asker(client_of(server), Server("decisions", "small"), "cyclic").ask(0, row(("x", "y", "both a and b")))
    assert found.logits.shape == (1, 3) and len(server.asked[0].values) == 1


def test_a_row_without_one_of_its_orders_has_no_score_and_what_it_took_is_counted(serving, client_of):
    server = serving(lambda asked: Reply(answer_of(asked, [0.2, 0.3, 0.5], [0.2, 0.3, 0.9], [0.2, 0.3, 0.5])))
    found = Asker(client_of(server), Server("decisions", "small"), "cyclic").ask(0, row())
    assert "the sum 1.4" in found.status and found.logits.size == 0 and not found.overloaded
    assert found.usage.requests == 1


def test_a_picture_that_cannot_be_read_is_told_and_not_asked_about(serving, client_of, tmp_path):
    server = serving()
    asker = Asker(client_of(server), Server("decisions", "small"), "1")
    broken = asker.ask(0, row(pictures=(b"no picture",)))
    lost = asker.ask(0, row(pictures=(tmp_path / "none.png",)))
    assert broken.status.startswith("picture: ") and "No such file" in lost.status and not server.asked


def test_costs_follow_from_tokens():
    usage = Usage(2, 500_000)
    usage.add(Usage(1, 0, 1, {"m": 1}))
    assert usage.cost(3.0) == 1.5 and usage.cost(None) is None and (usage.requests, usage.uncounted) == (3, 1)


def test_only_some_names_of_models_are_told_apart():
    usage = Usage()
    for number in range(30):
        usage.add(Usage(1, models={f"m{number}": 1}))
    usage.add(Usage(1, models={"m3": 1}))
    assert len(usage.models) == 21 and usage.models["others"] == 10 and usage.models["m3"] == 2


def answered(number: int) -> RowAnswer:
    return RowAnswer(number, np.zeros((1, 2)), np.zeros(1), "ok", False, Usage(), 0.0)


def test_so_many_rows_are_asked_at_a_time():
    lock, now, most = threading.Lock(), [0], [0]

    def ask(number, question):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return answered(number)

    found = {each.row for each in ask_rows(ask, [row()] * 20, range(0, 20, 2), 4, threading.Event())}
    assert found == set(range(0, 20, 2)) and most[0] == 4


def test_a_stop_lets_rows_that_were_begun_end():
    stop = threading.Event()

    def ask(number, question):
        if number == 5:
            stop.set()
        return answered(number)

    assert [each.row for each in ask_rows(ask, [row()] * 50, range(50), 1, stop)] == list(range(6))


def test_an_error_ends_all_and_a_row_that_was_not_asked_is_left_out():
    def ask(number, question):
        if number == 3:
            raise EndpointError("no token")
        if number == 1:
            raise StoppedError("stopped")
        return answered(number)

    with pytest.raises(EndpointError):
        list(ask_rows(ask, [row()] * 5, [0, 2, 3, 4], 2, threading.Event()))
    assert [each.row for each in ask_rows(ask, [row()] * 5, [0, 1, 2], 1, threading.Event())] == [0]


def test_a_label_mass_that_the_server_tells_is_kept(serving, client_of):
    server = serving(lambda asked: Reply(answer_of(asked, [0.5, 0.25, 0.25], label_mass=0.8)))
    found = Asker(client_of(server), Server("decisions", "small"), "1").ask(0, row())
    assert np.allclose(found.label_mass, [0.8])
