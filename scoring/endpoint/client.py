"""HTTP: one request and its answer, tried again where that can help.

Tried again are: no connection, a connection that breaks, no answer in time, and the statuses 408, 425, 429 and 500 to
599. Before each try the wait doubles, and `Retry-After` is obeyed, by all requests of the run. What would fail for
every row alike (a wrong token, model or route, no credit, an answer from elsewhere) ends the run.
"""

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx2

from scoring import __version__
from scoring.endpoint.address import Address
from scoring.endpoint.errors import EndpointError, NoAnswerError, StoppedError
from scoring.errors import counted

OURS = "logit-scoring"  # what our own server calls itself
LOOK = 0.25  # seconds between two looks whether to stop
LONGEST_WAIT = 60.0  # seconds between two tries, unless the server asks for more
LONGEST_ASKED = 600.0  # seconds that a server may ask to wait
MOST_BYTES = 4 * 2**20  # of an answer
LONGEST_MESSAGE = 300  # characters of what a server says
STARTING_RETRIES = 2  # of the first request: who misspelt an address should not wait long
AGAIN = {408, 425, 429}
FATAL = {
    401: "the token is missing or wrong; expected it in the environment (--token-env)",
    402: "the account has no credit",
    404: "there is no such model or route; expected a --model that the server has, and the right --api",
    405: "the route takes no questions; expected the right --endpoint and --api",
}
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass(frozen=True)
class Patience:
    """retries: after the first try. timeout: seconds of a try. wait: seconds before the first retry, then doubled."""

    retries: int = 5
    timeout: float = 60.0
    wait: float = 1.0


