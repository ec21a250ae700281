"""Columns that are not read and look as if they should be, and ids that a table does not have: told, not guessed."""

from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from scoring.errors import quoted
from scoring.readers.records import normalized
from scoring.tables.layouts import SPELLINGS

LIKE = 0.8  # from which similarity on a name looks like another
OTHER_NAMES = {  # our name -> what people call such a column, where that may also be something else
    "id": ("no", "number", "uid", "idx", "번호"),
    "answer": ("label", "gt", "ground_truth", "correct", "correct_answer", "correct_option", "target", "정답", "답"),
}
FIRST = 50  # columns without a use that are looked at


def column_notices(file: Path, header: Sequence[str], fields: Collection[str], used: Collection[int]) -> list[str]:
    """What to tell of a table's columns. fields: our names that it has. used: the indices of columns that are read."""
    missing = [name for name in SPELLINGS if name not in fields]
    unread = [name.strip() for index, name in enumerate(header) if index not in used and name.strip()][:FIRST]
    notices = []
    if "id" in missing:
        notices.append(f"{file}: no column of ids; the rows are called 1, 2, 3 and so on")
    for column in unread:
        if ours := next((name for name in missing if _looks_like(column, name)), None):
            fix = quoted(f"{ours}={column}")
            notices.append(f"{file}: column {quoted(column)} is not read; if it is the {ours}, add --column {fix}")
    return notices


def _looks_like(column: str, name: str) -> bool:
    """Whether a column's name looks like one of ours. Only a name of the same letters looks like that of a picture."""
    (plain,) = normalized([column])
    if plain in OTHER_NAMES.get(name, ()):
        return True
    letters = _letters(plain)
    for spelling in map(_letters, SPELLINGS[name]):
        alike = min(len(letters), len(spelling)) > 3 and name != "path"
        if letters == spelling or (alike and SequenceMatcher(None, letters, spelling).ratio() >= LIKE):
            return True
    return False


def _letters(name: str) -> str:
    return "".join(sign for sign in name if sign.isalnum())
