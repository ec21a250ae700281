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
from concurrent.futures import CancelledError, ThreadPoolExecutor
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
from scoring.serving.metrics import CONTENT_TYPE, ServerMetrics
from scoring.serving.request import AskedRequest, Limits, QuestionAnswer, RequestError, Usage
from scoring.serving.service import DecisionService
from scoring.serving.settings import ServeSettings

log = logging.getLogger("scoring")
RETRY_AFTER = 1  # seconds
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
        self.waiting = 0
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
        return JSONResponse({"status": "ok", "model": self.settings.name, "requests_in_progress": self.waiting})

    async def show_metrics(self, request: Request) -> Response:
        """For Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    # ------------------------------------------------------------ asking
    async def _decide(self, request: Request, interface: Interface) -> Response:
        if self.waiting >= self.settings.most_waiting:
            raise RequestError(429, f"{self.waiting} requests wait already; try again", code="server_busy")
        self.waiting += 1
        self.metrics.waiting.inc()
        try:
            with self.budget.lease() as lease:
                content = await read_body(request, self.settings.limits, lease, self.settings.body_seconds)
                sent, token = Sent(content, request.headers, lease), CancelToken()
                work = asyncio.get_running_loop().run_in_executor(self.threads, self._answer, interface, sent, token)
                return JSONResponse(await _unless_gone(request, work, token))
        finally:
            self.waiting -= 1
            self.metrics.waiting.dec()

    def _parsed(self, interface: Interface, sent: Sent) -> AskedRequest:
        """What is asked, without the many small objects of the body's JSON."""
        body = parse_body(sent.content, sent.headers, self.settings.limits, sent.lease)
        return interface.parse(body.content, self.settings.limits, body.parts)

    def _answer(self, interface: Interface, sent: Sent, token: CancelToken) -> dict[str, Any]:
        """In a thread: the body of the answer. Raises ClientDisconnect once the token is cancelled."""
        asked = self._parsed(interface, sent)
        self._check_model(asked.model)
        try:
            answers, usage = self.service.answer(asked, token)
        except CancelledError:
            raise ClientDisconnect from None
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

    def _check_token(self, request: Request) -> None:
        """Raises RequestError where a request does not carry the token."""
        if self.settings.token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        matches = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self.settings.token.encode())
        if scheme.casefold() != "bearer" or not matches:
            what = "the token is wrong" if given else "there is no token"
            raise RequestError(401, f"{what}; send it as Authorization: Bearer …", code="invalid_api_key")

    # ------------------------------------------------------------ around every route
    def guarded(self, route: str, handler: Handler, is_open: bool = False) -> Handler:
        """A handler whose errors are answers, with the token checked before, and counted. is_open: without a token."""

        async def answered(request: Request) -> Response:
            start, name = time.monotonic(), uuid.uuid4().hex
            status = NOBODY
            try:
                if not is_open:
                    self._check_token(request)
                response = await handler(request)
                status = response.status_code
            except Exception as error:
                response, status = _failed(error, name)
                error.__traceback__ = None  # leads to the body, and back to the error: both would stay
            finally:
                self.metrics.requests.labels(route, status).inc()
                self.metrics.seconds.labels(route).observe(time.monotonic() - start)
            response.headers["x-request-id"] = name
            response.headers["server"] = "logit-scoring"
            return response

        return answered


def _failed(error: Exception, name: str) -> tuple[Response, int]:
    """The response to an error of the request of this name, and the status that is counted."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=NOBODY), NOBODY
    if not isinstance(error, RequestError):
        log.error("request %s failed", name, exc_info=error)
        error = RequestError(500, f"the server failed; its log says why, at request {name}")
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
        added["retry-after"] = str(RETRY_AFTER)
    if error.status == 401:
        added["www-authenticate"] = "Bearer"
    return JSONResponse(error.body(), error.status, added)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    routes = "POST /v1/decisions, POST /v1/systemone, GET /v1/models, /health, /metrics"
    message = f"{request.method} {request.url.path[:200]}: {error.detail}; expected {routes}"
    return error_response(RequestError(error.status_code, message), error.headers)


def create_app(service: DecisionService, settings: ServeSettings) -> Starlette:
    """The server's application, for uvicorn or any other ASGI server."""
    api = Api(service, settings)

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
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # to an address that the request's own header names
    return app
