"""Bodies that are too large, too slow, damaged or not what they say: refused by name, and nothing is held after."""

import asyncio
import gzip
import json
import random
import re
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request

from scoring.serving.bodies import Body, ByteBudget, parse_body, read_body
from scoring.serving.request import Limits, RequestError

USUAL = Limits()
SMALL = Limits(body_bytes=1_000, pictures=3)
MULTIPART = {"content-type": "multipart/form-data; boundary=bb"}
END = object()


def received(pieces: list[Any], limits: Limits = SMALL, most: int = 10_000, **headers: str) -> bytes:
    """A body that arrives in these pieces: bytes, seconds to wait, or END where the client goes away."""
    left = list(pieces)

    async def receive() -> dict[str, Any]:
        while left and isinstance(left[0], float):
            await asyncio.sleep(left.pop(0))
        if not left:
            return {"type": "http.request", "body": b"", "more_body": False}
        piece = left.pop(0)
        if piece is END:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": True}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": "POST", "headers": raw}, receive)
    budget = ByteBudget(most)

    async def read() -> bytes:
        with budget.lease() as lease:
            content = await read_body(request, limits, lease, seconds=0.05)
            assert budget.held == lease.held == len(content)
            return content

    try:
        return asyncio.run(read())
    finally:
        assert budget.held == 0


def parsed(content: bytes, limits: Limits = USUAL, most: int = 2**30, **headers: str) -> Body:
    budget = ByteBudget(most)
    try:
        with budget.lease() as lease:
            return parse_body(content, Headers({k.replace("_", "-"): v for k, v in headers.items()}), limits, lease)
    finally:
        assert budget.held == 0


def refusal(call: Callable[..., Any], *values: Any, **named: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        call(*values, **named)
    json.dumps(caught.value.body(), ensure_ascii=False).encode()
    return caught.value


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


# ---------------------------------------------------------------- reading
def test_a_body_comes_in_pieces_and_may_have_all_bytes_that_it_may_have():
    assert received([b"a" * 600, b"", b"b" * 400], content_length="1000") == b"a" * 600 + b"b" * 400
    assert received([]) == b""


@pytest.mark.parametrize(
    "pieces, headers, status, code",
    [
        ([END], {"content_length": "1001"}, 413, "request_too_large"),  # nothing is read
        ([END], {"content_length": "9" * 5_000}, 413, "request_too_large"),
        ([b"x" * 600, b"x" * 401, END], {}, 413, "request_too_large"),  # chunked
        ([b"x" * 600, b"x" * 600], {"content_length": "3"}, 413, "request_too_large"),
        ([b"x", 1.0], {"content_length": "3"}, 408, "request_timeout"),
        ([each for _ in range(99) for each in (b"x", 0.01)], {}, 408, "request_timeout"),  # a drop at a time
    ],
)
def test_a_body_that_is_too_large_or_slow_is_read_no_further(pieces, headers, status, code):
    error = refusal(received, pieces, **headers)
    assert (error.status, error.code) == (status, code)


def test_a_client_that_goes_away_leaves_nothing_held():
    with pytest.raises(ClientDisconnect):
        received([b"x" * 600, END])
    assert received([b"{}"], content_length="-1") == received([b"{}"], content_length="x") == b"{}"


def test_all_bodies_together_have_a_limit():
    error = refusal(received, [b"x" * 600], most=599)
    assert (error.status, error.code) == (429, "server_busy")
    budget = ByteBudget(10)
    with budget.lease() as first, budget.lease() as second:
        first.take(6)
        assert refusal(second.take, 5).status == 429
        second.take(4)
        assert budget.held == 10
    assert budget.held == 0


# ---------------------------------------------------------------- packed
@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), (" GZIP ", gzip.compress), ("zstd", zstd)])
def test_packed_bodies_are_unpacked(encoding, pack):
    assert parsed(pack(b'{"a": 1}'), content_encoding=encoding).content == {"a": 1}


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("zstd", zstd)])
def test_a_small_body_that_unpacks_to_a_large_one_takes_no_more_memory_than_it_may(encoding, pack):
    bomb = pack(b"0" * 50_000_000)
    tracemalloc.start()
    error = refusal(parsed, bomb, Limits(body_bytes=2_000_000), content_encoding=encoding)
    assert error.status == 413 and tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    assert refusal(parsed, bomb, most=2_000_000, content_encoding=encoding).status == 429  # it counts unpacked


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("zstd", zstd)])
def test_damaged_packing_is_refused(encoding, pack):
    good = pack(b'{"a": "' + bytes(random.Random(0).choices(b"abcdef", k=500)) + b'"}')
    for bad in (good[:-1], good[:9], good + b"more", b"{}", b"x" + good):
        assert refusal(parsed, bad, content_encoding=encoding).code == "invalid_encoding", bad[:20]
    assert refusal(parsed, b"", content_encoding=encoding).code == "invalid_json"
    error = refusal(parsed, b"{}", content_encoding="br")
    assert error.status == 415 and "expected gzip, zstd" in error.message


