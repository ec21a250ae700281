"""Runs over an endpoint: what they file, how they go on, when they end, and what later commands make of them."""

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scoring.endpoint import run as endpoint_run
from scoring.endpoint.address import parse_address
from scoring.endpoint.errors import EndpointError
from scoring.endpoint.run import EndpointContext, EndpointOptions, score_endpoint
from scoring.errors import CallError
from scoring.inputs.orders import OrdersError
from scoring.inputs.questions import Question
from scoring.messages import silent
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.external import calibrate_file
from scoring.scores.folder import RunError, open_scores
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.pools import EnsembleError
from scoring.stats.sets import SetRequest, SetsError
from scoring.tables.table import Table
from tests.shared.endpoint_server import QUICK, Bar, Reply, answer_of, falling


def table_of(count: int = 12) -> Table:
    """Rows with the longest option as the answer of most, and one fault."""
    questions = [
        Question(
            f"id{n}", n + 1, (), f"Question {n}?", ("a", "bb", "ccc", "d" * (n % 5 + 1))[: 4 - n % 3], "abc"[n % 2]
        )
        for n in range(count)
    ]
    questions[3] = replace(questions[3], fault="row 4: no options", options=())
    return Table(Path("rows.csv"), "digest", questions)


@pytest.fixture
def score(tmp_path, serving):
    """Score a table by a server that replies in this way; the result, with the server."""

    def call(reply=falling, table=None, out="out", server=None, stop=None, **more):
        server = server or serving(reply)
        address = parse_address(server.url, more.pop("api", "decisions"))
        options = EndpointOptions(address, more.pop("model", "lab/small"), patience=QUICK, **more)
        bars = []
        context = EndpointContext(
            lambda *given: bars.append(Bar(*given)) or bars[-1], silent, stop or threading.Event()
        )
        result = score_endpoint(table or table_of(), tmp_path / out, options, context)
        return result, server, bars

    return call


def cells(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "probabilities.csv") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_a_folder_has_what_the_answers_say_and_what_they_took(score, tmp_path):
    result, server, [bar] = score(token="sk-secret-1", price=2.0)
    assert len(server.asked) == 11 and result.scored_now == 11 and (bar.total, bar.done) == (11, 11)
    assert bar.shown == {"cost": "0.00"}
    found = cells(tmp_path / "out")
    assert found["id3"]["status"] == "row 4: no options" and found["id3"]["pred"] == ""
    assert found["id0"]["status"] == "ok" and found["id0"]["label_mass"] == ""
    weights = np.array([2 + 1 / 7, 3, 4, 2])
    assert np.allclose([float(found["id0"][f"p_{letter}"]) for letter in "abcd"], weights / weights.sum(), atol=1e-6)
    assert found["id2"]["p_c"] == ""  # it has two options
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["checkpoints"][0]["member"] == "lab-small@127.0.0.1"
    assert about["usage"]["input_tokens"] == 1100 and about["usage"]["cost"] == pytest.approx(0.0022)
    assert any("more than 5 decimals" in note for note in about["notes"])
    assert any("cost 0.0022 at 2 a million" in note for note in result.notes)
    assert not any(b"sk-secret" in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())


def test_rows_that_get_no_answer_say_why_and_are_asked_again_by_the_same_call(score, tmp_path):
    bad = {
        "Question 0?": Reply({"error": {"message": "too long"}}, 400),
        "Question 1?": Reply({}, 503),
        "Question 2?": Reply(closes=True),
        "Question 4?": Reply({"answers": []}),
        "Question 5?": Reply(b"oops"),
        "Question 6?": Reply({"answers": [{"type": "refusal", "name": None}]}),
    }
    result, server, _ = score(lambda asked: bad.get(asked.body["input"]) or falling(asked))
    status = dict(zip(result.logits.ids, result.logits.status))
    told = [
        "HTTP 400 (too long)",
        "no answer after 4 tries: HTTP 503",
        "no answer after 4 tries: Remote",
        "a list of 0",
    ]
    told += ["in JSON", "refused"]
    assert all(text in status[f"id{number}"] for text, number in zip(told, (0, 1, 2, 4, 5, 6))), status
    assert result.logits.scored.sum() == 5 and any("no score" in text for text in result.warnings)
    server.asked.clear()
    bad.clear()
    again, _, [bar] = score(server=server)
    assert sorted(asked.body["input"] for asked in server.asked) == [f"Question {n}?" for n in (0, 1, 2, 4, 5, 6)]
    assert again.logits.scored.sum() == 11 and again.scored_now == 6 and (bar.total, bar.done) == (11, 11)
    assert cells(tmp_path / "out")["id1"]["status"] == "ok" and again.usage.requests == 13
    assert again.usage.input_tokens == 1100 and not any("more than one model" in note for note in again.notes)
    score(server=server)
    assert len(server.asked) == 6 and server.listed == 2  # nothing was left to ask


