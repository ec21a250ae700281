"""The body of a request: read within limits, unpacked, and parsed, whatever was sent. Raises RequestError."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple

import pyarrow as pa
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from scoring.serving.request import Limits, RequestError

PACKED = {"gzip": "gzip", "zstd": "zstd"}  # Content-Encoding -> pyarrow's name


class Body(NamedTuple):
    """What was sent: JSON, and the parts of a multipart body by name."""

    content: object
    parts: Mapping[str, bytes]


class ByteBudget:
    """Bytes of all bodies that are held at a time."""

    def __init__(self, most: int):
        self.most, self.held = most, 0

    def take(self, count: int) -> None:
        """Raises RequestError where there are too many."""
        if self.held + count > self.most:
            raise RequestError(429, "the server holds too many large requests; try again", code="server_busy")
        self.held += count


async def read_body(request: Request, limits: Limits, budget: ByteBudget, seconds: float) -> bytes:
    """The bytes of the body, which `budget` counts from now on. Raises RequestError 408 and 413."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.body_bytes:
        raise _too_large(int(length), limits)
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                budget.take(len(piece))
                content += piece
                if len(content) > limits.body_bytes:
                    raise _too_large(len(content), limits)
    except TimeoutError:
        budget.held -= len(content)
        raise RequestError(408, f"the body did not arrive within {seconds:g} s", code="request_timeout") from None
    except (RequestError, ClientDisconnect):
        budget.held -= len(content)
        raise
    return bytes(content)


def _too_large(length: int, limits: Limits) -> RequestError:
    found = f"the body has {length:,} bytes or more; expected at most {limits.body_bytes:,}: send smaller pictures"
    return RequestError(413, found, code="request_too_large")


def parse_body(content: bytes, headers: Headers, limits: Limits) -> Body:
    """JSON, also packed, or a multipart body whose part `request` is JSON."""
    content = _unpacked(content, headers.get("content-encoding", "identity").strip().casefold(), limits)
    kind = headers.get("content-type", "").split(";")[0].strip().casefold()
    if kind == "multipart/form-data":
        parts = asyncio.run(_parts(content, headers, limits))
        if "request" not in parts:
            raise RequestError(400, "the multipart body has no part named request, which holds the JSON", "request")
        return Body(_parsed(parts.pop("request")), parts)
    if kind not in ("application/json", ""):
        raise RequestError(415, f"the body is {kind[:80]!r}; expected application/json", code="unsupported_media_type")
    return Body(_parsed(content), {})


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except RecursionError:
        raise RequestError(400, "the body's JSON is nested too deeply", code="invalid_json") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise RequestError(400, f"the body is no JSON ({error})", code="invalid_json") from None


def _unpacked(content: bytes, encoding: str, limits: Limits) -> bytes:
    if encoding in ("", "identity"):
        return content
    if encoding not in PACKED:
        known = ", ".join(PACKED)
        raise RequestError(415, f"the body's encoding is {encoding[:80]!r}; expected {known}, or none")
    try:
        with pa.CompressedInputStream(pa.BufferReader(content), PACKED[encoding]) as stream:
            plain: bytes = stream.read(limits.body_bytes + 1)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise RequestError(400, f"the body cannot be unpacked as {encoding} ({error})") from None
    if len(plain) > limits.body_bytes:
        raise _too_large(len(plain), limits)
    return plain


async def _parts(content: bytes, headers: Headers, limits: Limits) -> dict[str, bytes]:
    """The parts of a multipart body by their names."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield content

    most = limits.pictures + 1
    parser = MultiPartParser(headers, whole(), max_files=most, max_fields=most, max_part_size=limits.body_bytes)
    parser.spool_max_size = limits.body_bytes  # in memory, which is bounded
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, KeyError, AssertionError) as error:
        message = getattr(error, "message", "") or str(error) or type(error).__name__
        raise RequestError(400, f"the multipart body cannot be read ({message})", code="invalid_multipart") from None
    parts: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name in parts:
            raise RequestError(400, f"the multipart body has two parts named {name[:80]!r}", name[:80])
        if isinstance(value, str):
            parts[name] = value.encode()
            continue
        value.file.seek(0)
        parts[name] = value.file.read()
        value.file.close()
    return parts
