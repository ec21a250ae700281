"""Rows -> requests -> logits: each row in all its option orders, several rows at a time."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from scoring.endpoint.answers import read_answer, read_cost
from scoring.endpoint.client import Client
from scoring.endpoint.errors import NoAnswerError, StoppedError
from scoring.endpoint.pictures import encode_picture
from scoring.endpoint.requests import Server, body_of, word
from scoring.inputs.orders import orders_of
from scoring.inputs.pictures import PictureError
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.scores.logits import SCORED

MOST_MODELS, OTHERS = 20, "others"  # names of models that are told apart; and the name of the others


@dataclass
class Usage:
    """What answers took. requests: that were answered. uncounted: those whose tokens the server did not tell.

    models: how the server called the model that answered, with the number of its answers.
    """

    requests: int = 0
    input_tokens: int = 0
    uncounted: int = 0
    models: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Usage") -> None:
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.uncounted += other.uncounted
        for name, count in other.models.items():
            known = name in self.models or len(self.models) < MOST_MODELS
            self.models[name if known else OTHERS] = self.models.get(name if known else OTHERS, 0) + count

    def cost(self, price: float | None) -> float | None:
        """price: of a million input tokens; None: not known."""
        return None if price is None else self.input_tokens / 1e6 * price


@dataclass(eq=False)
class RowAnswer:
    """A row's (O, K) log-probabilities by the data's option, in its O orders and K options, and its (O,) label mass.

    Both are empty where `status` is not SCORED. overloaded: the server could not answer.
    """

    row: int
    logits: np.ndarray
    label_mass: np.ndarray
    status: str
    overloaded: bool
    usage: Usage
    seconds: float


class Asker:
    """Asks for one row after the other, in any thread. orders: see `option_orders`."""

    def __init__(self, client: Client, server: Server, orders: str):
        self.client, self.server, self.orders = client, server, orders

    def ask(self, row: int, question: Question) -> RowAnswer:
        """Raises EndpointError, or StoppedError once the run is to stop."""
        if self.client.stop.is_set():
            raise StoppedError("stopped")
        start, usage = time.monotonic(), Usage()
        logits: list[np.ndarray] = []
        masses: list[float] = []
        status, overloaded = SCORED, False
        try:
            pictures = [encode_picture(picture, question.limits) for picture in question.pictures]
            orders = orders_of(question, self.orders)
            asked = word(question, orders, pictures, self.server.is_ours)
            body = self.client.ask(body_of(asked, self.server, question))
            cost = read_cost(body)
            models = {cost.model: 1} if cost.model else {}
            usage = Usage(1, cost.input_tokens or 0, int(cost.input_tokens is None), models)
            for order, shown in zip(orders, read_answer(body, self.server.api, asked.orders)):
                logits.append(shown.log_probabilities[[order.index(letter) for letter in LETTERS[: len(order)]]])
                masses.append(shown.label_mass)
        except NoAnswerError as error:
            status, overloaded = str(error), error.overloaded
        except PictureError as error:
            status = f"picture: {error.found}"
        except OSError as error:
            status = f"picture: not readable ({error.strerror})"
        return RowAnswer(
            row,
            np.array(logits, np.float32).reshape(len(logits), len(question.options)),
            np.array(masses, np.float32),
            status,
            overloaded,
            usage,
            time.monotonic() - start,
        )


def ask_rows(
    ask: Callable[[int, Question], RowAnswer],
    questions: Sequence[Question],
    rows: Sequence[int],
    threads: int,
    stop: threading.Event,
) -> Generator[RowAnswer, None, None]:
    """The answers of these rows, as they come. Ends early, once `stop` is set, with the rows that were begun.

    Raises what `ask` raises, except StoppedError. Once it is closed, nobody waits for the requests that were begun.
    """
    left, turn, closed = iter(rows), threading.Lock(), threading.Event()
    results: queue.SimpleQueue[RowAnswer | BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            while not (stop.is_set() or closed.is_set()):
                with turn:
                    row = next(left, None)
                if row is None:
                    break
                results.put(ask(row, questions[row]))
        except StoppedError:
            pass
        except BaseException as error:  # raised again by the thread that waits
            results.put(error)
        results.put(None)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]  # the process need not wait for them
    for worker in workers:
        worker.start()
    try:
        working = threads
        while working:
            found = results.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                working -= 1
            else:
                yield found
    finally:
        closed.set()
