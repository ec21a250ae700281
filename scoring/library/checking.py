"""`check` as a function: what is wrong with tables and their pictures, and what they hold and share."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from scoring.checkpoints.checkpoint import folds_of, read_checkpoint
from scoring.errors import CallError
from scoring.library.arguments import Rows
from scoring.library.messages import say_to_log
from scoring.library.rows import as_table
from scoring.library.wording import for_callers
from scoring.tables.checked import Checked, check_table, compare
from scoring.tables.clean_table import write_clean
from scoring.tables.reading import TableOptions
from scoring.tables.table import Table


@for_callers
def check(
    *data: Rows,
    images: str | Path | None = None,
    deep: bool = False,
    ckpt: str | Path | None = None,
    write: str | Path | None = None,
    options: TableOptions | None = None,
) -> Checked:
    """Everything that is wrong with tables and their pictures, as `check` of the command line finds it. No torch.

    data: one table or several; each is a path, a `Table`, a DataFrame, or dicts or `Question`s. images: the folder that
    paths of pictures are relative to. deep: decode the pictures completely, not only their headers. ckpt: that is to
    answer; rows with pictures are problems where its base sees none. write: the CSV that gets the good rows of the only
    table. options: how tables are read.

    Nothing is raised for faulty rows, nor for a table that cannot be read: they are `problems` of the result. Raises
    CheckpointError where the base of `ckpt` is not here, FileError where `write` holds something else.

    >>> checked = check("demo/train.csv", "demo/test.csv")
    >>> checked.problems, checked.tables[0].overview.good, checked.overlaps[0].pictures
    ([], 600, 0)
    """
    if not data or (write is not None and len(data) > 1):
        raise CallError(f"found {len(data)} tables; expected one or more, and with `write` a single one")
    bases = [] if ckpt is None else bases_of(str(ckpt))
    options = options or TableOptions()
    options = replace(options, deep=deep or options.deep, store=replace(options.store, keep=write is not None))
    found = [check_table(_name(rows), partial(as_table, rows, images, options), bases) for rows in data]
    if write is not None:
        for table in found[0].usable:
            for notice in write_clean(table, Path(write)):
                say_to_log(notice)
    return compare(found)


def bases_of(ckpt: str) -> list[Path]:
    """The folders of the bases of a checkpoint, or of folds. Raises CheckpointError where one is not here."""
    return [read_checkpoint(fold).base_folder(local_only=True) for fold in folds_of(ckpt)]


def _name(rows: Rows) -> Path:
    """What a table is called that cannot be read."""
    if isinstance(rows, Table):
        return rows.file
    return Path(rows) if isinstance(rows, str | Path) else Path("rows")
