"""The body of a request: read within limits, unpacked, and parsed, whatever was sent. Raises RequestError."""

import asyncio
import json
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import pyarrow as pa
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.requests import Request

from scoring.serving.request import Limits, RequestError

PACKED = {"gzip": "gzip", "zstd": "zstd"}  # Content-Encoding -> pyarrow's name
PIECE = 2**20  # bytes that are unpacked at a time
LONGEST_TYPE = 1_000  # characters of Content-Type
SHAPE = b",[{"  # one of these begins every value of JSON but the first; commas of texts count too
MOST_SHAPE = 500_000  # of them, beside those of texts
VALUE_BYTES = 64  # in memory, at least


class Body(NamedTuple):
    """What was sent: JSON, and the parts of a multipart body by name."""

    content: object
    parts: Mapping[str, bytes]


class ByteBudget:
    """Bytes that all requests in hand may take together."""

    def __init__(self, most: int):
        self.most, self.held = most, 0
        self._lock = threading.Lock()

    def lease(self) -> "ByteLease":
        """One request's share, which is given back with the end of a `with` block."""
        return ByteLease(self)

    def add(self, count: int) -> None:
        """Raises RequestError where there are too many; may be called from any thread."""
        with self._lock:
            if self.held + count > self.most:
                raise RequestError(429, "the server holds too many large requests; try again", code="server_busy")
            self.held += count


class ByteLease:
    """What one request takes of a `ByteBudget`."""

    def __init__(self, budget: ByteBudget):
        self.budget, self.held = budget, 0

    def take(self, count: int) -> None:
        """Raises RequestError where all requests together would take too many."""
        self.budget.add(count)
        self.held += count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.budget.add(-self.held)
        self.held = 0


async def read_body(request: Request, limits: Limits, lease: ByteLease, seconds: float) -> bytes:
    """The bytes of the body, as they were sent. Raises RequestError 408, 413 and 429, and ClientDisconnect."""
    length = request.headers.get("content-length", "").lstrip("0")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.body_bytes):
        raise _too_large(limits)
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                if len(content) + len(piece) > limits.body_bytes:
                    raise _too_large(limits)
                lease.take(len(piece))
                content += piece
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {seconds:g} s", code="request_timeout") from None
    return bytes(content)


def _too_large(limits: Limits) -> RequestError:
    expected = f"the body has more than {limits.body_bytes:,} bytes; send fewer or smaller pictures"
    return RequestError(413, expected, code="request_too_large")


def parse_body(content: bytes, headers: Headers, limits: Limits, lease: ByteLease) -> Body:
    """JSON, also packed, or a multipart body whose part `request` is JSON."""
    content = _unpacked(content, headers.get("content-encoding", "identity").strip().casefold(), limits, lease)
    kind = headers.get("content-type", "")
    name = kind.split(";")[0].strip().casefold()
    if name == "multipart/form-data" and len(kind) <= LONGEST_TYPE:
        parts = _parts(content, kind, limits, lease)
        if "request" not in parts:
            raise RequestError(400, "the multipart body has no part named request, which holds the JSON", "request")
        return Body(_parsed(parts.pop("request"), limits, lease), parts)
    if name not in ("application/json", ""):
        raise RequestError(415, f"the body is {kind[:80]!r}; expected application/json", code="unsupported_media_type")
    return Body(_parsed(content, limits, lease), {})


def _unpacked(content: bytes, encoding: str, limits: Limits, lease: ByteLease) -> bytes:
    if encoding in ("", "identity"):
        return content
    if encoding not in PACKED:
        known = ", ".join(PACKED)
        found = f"the body's encoding is {encoding[:80]!r}; expected {known}, or none"
        raise RequestError(415, found, code="unsupported_media_type")
    plain = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), PACKED[encoding]) as stream:
            while piece := stream.read(PIECE):
                if len(plain) + len(piece) > limits.body_bytes:
                    raise _too_large(limits)
                lease.take(len(piece))
                plain += piece
    except RequestError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        found = f"the body cannot be unpacked as {encoding} ({error})"
        raise RequestError(400, found, code="invalid_encoding") from None
    return bytes(plain)


# ---------------------------------------------------------------- JSON
def _parsed(content: bytes, limits: Limits, lease: ByteLease) -> object:
    if not content.strip():
        raise _no_json("the body is empty; expected a JSON object")
    values, most = sum(content.count(sign) for sign in SHAPE), limits.text_chars + MOST_SHAPE
    if values > most:
        found = f"the JSON has up to {values:,} values; expected at most {most:,}"
        raise RequestError(413, found, code="request_too_large")
    lease.take(values * VALUE_BYTES)
    try:
        return json.loads(content, object_pairs_hook=_object, parse_constant=_no_number)
    except RequestError:
        raise
    except RecursionError:
        raise _no_json("the body's JSON is nested too deeply") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _no_json(f"the body is no JSON ({error})") from None
    except ValueError:  # Python's limit for integers
        raise _no_json("the body's JSON has a number of too many digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise _no_json(f"an object of the body's JSON has the field {twice[:80]!r} twice; remove one of the two")
    return found


def _no_number(name: str) -> object:
    raise _no_json(f"the body is no JSON ({name} is no number in JSON)")


def _no_json(message: str) -> RequestError:
    return RequestError(400, message, code="invalid_json")


# ---------------------------------------------------------------- multipart
class _PartReader:
    """Collects the parts of a multipart body as its parser comes to them."""

    def __init__(self, most: int, lease: ByteLease):
        self.most, self.lease, self.parts, self.ended = most, lease, dict[str, bytes](), False
        self._field, self._value, self._content = bytearray(), bytearray(), bytearray()
        self._name: str | None = None

    def on_part_begin(self) -> None:
        if len(self.parts) == self.most:
            raise _no_parts(f"it has more than {self.most} parts")
        self._name, self._content = None, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            name = parse_options_header(bytes(self._value))[1].get(b"name")
            self._name = None if name is None else name.decode("utf-8", "replace")
        self._field, self._value = bytearray(), bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.lease.take(end - start)
        self._content += data[start:end]

    def on_part_end(self) -> None:
        if self._name is None:
            raise _no_parts("a part has no name; expected Content-Disposition: form-data; name=…")
        if self._name in self.parts:
            raise _no_parts(f"it has two parts named {self._name[:80]!r}")
        self.parts[self._name] = bytes(self._content)

    def on_end(self) -> None:
        self.ended = True


def _parts(content: bytes, kind: str, limits: Limits, lease: ByteLease) -> dict[str, bytes]:
    """The parts of a multipart body by their names. kind: its Content-Type."""
    reader = _PartReader(limits.pictures + 1, lease)
    names = ("part_begin", "header_field", "header_value", "header_end", "part_data", "part_end", "end")
    boundary = parse_options_header(kind)[1].get(b"boundary")
    if not boundary:
        raise _no_parts("its Content-Type names no boundary")
    try:
        parser = MultipartParser(boundary, {f"on_{name}": getattr(reader, f"on_{name}") for name in names})  # type: ignore[arg-type]
        parser.write(content)
    except FormParserError as error:
        raise _no_parts(str(error)) from None
    if not reader.ended:
        raise _no_parts("it ends before its last boundary")
    return reader.parts


def _no_parts(why: str) -> RequestError:
    return RequestError(400, f"the multipart body cannot be read: {why}", code="invalid_multipart")
