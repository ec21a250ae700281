"""A sample submission, as competitions give one: the header, the ids and their order that an upload must have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoring.errors import InputError, Problem, quoted
from scoring.messages import Say
from scoring.readers.delimited import DelimitedTable, open_delimited
from scoring.readers.opening import open_table
from scoring.readers.records import Records, as_text, normalized, table_fault

NAMED = 5  # ids that a message names


@dataclass(frozen=True)
class SampleSubmission:
    """header: the names of the two columns. ids: the first column, each once. digest: SHA-256 of the file's bytes."""

    file: Path
    header: list[str]
    ids: list[str]
    digest: str
    delimiter: str = ","

    def rows_in(self, ids: Sequence[str]) -> list[int]:
        """The row of each of the sample's ids among the `ids` of a table.

        Raises InputError where the table lacks one, with the first that it lacks, and the first that the sample lacks.
        """
        row_of = {id: row for row, id in enumerate(ids)}
        missing = [id for id in self.ids if id not in row_of]
        if missing:
            left_out = self.left_out(ids)
            found = f"{len(missing):,} of {len(self.ids):,} ids that no row of the table has: {_first(missing)}"
            raise table_fault(
                self.file,
                f"{found}; {left_out}" if left_out else found,
                "ids of the table in the first column",
                "name the sample of this table, and leave no row of the table out",
            )
        return [row_of[id] for id in self.ids]

    def left_out(self, ids: Sequence[str]) -> str:
        """A sentence about the rows, of a table with these `ids`, that the sample lacks; "" where it has all."""
        known = set(self.ids)
        lacking = [id for id in ids if id not in known]
        if not lacking:
            return ""
        verb = "is" if len(lacking) == 1 else "are"
        return f"{len(lacking):,} of {len(ids):,} ids of the table {verb} not in {self.file}: {_first(lacking)}"

    def about(self) -> dict[str, Any]:
        """What run.json records of it."""
        return {"file": str(self.file), "sha256": self.digest, "rows": len(self.ids)}


def read_sample(file: Path) -> SampleSubmission:
    """The sample in a file of two columns, the ids and the answers, whatever their names; its answers do not count.

    Raises InputError, with everything that is wrong, where there are more columns or fewer, no rows, or repeated ids.
    """
    text = _open(file)
    if len(text.header) != 2:
        names = ", ".join(map(quoted, text.header))
        plural = "" if len(text.header) == 1 else "s"
        found = f"{len(text.header):,} column{plural}: {names}"
        raise table_fault(file, found, "two: the ids, and the answers", "name the sample submission, or cut it to two")
    first_row: dict[str, int] = {}  # with each id
    problems = []
    for row in text.rows():
        id, where = as_text(row.cells[0]) if row.cells else "", (str(file), row.number, row.line)
        if len(row.cells) != 2:
            found, fix = f"{len(row.cells)} cells", "put quotation marks around cells with separators"
            problems.append(Problem(*where, "", "", found, "2, as in the header", fix))
        elif first_row.setdefault(id, row.number) != row.number:
            found = f"{quoted(id)} again (first in row {first_row[id]})"
            problems.append(Problem(*where, id, text.header[0], found, "each id once", "remove one of the rows"))
    if problems:
        raise InputError(problems)
    if not first_row:
        raise table_fault(file, "no rows", "a header and a row for each id", "check the file")
    delimiter = text.delimiter if isinstance(text, DelimitedTable) else ","
    return SampleSubmission(file, text.header, list(first_row), text.digest, delimiter)


def tell_lacking(sample: SampleSubmission | None, ids: Sequence[str], say: Say) -> None:
    """Tell which rows submission.csv lacks because the sample does. ids: of all rows."""
    if sample and (lacking := sample.left_out(ids)):
        say(f"{lacking}; submission.csv leaves such rows out")


def _open(file: Path) -> Records:
    """The file with the separator that cuts its header into two names, if one does; else with commas."""
    text = open_table(file, set())
    if len(text.header) == 1 and isinstance(text, DelimitedTable):
        for sign in ";\t":
            names = text.header[0].split(sign)
            if len(names) == 2:
                return open_delimited(file, set(normalized(names)))
    return text


def _first(ids: Sequence[str]) -> str:
    """The first few ids of a list, as a message names them."""
    return ", ".join(map(quoted, ids[:NAMED])) + (" …" if len(ids) > NAMED else "")