# ---------------------------------------------------------------- JSON
@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "the body is empty"),
        (b" \n", "the body is empty"),
        (b'{"a": 1', "no JSON"),
        (b"\xff\xfe\xfd", "no JSON"),
        (b'{"a": "\xff"}', "no JSON .*utf-8"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": [-Infinity]}', "-Infinity is no number"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"1" * 100_000, "too many digits"),
        (b'{"q": {"x": 1, "y": 2, "x": 3}}', "the field 'x' twice"),
    ],
)
def test_what_is_no_json_is_refused(content, told):
    error = refusal(parsed, content)
    assert (error.status, error.code) == (400, "invalid_json")
    assert re.search(told, error.message), error.message


def test_json_that_others_refuse_but_that_can_be_read_is_read():
    assert parsed(b'\xef\xbb\xbf{"\\ud800": 1e999}', content_type="Application/JSON; charset=x").content == {
        "\ud800": float("inf")
    }
    assert parsed(b"7").content == 7


def test_many_tiny_values_take_no_more_memory_than_they_may():
    start = time.monotonic()
    many = b"[" + b"[]," * 2_000_000 + b"1]"
    assert refusal(parsed, many).code == "request_too_large"
    assert refusal(parsed, many[:999_999] + b"1]", most=20_000_000).status == 429
    assert time.monotonic() - start < 5
    text = json.dumps({"text": ",[{" * 333_333}).encode()
    assert parsed(text).content == {"text": ",[{" * 333_333}  # the longest text that a request may have


def test_other_kinds_of_bodies_are_refused():
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=x", "\xff" * 500):
        error = refusal(parsed, b"{}", content_type=kind)
        assert error.status == 415 and "expected application/json" in error.message


# ---------------------------------------------------------------- multipart
def part(name: str, content: bytes, more: bytes = b"") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'.encode()
    return b"--bb\r\n" + disposition + more + b"\r\n\r\n" + content + b"\r\n"


REQUEST = part("request", b'{"a": 1}', b"\r\nContent-Type: application/json")


def multipart(content: bytes, kind: str = MULTIPART["content-type"], limits: Limits = SMALL, **named: Any) -> Body:
    return parsed(content, limits, content_type=kind, **named)


def test_parts_keep_their_bytes_whatever_they_are_said_to_be():
    content = bytes(range(256)) + b"\r\n--b\r\n--"
    files = part("p", content, b'; filename="x.png"') + part("é", content) + part("empty", b"")
    for kind in ("multipart/form-data; boundary=bb", 'Multipart/Form-Data; charset=punycode; boundary="bb"'):
        body = multipart(files + REQUEST + b"--bb--\r\n", kind)
        assert body == Body({"a": 1}, {"p": content, "é": content, "empty": b""})


@pytest.mark.parametrize(
    "content, told",
    [
        (REQUEST, "ends before its last boundary"),
        (REQUEST + part("p", b"x")[:-3], "ends before its last boundary"),
        (b"", "ends before"),
        (b"{}", "cannot be read"),
        (b"--xx" + REQUEST[4:] + b"--xx--", "cannot be read"),
        (part("p", b"x") + b"--bb--", "no part named request"),
        (REQUEST + REQUEST + b"--bb--", "two parts named 'request'"),
        (REQUEST + b"--bb\r\nContent-Type: x\r\n\r\nx\r\n--bb--", "has no name"),
        (REQUEST + b"--bb\r\nContent-Disposition: form-data\r\n\r\nx\r\n--bb--", "has no name"),
        (b"".join(part(str(number), b"") for number in range(5_000)), "more than 4 parts"),
        (part("p" * 5_000_000, b"x"), "header size"),
        (b"--bb\r\n" + b"x: y\r\n" * 500_000, "header count"),
        (b"--bb\r\n" + b"x" * 5_000_000, "cannot be read"),
        (part("request", b"{") + b"--bb--", "no JSON"),
    ],
)
def test_damaged_multipart_is_refused(content, told):
    start = time.monotonic()
    error = refusal(multipart, content)
    assert error.status == 400 and told in error.message and len(error.message) < 300, error.message
    assert time.monotonic() - start < 5


def test_boundaries_that_are_none_are_refused():
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "b" * 900):
        assert refusal(multipart, REQUEST, kind).code == "invalid_multipart"
    assert refusal(multipart, REQUEST, "multipart/form-data" + ';"' * 30_000).status == 415
    assert refusal(multipart, REQUEST + part("p", b"x" * 999), most=900).status == 429


def test_whatever_is_done_to_a_body_it_is_read_or_refused():
    chance = random.Random(3)
    good = [
        (b'{"a": ["b", {"c": 1.5e3}]}', {}),
        (gzip.compress(b'{"a": 1}', mtime=0), {"content_encoding": "gzip"}),
        (zstd(b'{"a": 1}'), {"content_encoding": "zstd"}),
        (REQUEST + part("p", b"\x89PNG\r\n") + b"--bb--\r\n", {"content_type": MULTIPART["content-type"]}),
    ]
    refused = 0
    for number in range(2_000):
        content, headers = good[number % len(good)]
        for _ in range(chance.randrange(1, 4)):
            start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
            more = chance.choice([b"", content[start:end] * 2, chance.randbytes(3), b"\r\n--bb", b'"', b"["])
            content = content[:start] + more + content[chance.choice([start, start + 1, end]) :]
        try:
            parsed(content, SMALL, **headers)
        except RequestError as error:
            assert error.status in (400, 413)
            refused += 1
    assert 1_000 < refused < 2_000
