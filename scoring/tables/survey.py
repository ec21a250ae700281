"""One reading of all rows of a table, before each is read: for what no row shows by itself."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from scoring.errors import Problem, quoted
from scoring.readers.records import Records, Row, table_fault
from scoring.tables.answer_reading import AnswerSurvey
from scoring.tables.layouts import Layout
from scoring.tables.own_letters import LetterSurvey
from scoring.tables.rows import answer_text, filled_options


class FirstRows(Protocol):
    """The first row of each id, such as a dict."""

    def setdefault(self, id: str, number: int, /) -> int: ...


class PictureCells(Protocol):
    """Takes in the cells of all rows that may hold or name pictures, such as `RowPictures`."""

    def add(self, number: int, cells: Sequence[Any]) -> None: ...


class Survey:
    """One reading of all rows, for what no row shows by itself.

    pictures: gets the cells of all rows. letters: of the options' own. reading: what the answers mean; None where that
    is not certain. problems: rows that cannot be told apart, and answers whose meaning is not certain.
    """

    def __init__(self, records: Records, layout: Layout, pictures: PictureCells, answers: str | None):
        self.reading = answers
        self.letters = LetterSurvey()
        self.problems: list[Problem] = []
        self._records, self._layout, self._pictures = records, layout, pictures

    def read(self, row_of: FirstRows, progress: Callable[[Iterable[Row], int | None], Iterable[Row]] | None) -> None:
        """Read all rows. Raises InputError where there is no row.

        row_of: gets each id with its first row. progress: shows how many are read.
        """
        records = self._records
        counts, stripped = AnswerSurvey(), AnswerSurvey()  # by the options as they are, and without their own letters
        from_0, count = self._layout.name == "choices", 0
        rows: Iterable[Row] = records.rows()
        for row in progress(rows, records.count) if progress else rows:
            count += 1
            if len(row.cells) != len(records.header):
                self.problems.append(_ragged(records, row))
                continue
            raw = self._layout.read(row.cells)
            self._pictures.add(row.number, raw.pictures)
            if raw.id.strip() and row_of.setdefault(raw.id, row.number) != row.number:
                self.problems.append(repeated(records, row, raw.id, row_of.setdefault(raw.id, row.number)))
            filled = filled_options(raw)
            texts = self.letters.add(row.number, filled)
            if self.reading is None and not raw.fault and (cell := answer_text(raw.answer)):
                counts.add(cell, filled if cell[0].isdigit() else ())
                if texts is not filled:  # else they are not needed: not all rows have letters of their own
                    stripped.add(cell, texts if cell[0].isdigit() else ())
                from_0 = from_0 and isinstance(raw.answer, int | float)
        if self.letters.in_all_rows:
            counts = stripped
        if not count:
            raise table_fault(records.file, "no rows", "a header and at least one row", "check the file")
        self.reading = self.reading or counts.reading(from_0)
        if self.reading is None:
            self.problems.append(_uncertain(records.file, counts))


def _ragged(table: Records, row: Row) -> Problem:
    found, expected = f"{len(row.cells)} cells", f"{len(table.header)}, as in the header"
    fix = "put quotation marks around cells with separators or line breaks"
    return Problem(str(table.file), row.number, row.line, "", "", found, expected, fix)


def repeated(table: Records, row: Row, row_id: str, first: int) -> Problem:
    """The problem of a row whose id another has. first: the number of that row."""
    file, number = table.place_of(row.number)
    first_file, first = table.place_of(first)
    where = f"row {first}" if first_file == file else f"{first_file.name}, row {first}"
    found = f"{quoted(row_id)} again (first in {where})"
    fix = "make the ids unique or drop the column"
    return Problem(str(file), number, row.line, row_id, "id", found, "a unique id for each row", fix)


def _uncertain(file: Path, counts: AnswerSurvey) -> Problem:
    what = "numbers, which are also texts of options" if counts.texts == counts.answers else "numbers"
    found = f"{counts.answers:,} answers that are all {what}"
    expected = "letters, or numbers that show where they count from (a 0, or the number of options)"
    fix = "say what they are: --answers from-1 where 1 is the first option, from-0, or text"
    return Problem(str(file), 0, 0, "", "answer", found, expected, fix)
