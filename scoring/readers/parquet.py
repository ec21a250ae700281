"""Parquet: columns with types, read a block of rows at a time. A block is small also where rows hold pictures.

What the file calls a page is read as a whole; writers make pages of about 1 MB, or of some hundred large pictures.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.errors import InputError
from scoring.readers.records import OneFile, Row, table_fault
from scoring.readers.unpacking import digest_of

if TYPE_CHECKING:
    import tempfile

BLOCK = 1_000  # rows that are read at a time, at most
BLOCK_WITH_BYTES = 64  # the same where rows hold bytes, whose sizes may differ much
BLOCK_BYTES = 8 << 20  # of a block, by the mean row of the file's largest part
MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetTable(OneFile):
    """A table. block: rows that are read at a time. unpacked: what a packed file holds."""

    file: Path
    header: list[str]
    digest: str
    count: int
    block: int = BLOCK
    format: str = "Parquet"
    unpacked: "tempfile._TemporaryFileWrapper[bytes] | None" = None

    @property
    def notices(self) -> list[str]:
        return []

    def rows(self, without: Collection[str] = (), after: int = 0) -> Iterator[Row]:
        columns = [name for name in self.header if name not in without]
        try:
            # Both options are needed, or a whole row group is in memory at once.
            with pq.ParquetFile(_source(self.file, self.unpacked), buffer_size=1 << 20, pre_buffer=False) as parquet:
                groups, number = _groups_after(parquet.metadata, after)
                for batch in parquet.iter_batches(self.block, row_groups=groups, columns=columns, use_threads=False):
                    skipped = min(max(0, after - number), batch.num_rows)
                    number += skipped
                    for record in batch.slice(skipped).to_pylist():
                        number += 1
                        yield Row(number, 0, [record.get(name) for name in self.header])
        except (OSError, pa.ArrowException) as error:
            raise _broken(self.file, error) from None


def open_parquet(file: Path, unpacked: "tempfile._TemporaryFileWrapper[bytes] | None" = None) -> ParquetTable:
    """Raises InputError where the file is no Parquet file, or has two columns of one name.

    unpacked: what it holds, where it is packed.
    """
    try:
        with pq.ParquetFile(_source(file, unpacked)) as parquet:
            schema, metadata = parquet.schema_arrow, parquet.metadata
    except (OSError, pa.ArrowException) as error:
        raise _broken(file, error) from None
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise table_fault(file, f"two columns {twice!r}", "columns with different names", "rename one of them")
    block, digest = _block_of(schema, metadata), digest_of(_source(file, unpacked))
    return ParquetTable(file, schema.names, digest, metadata.num_rows, block, unpacked=unpacked)


def _source(file: Path, unpacked: "tempfile._TemporaryFileWrapper[bytes] | None") -> Path:
    return Path(unpacked.name) if unpacked else file


def _groups_after(metadata: pq.FileMetaData, after: int) -> tuple[list[int], int]:
    """(indices of the row groups with the rows after this number, number of rows in those before them)."""
    ends = list(accumulate(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)))
    first = bisect_right(ends, after)
    return list(range(first, len(ends))), ends[first - 1] if first else 0


def _block_of(schema: pa.Schema, metadata: pq.FileMetaData) -> int:
    """How many rows to read at a time."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = max((group.total_byte_size // group.num_rows for group in groups if group.num_rows), default=0)
    most = BLOCK_WITH_BYTES if any(holds_bytes(field.type) for field in schema) else BLOCK
    return max(1, min(most, BLOCK_BYTES // max(1, size)))


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column's type holds bytes, such as pictures, by itself or within."""
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return any(holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _broken(file: Path, error: Exception) -> InputError:
    return table_fault(file, f"a broken Parquet file ({error})", "a table", "make or download the file again")
