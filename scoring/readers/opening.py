"""A file -> its reader, by its content and not by its name."""

import codecs
import hashlib
from pathlib import Path

from scoring.readers.delimited import open_delimited
from scoring.readers.json_rows import looks_like_json, open_json
from scoring.readers.records import Records, table_fault
from scoring.readers.unpacking import open_unpacked

HEAD = 1 << 12  # bytes that show what a file is


def open_table(file: Path, known: set[str], encoding: str | None = None) -> Records:
    """The table in a file: CSV, TSV, JSON or JSONL, packed with gzip or zstd or not, or Parquet. Raises InputError.

    known: names of columns in lower case, which show the separator. encoding: of text, if it is known.
    """
    if encoding:
        _check_encoding(file, encoding)
    with open_unpacked(file) as stream:
        head = stream.read(HEAD)
    if head[:4] == b"PAR1":
        from scoring.readers.parquet import open_parquet

        return open_parquet(file)
    if looks_like_json(head):
        with open_unpacked(file) as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return open_json(file, digest)
    return open_delimited(file, known, encoding)


def _check_encoding(file: Path, encoding: str) -> None:
    try:
        codecs.getincrementaldecoder(encoding)
    except LookupError:
        found, expected = f"--encoding {encoding}", "an encoding that Python knows, such as utf-8, cp949 or shift_jis"
        raise table_fault(file, found, expected, "correct its name") from None
