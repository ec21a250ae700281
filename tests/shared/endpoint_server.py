"""A small server with both decisions APIs, on the loopback, which answers well or as badly as a test wants."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from scoring.endpoint.client import Patience

QUICK = Patience(retries=3, timeout=5, wait=0.01)


@dataclass
class Reply:
    """What the server does. body: bytes, or JSON. seconds: before it answers. closes: in place of an answer."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    closes: bool = False


@dataclass
class Asked:
    """A request as it came. number: from 0."""

    number: int
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def questions(self) -> dict[str, dict[str, Any]]:
        """By their names, in their order."""
        questions = self.body["questions"]
        return questions if isinstance(questions, dict) else {each.get("name"): each for each in questions}

    @property
    def values(self) -> list[list[str]]:
        """Of the choices of each question, in their order."""
        return [
            list(each["criteria"]) if "criteria" in each else [choice["value"] for choice in each["choices"]]
            for each in self.questions.values()
        ]


def answer_of(asked: Asked, *probabilities: list[float], **more: Any) -> dict[str, Any]:
    """The body of a good answer: for each question probabilities in the order of its choices, or the same for all.

    more: fields of each answer.
    """
    answers: dict[str, Any] = {}
    all_values = asked.values
    for number, (name, values) in enumerate(zip(asked.questions, all_values)):
        pairs = list(zip(values, probabilities[number % len(probabilities)], strict=True))
        best = max(pairs, key=lambda pair: pair[1])[0]
        listed: Any = [{"value": value, "probability": number} for value, number in pairs]
        if isinstance(asked.body["questions"], dict):
            listed = dict(pairs)
        answers[name] = {"type": "choice", "choice": best, "confidence": 0.5, "probabilities": listed, **more}
    if not isinstance(asked.body["questions"], dict):
        answers = [{"name": name, **answer} for name, answer in answers.items()]  # type: ignore[assignment]
    return {"model": "small-1", "answers": answers, "usage": {"input_tokens": 100, "output_tokens": 0}}


def falling(asked: Asked) -> Reply:
    """Probabilities that follow from the texts of the choices, whatever their order: the longer, the likelier."""
    weights = [[1.0 + len(value) + value.count("a") / 7 for value in values] for values in asked.values]
    return Reply(answer_of(asked, *([weight / sum(each) for weight in each] for each in weights)))


class EndpointServer:
    """Running. url: of the server. asked: every question so far. models: the reply to GET /v1/models."""

    def __init__(self, url: str):
        self.url = url
        self.asked: list[Asked] = []
        self.models = Reply({"error": {"message": "no such route"}}, 404)
        self.listed = 0  # times that the models were asked for


@contextmanager
def endpoint_server(reply: Callable[[Asked], Reply] = falling) -> Iterator[EndpointServer]:
    """Inside, a server answers each question by `reply`."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        wbufsize = -1  # one packet an answer
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.listed += 1
            self._send(found.models)

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            with lock:
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(len(found.asked), self.path, headers, json.loads(content))
                found.asked.append(asked)
            self._send(reply(asked))

        def _send(self, told: Reply) -> None:
            time.sleep(told.seconds)
            if told.closes:
                self.close_connection = True
                self.connection.close()
                return
            content = told.body if isinstance(told.body, bytes) else json.dumps(told.body).encode()
            self.send_response_only(told.status)
            for name, value in ({"content-length": str(len(content))} | told.headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            with suppress(OSError, ValueError):  # the client, or `closes`, has closed the connection
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        found = EndpointServer(f"http://127.0.0.1:{server.server_port}")
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


class Bar:
    """A progress bar that is seen by nobody."""

    def __init__(self, total, done=0):
        self.total, self.done, self.shown = total, done, {}

    def update(self, count):
        self.done += count

    def show(self, **values):
        self.shown = values

    def close(self):
        pass