def test_a_stopped_run_files_what_was_answered_and_goes_on(score, serving, tmp_path, monkeypatch):
    monkeypatch.setattr(endpoint_run, "PART_ROWS", 2)
    stop = threading.Event()

    def reply(asked):
        if asked.number == 4:
            stop.set()
        return falling(asked)

    server = serving(reply)
    with pytest.raises(KeyboardInterrupt, match="5 of 11 rows asked"):
        score(server=server, stop=stop, concurrency=1, out="stopped")
    assert len(list((tmp_path / "stopped" / "logits").glob("part-*.parquet"))) == 3
    server.asked.clear()
    score(server=server, out="stopped")
    assert len(server.asked) == 6
    score(server=server, out="whole")
    for name in ("probabilities.csv", "submission.csv"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_folder_of_another_model_server_or_order_is_refused(score):
    _, server, _ = score()
    for changed in ({"model": "other"}, {"api": "systemone"}, {"orders": "cyclic"}, {"table": table_of(6)}):
        with pytest.raises(RunError, match="holds the results of another run"):
            score(server=server, **changed)
    result, _, _ = score(server=server, model="other", overwrite=True)
    assert result.logits.members == ["other@127.0.0.1"] and result.usage.requests == 11


def test_nothing_more_is_asked_where_row_after_row_gets_no_answer(score, tmp_path):
    with pytest.raises(EndpointError, match="20 rows one after the other have no answer, the last: HTTP 400"):
        score(lambda asked: Reply({"error": "no pictures"}, 400), table_of(100), concurrency=2)
    result, _, _ = score(lambda asked: falling(asked) if asked.number < 5 else Reply({}, 400), table_of(60), "rows")
    assert result.logits.scored.sum() == 5  # a server that answers may refuse rows
    with pytest.raises(EndpointError, match="no answer after 4 tries: HTTP 503"):
        score(lambda asked: falling(asked) if asked.number < 5 else Reply({}, 503), table_of(60), "down", concurrency=2)
    server = score(out="whole")[1]
    server.models = Reply({}, 401)
    with pytest.raises(EndpointError, match="the token is missing or wrong"):
        score(server=server, out="unasked")
    assert not list((tmp_path / "unasked" / "logits").iterdir())


def test_all_orders_are_pooled_and_both_interfaces_give_the_same(score, tmp_path):
    first, server, _ = score(orders="cyclic", out="decisions")
    second, _, _ = score(orders="cyclic", out="systemone", api="systemone")
    assert first.logits.logits.shape == (12, 1, 4, 4)
    assert np.array_equal(first.logits.logits, second.logits.logits, equal_nan=True)
    assert len(server.asked) == 11 and {len(asked.values) for asked in server.asked} == {2, 3, 4}


def test_later_commands_take_the_folder(score, tmp_path):
    table = table_of(60)
    score(table=table, out="first")
    score(
        lambda asked: Reply(answer_of(asked, [0.7, *[round(0.3 / (n := len(asked.values[0]) - 1), 2)] * n])),
        table,
        "second",
    )
    scores = open_scores(tmp_path / "first")
    assert evaluate_scores(scores)["overall"]["rows"] == 59
    fitted = calibrate_file(tmp_path / "first", tmp_path / "mine.json")
    assert list(fitted) == ["lab-small@127.0.0.1"]
    pooled = pool_files([tmp_path / "first", tmp_path / "second"], tmp_path / "pool", PoolOptions())
    assert pooled.scores.log_p.shape == (60, 4)
    result, server, _ = score(table=table, out="calibrated", calibration=tmp_path / "mine.json")
    about = json.loads((tmp_path / "calibrated" / "run.json").read_text())
    assert about["checkpoints"][0]["temperature"] == fitted["lab-small@127.0.0.1"].temperature != 1
    assert any("calibrat" in text for text in result.warnings)  # on these very rows
    with pytest.raises(EnsembleError, match="made for lab-small@127.0.0.1"):
        score(server=server, table=table, out="other", model="other", calibration=tmp_path / "mine.json")
    with pytest.raises(EnsembleError, match="orders"):
        score(server=server, table=table, out="other", orders="cyclic", calibration=tmp_path / "mine.json")


def test_a_low_label_mass_is_told_where_the_server_tells_it(score):
    def reply(mass):
        return lambda asked: Reply(answer_of(asked, [1.0, *[0.0] * (len(asked.values[0]) - 1)], label_mass=mass))

    assert any("low label mass: its 5th percentile is 0.50" in text for text in score(reply(0.5))[0].warnings)
    result, _, _ = score(reply(0.95), out="high")
    assert not any("label mass" in text for text in result.warnings)
    assert any("rounded to 1 decimal; " in note and "were 0, and became 1e-06" in note for note in result.notes)


def test_what_cannot_be_asked_is_refused_before_anything_is_asked(score, serving):
    server = serving()
    for orders in ("adaptive", "pride"):
        with pytest.raises(CallError, match="expected 1, cyclic, all or a number"):
            score(server=server, orders=orders)
    with pytest.raises(SetsError):
        score(server=server, sets=SetRequest(0.9))
    table = table_of()
    listing = replace(table.questions[0], question="Which?\na) a\nb) bb\nc) ccc\nd) d")
    with pytest.raises(OrdersError, match="list their options too"):
        score(server=server, table=replace(table, questions=[listing]), orders="cyclic")
    assert not server.asked and not server.listed
