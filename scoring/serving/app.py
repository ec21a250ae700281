"""The routes of the server: who may ask, how much at a time, and what an answer or an error looks like.

Reading and writing is done here, in one event loop; parsing and asking in threads. Nothing that a client sends, and no
row's fault, ends the server.
"""

import asyncio
import hmac
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from scoring import __version__
from scoring.library.ask_limits import CancelToken
from scoring.serving import decisions, systemone
from scoring.serving.bodies import ByteBudget, ByteLease, parse_body, read_body
from scoring.serving.in_hand import InHand
from scoring.serving.metrics import CONTENT_TYPE, ServerMetrics
from scoring.serving.request import AskedRequest, Limits, QuestionAnswer, RequestError, Usage
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings, is_loopback

log = logging.getLogger("scoring")
LOGGED = (401, 403, 422, 424, 503)  # statuses of which the log tells, beside failures
REQUEST_IDS = ("x-request-id", "x-typesafe-request-id")
NOBODY = 499  # the status of a request whose client went away, in the metrics alone

T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class Interface(Protocol):
    """A module that reads and writes the bodies of an API."""

    def parse(self, body: object, limits: Limits, parts: Mapping[str, bytes] | None = None) -> AskedRequest: ...

    def render(
        self, request: AskedRequest, answers: Sequence[QuestionAnswer], usage: Usage, model: str
    ) -> dict[str, Any]: ...


class Sent(NamedTuple):
    """A request's body as it was sent, its headers, and the bytes that it takes."""

    content: bytes
    headers: Headers
    lease: ByteLease


class Api:
    """Answers over HTTP with a `DecisionService`."""

    def __init__(self, service: DecisionService, settings: ServeSettings):
        self.service, self.settings = service, settings
        self.metrics = ServerMetrics()
        self.budget = ByteBudget(settings.most_bytes)
        self.in_hand = InHand(settings.most_waiting)
        self.metrics.waiting.set_function(lambda: self.in_hand.count)
        self.started = int(time.time())
        self.threads = ThreadPoolExecutor(settings.most_waiting, "scoring-request")

    # ------------------------------------------------------------ routes
    async def decisions(self, request: Request) -> Response:
        """OpenAI's `POST /v1/decisions`."""
        return await self._decide(request, decisions)

    async def systemone(self, request: Request) -> Response:
        """TypeSafe's `POST /v1/systemone`."""
        return await self._decide(request, systemone)

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`, as both of them list models."""
        day = time.strftime("%Y-%m-%d", time.gmtime(self.started))
        about = f"Answers by the logits of option letters; logit-scoring {__version__}"
        names = self.settings.names
        listed = [
            {"id": name, "object": "model", "created": self.started, "owned_by": "logit-scoring"} for name in names
        ]
        described = [{"name": name, "description": about, "release_date": day} for name in names]
        return JSONResponse({"object": "list", "data": listed, "models": described})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`."""
        self._check_model(name := request.path_params["name"])
        return JSONResponse({"id": name, "object": "model", "created": self.started, "owned_by": "logit-scoring"})

    async def health(self, request: Request) -> Response:
        """Whether the server answers, and how many requests it has in hand."""
        return JSONResponse({"status": "ok", "model": self.settings.name, "requests_in_progress": self.in_hand.count})

    async def show_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    # ------------------------------------------------------------ asking
    async def _decide(self, request: Request, interface: Interface) -> Response:
        with self.in_hand.request() as token, self.budget.lease() as lease:
            reading = read_body(request, self.settings.limits, lease, self.settings.body_seconds)
            sent = Sent(await self.in_hand.arriving(reading), request.headers, lease)
            work = asyncio.get_running_loop().run_in_executor(self.threads, self._answer, interface, sent, token)
            try:
                return JSONResponse(await _unless_gone(request, work, token))
            except asyncio.CancelledError:  # as the loop has that of the thread
                if not token.cancelled:
                    raise
                raise self.in_hand.given_up() or ClientDisconnect() from None

    def _parsed(self, interface: Interface, sent: Sent) -> AskedRequest:
        """What is asked, without the many small objects of the body's JSON."""
        body = parse_body(sent.content, sent.headers, self.settings.limits, sent.lease)
        return interface.parse(body.content, self.settings.limits, body.parts)

    def _answer(self, interface: Interface, sent: Sent, token: CancelToken) -> dict[str, Any]:
        """In a thread: the body of the answer. Raises `concurrent.futures.CancelledError` once it is withdrawn."""
        asked = self._parsed(interface, sent)
        self._check_model(asked.model)
        answers, usage = self.service.answer(asked, token)
        self._count(answers, usage.input_tokens)
        return interface.render(asked, answers, usage, self.settings.name)

    def _count(self, answers: list[QuestionAnswer], tokens: int) -> None:
        self.metrics.tokens.inc(tokens)
        for answered in (True, False):
            count = sum((answer.status == "ok") is answered for answer in answers)
            self.metrics.questions.labels("yes" if answered else "no").inc(count)

    def _check_model(self, name: str) -> None:
        if name not in self.settings.names:
            known = ", ".join(self.settings.names)
            raise RequestError(404, f"there is no model {name[:200]!r}; expected {known}", "model", "model_not_found")

    def _check_sender(self, request: Request) -> None:
        """Raises RequestError where a request does not carry the token, or comes by a name that is not this machine's.

        Without a token the loopback alone is trusted, and a web page could give it a name of its own.
        """
        if self.settings.token is None:
            if self.settings.without_token or is_loopback(request.url.hostname or ""):
                return
            found = f"this server is asked as {(request.url.hostname or '')[:80]!r}"
            raise RequestError(403, f"{found}; without a token it answers to 127.0.0.1 alone", code="wrong_host")
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer":
            what = "expected the token as Authorization: Bearer …"
            raise RequestError(401, f"there is no bearer token; {what}", code="invalid_api_key")
        if not hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.settings.token.encode()):
            raise RequestError(401, "the token is wrong", code="invalid_api_key")

    # ------------------------------------------------------------ around every route
    def guarded(self, route: str, handler: Handler, is_open: bool = False) -> Handler:
        """A handler whose errors are answers, with the token checked before, and counted. is_open: without a token."""

        async def answered(request: Request) -> Response:
            start, name = time.monotonic(), uuid.uuid4().hex
            status = NOBODY
            try:
                if not is_open:
                    self._check_sender(request)
                response = await handler(request)
                status = response.status_code
            except Exception as error:
                response, status = _failed(error, name, request)
                error.__traceback__ = None  # leads to the body, and back to the error: both would stay
            finally:
                self.metrics.requests.labels(route, status).inc()
                self.metrics.seconds.labels(route).observe(time.monotonic() - start)
            response.headers.update({"server": "logit-scoring"} | dict.fromkeys(REQUEST_IDS, name))
            return response

        return answered


