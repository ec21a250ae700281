"""A server as a way to answer: the rows of a benchmark over HTTP, some at a time, as `score` asks for them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scoring.benchmark.baselines import Advance
from scoring.benchmark.summary import Answer, BatchSize, TimedAnswers, WaySetup
from scoring.endpoint.address import Address
from scoring.endpoint.asking import Asker, RowAnswer, Usage, ask_rows
from scoring.endpoint.client import Client, Patience
from scoring.endpoint.requests import Server
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.stats.calibration import log_probabilities


@dataclass(frozen=True)
class AskedServer:
    """Who is asked, and how. price: of a million input tokens; None: not known."""

    address: Address
    model: str
    token: str | None = field(default=None, repr=False)
    concurrency: int = 8
    patience: Patience = Patience()
    price: float | None = None

    def about(self) -> dict[str, Any]:
        """What bench.json says of it."""
        return {"route": self.address.route, "model": self.model, "concurrency": self.concurrency}


class AskedWay:
    """Answers rows by asking a server. Raises EndpointError where no row can be answered."""

    def __init__(self, server: AskedServer):
        self.server = server
        self.usage = Usage()
        self.setup = WaySetup(batch=BatchSize(server.concurrency, {}))

    @property
    def price_per_row(self) -> float | None:
        """Of the rows that were answered so far; None where no price is known."""
        cost = self.usage.cost(self.server.price)
        return None if cost is None or not self.usage.requests else cost / self.usage.requests

    def answer(self, questions: Sequence[Question], advance: Advance) -> TimedAnswers:
        """A row without an answer has no letter; its seconds are those of all its tries."""
        asked = self.server
        found: dict[int, RowAnswer] = {}
        stop = threading.Event()
        with Client(asked.address, asked.token, asked.patience, asked.concurrency, stop) as client:
            server = Server(asked.address.api, asked.model, client.is_ours())
            ask = Asker(client, server, "1").ask
            for answer in ask_rows(ask, questions, range(len(questions)), asked.concurrency, stop):
                found[answer.row] = answer
                self.usage.add(answer.usage)
                advance(1)
        rows = [found[row] for row in range(len(questions))]
        return TimedAnswers([_answer(row) for row in rows], [row.seconds for row in rows])


def _answer(row: RowAnswer) -> Answer:
    if not row.logits.size:
        return Answer("")
    p = np.exp(log_probabilities(row.logits[0]))
    return Answer(LETTERS[int(p.argmax())], p=p.tolist())
