"""Parquet: columns with types, read a block of rows at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scoring.errors import InputError
from scoring.readers.records import Row, table_fault
from scoring.readers.unpacking import digest_of

BLOCK = 1_000  # rows that are read at a time
MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetTable:
    """A table without its columns of bytes, which are not read."""

    file: Path
    header: list[str]
    digest: str
    notices: list[str]
    format: str = "Parquet"

    def rows(self) -> Iterator[Row]:
        number = 0
        try:
            with pq.ParquetFile(self.file) as parquet:
                for batch in parquet.iter_batches(BLOCK, columns=self.header):
                    for record in batch.to_pylist():
                        number += 1
                        yield Row(number, 0, [record[name] for name in self.header])
        except (OSError, pa.ArrowException) as error:
            raise _broken(self.file, error) from None


def open_parquet(file: Path) -> ParquetTable:
    """Raises InputError where the file is no Parquet file, or has two columns of one name."""
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise _broken(file, error) from None
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise table_fault(file, f"two columns {twice!r}", "columns with different names", "rename one of them")
    skipped = [field.name for field in schema if holds_bytes(field.type)]
    notices = [f"{file}: bytes inside a table are not read (column {', '.join(skipped)})"] if skipped else []
    return ParquetTable(file, [name for name in schema.names if name not in skipped], digest_of(file), notices)


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column's type holds bytes, such as pictures, by itself or within."""
    if pa.types.is_struct(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return any(holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _broken(file: Path, error: Exception) -> InputError:
    return table_fault(file, f"a broken Parquet file ({error})", "a table", "make or download the file again")
