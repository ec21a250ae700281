"""Pictures are fetched from allowed hosts alone, never from a private network, and never for longer than allowed."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest

from scoring.serving.fetching import FetchedPictures, PictureFetcher, is_public
from scoring.serving.request import RequestError

PICTURE = bytes(range(256)) * 300
OK = b"HTTP/1.1 200 OK\r\n"


class Script(ThreadingTCPServer):
    """Sends each path's pieces: bytes, or seconds to wait between them."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Any]] = {}
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, *pieces: Any) -> str:
        self.answers[path] = list(pieces)
        return f"http://127.0.0.1:{self.port}{path}"

    def redirect(self, path: str, target: str) -> str:
        return self.url(path, f"HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n".encode("latin-1"))


class Handler(StreamRequestHandler):
    server: Script

    def handle(self) -> None:
        try:
            target = self.rfile.readline().split()[1].decode()
            self.server.asked.append(target)
            while self.rfile.readline().strip():
                pass
            for piece in self.server.answers[target]:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    self.wfile.write(piece)
        except (OSError, IndexError):
            pass  # the client is gone, as it should be


@pytest.fixture(scope="module")
def started() -> Iterator[Script]:
    with Script() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(started) -> Script:
    started.answers.clear()
    started.asked.clear()
    return started


@pytest.fixture
def fetcher(server) -> PictureFetcher:
    return PictureFetcher((f"127.0.0.1:{server.port}",), 100_000, private=True)


def refusal(fetcher: Any, url: str, status: int, told: str, **named: float) -> None:
    with pytest.raises(RequestError) as caught:
        fetcher.fetch(url, **named)
    assert (caught.value.status, caught.value.param) == (status, "image_url")
    assert told in caught.value.message and len(caught.value.message) < 500, caught.value.message


def leads_to(monkeypatch, *addresses: str) -> list[tuple[str, int]]:
    """Every host is at these addresses, and nothing can be connected to; where it was tried is listed."""
    tried: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> None:
        tried.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: found)
    monkeypatch.setattr(socket, "create_connection", connect)
    return tried


# ---------------------------------------------------------------- what is fetched
def test_a_picture_comes_whole_however_it_is_sent(server, fetcher):
    length = b"Content-Length: %d\r\n\r\n" % len(PICTURE)
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)
    for number, pieces in enumerate([(OK, length, PICTURE, 0.5), (OK, b"\r\n", PICTURE), (OK, chunked, 0.5)]):
        start = time.monotonic()
        assert fetcher.fetch(server.url(f"/{number}", *pieces)) == PICTURE
        assert time.monotonic() - start < 0.4  # it does not wait for the connection to end


def test_addresses_are_sent_as_servers_read_them(server, fetcher):
    server.url("/%C3%A4%20b?c=%EA%B0%80&d=%41", OK, b"\r\n", b"x")
    assert fetcher.fetch(f"HTTP://127.0.0.1:{server.port}/ä%20b?c=가&d=%41#e") == b"x"
    server.url("/?q", OK, b"\r\n", b"y")
    assert fetcher.fetch(f"http://127.0.0.1:{server.port}?q") == b"y"


def test_a_redirect_is_followed_to_the_same_host(server, fetcher):
    server.url("/end", OK, b"\r\n", b"x")
    assert fetcher.fetch(server.redirect("/a", "/end")) == b"x"
    assert fetcher.fetch(server.redirect("/b", f"http://127.0.0.1:{server.port}/a")) == b"x"
    refusal(fetcher, server.redirect("/loop", "/loop"), 424, "more than 3 redirects")
    assert server.asked.count("/loop") == 4


def test_a_picture_is_fetched_once_for_a_request_and_all_have_limits(server, fetcher):
    first, second = (server.url(f"/{name}", OK, b"\r\n", PICTURE) for name in "ab")
    pictures = FetchedPictures(fetcher, len(PICTURE) + 1, 5)
    assert pictures[first] is pictures[first] and server.asked == ["/a"]
    with pytest.raises(RequestError, match="the pictures at their addresses have more than 76,801 bytes"):
        pictures[second]
    start = time.monotonic()
    with pytest.raises(RequestError, match="it took more than"):
        FetchedPictures(fetcher, 10**6, 0.05)[server.url("/slow", OK, 0.4)]
    with pytest.raises(RequestError, match="the pictures at their addresses took more than 0 s"):
        FetchedPictures(fetcher, 10**6, 0)[first]
    assert time.monotonic() - start < 0.4


