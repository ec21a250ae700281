"""Writing files so that each is there whole or not at all: beside, synced, renamed."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, and rename it when its bytes are on the disk."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, values: dict) -> None:
    """Indented, letters as they are."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: list[list[str]]) -> None:
    """UTF-8, commas, LF."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet."""
    write_whole(path, lambda file: pq.write_table(table, file))
