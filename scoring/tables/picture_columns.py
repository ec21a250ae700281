"""Which columns of a table hold its pictures, by their names and by what is in them."""

import re
from collections.abc import Collection, Sequence
from itertools import islice

from scoring.readers.records import Records
from scoring.tables.picture_cells import holds_picture

NAMED = ("path", "image_path", "img_path")  # columns that name files, as a rule
HELD = ("image", "images")  # columns that may hold the pictures themselves
NUMBERED = re.compile(r"(image_?)(\d+)")  # image_1, image_2 …: a picture each, where a row has so many
FIRST_ROWS = 100  # in which a column is looked at


def picture_columns(names: Sequence[str], inside: Collection[int] = ()) -> list[int]:
    """The indices of the columns that hold the pictures, in the pictures' order; none if no name is known.

    Numbered columns are taken together. Of other candidates the one that holds pictures goes first, as it needs no
    folder, and then the likeliest name. names: of all columns, as `normalized` gives them. inside: see
    `columns_with_pictures`.
    """
    numbered: dict[str, list[tuple[int, int]]] = {}
    for index, name in enumerate(names):
        if match := NUMBERED.fullmatch(name):
            numbered.setdefault(match[1], []).append((int(match[2]), index))
    sets = [[index for _, index in sorted(columns)] for _, columns in sorted(numbered.items(), reverse=True)]
    candidates = [
        *([names.index(name)] for name in NAMED if name in names),
        *sets,
        *([names.index(name)] for name in HELD if name in names),
    ]
    return next((columns for columns in candidates if {*columns} & {*inside}), candidates[0] if candidates else [])


def columns_with_pictures(records: Records) -> set[int]:
    """The indices of the columns that hold pictures, not the names of files, in one of the first rows."""
    return {
        index
        for row in islice(records.rows(), FIRST_ROWS)
        for index, cell in enumerate(row.cells[: len(records.header)])
        if holds_picture(cell)
    }
