"""A table's file -> its header and its rows of text: packing, encoding, separator, quoting. Cells stay as written.

The rows are read anew each time they are asked for, so that a million of them need little more than the file.
"""

import codecs
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scoring.errors import InputError, Problem

MAX_BYTES = 4 * 2**30  # of a table, unpacked
CHUNK = 1 << 20  # bytes that are decoded at a time


class Row(NamedTuple):
    """number: from 1, without the header. line: where it begins in the file, from 1."""

    number: int
    line: int
    cells: list[str]


@dataclass
class TextTable:
    """A table whose encoding is known. digest: SHA-256 of its bytes, unpacked; notices: what had to be guessed."""

    file: Path
    data: bytes
    encoding: str
    delimiter: str
    header: list[str]
    digest: str
    notices: list[str] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """Every row but empty lines, whatever its number of cells. Raises InputError where quoting is broken."""
        reader = self._reader()
        next(reader)
        number, start = 0, reader.line_num + 1
        try:
            for cells in reader:
                if cells:
                    number += 1
                    yield Row(number, start, cells)
                start = reader.line_num + 1
        except csv.Error as error:
            raise table_fault(
                self.file,
                f"broken quoting from line {start} on ({error})",
                "quotation marks in pairs, doubled inside a cell",
                "correct the quotation marks there",
            ) from None

    def _reader(self):
        text = io.TextIOWrapper(io.BytesIO(self.data), self.encoding, newline="")
        return csv.reader(text, delimiter=self.delimiter, strict=True)


def open_table(file: Path, known: set[str]) -> TextTable:
    """The table in a file, packed with gzip or not.

    known: names of columns in lower case, by which the separator is told. Raises InputError.
    """
    csv.field_size_limit(1 << 30)
    data = _unpacked(file)
    encoding, notices = _encoding(file, data)
    first = data[: 1 << 16].decode(encoding, "ignore").split("\n", 1)[0].split("\r", 1)[0]
    delimiter = max(",;\t", key=lambda sign: len(set(normal(first.split(sign))) & known))
    table = TextTable(file, data, encoding, delimiter, [], hashlib.sha256(data).hexdigest(), notices)
    try:
        table.header = next(table._reader(), [])
    except csv.Error as error:
        raise table_fault(
            file, f"broken quoting in the header ({error})", "names of columns", "correct the first line"
        ) from None
    if not table.header:
        raise table_fault(file, "an empty file", "a header and at least one row", "check the file")
    return table


def normal(names: list[str]) -> list[str]:
    """Names of columns as they are compared."""
    return [name.strip().strip('"').casefold() for name in names]


def table_fault(file: Path, found: str, expected: str, fix: str, column: str = "") -> InputError:
    return InputError([Problem(str(file), 0, 0, "", column, found, expected, fix)])


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
    """The encoding that all of the bytes have and, where it had to be guessed, a notice."""
    if data[:4] in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise table_fault(file, "an Excel workbook or a zip archive", "a CSV file", "save it as 'CSV UTF-8'")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        candidates = ["utf-16"]
    elif data[1:2] == b"\0" or data[:1] == b"\0":
        candidates = ["utf-16-le" if data[1:2] == b"\0" else "utf-16-be"]
    else:
        candidates = ["utf-8-sig", "cp949"]
    failed = None
    for encoding in candidates:
        at = _undecodable(data, encoding)
        if at is None:
            return encoding, [f"{file}: not UTF-8; read as cp949 (Korean Windows)"] if encoding == "cp949" else []
        failed = at if failed is None else failed
    line = data[:failed].count(b"\n") + 1
    raise table_fault(
        file,
        f"byte 0x{data[failed]:02x} in line {line}, not text in {' or '.join(candidates)}",
        "UTF-8",
        "save the file as 'CSV UTF-8'",
    )


def _undecodable(data: bytes, encoding: str) -> int | None:
    """Where the first byte is that is no text in this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    for at in range(0, max(len(data), 1), CHUNK):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data[at : at + CHUNK], final=at + CHUNK >= len(data))
        except UnicodeDecodeError as error:
            return min(at - pending + error.start, len(data) - 1)
    return None
