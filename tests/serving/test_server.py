"""Unmodified clients ask a running server about pictures, and get the probabilities that `score` gives."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import httpx2
import pytest

from scoring.errors import CallError
from scoring.inputs.pictures import PictureError
from scoring.serving.server import address_of, listen, warm_up
from scoring.serving.settings import ServeSettings
from tests.shared.serving import close_to, data_url, decision_of, running, running_server, system_of, without_hint

openai = pytest.importorskip("openai")


def test_openais_clients_get_what_score_gives(served, rows, scores):
    with openai.OpenAI(api_key="none", base_url=f"{served}/v1") as client:
        for row in rows:
            answer = client.decisions.create(**decision_of(row)).answers[0]
            assert [each.probability for each in answer.probabilities] == close_to(row, scores)
            assert answer.choice == max(zip(answer.probabilities, row.options), key=lambda p: p[0].probability)[1]
        assert [model.id for model in client.models.list()] == ["fold0", "other-name"]
        assert client.models.retrieve("other-name").owned_by == "logit-scoring"


def test_openais_asynchronous_client_asks_all_at_once(served, rows, scores):
    async def ask_all():
        async with openai.AsyncOpenAI(api_key="none", base_url=f"{served}/v1") as client:
            return await asyncio.gather(*(client.decisions.create(**decision_of(row)) for row in rows))

    for row, decision in zip(rows, asyncio.run(ask_all())):
        assert [each.probability for each in decision.answers[0].probabilities] == close_to(row, scores)


def test_langchains_decisions_get_what_score_gives(asked, served, rows):
    decisions = pytest.importorskip("langchain_openai.decisions")
    messages = pytest.importorskip("langchain_core.messages")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the class is in beta
        client = decisions.OpenAIDecisions(model="fold0", api_key="none", base_url=f"{served}/v1")
    row = without_hint(rows[0])
    content = [{"type": "image_url", "image_url": {"url": data_url(row.picture)}}]
    question = decisions.Choice(instructions=row.question, choices=dict.fromkeys(row.options))
    answer = client.invoke({"input": [messages.HumanMessage(content)], "questions": {"it": question}}).choices["it"]
    (expected,) = asked.score([row])
    assert answer.choice == row.options["abcd".index(expected.letter)]
    assert [answer.probabilities[option] for option in row.options] == pytest.approx(list(expected.values()), abs=1e-5)


def test_typesafes_client_gets_what_score_gives(asked, served, rows, scores):
    typesafe = pytest.importorskip("typesafe_sdk")
    with typesafe.TypeSafeClient(base_url=served, api_key="none") as client:
        for row in map(without_hint, rows[:3]):
            question = typesafe.Choice(instructions=row.question, criteria=dict.fromkeys(row.options))
            photo = {"photo": typesafe.Image(row.picture.read_bytes())}
            decision = client.system_one(model="fold0", state="photo", questions={"it": question}, assets=photo)
            (expected,) = asked.score([row])
            found = [decision.answers["it"].probabilities[option] for option in row.options]
            assert found == pytest.approx(list(expected.values()), abs=1e-5)
    found = httpx2.post(f"{served}/v1/systemone", json=system_of(rows[0])).json()["answers"]["it"]["probabilities"]
    assert list(found.values()) == close_to(rows[0], scores)


def test_64_clients_at_a_time_get_what_each_gets_alone(served, rows, scores):
    asked = (rows * 64)[:128]
    with httpx2.Client(base_url=served, timeout=60, limits=httpx2.Limits(max_connections=64)) as client:
        with ThreadPoolExecutor(64) as threads:
            answers = list(threads.map(lambda row: client.post("/v1/decisions", json=decision_of(row)), asked))
    for row, answer in zip(asked, answers):
        found = answer.json()["answers"][0]["probabilities"]
        assert [each["probability"] for each in found] == close_to(row, scores)


def test_a_client_that_goes_away_frees_its_work(asked, served, rows, monkeypatch):
    from scoring.engine.batch_scorer import BatchScorer

    begun, go_on, computed = Event(), Event(), []
    begin = BatchScorer.begin

    def slow(self, batch, *rest):
        computed.extend(question.question for question in batch.questions)
        begun.set()
        assert go_on.wait(20)
        return begin(self, batch, *rest)

    monkeypatch.setattr(BatchScorer, "begin", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(httpx2.post, f"{served}/v1/decisions", json=decision_of(rows[0]), timeout=30)
        assert begun.wait(20)
        with pytest.raises(httpx2.ReadTimeout):
            body = decision_of(replace(rows[1], question="Nobody waits for this."))
            httpx2.post(f"{served}/v1/decisions", json=body, timeout=0.3)
        deadline = time.monotonic() + 10
        while httpx2.get(f"{served}/health").json()["requests_in_progress"] > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        go_on.set()
        assert first.result(20).status_code == 200
    assert httpx2.post(f"{served}/v1/decisions", json=decision_of(rows[2]), timeout=30).status_code == 200
    assert computed == [rows[0].question, rows[2].question]


def test_a_port_or_host_that_cannot_be_had_is_refused_before_the_model_is_loaded():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CallError, match=f"127.0.0.1:{port}: .*; expected a free port"):
            listen(ServeSettings(("m",), port=port))
    with pytest.raises(CallError, match="expected an address of this machine"):
        listen(ServeSettings(("m",), host="no-such-host.invalid", without_token=True))
    with listen(ServeSettings(("m",), port=0, host="::1")) as bound:
        assert address_of(bound).startswith("http://[::1]:")


def test_the_first_question_is_asked_before_the_first_client_comes():
    calls = []

    class Blind:
        def ask(self, picture, *rest):
            calls.append(picture)
            if picture is not None:
                raise PictureError("a picture", "none", "leave it out")

    warm_up(Blind())
    assert len(calls) == 2 and calls[1] is None


def started(demo, log, *options):
    """The command `serve`, and its address once it answers."""
    command = [
        sys.executable,
        "cli.py",
        "serve",
        "--ckpt",
        str(demo / "checkpoints" / "fold0"),
        "--port",
        "0",
        *options,
    ]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=demo.parent, stdout=output, stderr=output)
    deadline = time.monotonic() + 120
    while " answers at " not in log.read_text() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    return process, log.read_text().partition(" answers at ")[2].split()[0]


def test_ctrl_c_answers_what_runs_and_ends(demo, rows, tmp_path):
    log = tmp_path / "log"
    process, address = started(demo, log, "--orders", "cyclic")
    try:
        body = decision_of(rows[0])
        body["questions"] *= 40
        with ThreadPoolExecutor(1) as threads, socket.create_connection(("127.0.0.1", int(address[-5:]))) as half:
            half.sendall(b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
            while httpx2.get(f"{address}/health").json()["requests_in_progress"] < 1:
                time.sleep(0.01)
            running = threads.submit(httpx2.post, f"{address}/v1/decisions", json=body, timeout=60)
            while httpx2.get(f"{address}/health").json()["requests_in_progress"] < 2:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert b"503" in half.recv(1000)  # its body never came
            assert running.result(60).status_code == 200
        assert process.wait(60) == 1, log.read_text()
        assert "ended; 1 request given up" in log.read_text() and "Traceback" not in log.read_text()
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"{address}/health")
    finally:
        process.kill()


def test_a_second_ctrl_c_gives_up_what_runs(asked, rows, monkeypatch):
    from scoring.engine.batch_scorer import BatchScorer

    begun, go_on = Event(), Event()
    begin = BatchScorer.begin

    def slow(self, batch, *rest):
        begun.set()
        assert go_on.wait(20)
        return begin(self, batch, *rest)

    monkeypatch.setattr(BatchScorer, "begin", slow)
    servers = []
    with ThreadPoolExecutor(2) as threads, running_server(asked, servers) as address:
        first = threads.submit(httpx2.post, f"{address}/v1/decisions", json=decision_of(rows[0]), timeout=30)
        assert begun.wait(20)
        second = threads.submit(httpx2.post, f"{address}/v1/decisions", json=decision_of(rows[1]), timeout=30)
        while httpx2.get(f"{address}/health").json()["requests_in_progress"] < 2:
            time.sleep(0.01)
        [server] = servers
        server.in_hand.drop()
        error = second.result(20)
        assert error.status_code == 503 and error.json()["error"]["code"] == "stopping"
        go_on.set()
        assert first.result(20).status_code == 200  # it was being computed
        assert server.in_hand.dropped == 1


def test_headers_must_arrive_in_time(asked, monkeypatch):
    from scoring.serving import server

    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    with running(asked) as address:
        for sent in (b"", b"GET /hea"):
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 10) as slow:
                slow.sendall(sent)
                assert slow.recv(10) == b""
        with httpx2.Client(base_url=address) as client:
            assert client.get("/health").status_code == 200
            time.sleep(0.3)  # an open connection may wait between two requests
            assert client.get("/health").status_code == 200