# ---------------------------------------------------------------- what is not
@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/x.png",
        "http://127.0.0.1/x.png",
        "http://127.0.0.1:{other}/x.png",
        "http://127.0.0.1.example.com:{port}/",
        "http://127.1:{port}/",
        "http://2130706433:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "ftp://127.0.0.1:{port}/",
        "ftp://allowed.example/x",
        "http://user:password@127.0.0.1:{port}/",
        "http://@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}@example.com/",
        "http://example.com\\@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@example.com/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http:///x",
        "http://",
        "x.png",
    ],
)
def test_nothing_is_fetched_from_elsewhere(server, fetcher, url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)  # is not looked up either
    url = url.format(port=server.port, other=server.port + 1)
    refusal(fetcher, url, 400, "send the picture as a data URL")


@pytest.mark.parametrize(
    "target, told",
    [
        ("http://example.com/", "sends us elsewhere"),
        ("http://127.0.0.1:{other}/end", "sends us elsewhere"),
        ("//example.com/", "sends us elsewhere"),
        ("https://example.com/", "sends us elsewhere"),
        ("http://localhost:{port}/end", "sends us elsewhere"),
        ("http://169.254.169.254/latest", "sends us elsewhere"),
        ("http://user@127.0.0.1:{port}/end", "not understood"),
        ("ftp://allowed.example/x", "not understood"),
        ("http://[", "not understood"),
        ("http://127.0.0.1:x/", "not understood"),
    ],
)
def test_a_redirect_to_elsewhere_is_not_followed(server, fetcher, target, told):
    server.url("/end", OK, b"\r\n", b"x")
    refusal(fetcher, server.redirect("/", target.format(port=server.port, other=server.port + 1)), 424, told)
    assert server.asked == ["/"]


def test_https_may_take_the_place_of_http_and_never_the_other_way_round(server, monkeypatch):
    fetcher = PictureFetcher(("h.example",), 10)
    went: list[str] = []

    def get(self: object, url: str, deadline: float) -> tuple[int, str | None, bytes]:
        went.append(url)
        return (301, "https://h.example/2", b"") if len(went) == 1 else (301, "http://h.example/3", b"")

    monkeypatch.setattr(PictureFetcher, "_get", get)
    refusal(fetcher, "http://h.example/1", 424, "sends us elsewhere")
    assert went == ["http://h.example/1", "https://h.example/2"]


def test_hosts_are_named_with_or_without_their_port(monkeypatch):
    tried = leads_to(monkeypatch, "93.184.215.14")
    fetcher = PictureFetcher(("A.example", "b.example:8443", "[2001:db8::1]:81"), 10)
    for url in ("http://a.EXAMPLE", "https://a.example:443/x", "http://b.example:8443/", "http://[2001:db8::1]:81/"):
        refusal(fetcher, url, 424, "Connection refused")
    assert [port for _, port in tried] == [80, 443, 8443, 81]
    for url in ("http://a.example:81/", "http://b.example/", "http://a.example./", "http://[2001:db8::1]/"):
        refusal(fetcher, url, 400, "allowed: [2001:db8::1]:81, a.example, b.example:8443")


# ---------------------------------------------------------------- private networks
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%1", "fc00::1", "fec0::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "::127.0.0.1"),
    ],
)
def test_a_host_in_a_private_network_is_not_connected_to(address, monkeypatch):
    assert not is_public(address)
    tried = leads_to(monkeypatch, address)
    refusal(PictureFetcher(("h.example",), 10), "http://h.example/", 424, "its address is in a private network")
    assert not tried


