"""A table of questions -> `Question`s, with every problem of the whole table found at once.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the whole reading
unreliable: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

from collections.abc import Sequence
from pathlib import Path

from scoring.errors import InputError
from scoring.inputs.questions import Question
from scoring.readers.opening import open_table
from scoring.readers.records import Records, as_text, normalized, table_fault
from scoring.tables.large import ROWS_HELD, LargeTable, holds_more_rows, survey_large
from scoring.tables.layouts import KNOWN
from scoring.tables.open_table import OpenTable
from scoring.tables.open_table import TableOptions as TableOptions
from scoring.tables.row_pictures import PictureProgress, PictureReader
from scoring.tables.table import Table


def read_questions(file: str | Path, images: str | Path | None = None, allow_outside: bool = False) -> list[Question]:
    """All questions of a table. Raises InputError, with everything that is wrong, if any row is faulty.

    images, allow_outside: as in `TableOptions`.

    >>> question = read_questions("demo/test.csv")[1]
    >>> question.id, question.options[2], question.answer
    ('test_0001', 'violin', 'c')
    """
    table = read_table(file, TableOptions(images, allow_outside))
    if table.problems:
        raise InputError(table.problems)
    return table.questions


def read_table(file: str | Path, options: TableOptions | None = None, progress: PictureProgress | None = None) -> Table:
    """Read a table, a file or a folder of Parquet files, and look at every picture it names or holds, each once.

    Raises InputError, with the faults of rows too, where rows cannot be told apart or the answers' meaning is not
    certain. Otherwise faults of rows are listed in the result.

    >>> table = read_table("demo/test.csv")
    >>> len(table.questions), table.problems, table.reading()
    (400, [], "CSV, a column for each option; answers: letters or the options' texts")
    """
    return _opened(Path(file), options or TableOptions()).read_all(progress)


def read_in_ranges(
    file: str | Path,
    options: TableOptions | None = None,
    progress: PictureProgress | None = None,
    row_progress: PictureProgress | None = None,
) -> Table | LargeTable:
    """The same; a table of more rows than `ROWS_HELD` is read to its end, and none of its rows are kept.

    row_progress: shows how many rows of such a table are read. Raises InputError as `read_table`.
    """
    opened = _opened(Path(file), options or TableOptions())
    if holds_more_rows(opened.records, ROWS_HELD) and (large := survey_large(opened, ROWS_HELD, row_progress)):
        return large
    return opened.read_all(progress)


def _opened(file: Path, options: TableOptions) -> OpenTable:
    """Raises InputError."""
    records = open_table(file, {*KNOWN, *normalized(options.columns.values())}, options.encoding, options.split)
    root = Path(options.images) if options.images else file if file.is_dir() else file.parent
    return OpenTable(
        records, options, PictureReader(root, options.allow_outside, options.limits, options.deep, options.store)
    )


def read_records(
    records: Records, options: TableOptions, picture_reader: PictureReader, progress: PictureProgress | None = None
) -> Table:
    """The same for a table that is open. Of the options only those count that concern rows."""
    return OpenTable(records, options, picture_reader).read_all(progress)


def read_columns(
    file: Path, names: Sequence[str], id_column: str = "id", split: str | None = None
) -> dict[str, dict[str, str]]:
    """column -> id -> cell, of any columns of a table. Raises InputError if one is missing.

    Rows of a table without `id_column` are named by their numbers. split: see `TableOptions`.
    """
    records = open_table(file, {*KNOWN, *normalized(names)}, split=split)
    header = [name.strip() for name in records.header]
    index_of = dict(zip(normalized(header), range(len(header)))) | {name: index for index, name in enumerate(header)}
    if missing := [name for name in names if name not in index_of]:
        raise table_fault(file, f"columns {', '.join(header)}", f"a column {missing[0]}", "name one of them with --by")
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    id_index = index_of.get(id_column.strip().casefold(), index_of.get(id_column))
    for row in records.rows():
        if len(row.cells) != len(header):
            count, expected = f"{len(row.cells)} cells in line {row.line}", f"{len(header)}, as in the header"
            raise table_fault(file, count, expected, "`check` lists all such rows")
        row_id = str(row.number) if id_index is None else as_text(row.cells[id_index])
        for name in names:
            cells[name][row_id] = as_text(row.cells[index_of[name]]).strip()
    return cells
