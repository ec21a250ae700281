"""A table's file -> its header and its rows of text: compression, encoding, separator, quoting. Cells stay as written.

The rows are parsed again on each reading, so that a million of them need little more memory than the file.
"""

import codecs
import csv
import gzip
import hashlib
import io
import threading
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import InputError, Problem

if TYPE_CHECKING:
    from _csv import Reader

MAX_BYTES = 4 * 2**30  # of a table, unpacked
CHUNK = 1 << 20  # bytes that are decoded at a time
BLOCK = 1_000  # rows that are parsed at a time
MAX_CELL = 1 << 30  # characters


class Row(NamedTuple):
    """number: from 1, without the header. line: where the row begins in the file, from 1."""

    number: int
    line: int
    cells: list[str]


@dataclass(frozen=True)
class TextTable:
    """A table whose encoding is known. digest: SHA-256 of its bytes, unpacked; notices: what had to be guessed."""

    file: Path
    data: bytes
    encoding: str
    delimiter: str
    header: list[str]
    digest: str
    notices: list[str]

    def rows(self) -> Iterator[Row]:
        """Every row but empty lines, whatever its number of cells. Raises InputError if quoting is broken."""
        reader = _csv_reader(self.data, self.encoding, self.delimiter)
        with _long_cells():
            next(reader)
        number = 0
        while block := self._next_block(reader):
            for line, cells in block:
                number += 1
                yield Row(number, line, cells)

    def _next_block(self, reader: "Reader") -> list[tuple[int, list[str]]]:
        """The next rows, each with the line where it begins; none at the end of the table."""
        block: list[tuple[int, list[str]]] = []
        line = reader.line_num + 1
        try:
            with _long_cells():
                for cells in reader:
                    if cells:
                        block.append((line, cells))
                    if len(block) == BLOCK:
                        break
                    line = reader.line_num + 1
        except csv.Error as error:
            raise table_fault(
                self.file,
                f"broken quoting from line {line} on ({error})",
                "quotation marks in pairs, doubled inside a cell",
                "correct the quotation marks there",
            ) from None
        return block


def open_table(file: Path, known: set[str]) -> TextTable:
    """The table in a file, compressed with gzip or not. Raises InputError.

    known: names of columns in lower case; the separator is the one that finds most of them in the header.
    """
    data = _unpacked(file)
    encoding, notices = _encoding(file, data)
    first = data[: 1 << 16].decode(encoding, "ignore").split("\n", 1)[0].split("\r", 1)[0]
    delimiter = max(",;\t", key=lambda sign: len(set(normalized(first.split(sign))) & known))
    try:
        with _long_cells():
            header = next(_csv_reader(data, encoding, delimiter), [])
    except csv.Error as error:
        raise table_fault(
            file, f"broken quoting in the header ({error})", "names of columns", "correct the first line"
        ) from None
    if not header:
        raise table_fault(file, "an empty file", "a header and at least one row", "check the file")
    return TextTable(file, data, encoding, delimiter, header, hashlib.sha256(data).hexdigest(), notices)


def _csv_reader(data: bytes, encoding: str, delimiter: str) -> "Reader":
    text = io.TextIOWrapper(io.BytesIO(data), encoding, newline="")
    return csv.reader(text, delimiter=delimiter, strict=True)


_CSV_LIMIT = threading.Lock()


@contextmanager
def _long_cells() -> Iterator[None]:
    """Inside, the csv module reads cells of any length, so that a row with one can be named.

    Its limit belongs to the whole process: it is restored before other code runs, and changed by one thread at a time.
    """
    with _CSV_LIMIT:
        limit = csv.field_size_limit(MAX_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


def normalized(names: Iterable[str]) -> list[str]:
    """Names of columns in the form in which they are compared."""
    return [name.strip().strip('"').casefold() for name in names]


def table_fault(file: Path, found: str, expected: str, fix: str) -> InputError:
    """An error with one problem that concerns the whole table."""
    return InputError([Problem(str(file), 0, 0, "", "", found, expected, fix)])


def _unpacked(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise table_fault(file, "no such file", "a CSV file", "check the path") from None
    except IsADirectoryError:
        raise table_fault(file, "a folder", "a CSV file", "name the file in it") from None
    except OSError as error:
        raise table_fault(file, f"an unreadable file ({error})", "a CSV file", "check the file") from None
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        with gzip.open(io.BytesIO(data)) as packed:
            unpacked = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise table_fault(file, f"a broken gzip file ({error})", "a CSV file", "pack it again") from None
    if len(unpacked) > MAX_BYTES:
        raise table_fault(
            file, f"over {MAX_BYTES / 2**30:g} GiB when unpacked", "a smaller table", "cut it into several"
        )
    return unpacked


def _encoding(file: Path, data: bytes) -> tuple[str, list[str]]:
    """The encoding in which all bytes are text and, if it was guessed, a notice."""
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise table_fault(file, "an Excel workbook or a zip archive", "a CSV file", "save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        candidates = ["utf-16"]
    elif data[1:2] == b"\0" or data[:1] == b"\0":
        candidates = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        candidates = ["utf-8-sig", "cp949"]
    failures = []
    for encoding in candidates:
        position = _undecodable(data, encoding)
        if position is None:
            return encoding, [f"{file}: not UTF-8; read as cp949 (Korean Windows)"] if encoding == "cp949" else []
        failures.append(position)
    line = data[: failures[0]].count(b"\n") + 1
    raise table_fault(
        file,
        f"byte 0x{data[failures[0]]:02x} in line {line}, not text in {' or '.join(candidates)}",
        "UTF-8",
        "save the file as 'CSV UTF-8'",
    )


def _undecodable(data: bytes, encoding: str) -> int | None:
    """The index of the first byte that is not text in this encoding; None if all are."""
    decoder = codecs.getincrementaldecoder(encoding)()
    for start in range(0, max(len(data), 1), CHUNK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data[start : start + CHUNK], final=start + CHUNK >= len(data))
        except UnicodeDecodeError as error:
            return min(start - pending + error.start, len(data) - 1)
    return None
