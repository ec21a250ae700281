"""Listens: everything that can be wrong is found before the model is loaded, and Ctrl-C answers what runs."""

import logging
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from scoring.errors import CallError
from scoring.inputs.pictures import PictureError
from scoring.library.scorer import Scorer
from scoring.messages import Say
from scoring.serving.app import create_app
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings

STOP_SECONDS = 30  # for requests in hand, once the server is to end
BACKLOG = 2048


def listen(settings: ServeSettings) -> socket.socket:
    """A socket at the host and port, which nobody else has. Raises CallError."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise CallError(f"host {settings.host}: {error.strerror}; expected an address of this machine") from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise CallError(
            f"{settings.host}:{settings.port}: {error.strerror}; expected a free port (--port; 0 for any)"
        ) from None
    return bound


def address_of(bound: socket.socket) -> str:
    """Such as `http://127.0.0.1:8000`."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warm_up(scorer: Scorer) -> None:
    """Ask once, so that the first client waits for no kernel, and the comparison with the libraries is made."""
    from PIL import Image

    options = ("yes", "no")
    try:
        scorer.ask(Image.new("RGB", (448, 448), "gray"), "Is this a picture?", options)
    except PictureError:  # a base that sees none
        scorer.ask(None, "Is this a question?", options)


def make_server(scorer: Scorer, settings: ServeSettings) -> uvicorn.Server:
    """The server of a scorer; `run(sockets=[…])` ends once `should_exit` is set, or with Ctrl-C."""
    config = uvicorn.Config(
        create_app(DecisionService(scorer, settings), settings),
        http="h11",  # it limits the headers of a request; httptools does not
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=STOP_SECONDS,
        ws="none",
    )
    return uvicorn.Server(config)


def log_to_stderr() -> None:
    """Print what the library and the server log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("scoring", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damage is told to the client


def serve(load: Callable[[], Scorer], settings: ServeSettings, say: Say) -> None:
    """Load and listen until the process is to end. load: makes the scorer, which is closed afterwards."""
    log_to_stderr()
    with listen(settings) as bound, load() as scorer:
        warm_up(scorer)
        server = make_server(scorer, settings)
        bound.listen(BACKLOG)  # who asks once it is said waits, and is not refused
        say(f"{settings.name} answers at {address_of(bound)} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):  # raised again by uvicorn, once what ran is answered
            server.run(sockets=[bound])
        say("ended; all requests in hand were answered")
