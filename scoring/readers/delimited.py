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

from scoring.errors import ScoringError, counted, quoted
from scoring.readers.other_files import check_is_text
from scoring.readers.records import OneFile, Row, normalized, table_fault, visible
from scoring.readers.unpacking import blocks_of, open_unpacked

if TYPE_CHECKING:
    from _csv import Reader

HEAD = 1 << 16  # bytes in which the header is looked for
BLOCK = 1_000  # rows that are parsed at a time
TITLE_LINES = 20  # at the beginning, among which the names of columns are looked for
ZEROS = 0.05  # share of zeros among a file's bytes from which on it is UTF-16
MAX_CELL = 1 << 26  # characters; a quotation mark that is never closed makes one cell of the rest
SEPARATORS = {",": "CSV", ";": "CSV with semicolons", "\t": "TSV", "|": "CSV with vertical bars"}
BLANK = re.compile(r'[\s\ufeff\u200b,;|"]*')  # a line without text
EXCEL_SEPARATOR = re.compile(r'\ufeff?"?sep=(.)"?', re.IGNORECASE)  # Excel's first line, which names the separator
REPLACEMENT = "\ufffd"  # stands where an earlier program could not decode a byte


@dataclass
class DelimitedTable(OneFile):
    """A table of text. before: lines before the header. long_cells: whether a cell beyond csv's own limit was met."""

    file: Path
    encoding: str
    delimiter: str
    header: list[str]
    digest: str
    notices: list[str]
    before: int = 0
    count: int | None = None
    long_cells: bool = False

    @property
    def format(self) -> str:
        return SEPARATORS.get(self.delimiter, f"CSV with {self.delimiter!r}") + self._in_encoding

    @property
    def _in_encoding(self) -> str:
        return "" if self.encoding == "utf-8-sig" else f" in {self.encoding}"

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        """Every row with text in a cell, whatever its number of cells. Raises InputError if quoting is broken.

        A notice tells how many rows have none: Excel leaves such rows where cells were once filled in.
        """
        number = after
        try:
            for row in self._rows(after):
                number = row.number
                yield row
        except _LongCellError:
            self.long_cells = True
            yield from self._rows(number)

    def _rows(self, after: int) -> Iterator[Row]:
        """The same. Raises _LongCellError where `long_cells` must be set."""
        with _open_text(self.file, self.encoding) as text:
            reader = csv.reader(text, delimiter=self.delimiter, strict=True)
            with _limit_of_cells(self.long_cells):
                for _ in range(self.before + 1):
                    next(reader)
            start, blank = 0, _BlankRows()
            while block := self._next_block(reader, blank):
                for number, (line, cells) in enumerate(block[max(0, after - start) :], max(after, start) + 1):
                    yield Row(number, line, cells)
                start += len(block)
        if blank.count and (notice := f"{self.file}: {blank.text}") not in self.notices:
            self.notices.append(notice)

    def _next_block(self, reader: "Reader", blank: "_BlankRows") -> list[tuple[int, list[str]]]:
        """The next rows, each with the line where it begins; none at the end of the table."""
        block: list[tuple[int, list[str]]] = []
        line = reader.line_num + 1
        try:
            with _limit_of_cells(self.long_cells):
                for cells in reader:
                    if any(map(str.strip, cells)):
                        block.append((line, cells))
                    elif cells:
                        blank.add(line)
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


class _BlankRows:
    """Counts the rows without text."""

    count = 0
    first = 0  # line

    def add(self, line: int) -> None:
        self.first = self.first or line
        self.count += 1

    @property
    def text(self) -> str:
        return f"{counted(self.count, 'row')} without any text left out (first: line {self.first})"


def open_delimited(file: Path, known: set[str], encoding: str | None = None) -> DelimitedTable:
    """Raises InputError where the file is no such text.

    known: names of columns in lower case; the separator is the one that finds most of them in the header.
    encoding: Python's name of one; None to find it out.
    """
    encoding, digest, notices = _find_encoding(file, encoding)
    with open_unpacked(file) as stream:
        text = stream.read(HEAD).decode(encoding, "ignore")
    lines = [line for line in re.split(r"\r\n?|\n", text) if not BLANK.fullmatch(line)]
    named = EXCEL_SEPARATOR.fullmatch(lines[0]) if lines else None
    lines = lines[1:] if named else lines
    signs = [*([named[1]] if named else []), *SEPARATORS]
    delimiter = max(signs, key=lambda sign: _known_names(lines[:1], sign, known))
    _check_first_line(file, lines, known)
    header, before = _read_header(file, encoding, delimiter, skip=bool(named))
    return DelimitedTable(file, encoding, delimiter, header, digest, notices, before)


def _known_names(lines: list[str], sign: str, known: set[str]) -> int:
    """How many known names of columns the first of the lines has."""
    return len(set(normalized(lines[0].split(sign))) & known) if lines else 0


def _check_first_line(file: Path, lines: list[str], known: set[str]) -> None:
    """Raises InputError where the names of columns stand below a title or a comment."""
    if "question" not in known or any(_known_names(lines, sign, known) for sign in SEPARATORS):
        return
    for line in lines[1:TITLE_LINES]:
        if any("question" in normalized(line.split(sign)) for sign in SEPARATORS):
            found = f"{quoted(lines[0])} above the names of columns, {quoted(line)}"
            raise table_fault(file, found, "the names in the first line", "remove the lines above them")


