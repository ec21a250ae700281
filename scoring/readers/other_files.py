"""Files that people take for tables and that are none, named by their first bytes."""

from pathlib import Path
from typing import NamedTuple

from scoring.readers.records import table_fault


class _Other(NamedTuple):
    found: str
    fix: str


SAVE = "save it as 'CSV UTF-8'"
AS_PARQUET = "save it as Parquet or CSV"
UNPACK = "unpack it, and name the table in it"
NAME_TABLE = "name the table"
STARTS = {  # the first bytes of a file -> what it is
    b"PK\x03\x04": _Other("an Excel workbook or a zip archive", SAVE),
    b"\xd0\xcf\x11\xe0": _Other("an Excel workbook or a zip archive", SAVE),
    b"BZh": _Other("a bzip2 file", "unpack it, or pack it with gzip"),
    b"\xfd7zXZ\0": _Other("an xz file", "unpack it, or pack it with gzip"),
    b"7z\xbc\xaf\x27\x1c": _Other("a 7z archive", UNPACK),
    b"Rar!": _Other("a rar archive", UNPACK),
    b"ARROW1": _Other("an Arrow file", AS_PARQUET),
    b"FEA1": _Other("a Feather file", AS_PARQUET),
    b"\x89HDF": _Other("an HDF5 file", AS_PARQUET),
    b"SQLite format 3\0": _Other("an SQLite database", AS_PARQUET),
    b"\x93NUMPY": _Other("a NumPy array", AS_PARQUET),
    b"%PDF": _Other("a PDF document", "copy its table into a CSV file"),
    b"\x89PNG": _Other("a picture", NAME_TABLE),
    b"\xff\xd8\xff": _Other("a picture", NAME_TABLE),
    b"version https://git-lfs": _Other("a Git LFS pointer, not the table", "run `git lfs pull` in its repository"),
    b"/annex/objects/": _Other("a git-annex pointer, not the table", "run `git annex get` in its repository"),
}
WEB_PAGE = _Other("a web page, as servers send when there is no such file", "download the table again")


def check_is_text(file: Path, head: bytes) -> None:
    """Raises InputError where a file that should be a table of text is of another known kind. head: its first bytes."""
    other = next((other for start, other in STARTS.items() if head.startswith(start)), None)
    if head[257:262] == b"ustar":
        other = _Other("a tar archive", UNPACK)
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower().startswith((b"<!doctype html", b"<html")):
        other = WEB_PAGE
    if other:
        raise table_fault(file, other.found, "a CSV file", other.fix)