@dataclass(frozen=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The object that was sent; an empty one where it is none."""
        try:
            found = json.loads(self.content)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def error(self) -> dict[str, Any]:
        """The error object, or an empty one."""
        error = self.json.get("error", self.json)
        return error if isinstance(error, dict) else {"message": error}


class Client:
    """Asks one endpoint, from any thread. token: sent with each request, and shown in no message."""

    def __init__(
        self,
        address: Address,
        token: str | None = None,
        patience: Patience | None = None,
        connections: int = 8,
        stop: threading.Event | None = None,
    ):
        self.address, self._token = address, token
        self.patience, self.stop = patience or Patience(), stop or threading.Event()
        self._closed = False
        self._not_before = 0.0  # when the server allows the next request, by `time.monotonic`
        headers = {
            "user-agent": f"{OURS}/{__version__}",
            "accept": "application/json",
            "accept-encoding": "identity",
        }
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._http = httpx2.Client(
            headers=headers,
            timeout=self.patience.timeout,
            trust_env=not address.is_here,  # proxies
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self._closed = True  # requests of other threads end soon
        self._http.close()

    def is_ours(self) -> bool:
        """Whether this is our own server, by its list of models. Raises EndpointError where nobody answers there."""
        try:
            response = self._tried("GET", self.address.models, None, min(self.patience.retries, STARTING_RETRIES))
        except NoAnswerError as error:
            raise EndpointError(f"{self.address.models}: {error}; is the server running?") from None
        if response.status in (401, 402):
            self._refuse(response)
        if response.status != 200:
            return False
        listed = response.json.get("data")
        owners = [each.get("owned_by") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return OURS in (response.headers.get("server", "").lower(), *owners)

    def ask(self, body: dict[str, Any]) -> object:
        """The JSON that answers this body. Raises NoAnswerError, EndpointError, or StoppedError."""
        response = self._tried("POST", self.address.route, json.dumps(body).encode(), self.patience.retries)
        if response.status in FATAL or 300 <= response.status < 400:
            self._refuse(response)
        if response.status != 200:
            raise NoAnswerError(self._described(response))
        try:
            answer: object = json.loads(response.content)
        except (ValueError, RecursionError):
            found = self._shown(response.content) or "an empty answer"
            raise NoAnswerError(f"found {found}; expected an answer in JSON") from None
        return answer

    # ------------------------------------------------------------ tries
    def _tried(self, method: str, url: str, content: bytes | None, retries: int) -> _Response:
        """Any response but those after which another try can help."""
        for number in range(retries + 1):
            self._wait_until(self._not_before)
            asked = 0.0
            try:
                response = self._sent(method, url, content)
                if response.status not in AGAIN and response.status < 500:
                    return response
                if response.status == 429 and str(response.error.get("code")) in NO_CREDIT:
                    self._refuse(response)
                reason, asked = self._described(response), _retry_after(response.headers)
            except (httpx2.InvalidURL, UnicodeError) as error:
                raise EndpointError(f"{url}: {error}; expected the address of a server") from None
            except httpx2.TimeoutException:
                reason = f"no answer in {self.patience.timeout:g} s"
            except (httpx2.HTTPError, httpx2.StreamError) as error:
                reason = self._hidden(f"{type(error).__name__}: {error}".strip(": "))
            if asked > LONGEST_ASKED:
                raise NoAnswerError(f"{reason}; the server asks to wait {asked:,.0f} s", overloaded=True)
            if asked:
                self._not_before = max(self._not_before, time.monotonic() + asked)
            if number < retries:
                doubled = min(self.patience.wait * 2**number, LONGEST_WAIT)
                self._wait_until(time.monotonic() + doubled * random.uniform(0.5, 1))
        raise NoAnswerError(
            f"no answer after {counted(retries + 1, 'tr' + ('y' if not retries else 'ie'))}: {reason}", True
        )

    def _wait_until(self, moment: float) -> None:
        while True:
            left = moment - time.monotonic()
            if self.stop.wait(min(max(0.0, left), LOOK)) or self._closed:
                raise StoppedError("stopped")
            if left <= LOOK:
                return

    def _sent(self, method: str, url: str, content: bytes | None) -> _Response:
        """Raises httpx2's errors, also where all of an answer takes too long."""
        until = time.monotonic() + self.patience.timeout
        headers = {"content-type": "application/json"} if content is not None else {}
        with self._http.stream(method, url, content=content, headers=headers) as response:
            received = bytearray()
            for piece in response.iter_bytes():
                received += piece
                if len(received) > MOST_BYTES:
                    raise NoAnswerError(f"an answer of more than {MOST_BYTES:,} bytes; expected probabilities")
                if time.monotonic() > until:
                    raise httpx2.ReadTimeout("the answer comes too slowly")
            return _Response(response.status_code, response.headers, bytes(received))

    # ------------------------------------------------------------ what is told
    def _refuse(self, response: _Response) -> NoReturn:
        """Raises EndpointError: no row can be answered."""
        why = FATAL.get(response.status, "no row can be answered")
        if 300 <= response.status < 400:
            why = f"it leads to {self._shown(response.headers.get('location', '').encode())}; give that as --endpoint"
        raise EndpointError(f"{self.address.route}: {self._described(response)}: {why}")

    def _described(self, response: _Response) -> str:
        message = response.error.get("message") or response.error.get("detail") or response.content
        if not isinstance(message, str | bytes):
            message = json.dumps(message, ensure_ascii=False)
        told = self._shown(message if isinstance(message, bytes) else message.encode("utf-8", "replace"))
        return f"HTTP {response.status}" + (f" ({told})" if told else "")

    def _shown(self, content: bytes) -> str:
        """The beginning of what a server says, on one line."""
        text = " ".join(self._hidden(content[: 4 * LONGEST_MESSAGE].decode("utf-8", "replace")).split())
        text = "".join(sign if sign.isprintable() else "?" for sign in text)
        return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "…"

    def _hidden(self, text: str) -> str:
        """A text without the token."""
        return text.replace(self._token, "…") if self._token else text


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks to wait; 0 where it asks for none."""
    text = headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0