def _failed(error: Exception, name: str, request: Request) -> tuple[Response, int]:
    """The response to an error of the request of this name, and the status that is counted."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=NOBODY), NOBODY
    if isinstance(error, HTTPException):
        routes = "POST /v1/decisions, POST /v1/systemone, GET /v1/models, /health, /metrics"
        found = f"{request.method} {request.url.path[:200]}: {error.detail}; expected {routes}"
        refused = RequestError(error.status_code, found, code="unknown_url")
        return error_response(refused, error.headers), error.status_code
    if not isinstance(error, RequestError):
        log.error("request %s failed", name, exc_info=error)
        error = RequestError(500, f"the server failed; its log says why, at request {name}")
    elif error.status in LOGGED:
        log.warning("request %s: %d %s", name, error.status, error.message.partition("\n")[0][:200])
    return error_response(error), error.status


async def _unless_gone(request: Request, work: asyncio.Future[T], token: CancelToken) -> T:
    """The result of work, which is withdrawn with the token once the client goes away."""
    gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())  # after the body, nothing else comes
    try:
        await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            token.cancel()
        return await work
    finally:
        gone.cancel()


def error_response(error: RequestError, headers: Mapping[str, str] | None = None) -> Response:
    """OpenAI's error object."""
    added = dict(headers or {})
    if error.status in (429, 503):
        added["retry-after"] = str(error.retry_after)
    if error.status == 401:
        added["www-authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, added)


def create_app(service: DecisionService, settings: ServeSettings) -> Starlette:
    """The server's application, for uvicorn or any other ASGI server."""
    api = Api(service, settings)

    async def no_route(request: Request, error: Exception) -> Response:
        async def refuse(_: Request) -> Response:
            raise error

        return await api.guarded("other", refuse, is_open=True)(request)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        yield
        api.threads.shutdown(wait=True)

    def route(path: str, handler: Handler, method: str = "GET", is_open: bool = False) -> Route:
        return Route(path, api.guarded(path, handler, is_open), methods=[method])

    app = Starlette(
        routes=[
            route("/v1/decisions", api.decisions, "POST"),
            route("/v1/systemone", api.systemone, "POST"),
            route("/v1/models", api.models),
            route("/v1/models/{name:path}", api.model),
            route("/health", api.health, is_open=True),
            route("/metrics", api.show_metrics),
        ],
        exception_handlers={HTTPException: no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # to an address that the request's own header names
    app.state.in_hand = api.in_hand
    return app
