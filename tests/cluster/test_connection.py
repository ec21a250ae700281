"""Which cluster is found, what it has room for, and what is said where there is none."""

import logging
import os
import signal
import socket
import time

import pytest
import ray

from scoring.cluster import connection
from scoring.cluster.connection import ClusterError, Room, connected, environment
from scoring.errors import CallError
from tests.shared.ray_clusters import ray_folder


@pytest.fixture(scope="module", autouse=True)
def folder():
    with ray_folder() as folder:
        yield folder
        ray.shutdown()


def test_one_is_started_here_and_ended_and_leaves_our_signals_alone(capfd):
    said, before = [], signal.getsignal(signal.SIGTERM)
    with connected(None, said.append):
        assert said == [f"Ray: 1 node, 0 cards, {os.cpu_count()} cores"]
        assert Room.of_cluster() == Room((os.cpu_count(),), 0)
        assert signal.getsignal(signal.SIGTERM) is before
        with connected("10.0.0.1:6379", said.append):  # the program's own is taken
            pass
        assert ray.is_initialized() and len(said) == 1
    assert not ray.is_initialized() and signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().err == ""


def test_an_address_where_nobody_answers_is_told_at_once(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        for given in (address, f"ray://{address}"):
            with pytest.raises(ClusterError, match=r"refused; expected a running Ray cluster \(`ray status` tells\)"):
                connected(given, print).__enter__()
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ClusterError, match=address):
            connected(None, print).__enter__()
        assert time.monotonic() - start < 5
    with pytest.raises(ClusterError, match=r"^nonsense: Invalid address format"):
        connected("nonsense", print).__enter__()
    with pytest.raises(ClusterError, match=r"^127.0.0.1:99999999: "):
        connected("127.0.0.1:99999999", print).__enter__()


def test_without_ray_it_is_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(connection, "find_spec", lambda name: None)
    with pytest.raises(CallError, match=r"pip install 'logit-scoring\[ray\]'"):
        connected(None, print).__enter__()


@pytest.mark.parametrize(
    "cores, actors, share",
    [
        ((2.0,), 1, 2.0),
        ((2.0,), 2, 1.0),
        ((2.0,), 3, 0.5),
        ((2.0, 2.0), 1, 2.0),  # an actor is on one node
        ((8.0, 2.0), 2, 4.0),
        ((0.0, 3.0, 3.0), 2, 3.0),  # a head without cores
        ((1.0, 2.0), 4, 0.5),
        ((0.0,), 1, 0.0),
        ((), 2, 0.0),
    ],
)
def test_so_many_actors_find_room_on_the_nodes(cores, actors, share):
    found = Room(cores, 0).share(actors)
    assert found == share and (not found or sum(int(node / found) for node in cores) >= actors)


def test_actors_take_over_what_the_bits_depend_on(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "AUTO,STRICT")
    monkeypatch.setenv("SCORING_TOKEN", "secret")
    assert environment()["MKL_CBWR"] == "AUTO,STRICT" and "SCORING_TOKEN" not in environment()
    assert logging.getLogger("ray").level <= logging.ERROR
