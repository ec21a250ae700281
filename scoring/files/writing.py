"""Writing files so that each is there whole or not at all: beside, synced, renamed."""

import csv
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def write_whole(path: Path, write: Callable[[BinaryIO], object], mark: str = "") -> None:
    """Let `write` fill a file beside `path`, and rename it when its bytes are on the disk.

    What a killed run left beside goes; so does a link to somewhere else, which is never written through. mark: in the
    name of the file beside, where another process may write the same file.
    """
    beside = path.with_name(f"{path.name}{mark}.tmp")
    beside.unlink(missing_ok=True)
    with open(beside, "xb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, values: dict) -> None:
    """Indented, letters as they are, strict: what is not a finite number is null."""
    write_text(path, json.dumps(_strict(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _strict(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(part) for key, part in value.items()}
    return [_strict(part) for part in value] if isinstance(value, (list, tuple)) else value


def write_csv(path: Path, rows: list[list[str]]) -> None:
    """UTF-8, commas, LF."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_columns(path: Path, columns: dict[str, list[str] | pa.Array]) -> None:
    """A CSV as `write_csv` makes it, from columns of text (arrays: of numbers), with no Python object for each cell."""
    quoted = [
        column if isinstance(column, pa.Array) else _quoted(pa.array(column, pa.string()))
        for column in columns.values()
    ]
    lines = pc.binary_join_element_wise(*quoted, ",").to_pylist() if len(quoted) > 1 else quoted[0].to_pylist()
    write_text(path, "\n".join([",".join(columns), *lines, ""]))


def _quoted(cells: pa.Array) -> pa.Array:
    special = pc.match_substring_regex(cells, r'[",\r\n]')
    if not pc.any(special).as_py():
        return cells
    return pc.if_else(special, pc.binary_join_element_wise('"', pc.replace_substring(cells, '"', '""'), '"', ""), cells)


def write_table(path: Path, table: pa.Table, mark: str = "") -> None:
    """Parquet. mark: see `write_whole`."""
    write_whole(path, lambda file: pq.write_table(table, file), mark)
