"""Listens: everything that can be wrong is found before the model is loaded, and Ctrl-C answers what runs."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from scoring.errors import CallError, counted
from scoring.inputs.pictures import PictureError
from scoring.library.scorer import Scorer
from scoring.messages import Say
from scoring.serving.app import create_app
from scoring.serving.in_hand import InHand
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings

STOP_SECONDS = 30  # for requests in hand, once the server is to end; then they are given up
DROP_SECONDS = 30  # for the batches that are being computed then
HEADER_SECONDS = 20  # in which those of a request must arrive
KEEP_ALIVE = 75  # seconds that an idle connection stays open: longer than balancers keep theirs
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
        elsewhere = error.errno == errno.EADDRNOTAVAIL
        expected = "an address of this machine (--host)" if elsewhere else "a free port (--port; 0 for any)"
        raise CallError(f"{settings.host}:{settings.port}: {error.strerror}; expected {expected}") from None
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


class Connection(H11Protocol):
    """A connection on which the headers of a request must arrive in time."""

    _too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:  # a request has begun
            self._expect_nothing()
        elif self._too_late is None:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._too_late = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _expect_nothing(self) -> None:
        if self._too_late:
            self._too_late.cancel()
            self._too_late = None


class Server(uvicorn.Server):
    """Ends with Ctrl-C or SIGTERM once what it has in hand is answered, and with a second one before that."""

    in_hand: InHand

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of a signal. It is not raised again: who started the server goes on after it."""
        if self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self.in_hand.drop)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.in_hand.stop()
        drop = asyncio.get_running_loop().call_later(STOP_SECONDS, self.in_hand.drop)
        await super().shutdown(sockets)
        drop.cancel()


def make_server(scorer: Scorer, settings: ServeSettings) -> Server:
    """The server of a scorer; `run(sockets=[…])` ends once `should_exit` is set, or with Ctrl-C."""
    app = create_app(DecisionService(scorer, settings), settings)
    config = uvicorn.Config(
        app,
        http=Connection,  # h11 limits the size of headers; httptools does not
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=STOP_SECONDS + DROP_SECONDS,
        ws="none",
    )
    server = Server(config)
    server.in_hand = app.state.in_hand
    return server


def log_to_stderr() -> None:
    """Print what the library and the server log."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (("scoring", logging.INFO), ("uvicorn", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # damage is told to the client


def serve(load: Callable[[], Scorer], settings: ServeSettings, say: Say) -> int:
    """Load and listen until the process is to end; how many requests were given up for that.

    load: makes the scorer, which is closed afterwards.
    """
    log_to_stderr()
    with listen(settings) as bound, load() as scorer:
        warm_up(scorer)
        server = make_server(scorer, settings)
        bound.listen(BACKLOG)  # who asks once it is said waits, and is not refused
        names = " or ".join(dict.fromkeys(settings.names))
        say(f"{names} answers at {address_of(bound)} (Ctrl-C ends it)")
        server.run(sockets=[bound])
        dropped = server.in_hand.dropped
        say(f"ended; {counted(dropped, 'request')} given up" if dropped else "ended; all requests were answered")
        return dropped
