"""Pictures that a request names by their address: fetched from hosts that the server's owner allowed, and no others.

The address is looked up once and the connection goes to what was found, so that a host cannot lead to a private
network. A redirect is followed to the same host alone. However slow a host is, a fetch ends in time.
"""

import http.client
import io
import ipaddress
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from scoring.serving.request import RequestError

SECONDS = 15  # for one picture
REDIRECTS = 3
PIECE = 65_536
PORTS = {"http": 80, "https": 443}
LOOKUPS = 16  # host names looked up at a time: that has no limit of time of its own
ADDRESSES = 3  # of a host that are tried
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
GLOBAL = ipaddress.IPv6Network("2000::/3")  # the only part of it whose addresses are given out
UNQUOTED = "/%:@!$&'()*+,;=~?"  # in paths and queries


class Origin(NamedTuple):
    """Where an address leads: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @property
    def names(self) -> set[str]:
        """What an owner may call it: a host, where the port is usual, or host:port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return {f"{host}:{self.port}"} | ({self.host, host} if self.port in PORTS.values() else set())


class PictureFetcher:
    """hosts: from which pictures may come, such as `images.example.com` or `images.example.com:8443`.

    private: allow addresses of private networks too, for tests.
    """

    def __init__(self, hosts: tuple[str, ...], most_bytes: int, private: bool = False):
        self.hosts = {host.casefold() for host in hosts}
        self.most_bytes, self.private = most_bytes, private
        self.lookups = ThreadPoolExecutor(LOOKUPS, "scoring-lookup")

    def fetch(self, url: str, seconds: float = SECONDS) -> bytes:
        """The bytes of a picture. Raises RequestError.

        Its status is 400 where the picture may not be fetched, 413 where it is too large, 424 where that fails.
        """
        deadline = time.monotonic() + seconds
        host = self._allowed(url).host
        try:
            for _ in range(REDIRECTS + 1):
                status, location, content = self._get(url, deadline)
                if status in (301, 302, 303, 307, 308) and location:
                    self._allowed(url := _redirected(url, location))
                    continue
                if status != 200:
                    raise OSError(f"its server answered {status}")
                return content
            raise OSError(f"more than {REDIRECTS} redirects")
        except RequestError:
            raise
        except TimeoutError:
            raise _failed(host, f"it took more than {seconds:.3g} s") from None
        except OSError as error:
            raise _failed(host, error.strerror or str(error) or type(error).__name__) from None
        except (http.client.HTTPException, ValueError) as error:  # whose messages tell what the server sent
            raise _failed(host, f"its server's answer is not understood ({type(error).__name__})") from None

    def _allowed(self, url: str) -> Origin:
        """Raises RequestError for an address from which nothing may be fetched."""
        try:
            origin = _origin(url)
        except ValueError:
            found = "image_url is no address of http or https; send the picture as a data URL"
            raise RequestError(400, found, "image_url", "picture_not_fetched") from None
        if not origin.names & self.hosts:
            named = ", ".join(sorted(self.hosts)) or "none"
            raise RequestError(
                400,
                f"pictures are not fetched from {origin.host[:200]}, port {origin.port} (allowed: {named}); send the "
                "picture as a data URL, such as data:image/png;base64,…",
                "image_url",
                "picture_not_fetched",
            )
        return origin

    def _connected(self, origin: Origin, deadline: float) -> socket.socket:
        """A connection to an address of the host that is in no private network. Raises OSError."""
        looked_up = self.lookups.submit(socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM)
        try:
            found = dict.fromkeys(str(each[4][0]) for each in looked_up.result(_left(deadline)))
        finally:
            looked_up.cancel()
        failed = OSError("its address is in a private network")
        for address in [each for each in found if self.private or is_public(each)][:ADDRESSES]:
            try:
                return socket.create_connection((address, origin.port), _left(deadline))
            except OSError as error:
                failed = error
        raise failed

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _secured(self, plain: socket.socket, origin: Origin) -> socket.socket:
        if origin.scheme == "http":
            return plain
        return self._context.wrap_socket(plain, server_hostname=origin.host)

    def _get(self, url: str, deadline: float) -> tuple[int, str | None, bytes]:
        """Status, target of a redirect, and content."""
        origin, parts = _origin(url), urlsplit(url)
        target = quote(f"{parts.path or '/'}{'?' * bool(parts.query)}{parts.query}", UNQUOTED)
        with self._connected(origin, deadline) as plain:
            plain.settimeout(_left(deadline))  # of the whole handshake
            with self._secured(plain, origin) as sock:
                connection = http.client.HTTPConnection(origin.host, origin.port)
                connection.sock = sock
                sock.settimeout(_left(deadline))  # of all that is sent
                connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "logit-scoring"})
                response = http.client.HTTPResponse(_Reading(sock, deadline), method="GET")  # type: ignore[arg-type]
                response.begin()
                content = self._content(response, origin) if response.status == 200 else b""
                return response.status, response.getheader("location"), content

    def _content(self, response: http.client.HTTPResponse, origin: Origin) -> bytes:
        content = bytearray()
        while (response.length or 0) + len(content) <= self.most_bytes:
            if not (piece := response.read1(PIECE)):
                if response.length:
                    raise OSError("it ended early")
                return bytes(content)
            content += piece
        found = f"the picture at {origin.host} has more than {self.most_bytes:,} bytes; send a smaller one"
        raise RequestError(413, found, "image_url", "picture_too_large")


