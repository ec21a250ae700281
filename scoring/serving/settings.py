"""How the server listens and what it allows, checked before a model is loaded."""

import ipaddress
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from scoring.errors import CallError
from scoring.serving.request import Limits

TOKEN_VARIABLE = "SCORING_TOKEN"
LOOPBACK = ("localhost",)
SHORTEST_TOKEN = 16  # characters
PACKAGES = {
    "starlette": "starlette",
    "uvicorn": "uvicorn",
    "prometheus-client": "prometheus_client",
    "python-multipart": "python_multipart",
}  # of the extra `serve`, and their modules


def require_packages() -> None:
    """Raises CallError where a package is not installed that the server needs."""
    if missing := [package for package, module in PACKAGES.items() if find_spec(module) is None]:
        raise CallError(f"`serve` needs {', '.join(missing)}: pip install 'logit-scoring[serve]'")


@dataclass(frozen=True)
class ServeSettings:
    """names: the model's name in answers, and others that requests may use. token: that every request must carry.

    limits: of one request. most_tokens: of one request, in all option orders. most_waiting: requests that are answered
    or wait at a time; the next gets 429. most_bytes: that their bodies may have together. fetch_from: hosts from which
    pictures may be fetched. body_seconds: in which a body must arrive.

    Raises CallError for a host that others can reach without a token, unless `without_token`, and for hosts to fetch
    from that are none.
    """

    names: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    without_token: bool = False
    limits: Limits = Limits()
    most_tokens: int = 262_144
    most_waiting: int = 256
    most_bytes: int = 2**30
    fetch_from: tuple[str, ...] = ()
    body_seconds: float = 60

    def __post_init__(self) -> None:
        if self.token is None and not self.without_token and not is_loopback(self.host):
            raise CallError(
                f"host {self.host}: others can reach it, and there is no token; expected 127.0.0.1, or a token in the "
                f"environment variable {TOKEN_VARIABLE} or in a file (--token-file), or --without-token"
            )
        if blank := [name for name in self.names if not name.strip()]:
            raise CallError(f"a model named {blank[0]!r}; expected a name that requests can have")
        for host in self.fetch_from:
            if not is_host(host):
                raise CallError(
                    f"pictures from {host!r}: no host; expected one alone, such as images.example.com, or with its "
                    "port, images.example.com:8443"
                )

    @property
    def name(self) -> str:
        """Of the model, in answers."""
        return self.names[0]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host's address.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
    (True, False)
    """
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.casefold() in LOOPBACK


def is_host(text: str) -> bool:
    """Whether a text is a host's name or address, with or without a port.

    >>> is_host("images.example.com:8443"), is_host("[::1]"), is_host("https://example.com"), is_host("*.example.com")
    (True, True, False, False)
    """
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.netloc == text and parts.port != 0 and not set(text) & set("@*\\ ")
    except ValueError:
        return False


def read_token(file: Path | None) -> str | None:
    """The token in a file, or else in the environment; None where there is none. Raises CallError."""
    if file is None:
        text, place = os.environ.get(TOKEN_VARIABLE, ""), f"the environment variable {TOKEN_VARIABLE}"
    else:
        place = str(file)
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CallError(f"{file}: cannot be read ({error}); expected a file with the token alone") from None
    token = text.strip()
    if not token and file is None:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise CallError(
            f"{place}: {len(token)} characters, or signs that no token has; expected a token of at least "
            f"{SHORTEST_TOKEN} letters and digits, such as `openssl rand -hex 24` prints"
        )
    return token
