"""Atomic writes: each file appears whole or not at all. It is written under another name, synced and renamed."""

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def write_whole(path: Path, write: Callable[[BinaryIO], object], mark: str = "", sync: bool = True) -> None:
    """Let `write` fill a temporary file beside `path`, and rename it when its bytes are on disk: see `whole_file`."""
    with whole_file(path, mark, sync) as file:
        write(file)


@contextmanager
def whole_file(path: Path, mark: str = "", sync: bool = True) -> Iterator[BinaryIO]:
    """A temporary file beside `path`, renamed at the end, when its bytes are on disk; removed where that fails.

    A temporary file that a killed run left is removed; so is a link to somewhere else, which is never written through.
    mark: part of the temporary file's name, for files that several processes may write at once. sync: wait until the
    bytes are on the disk; without it a power cut may empty the file, which must then be easy to make again.
    """
    temporary = path.with_name(f"{path.name}{mark}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        with open(temporary, "xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # such as a full disk, or Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """UTF-8, line ends unchanged."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Indented, with characters unescaped; numbers that are not finite become null, as strict JSON has no others."""
    write_text(path, json.dumps(_strict(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, (list, tuple)) else value


def write_csv(path: Path, rows: list[list[str]], delimiter: str = ",") -> None:
    """UTF-8, lines that end with LF."""
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_columns(path: Path, columns: dict[str, list[str] | pa.Array]) -> None:
    """A CSV as by `write_csv`, from columns of text or Arrow arrays of numbers, with no Python object for each cell."""
    write_text(path, columns_as_csv(columns))


def columns_as_csv(columns: dict[str, list[str] | pa.Array]) -> str:
    """The text of the CSV that `write_columns` writes."""
    quoted = [
        column if isinstance(column, pa.Array) else _quoted(pa.array(column, pa.string()))
        for column in columns.values()
    ]
    lines = pc.binary_join_element_wise(*quoted, ",").to_pylist() if len(quoted) > 1 else quoted[0].to_pylist()
    return "\n".join([",".join(columns), *lines, ""])


def _quoted(cells: pa.Array) -> pa.Array:
    special = pc.match_substring_regex(cells, r'[",\r\n]')
    if not pc.any(special).as_py():
        return cells
    return pc.if_else(special, pc.binary_join_element_wise('"', pc.replace_substring(cells, '"', '""'), '"', ""), cells)


def write_table(path: Path, table: pa.Table, mark: str = "") -> None:
    """Parquet. mark: see `write_whole`."""
    write_whole(path, lambda file: pq.write_table(table, file), mark)