def _read_header(file: Path, encoding: str, delimiter: str, skip: bool) -> tuple[list[str], int]:
    """(names of the columns, lines before them). Raises InputError. skip: the first line with text is none of them."""
    try:
        try:
            return _find_header(file, encoding, delimiter, skip)
        except _LongCellError:
            return _find_header(file, encoding, delimiter, skip, long_cells=True)
    except csv.Error as error:
        raise table_fault(
            file, f"broken quoting in the header ({error})", "names of columns", "correct the first line"
        ) from None


def _find_header(
    file: Path, encoding: str, delimiter: str, skip: bool, long_cells: bool = False
) -> tuple[list[str], int]:
    """The same. Raises csv.Error, or _LongCellError where `long_cells` must be set."""
    before = 0
    with _open_text(file, encoding) as text, _limit_of_cells(long_cells):
        for cells in csv.reader(text, delimiter=delimiter, strict=True):
            if not BLANK.fullmatch("".join(cells)):
                if not skip:
                    return [visible(name) for name in cells], before
                skip = False
            before += 1
    raise table_fault(file, "an empty file", "a header and at least one row", "check the file")


@contextmanager
def _open_text(file: Path, encoding: str) -> Iterator[io.TextIOWrapper]:
    with io.TextIOWrapper(open_unpacked(file), encoding, newline="") as text:
        yield text


class _LongCellError(ScoringError):
    """A cell is longer than the csv module reads, and its limit was left as it is."""


_CSV_LIMIT = threading.Lock()


@contextmanager
def _limit_of_cells(long_cells: bool) -> Iterator[None]:
    """Inside, the csv module reads long cells, so that a row with one can be named; otherwise _LongCellError is raised.

    Its limit belongs to the whole process, and most tables do without: only for those with a long cell is it raised. It
    is restored before other code runs, and changed by one thread at a time.
    """
    if not long_cells:
        try:
            yield
        except csv.Error as error:
            if "field limit" in str(error):
                raise _LongCellError from None
            raise
        return
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
        head = stream.read(HEAD)
    check_is_text(file, head)
    candidates = [encoding] if encoding else _candidates(head)
    bad_bytes = []
    for candidate in candidates:
        reading = _Decoding(file, candidate)
        if reading.bad_byte is None:
            guessed = not encoding and candidate not in ("utf-8-sig", "utf-16", "utf-32")
            return candidate, reading.digest, reading.notices(guessed)
        bad_bytes.append(reading.bad_byte)
    value, line = bad_bytes[0]
    raise table_fault(
        file,
        f"byte 0x{value:02x} in line {line}, not text in {' or '.join(candidates).replace('utf-8-sig', 'UTF-8')}",
        encoding or "UTF-8",
        "save the file as 'CSV UTF-8', or name its encoding with --encoding",
    )


def _candidates(head: bytes) -> list[str]:
    """Encodings to try. Text in UTF-16 without a mark has a zero in every second byte of its separators and digits."""
    if head[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return ["utf-32"]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ["utf-16"]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > len(head) * ZEROS and min(even, odd) * 10 < max(even, odd):
        return ["utf-16-le" if odd > even else "utf-16-be"]
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
            index = next((index for index, sign in enumerate(text) if ord(sign) > 127 and sign != "\ufeff"), -1)
            start, end = text.rfind("\n", 0, index) + 1, text.find("\n", index)
            if index >= 0:
                self.sample = line + text.count("\n", 0, index), text[start : end if end >= 0 else None].strip()
        if self.lost is None and REPLACEMENT in text:
            self.lost = line + text.count("\n", 0, text.index(REPLACEMENT))

    def notices(self, guessed: bool) -> list[str]:
        """What to look at, in words. guessed: the encoding was found by trying."""
        notices = []
        if guessed and self.sample:
            name = "cp949 (Korean Windows)" if self.encoding == "cp949" else self.encoding
            others = _other_readings(self.sample[1], self.encoding)
            notices.append(
                f"{self.file}: not UTF-8; read as {name}: {quoted(self.sample[1])} in line {self.sample[0]}; "
                f"if that is not the text, name the encoding with --encoding{others}"
            )
        if self.lost:
            notices.append(
                f"{self.file}: line {self.lost} holds the replacement character U+FFFD: text was lost before, "
                "when another program decoded it"
            )
        return notices


def _other_readings(sample: str, encoding: str) -> str:
    """What else the bytes of a Korean text may be, for a message; "" where its characters are those of usual Korean."""
    signs = [sign for sign in sample if not sign.isascii()]
    if encoding != "cp949" or sum(map(_is_usual_korean, signs)) * 2 > len(signs):
        return ""
    data = sample.encode("cp949")
    readings = [(name, data.decode(name, "replace")) for name in ("shift_jis", "gb18030", "big5")]
    others = ", ".join(f"{name}: {quoted(text)}" for name, text in readings if REPLACEMENT not in text)
    return f" ({others})" if others else ""


def _is_usual_korean(sign: str) -> bool:
    """Whether this is one of the 2,350 syllables of KS X 1001; the codec writes others in 8 bytes."""
    return "가" <= sign <= "힣" and len(sign.encode("euc_kr")) == 2
