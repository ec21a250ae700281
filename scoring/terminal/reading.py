"""Tables as the commands read them: their notices and problems are printed, or raised."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scoring.terminal.options import TableOptions
from scoring.terminal.progress import Console

if TYPE_CHECKING:
    from scoring.inputs.picture_store import PictureStore
    from scoring.tables import reading as tables
    from scoring.tables.large import LargeTable
    from scoring.tables.row_pictures import PictureProgress
    from scoring.tables.table import Table

T = TypeVar("T")


def read_all_rows(
    console: Console, data: Path, options: TableOptions, deep: bool = False, store: "PictureStore | None" = None
) -> "Table":
    """The table with its faulty rows. deep: decode every picture. store: for those that cells hold; None: the cache."""
    from scoring.tables.reading import read_table

    return read_table(data, table_options(options, deep, store), picture_progress(console))


def table_options(
    options: TableOptions, deep: bool = False, store: "PictureStore | None" = None
) -> "tables.TableOptions":
    """The same options as the rooms below take them."""
    from scoring.inputs.picture_store import PictureStore
    from scoring.inputs.pictures import PictureLimits
    from scoring.tables import reading as tables

    limits = PictureLimits.of(options.picture_pixels, options.picture_bytes)
    return tables.TableOptions(
        images=options.images,
        allow_outside=options.allow_outside,
        columns=column_names(options),
        deep=deep,
        limits=limits,
        encoding=options.encoding,
        answers=options.meaning,
        text_only_rows=options.text_only_rows,
        layout=options.layout,
        split=options.split,
        store=store or PictureStore(),
    )


def column_names(options: TableOptions, config: Path | None = None) -> dict[str, str]:
    """Our name of a column -> the table's: of --column, else of --columns, else of the section [columns] of `config`.

    Raises FileError where a file cannot be read as such names.
    """
    from scoring.tables.column_names import read_column_names

    names = read_column_names(config, section_only=True) if config else {}
    if options.columns_file:
        names |= read_column_names(options.columns_file)
    return names | options.columns


def picture_progress(console: Console) -> "PictureProgress":
    """Shows how many pictures are done, where there are many."""

    def progress(pictures: Iterable[T], total: int | None) -> Iterable[T]:
        return console.count(pictures, total, "picture")

    return progress


def read(console: Console, data: Path, options: TableOptions, deep: bool = False) -> "Table":
    """The table, its notices printed. deep: decode every picture.

    Raises InputError with all its problems. With --skip-bad-rows they are printed instead, if at least one row is good.
    """
    from scoring.tables.usable import usable

    return usable(read_all_rows(console, data, options, deep), options.skip_bad_rows, console.say)


def read_in_ranges(console: Console, data: Path, options: TableOptions) -> "Table | LargeTable":
    """The same for a command that takes a table of very many rows a range at a time."""
    from scoring.tables import reading
    from scoring.tables.usable import usable

    def row_progress(rows: Iterable[T], total: int | None) -> Iterable[T]:
        return console.count(rows, total, "row")

    table = reading.read_in_ranges(data, table_options(options), picture_progress(console), row_progress)
    return usable(table, options.skip_bad_rows, console.say)
