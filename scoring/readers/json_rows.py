"""JSON: a list of objects, an object that holds one, or an object a line (JSONL). Numbers stay as written."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from scoring.errors import ScoringError, quoted
from scoring.readers.records import OneFile, Row, table_fault
from scoring.readers.unpacking import blocks_of, open_unpacked

MAX_BYTES = 2**30  # of a list that is parsed at once; JSONL has no limit of its own
TURNS = ("messages", "conversations", "conversation")  # lists of objects that are a conversation: one row, not a table
HEAD = 1 << 16  # bytes that show which of them a file is


@dataclass(frozen=True)
class JsonTable(OneFile):
    """A table of objects; its columns are all keys, in the order in which they first occur."""

    file: Path
    format: str  # "JSON" or "JSONL"
    header: list[str]
    digest: str
    count: int
    notices: list[str]

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        for number, (line, item) in enumerate(_objects(self.file, self.format == "JSONL", after), after + 1):
            yield Row(number, line, [item.get(name) for name in self.header])


def looks_like_json(head: bytes) -> bool:
    """Whether a file that begins with these bytes is JSON and not text with separators."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return start[:1] == b"{" or (start[:1] == b"[" and start[1:].lstrip()[:1] in (b"{", b"]"))


def open_json(file: Path, digest: str) -> JsonTable:
    """Raises InputError where the file is not JSON, or not a table. digest: of its bytes."""
    lines = _is_jsonl(file)
    header: dict[str, None] = {}
    count = 0
    for _, item in _objects(file, lines):
        header |= dict.fromkeys(item)
        count += 1
    if not header:
        raise table_fault(file, "no objects", "at least one question", "check the file")
    return JsonTable(file, "JSONL" if lines else "JSON", list(header), digest, count, [])


def _is_jsonl(file: Path) -> bool:
    """Whether the first line is an object by itself, and not one that holds the table's rows."""
    with open_unpacked(file) as stream:
        line = stream.readline().removeprefix(b"\xef\xbb\xbf").strip()
        more = stream.read(HEAD).strip()
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and (bool(more) or not _lists_of_objects(first))


def _objects(file: Path, lines: bool, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line or 0, object) of every row after this number; lines before it are not parsed. Raises InputError."""
    if not lines:
        for number, item in enumerate(_parse_list(file)[after:], after + 1):
            yield 0, _as_object(file, item, f"row {number}")
        return
    with open_unpacked(file) as stream:
        texts = enumerate((line.removeprefix(b"\xef\xbb\xbf").strip() for line in stream), 1)
        for number, text in islice(((number, text) for number, text in texts if text), after, None):
            yield number, _as_object(file, _parse(file, text, number), f"line {number}")


def _as_object(file: Path, item: Any, where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise table_fault(file, f"{quoted(json.dumps(item))} in {where}", "an object, {…}, a row", "correct the file")
    return item


def _parse_list(file: Path) -> list[Any]:
    """The rows of a file that is one JSON value."""
    data = bytearray()
    for block in blocks_of(file):
        data += block
        if len(data) > MAX_BYTES:
            found, fix = f"over {MAX_BYTES / 2**30:g} GiB of JSON", "write one object a line (JSONL)"
            raise table_fault(file, found, "a smaller file", fix)
    value = _parse(file, bytes(data), 1)
    if isinstance(value, list):
        return value
    lists = _lists_of_objects(value)
    if len(lists) != 1:
        found = f"an object with {len(lists)} lists of objects"
        if lists:
            found += f" ({', '.join(map(quoted, list(lists)[:10]))})"
        raise table_fault(file, found, "a list of objects", "keep the list of the questions alone")
    return next(iter(lists.values()))


def _lists_of_objects(value: Any) -> dict[str, list[Any]]:
    if not isinstance(value, dict):
        return {}
    lists = {key: item for key, item in value.items() if isinstance(item, list) and item and isinstance(item[0], dict)}
    return {key: item for key, item in lists.items() if key not in TURNS}


def _parse(file: Path, data: bytes, line: int) -> Any:
    """A JSON value. Raises InputError. line: of its first byte."""
    try:
        return json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_float=str, parse_constant=_constant
        )
    except UnicodeDecodeError as error:
        where = line + data[: error.start].count(b"\n")
        found = f"byte 0x{data[error.start]:02x} in line {where}, not UTF-8"
        raise table_fault(file, found, "JSON in UTF-8", "save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        found = f"broken JSON in line {line + error.lineno - 1}, column {error.colno} ({error.msg})"
        raise table_fault(file, found, "JSON", "correct the file there") from None
    except (_TwiceError, RecursionError) as error:
        found = f"broken JSON in line {line} ({error})"
        raise table_fault(file, found, "JSON", "correct the file there") from None


def _constant(name: str) -> str | None:
    """What stands for NaN, which pandas writes where a cell is missing, and for infinities."""
    return None if name == "NaN" else name


class _TwiceError(ScoringError):
    """A key that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose keys are all different. Raises _TwiceError."""
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"the key {quoted(twice)} twice in one object")
    return result