def test_public_addresses_are_tried_one_after_another(monkeypatch):
    public = ["2600::1", "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "1.1.1.1"]
    assert all(map(is_public, public))
    tried = leads_to(monkeypatch, "10.0.0.1", *public)
    refusal(PictureFetcher(("h.example",), 10), "http://h.example/", 424, "h.example could not be fetched: Connection")
    assert [address for address, _ in tried] == public[:3]


def test_a_host_that_is_nowhere_or_is_never_found_is_told(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **named: time.sleep(0.3))
    start = time.monotonic()
    refusal(PictureFetcher(("h.example",), 10), "http://h.example/", 424, "it took more than 0.05 s", seconds=0.05)
    assert time.monotonic() - start < 0.25

    def nowhere(*args: object, **named: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    refusal(PictureFetcher(("h.example",), 10), "http://h.example/", 424, "Name or service not known")


# ---------------------------------------------------------------- servers that misbehave
@pytest.mark.parametrize(
    "status, told", [(404, "answered 404"), (500, "answered 500"), (204, "answered 204"), (304, "answered 304")]
)
def test_other_statuses_are_told(server, fetcher, status, told):
    refusal(fetcher, server.url("/", f"HTTP/1.1 {status} X\r\n\r\n".encode()), 424, told)


def test_a_picture_that_is_too_large_is_left(server, fetcher):
    told = "more than 100,000 bytes"
    refusal(fetcher, server.url("/said", OK, b"Content-Length: 100001\r\n\r\n", 1.0), 413, told)
    refusal(fetcher, server.url("/unsaid", OK, b"\r\n", *[PICTURE] * 9), 413, told)
    chunks = [b"%x\r\n%s\r\n" % (len(PICTURE), PICTURE)] * 9
    refusal(fetcher, server.url("/chunks", OK, b"Transfer-Encoding: chunked\r\n\r\n", *chunks, 1.0), 413, told)
    exactly = server.url("/exactly", OK, b"Content-Length: 100000\r\n\r\n", b"x" * 100_000)
    assert len(fetcher.fetch(exactly)) == 100_000


DRIP = [each for _ in range(60) for each in (b"x", 0.02)]
HEADERS = [each for number in range(60) for each in (b"X-%d: x\r\n" % number, 0.02)]


@pytest.mark.parametrize(
    "pieces",
    [
        [1.0],
        DRIP,  # a status line
        [OK, *HEADERS],
        [OK, b"X: ", *DRIP],
        [OK, b"\r\n", *DRIP],
        [OK, b"Content-Length: 99\r\n\r\n", *DRIP],
        [OK, b"Transfer-Encoding: chunked\r\n\r\n", *[each for _ in range(60) for each in (b"1\r\nx\r\n", 0.02)]],
        [OK, b"Transfer-Encoding: chunked\r\n\r\n1;", *DRIP],
        [OK, b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *HEADERS],
        [each for _ in range(60) for each in (b"HTTP/1.1 100 Continue\r\n\r\n", 0.02)],
    ],
)
def test_a_server_that_sends_a_drop_at_a_time_is_left_in_time(server, fetcher, pieces):
    start = time.monotonic()
    refusal(fetcher, server.url("/", *pieces), 424, "it took more than 0.1 s", seconds=0.1)
    assert time.monotonic() - start < 0.5


@pytest.mark.parametrize(
    "pieces, told",
    [
        ([], "closed connection"),
        ([b"SSH-2.0-OpenSSH_9.2 secret\r\n"], "not understood (BadStatusLine)"),
        ([b"HTTP/1.1 abc\r\n\r\n"], "not understood"),
        ([OK, b"X: x\r\n" * 200], "not understood"),
        ([OK, b"x" * 100_000], "not understood (LineTooLong)"),
        ([OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], "not understood"),
        ([OK, b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"], "not understood"),
        ([OK, b"Content-Length: 5\r\n\r\nabc"], "it ended early"),
    ],
)
def test_answers_that_are_none_are_told_and_not_repeated(server, fetcher, pieces, told):
    with pytest.raises(RequestError) as caught:
        fetcher.fetch(server.url("/", *pieces))
    assert caught.value.status == 424 and told in caught.value.message and "secret" not in caught.value.message


def test_https_needs_a_server_that_speaks_it(server, fetcher):
    server.url("/", b"")
    refusal(fetcher, f"https://127.0.0.1:{server.port}/", 424, "could not be fetched", seconds=0.3)
    assert fetcher._context.verify_mode == ssl.CERT_REQUIRED and fetcher._context.check_hostname


def test_connections_are_closed_whatever_happens(server, fetcher, monkeypatch):
    made: list[socket.socket] = []
    connect = socket.create_connection

    def kept(*args: Any) -> socket.socket:
        made.append(connect(*args))
        return made[-1]

    monkeypatch.setattr(socket, "create_connection", kept)
    fetcher.fetch(server.url("/", OK, b"\r\n", b"x"))
    refusal(fetcher, server.url("/", b"?\r\n"), 424, "not understood")
    refusal(fetcher, server.url("/", 0.3), 424, "it took", seconds=0.02)
    assert [sock.fileno() for sock in made] == [-1, -1, -1]
