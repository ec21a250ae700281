"""Text with separators (CSV, TSV): encoding, separator, quoting. Cells stay as written.

The rows are parsed again on each reading, so that a million of them need no memory of their own.
"""

import codecs
import csv
import hashlib
import io
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import quoted
from scoring.readers.records import OneFile, Row, normalized, table_fault
from scoring.readers.unpacking import blocks_of, open_unpacked

if TYPE_CHECKING:
    from _csv import Reader

HEAD = 1 << 16  # bytes in which the header is looked for
BLOCK = 1_000  # rows that are parsed at a time
MAX_CELL = 1 << 26  # characters; a quotation mark that is never closed makes one cell of the rest
SEPARATORS = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV"}
EXCEL_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?', re.IGNORECASE)  # Excel's first line, which names the separator
REPLACEMENT = "\ufffd"  # stands where an earlier program could not decode a byte


@dataclass(frozen=True)
class DelimitedTable(OneFile):
    """A table of text. before: lines before the header."""

    file: Path
    encoding: str
    delimiter: str
    header: list[str]
    digest: str
    notices: list[str]
    before: int = 0
    count: int | None = None

    @property
    def format(self) -> str:
        return SEPARATORS.get(self.delimiter, f"CSV with {self.delimiter!r}") + self._in_encoding

    @property
    def _in_encoding(self) -> str:
        return "" if self.encoding == "utf-8-sig" else f" in {self.encoding}"

    def rows(self, without: Collection[str] = ()) -> Iterator[Row]:
        """Every row but empty lines, whatever its number of cells. Raises InputError if quoting is broken."""
        with _open_text(self.file, self.encoding) as text:
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            with _long_cells():
                for _ in range(self.before + 1):
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


def open_delimited(file: Path, known: set[str], encoding: str | None = None) -> DelimitedTable:
    """Raises InputError where the file is no such text.

    known: names of columns in lower case; the separator is the one that finds most of them in the header.
    encoding: Python's name of one; None to find it out.
    """
    encoding, digest, notices = _find_encoding(file, encoding)
    with open_unpacked(file) as stream:
        first = re.split(r"\r\n?|\n", stream.read(HEAD).decode(encoding, "ignore"), maxsplit=1)[0]
    separator = EXCEL_SEPARATOR.fullmatch(first)
    if separator:
        delimiter = separator[1]
    else:
        delimiter = max(SEPARATORS, key=lambda sign: len(set(normalized(first.split(sign))) & known))
    try:
        with _open_text(file, encoding) as text, _long_cells():
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            if separator:
                next(reader, [])
            header = next(reader, [])
    except csv.Error as error:
        raise table_fault(
            file, f"broken quoting in the header ({error})", "names of columns", "correct the first line"
        ) from None
    if not header:
        raise table_fault(file, "an empty file", "a header and at least one row", "check the file")
    header = [name.strip("\ufeff\u200b") for name in header]
    return DelimitedTable(file, encoding, delimiter, header, digest, notices, int(bool(separator)))


@contextmanager
def _open_text(file: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(open_unpacked(file), encoding, newline="") as text:
        yield text


_CSV_LIMIT = threading.Lock()


@contextmanager
def _long_cells() -> Iterator[None]:
    """Inside, the csv module reads long cells, so that a row with one can be named.

    Its limit belongs to the whole process: it is restored before other code runs, and changed by one thread at a time.
    """
    with _CSV_LIMIT:
        limit = csv.field_size_limit(MAX_CELL)
        try:
            yield
        finally:
            csv.field_size_limit(limit)


# ------------------------------------------------------------------ the encoding
def _find_encoding(file: Path, encoding: str | None) -> tuple[str, str, list[str]]:
    """(encoding, SHA-256 of the bytes, notices). Raises InputError where no encoding makes text of all bytes."""
    with open_unpacked(file) as stream:
        head = stream.read(4)
    if head in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise table_fault(file, "an Excel workbook or a zip archive", "a CSV file", "save it as 'CSV UTF-8'")
    candidates = [encoding] if encoding else _candidates(head)
    bad_bytes = []
    for candidate in candidates:
        reading = _Decoding(file, candidate)
        if reading.bad_byte is None:
            guessed = not encoding and candidate not in ("utf-8-sig", "utf-16")
            return candidate, reading.digest, reading.notices(guessed)
        bad_bytes.append(reading.bad_byte)
    value, line = bad_bytes[0]
    raise table_fault(
        file,
        f"byte 0x{value:02x} in line {line}, not text in {' or '.join(candidates)}",
        encoding or "UTF-8",
        "save the file as 'CSV UTF-8', or name its encoding with --encoding",
    )


def _candidates(head: bytes) -> list[str]:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ["utf-16"]
    if head[1:2] == b"\0":
        return ["utf-16-le"]
    if head[:1] == b"\0":
        return ["utf-16-be"]
    return ["utf-8-sig", "cp949"]


class _Decoding:
    """One reading of a file in an encoding, to its end or to the first byte that is not text.

    bad_byte: its value and line; None where all is text. sample: the first line with a letter beyond ASCII, and its
    number. lost: the first line with a replacement character.
    """

    def __init__(self, file: Path, encoding: str):
        self.file, self.encoding = file, encoding
        self.bad_byte: tuple[int, int] | None = None
        self.sample: tuple[int, str] | None = None
        self.lost: int | None = None
        digest, line, pending = hashlib.sha256(), 1, b""
        decoder = codecs.getincrementaldecoder(encoding)()
        for block in chain(blocks_of(file), [b""]):
            digest.update(block)
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                data = pending + block
                index = min(error.start, len(data) - 1)
                self.bad_byte = (data[index], line + data[:index].count(b"\n"))
                return
            self._look_at(text, line)
            line += text.count("\n")
        self.digest = digest.hexdigest()

    def _look_at(self, text: str, line: int) -> None:
        """Remember what notices need. line: the number of the text's first line."""
        if self.sample is None and not text.isascii():
            index = next(index for index, sign in enumerate(text) if ord(sign) > 127 and sign != "\ufeff")
            start, end = text.rfind("\n", 0, index) + 1, text.find("\n", index)
            self.sample = line + text.count("\n", 0, index), text[start : end if end >= 0 else None].strip()
        if self.lost is None and REPLACEMENT in text:
            self.lost = line + text.count("\n", 0, text.index(REPLACEMENT))

    def notices(self, guessed: bool) -> list[str]:
        """What to look at, in words. guessed: the encoding was found by trying."""
        notices = []
        if guessed and self.sample:
            name = "cp949 (Korean Windows)" if self.encoding == "cp949" else self.encoding
            notices.append(
                f"{self.file}: not UTF-8; read as {name}: {quoted(self.sample[1])} in line {self.sample[0]}; "
                "if that is not the text, name the encoding with --encoding"
            )
        if self.lost:
            notices.append(
                f"{self.file}: line {self.lost} holds the replacement character U+FFFD: text was lost before, "
                "when another program decoded it"
            )
        return notices
