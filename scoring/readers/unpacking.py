"""A file's bytes as a stream, unpacked where gzip or zstd packed them. No more than a block is held in memory."""

import gzip
import hashlib
import io
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from scoring.readers.records import table_fault

MAX_BYTES = 4 * 2**30  # of a table, unpacked
BLOCK = 1 << 20  # bytes that are read at a time
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # the first bytes of such files


def check_file(file: Path) -> None:
    """Raises InputError unless this is a plain file, before it is opened: reading from a pipe would wait for ever."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        raise table_fault(file, "no such file", "a table", "check the path") from None
    except OSError as error:
        raise table_fault(file, f"an unreadable file ({error})", "a table", "check the file") from None
    if stat.S_ISDIR(mode):
        raise table_fault(file, "a folder", "a table", "name the file in it")
    if not stat.S_ISREG(mode):
        raise table_fault(file, "a pipe or device", "a file", "write its content into a file, and name that")


def open_unpacked(file: Path) -> io.BufferedReader:
    """The bytes of a file. Raises InputError where it cannot be read, at once or while it is read."""
    check_file(file)
    return io.BufferedReader(_Unpacked(file), BLOCK)


def blocks_of(file: Path) -> Iterator[bytes]:
    """The bytes of a file, block by block."""
    with open_unpacked(file) as stream:
        while block := stream.read(BLOCK):
            yield block


def unpacked_copy(file: Path) -> "tempfile._TemporaryFileWrapper[bytes]":
    """What a packed file holds, as a file that goes when nothing refers to it. Raises InputError."""
    copy = tempfile.NamedTemporaryFile()  # noqa: SIM115 - the table keeps it open
    try:
        for block in blocks_of(file):
            copy.write(block)
        copy.flush()
    except OSError as error:
        found = f"no room in {tempfile.gettempdir()} to unpack it ({error})"
        raise table_fault(file, found, "as much as it holds", "free some, or unpack the file yourself") from None
    return copy


def digest_of(file: Path) -> str:
    """SHA-256 of a file's own bytes, packed or not."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_packed(file: Path) -> bool:
    """Whether gzip or zstd packed the file."""
    return bool(_packing_of(file))


def _packing_of(file: Path) -> str:
    with open(file, "rb") as stream:
        head = stream.read(4)
    return "gzip" if head[:2] == GZIP else "zstd" if head == ZSTD else ""


class _Unpacked(io.RawIOBase):
    """The raw stream below `open_unpacked`: errors of the file are InputErrors, and what is unpacked has a limit."""

    def __init__(self, file: Path):
        self._file, self._count = file, 0
        try:
            self._packing = _packing_of(file)
            self._stream: IO[bytes] | Any = self._open()
        except OSError as error:
            raise table_fault(file, f"an unreadable file ({error})", "a table", "check the file") from None

    def _open(self) -> IO[bytes] | Any:
        if self._packing == "gzip":
            return gzip.open(self._file)
        if self._packing == "zstd":
            import pyarrow

            return pyarrow.CompressedInputStream(pyarrow.OSFile(str(self._file)), "zstd")
        return open(self._file, "rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            what = f"a broken {self._packing} file" if self._packing else "an unreadable file"
            fix = "pack it again" if self._packing else "check the file"
            raise table_fault(self._file, f"{what} ({error})", "a table", fix) from None
        self._count += len(data)
        if self._packing and self._count > MAX_BYTES:
            found = f"over {MAX_BYTES / 2**30:g} GiB when unpacked"
            raise table_fault(self._file, found, "a smaller table", "cut it into several")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_stream"):
            self._stream.close()
        super().close()
