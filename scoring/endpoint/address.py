"""Where an endpoint is: the address that a user gives, and the routes that follow from it."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from scoring.errors import CallError, quoted

Api = Literal["decisions", "systemone"]
APIS: tuple[Api, ...] = ("decisions", "systemone")
VERSION = re.compile(r"/v\d+\w*$")


@dataclass(frozen=True)
class Address:
    """route: to which questions are sent. models: where the server lists its models. host: without the port."""

    api: Api
    route: str
    models: str
    host: str

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def member(self, model: str) -> str:
        """What results call a model there, also as the name of a file.

        >>> parse_address("https://api.example.com/v1", "decisions").member("lab/small")
        'lab-small@api.example.com'
        """
        return re.sub(r"[^\w.@-]+", "-", f"{model}@{self.host}")


def parse_address(url: str, api: Api) -> Address:
    """An endpoint's address: a server (`http://127.0.0.1:8000`), its version (…/v1), or the route itself (…/decisions).

    Raises CallError for what is no such address, and for one that holds a password or key: results record it.

    >>> parse_address("http://127.0.0.1:8000", "decisions").route
    'http://127.0.0.1:8000/v1/decisions'
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise CallError(f"--endpoint {quoted(url)}: {error}; expected such as http://127.0.0.1:8000") from None
    if parts.username is not None or parts.password is not None:
        raise CallError(
            "--endpoint holds a user or a password, which the results would record; leave it out, and put a token into "
            "the environment (--token-env)"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url.strip():
        raise CallError(f"--endpoint {quoted(url)}: expected an address such as http://127.0.0.1:8000")
    if parts.query or parts.fragment:
        raise CallError(
            "--endpoint holds a query (after ? or #), which the results would record; expected an address without one"
        )
    path = parts.path.rstrip("/")
    if path.endswith(tuple(f"/{name}" for name in APIS)):
        path, _, named = path.rpartition("/")
        if named != api:
            raise CallError(f"--endpoint ends with {named}, but --api is {api}; expected one of them twice")
    elif not VERSION.search(path):
        path += "/v1"
    route, models = (urlunsplit((parts.scheme, parts.netloc, f"{path}/{name}", "", "")) for name in (api, "models"))
    return Address(api, route, models, host)
