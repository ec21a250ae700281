"""A file or folder -> its reader, by its content and not by its name."""

import codecs
import hashlib
from pathlib import Path

from scoring.readers.delimited import open_delimited
from scoring.readers.json_rows import looks_like_json, open_json
from scoring.readers.records import Records, table_fault
from scoring.readers.splits import rows_of_split
from scoring.readers.unpacking import is_packed, open_unpacked, unpacked_copy

HEAD = 1 << 12  # bytes that show what a file is


def open_table(file: Path, known: set[str], encoding: str | None = None, split: str | None = None) -> Records:
    """The table in a file: CSV, TSV, JSON, JSONL or Parquet, packed with gzip or zstd or not; or in a folder of
    Parquet files. Raises InputError.

    known: names of columns in lower case, which show the separator. encoding: of text, if it is known. split: only its
    rows, told apart by the names of the files in a folder, or else by a column `split`.
    """
    if file.is_dir():
        from scoring.readers.shards import open_shards

        shards = open_shards(file, split)
        return shards if split is None or shards.split else rows_of_split(shards, split)
    table = _open_file(file, known, encoding)
    return table if split is None else rows_of_split(table, split)


def _open_file(file: Path, known: set[str], encoding: str | None) -> Records:
    """The table in a file. Raises InputError."""
    if encoding:
        _check_encoding(file, encoding)
    with open_unpacked(file) as stream:
        head = stream.read(HEAD)
    if head[:4] == b"PAR1":
        from scoring.readers.parquet import open_parquet

        return open_parquet(file, unpacked_copy(file) if is_packed(file) else None)
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
