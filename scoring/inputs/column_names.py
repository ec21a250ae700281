"""Names of a table's columns from a TOML file, for tables that are read again and again."""

import tomllib
from pathlib import Path
from typing import Any

from scoring.errors import quoted
from scoring.files.reading import FileError
from scoring.inputs.layouts import NAMES
from scoring.inputs.prompt import LETTERS

SECTION = "columns"


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