class FetchedPictures:
    """The pictures of one request, each fetched once. most_bytes, seconds: for all of them together."""

    def __init__(self, fetcher: PictureFetcher, most_bytes: int, seconds: float):
        self.fetcher, self.most_bytes, self.seconds = fetcher, most_bytes, seconds
        self.deadline = time.monotonic() + seconds
        self.contents: dict[str, bytes] = {}

    def __getitem__(self, url: str) -> bytes:
        """Raises RequestError, as `fetch` does."""
        if url not in self.contents:
            if (left := self.deadline - time.monotonic()) <= 0:
                found = f"the pictures at their addresses took more than {self.seconds:g} s; send fewer"
                raise RequestError(424, found, "image_url", "picture_not_fetched")
            self.contents[url] = self.fetcher.fetch(url, min(SECONDS, left))
            if sum(map(len, self.contents.values())) > self.most_bytes:
                found = f"the pictures at their addresses have more than {self.most_bytes:,} bytes; send smaller ones"
                raise RequestError(413, found, "image_url", "request_too_large")
        return self.contents[url]


class _Reading(io.RawIOBase):
    """What a socket receives until a deadline: each read waits for what is left of the time, not for a time of its own.

    It is the file that `http.client` reads an answer from.
    """

    def __init__(self, sock: socket.socket, deadline: float):
        self.sock, self.deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self.sock.settimeout(_left(self.deadline))
        return self.sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, PIECE)


def is_public(address: str) -> bool:
    """Whether an address is in no private network, also not by way of a gateway to the older addresses.

    >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("64:ff9b::10.0.0.1")
    (True, False, False)
    """
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        return found in GLOBAL and found.is_global if inner is None else is_public(str(inner))
    return found.is_global and not found.is_multicast


def _origin(url: str) -> Origin:
    """Raises ValueError for what is no address of http or https, or has a name or password in it."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError(url)
    port = PORTS[parts.scheme] if parts.port is None else parts.port
    return Origin(parts.scheme, parts.hostname.casefold(), port)


def _redirected(url: str, location: str) -> str:
    """Where a redirect leads. Raises OSError for another host or port, but for https in place of http; ValueError."""
    target = urljoin(url, location)
    before, after = _origin(url), _origin(target)
    if after != before and after != Origin("https", before.host, 443 if before.port == 80 else before.port):
        raise OSError("its server sends us elsewhere; give the picture's own address")
    return target


def _left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _failed(host: str, why: str) -> RequestError:
    return RequestError(424, f"the picture at {host} could not be fetched: {why}", "image_url", "picture_not_fetched")
