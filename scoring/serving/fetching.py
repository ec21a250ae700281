"""Pictures that a request names by their address: fetched from hosts that the server's owner allowed, and no others.

The address is looked up once and the connection goes to what was found, so that a host cannot lead to a private
network. A redirect is followed to the same host alone.
"""

import http.client
import ipaddress
import socket
import ssl
import time
from urllib.parse import urljoin, urlsplit

from scoring.serving.request import RequestError

SECONDS = 15  # for one picture
REDIRECTS = 3
PIECE = 65_536


class PictureFetcher:
    """hosts: from which pictures may come, such as `images.example.com` or `images.example.com:8443`.

    private: allow addresses of private networks too, for tests.
    """

    def __init__(self, hosts: tuple[str, ...], most_bytes: int, private: bool = False):
        self.hosts = {host.casefold() for host in hosts}
        self.most_bytes, self.private = most_bytes, private

    def fetch(self, url: str) -> bytes:
        """The bytes of a picture. Raises RequestError: 400 where it may not be fetched, 424 where that fails."""
        deadline = time.monotonic() + SECONDS
        for _ in range(REDIRECTS + 1):
            self._check(url)
            try:
                status, location, content = self._get(url, deadline)
            except (OSError, http.client.HTTPException) as error:
                raise _failed(url, str(error) or type(error).__name__) from None
            if status in (301, 302, 303, 307, 308) and location:
                url = urljoin(url, location)
                continue
            if status != 200:
                raise _failed(url, f"its server answered {status}")
            return content
        raise _failed(url, f"more than {REDIRECTS} redirects")

    def _check(self, url: str) -> None:
        """Raises RequestError for an address from which nothing may be fetched."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").casefold(), parts.port
        except ValueError:
            raise RequestError(400, "image_url is no address; send the picture as a data URL") from None
        allowed = host in self.hosts and port in (None, 80, 443) or f"{host}:{port}" in self.hosts
        if parts.scheme not in ("http", "https") or parts.username or not allowed:
            named = ", ".join(sorted(self.hosts)) or "none"
            raise RequestError(
                400,
                f"pictures are not fetched from {host or 'there'} (allowed: {named}); send the picture as a data URL, "
                "such as data:image/png;base64,…",
                "image_url",
                "picture_not_fetched",
            )

    def _address(self, host: str, port: int) -> str:
        """The address of a host. Raises OSError where it is private."""
        found = [each[4][0] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        public = [str(address) for address in found if self.private or ipaddress.ip_address(address).is_global]
        if not public:
            raise OSError("its address is in a private network")
        return public[0]

    def _get(self, url: str, deadline: float) -> tuple[int, str | None, bytes]:
        """Status, target of a redirect, and content."""
        parts = urlsplit(url)
        host, secure = parts.hostname or "", parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
        plain = socket.create_connection((self._address(host, port), port), timeout=_left(deadline))
        connected = ssl.create_default_context().wrap_socket(plain, server_hostname=host) if secure else plain
        connection = http.client.HTTPConnection(host, port, timeout=_left(deadline))
        connection.sock = connected
        try:
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            response = connection.getresponse()
            content = bytearray()
            while response.status == 200 and (piece := response.read1(PIECE)):
                content += piece
                connected.settimeout(_left(deadline))
                if len(content) > self.most_bytes:
                    found = f"the picture at {host} has more than {self.most_bytes:,} bytes; send a smaller one"
                    raise RequestError(413, found, "image_url", "picture_too_large")
            return response.status, response.getheader("location"), bytes(content)
        finally:
            connection.close()


def _left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"it took more than {SECONDS} s")
    return left


def _failed(url: str, why: str) -> RequestError:
    host = urlsplit(url).hostname
    return RequestError(424, f"the picture at {host} could not be fetched: {why}", "image_url", "picture_not_fetched")
