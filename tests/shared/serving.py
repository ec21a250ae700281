"""A server for tests, and a table's rows as clients ask them."""

import base64
import json
import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from scoring.serving.request import AskedRequest, Limits, QuestionAnswer, RequestError, Usage
from tests.shared.broken_json import mutated


@contextmanager
def running_server(scorer: Any, servers: list[Any], **settings: Any) -> Iterator[str]:
    """The address of a server that answers until the end of the block; it is added to `servers`."""
    from scoring.serving.server import address_of, listen, make_server
    from scoring.serving.settings import ServeSettings

    chosen = ServeSettings(**{"names": ("fold0", "other-name"), "port": 0} | settings)
    with listen(chosen) as bound:
        server = make_server(scorer, chosen)
        servers.append(server)
        bound.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            yield address_of(bound)
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def running(scorer: Any, **settings: Any) -> AbstractContextManager[str]:
    """The address of a server that answers until the end of the block."""
    return running_server(scorer, [], **settings)


def data_url(picture) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(picture.read_bytes()).decode()


def decision_of(row) -> dict:
    """What a client of /v1/decisions asks for a row of a table."""
    picture = {"type": "input_image", "image_url": data_url(row.picture), "detail": "auto"}
    question = {
        "type": "choice",
        "instructions": row.question,
        "choices": [{"value": option} for option in row.options],
        "hint": row.task_hint,
        "task_type": row.task_type,
    }
    return {"model": "fold0", "input": [{"role": "user", "content": [picture]}], "questions": [question]}


def system_of(row) -> dict:
    """The same for /v1/systemone."""
    question = {
        "type": "choice",
        "instructions": row.question,
        "criteria": dict.fromkeys(row.options),
        "hint": row.task_hint,
        "task_type": row.task_type,
    }
    asset = {"type": "image", "format": "jpeg", "data_base64": data_url(row.picture).partition(",")[2]}
    return {"model": "fold0", "state": "PICTURE", "questions": {"it": question}, "assets": {"PICTURE": asset}}


def without_hint(row):
    """The row as clients ask it that know no hints."""
    return replace(row, task_hint="", task_type="")


def close_to(row, scores) -> list:
    """The probabilities that `score` gives a row's options, for a comparison."""
    expected = scores[row.id]
    return [pytest.approx(expected["abcd"[number]], abs=1e-5) for number in range(len(row.options))]


def kinds_of_damaged(interface: Any, given: Any) -> dict[type, int]:
    """How many of 3,000 damaged bodies are a request, whose answer can be sent, or an error that can be sent."""
    chance, kinds = random.Random(5), {AskedRequest: 0, RequestError: 0}
    for _ in range(3_000):
        try:
            asked = interface.parse(mutated(given, chance), Limits())
        except RequestError as error:
            json.dumps(error.body(), ensure_ascii=False).encode()
            kinds[RequestError] += 1
        else:
            answers = [QuestionAnswer((1 / len(each.options),) * len(each.options), 1, 0) for each in asked.questions]
            json.dumps(interface.render(asked, answers, Usage(0), "m"), allow_nan=False, ensure_ascii=False).encode()
            kinds[AskedRequest] += 1
    return kinds
