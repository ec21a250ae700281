"""A server beside the local ways: its answers, its speed, and what it costs."""

import json

import pytest

from scoring.benchmark.asked import AskedServer, AskedWay
from scoring.benchmark.summary import Measurement, Repeat, summarise
from scoring.endpoint.address import parse_address
from scoring.endpoint.errors import EndpointError
from scoring.inputs.questions import Question
from scoring.report.tables import bench_tables, to_text
from tests.shared.endpoint_server import QUICK, Reply, endpoint_server, falling

ROWS = [Question(f"q{n}", n + 1, (), f"Question {n}?", ("a", "bbb", "cc"), "b") for n in range(4)]


def asked(server, **more):
    return AskedServer(parse_address(server.url, "decisions"), "small", patience=QUICK, **more)


def test_each_row_has_a_letter_probabilities_and_seconds_or_no_letter():
    def reply(got):
        return Reply({"error": {"message": "no"}}, 400) if got.body["input"] == "Question 2?" else falling(got)

    advanced = []
    with endpoint_server(reply) as server:
        way = AskedWay(asked(server, price=5.0))
        assert way.price_per_row is None
        timed = way.answer(ROWS, advanced.append)
    assert [answer.letter for answer in timed.answers] == ["b", "b", "", "b"] and sum(advanced) == 4
    weights = [2 + 1 / 7, 4, 3]
    assert timed.answers[0].p == pytest.approx([weight / sum(weights) for weight in weights])
    assert sum(timed.answers[0].p) == pytest.approx(1) and timed.answers[2].p is None
    assert len(timed.row_seconds) == 4 and timed.seconds is None
    assert way.price_per_row == pytest.approx(100 / 1e6 * 5)


def test_its_cost_is_that_of_its_tokens_and_not_of_this_machine():
    with endpoint_server() as server:
        way = AskedWay(asked(server, price=5.0, concurrency=3))
        timed = way.answer(ROWS, lambda rows: None)
    repeats = [Repeat(2.0, timed.row_seconds)]
    measured = Measurement(timed.answers, repeats, setup=way.setup, price_per_row=way.price_per_row)
    measured = {"engine": Measurement(timed.answers, repeats), "endpoint": measured}
    report = summarise(ROWS, measured, [], price=None, cost_rows=1_000_000)
    found = report["ways"]["endpoint"]
    assert found["cost"]["money"] == pytest.approx(500) and report["ways"]["engine"]["cost"]["money"] is None
    assert found["batch_rows"] == 3 and found["against_engine"]["differ"] == [] and "weights" not in found
    text = to_text(*bench_tables(report | {"price_per_hour": None}))
    assert "server over HTTP" in text and "3 rows" in text and "(500.00)" in text


def test_a_server_that_is_not_there_ends_the_benchmark():
    with endpoint_server() as server:
        gone = asked(server)
    with pytest.raises(EndpointError, match="is the server running"):
        AskedWay(gone).answer(ROWS, lambda rows: None)


def test_bench_measures_it_beside_the_ways_that_are_chosen(quick_cli, small_table, tmp_path):
    call = ["bench", small_table(3), "--ckpt", "demo/checkpoints/fold0", "--out", tmp_path / "b", "--repeats", 1]
    with endpoint_server() as server:
        call += ["--ways", "engine"]
        more = ["--endpoint", server.url, "--model", "lab/small", "--endpoint-price", "2"]
        done = quick_cli(*call, *more)
        assert len(server.asked) == 6  # three to warm up
    report = json.loads((tmp_path / "b" / "bench.json").read_text())
    assert list(report["ways"]) == ["engine", "endpoint"]
    assert report["endpoint"] == {"route": f"{server.url}/v1/decisions", "model": "lab/small", "concurrency": 8}
    assert report["ways"]["endpoint"]["cost"]["money"] == pytest.approx(20)
    assert "server over HTTP" in done.stdout and (tmp_path / "b" / "report.html").exists()
    assert "--model: for --endpoint" in quick_cli(*call, "--model", "x", check=2).stderr
    assert "Missing option '--model'" in quick_cli(*call, "--endpoint", server.url, check=2).stderr
