"""Names that a table's columns have instead of the usual ones: from a TOML file, and as a table has or lacks them."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scoring.errors import quoted
from scoring.files.reading import FileError
from scoring.inputs.prompt import LETTERS
from scoring.readers.records import Records, normalized
from scoring.tables.layouts import NAMES, Layout

SECTION = "columns"
MAY_LACK = ("id", "answer", "task_type", "task_hint")  # our names of columns that not every table needs


def read_column_names(file: Path, section_only: bool = False) -> dict[str, str]:
    """Our name of a column -> the table's, such as `question = "Q"`.

    They stand in the section [columns], where other programs' settings may stand around it, or are all that the file
    holds. section_only: a file without that section has none. Raises FileError where the file is no TOML, or a name is
    unknown or no text.
    """
    values = _read_toml(file)
    if SECTION not in values and section_only:
        return {}
    names = values.get(SECTION, values)
    if not isinstance(names, dict):
        raise FileError(
            f'{file}: {SECTION} is {names!r}; expected a section [{SECTION}] of lines such as question = "Q"'
        )
    found = {name.strip().casefold(): column for name, column in names.items()}
    for name, column in found.items():
        if name not in NAMES and name not in LETTERS:
            expected = f"some of {', '.join(NAMES)}, a, b, …"
            raise FileError(f"{file}: found a column {quoted(name)}; expected {expected}: correct its name")
        if not isinstance(column, str) or not column.strip():
            expected = f'the column\'s name in the table, such as {name} = "Q"'
            raise FileError(f"{file}: {name} is {column!r}; expected {expected}")
    return {name: column.strip() for name, column in found.items()}


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise FileError(f"{file}: cannot be read ({error.strerror}); expected a TOML file of column names") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FileError(f'{file}: not a TOML file ({error}); expected lines such as question = "Q"') from None


def split_columns(header: Iterable[str], columns: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """(the columns that a table has or should have, those that it lacks and may lack): our name -> the given one."""
    present = normalized(header)
    absent = {
        name: column for name, column in columns.items() if name in MAY_LACK and normalized([column])[0] not in present
    }
    return {name: column for name, column in columns.items() if name not in absent}, absent


def absent_notices(records: Records, absent: dict[str, str], layout: Layout) -> list[str]:
    """What is told of columns that a table lacks: where their cells are read from then."""
    notices = []
    for name, column in absent.items():
        instead = "rows are named by their numbers" if name == "id" else "read without it"
        if name in layout.fields:
            instead = f"read from {quoted(records.header[layout.fields[name]])}"
        notices.append(f"{records.file}: no column {quoted(column)} for {name}; {instead}")
    return notices
