"""A table of more rows than are held in memory: read to its end for what only all rows show, then a range at a time.

What is kept of every row is a hash of its id, and that only until all are read. Each range is a `Table`, read as a part
of the whole: with the same meaning of answers, the same letters, and the rows' own numbers.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from scoring.errors import InputError, Problem
from scoring.inputs.questions import Question
from scoring.readers.delimited import DelimitedTable
from scoring.readers.records import Records, Row, table_fault
from scoring.readers.splits import SplitTable
from scoring.readers.unpacking import check_file, is_packed
from scoring.tables.left_out import LeftOut
from scoring.tables.open_table import OpenTable, ReadRows, RowCounts, in_file_order
from scoring.tables.picture_cells import CellPicture, plain_name
from scoring.tables.row_pictures import (
    LONGEST_REFERENCE,
    PictureFault,
    PictureProgress,
    RowPictures,
    pictures_of_cells,
)
from scoring.tables.survey import Survey, repeated
from scoring.tables.table import Table

ROWS_HELD = 1 << 20  # rows of a table that are held at a time
SHORTEST_ROW = 4  # bytes: two cells of one character, a separator and a line break
MOST_PROBLEMS = 10_000  # that are kept


def holds_more_rows(records: Records, most: int) -> bool:
    """Whether an open table has more than so many rows; where its format does not say, they are counted so far."""
    if isinstance(records, SplitTable) and not holds_more_rows(records.table, most):
        return False
    if records.count is not None:
        return records.count > most
    file = records.file
    if isinstance(records, DelimitedTable) and file.stat().st_size < SHORTEST_ROW * most and not is_packed(file):
        return False
    return next(islice(records.rows(), most, None), None) is not None


@dataclass(frozen=True, eq=False)
class RangeReader:
    """Reads the ranges of a table, once what only all rows show is known. ends: the number of each range's last row.

    kinds: of the pictures of the whole table.
    """

    opened: OpenTable
    survey: Survey
    kinds: "_PictureKinds"
    ends: Sequence[int]

    def read(self, number: int, stopped: Callable[[], bool] = bool) -> ReadRows:
        """The rows of a range, by its number from 0 on; only the first of them once `stopped()`."""
        opened, after, end = self.opened, self.ends[number - 1] if number else 0, self.ends[number]

        def rows(without: Sequence[str] = ()) -> Iterator[Row]:
            return takewhile(lambda row: row.number <= end and not stopped(), opened.records.rows(without, after))

        pictures, width = RowPictures(opened.picture_reader, self.kinds.inside), len(opened.records.header)
        if opened.layout.pictures or opened.layout.turns:
            for row in rows():
                if len(row.cells) == width:
                    pictures.add(row.number, opened.layout.read(row.cells).pictures)
            pictures.finish({})
        source = opened.source(self.survey, pictures, self.kinds.any)
        return opened.read_rows(rows(opened.read_before(pictures)), source)


@dataclass(frozen=True, eq=False)
class LargeTable:
    """What is known of all rows; `read` gives those of a range.

    common: the table without its rows. held: rows of a range, except for the last. stamps: size and time of the files
    that hold the rows, when these were first read.
    """

    reader: RangeReader
    common: Table
    counts: RowCounts
    held: int
    stamps: "dict[Path, tuple[int, int]]"

    @property
    def ends(self) -> Sequence[int]:
        """The number of the last row of each range."""
        return self.reader.ends

    @property
    def letters(self) -> str:
        """See `Table.letters`."""
        return self.common.letters

    @property
    def file(self) -> Path:
        return self.common.file

    @property
    def problems(self) -> list[Problem]:
        return self.common.problems

    @property
    def notices(self) -> list[str]:
        return self.common.notices

    @property
    def count(self) -> int:
        """How many rows there are."""
        return self.counts.rows

    @property
    def good_count(self) -> int:
        """How many of them have no fault."""
        return self.counts.good

    @property
    def is_usual(self) -> bool:
        """See `Table.is_usual`."""
        return self.common.is_usual_with(self.counts.pictures > 0)

    def reading(self) -> str:
        """See `Table.reading`."""
        pictures = self.counts.good_with_pictures > 0 or not self.counts.good
        return self.common.reading_with(pictures, self.counts.answered > 0)

    def read(self, number: int, stopped: Callable[[], bool] = bool) -> Table:
        """The rows of a range, by its number from 0 on; only the first of them once `stopped()`.

        Raises InputError where the file has changed.
        """
        self._check_unchanged()
        read = self.reader.read(number, stopped)
        return replace(self.common, questions=read.questions, problems=read.problems, notices=[])

    def _check_unchanged(self) -> None:
        """Between two ranges may lie hours, and rows of two tables are no result."""
        for file, stamp in self.stamps.items():
            if _stamp(file) != stamp:
                expected = "the rows that were counted and checked before"
                raise table_fault(file, "another file than at the start", expected, "start anew with --overwrite")

    def read_all(self) -> Table:
        """All rows at once: as much memory as they take."""
        return self.reader.opened.read_all()

    def first(self, count: int) -> Table:
        """The first rows alone, at once, with what is told of all."""
        questions = (question for table in self.tables() for question in table.questions)
        return replace(self.common, questions=list(islice(questions, count)), most_options=2)

    def tables(self) -> Iterator[Table]:
        """The rows of all ranges, one range after the other."""
        return map(self.read, range(len(self.ends)))

    def ids(self) -> list[str]:
        """The ids of all rows: as much memory as they take."""
        records, layout = self.reader.opened.records, self.reader.opened.layout
        rows = (row for row in records.rows() if len(row.cells) == len(records.header))
        return [layout.read(row.cells).id if "id" in layout.fields else str(row.number) for row in rows]


def survey_large(opened: OpenTable, held: int, progress: PictureProgress | None = None) -> LargeTable | None:
    """Read an open table to its end, twice. None where its pictures cannot be known by ranges.

    held: rows of a range. progress: shows how many rows are read. Raises InputError as `read_table`.
    """
    ids, pictures = _IdHashes(), _PictureKinds()
    survey = Survey(opened.records, opened.layout, pictures, opened.options.answers)
    ranges = _Ranges(opened, survey, held, progress)
    survey.read(ids, ranges.count_rows)
    if pictures.refer_to(ids):
        return None
    survey.problems += _repeated_ids(opened, ids.repeated())
    del ids
    reader = RangeReader(opened, survey, pictures, ranges.ends)
    counts, problems, left_out = RowCounts(), _FirstProblems(), LeftOut()

    def questions() -> Iterator[Question]:
        for number in range(len(ranges.ends)):
            read = reader.read(number)
            problems.add(read.problems)
            left_out.update(read.left_out)
            yield from read.questions
            del read  # before the next range is read

    read_again: Iterable[Question] = questions()
    for question in progress(read_again, ranges.count) if progress else read_again:
        counts.add(question)
    if survey.problems:
        raise InputError(in_file_order(survey.problems + problems.listed)[: 2 * MOST_PROBLEMS])
    notices = opened.notices(survey, left_out, counts)
    table = opened.table(survey, [], problems.told(opened.records.file), notices, pictures.inside)
    common = replace(table, most_options=max(2, counts.letters))
    return LargeTable(reader, common, counts, held, ranges.stamps)


class _Ranges:
    """Where the ranges end, found out while all rows are read, and what the files were before. See `LargeTable`."""

    def __init__(self, opened: OpenTable, survey: Survey, held: int, progress: PictureProgress | None):
        self.ends, self.count = array("q"), 0
        self.stamps = {file: _stamp(file) for file in opened.records.files}
        self._survey, self._held, self._progress = survey, held, progress

    def count_rows(self, rows: Iterable[Row], total: int | None) -> Iterator[Row]:
        """Pass the rows on."""
        held, number = self._held, 0
        for row in self._progress(rows, total) if self._progress else rows:
            number, self.count = row.number, self.count + 1
            yield row
            del self._survey.problems[MOST_PROBLEMS:]
            if self.count % held == 0:
                self.ends.append(number)
        if self.count % held:
            self.ends.append(number)


def _stamp(file: Path) -> tuple[int, int]:
    """The size of a file and when it was changed. Raises InputError where it is gone."""
    check_file(file)
    status = file.stat()
    return status.st_size, status.st_mtime_ns


class _FirstProblems:
    """The first problems of rows, and how many more there are."""

    def __init__(self) -> None:
        self.listed: list[Problem] = []
        self.others = 0

    def add(self, problems: Sequence[Problem]) -> None:
        room = MOST_PROBLEMS - len(self.listed)
        self.listed += problems[:room]
        self.others += len(problems[room:])

    def told(self, file: Path) -> list[Problem]:
        """Those that are listed, and in one more that there are others."""
        if not self.others:
            return self.listed
        found, fix = f"{self.others:,} further faults of rows, which are not listed", "correct the rows that are listed"
        return [*self.listed, Problem(str(file), 0, 0, "", "", found, "rows without a fault", fix)]


class _IdHashes:
    """A hash of every row's id, 8 bytes each, in place of a dict of all ids."""

    def __init__(self) -> None:
        self.hashes = array("q")

    def setdefault(self, id: str, number: int, /) -> int:
        self.hashes.append(hash(id))
        return number

    def sorted(self) -> np.ndarray:
        """(N,) the hashes, in place."""
        hashes = np.frombuffer(self.hashes, np.int64)
        hashes.sort()
        return hashes

    def repeated(self) -> set[int]:
        """Hashes that several rows have, some of them where there are very many."""
        hashes = self.sorted()
        return set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[:MOST_PROBLEMS].tolist())


class _PictureKinds:
    """Whether rows have pictures, and what their cells may refer to; the pictures themselves are not looked at.

    any: whether a row has one, or should have one. inside: whether a cell holds one; in such tables others may name the
    row whose pictures they share.
    """

    def __init__(self) -> None:
        self.any = self.inside = False
        self._names = array("q")  # hashes of short texts in place of a picture

    def add(self, number: int, cells: Sequence[Any]) -> None:
        for cell in cells:
            if name := plain_name(cell):
                self.any = True
                self._names.append(hash(name))
            elif not self.inside or not _is_one_picture(cell):
                self._look_at(pictures_of_cells([cell]))

    def _look_at(self, pictures: Sequence[CellPicture | PictureFault]) -> None:
        self.any = self.any or bool(pictures)
        for source in (picture.source for picture in pictures if isinstance(picture, CellPicture)):
            if not isinstance(source, str):
                self.inside = True
            elif len(source) <= LONGEST_REFERENCE:
                self._names.append(hash(source))

    def refer_to(self, ids: _IdHashes) -> bool:
        """Whether a text in place of a picture is the id of a row. The texts are forgotten."""
        names, self._names = np.frombuffer(self._names, np.int64), array("q")
        return self.inside and bool(np.isin(names, ids.sorted()).any())


def _is_one_picture(cell: Any) -> bool:
    """Whether a cell that is no plain name is at most one picture, or the name of a file, too long for an id."""
    if not isinstance(cell, str):
        return isinstance(cell, bytes)
    text = cell.strip()
    return text[:1] not in ("[", "{") and not 0 < len(text) <= LONGEST_REFERENCE


def _repeated_ids(opened: OpenTable, hashes: set[int]) -> list[Problem]:
    """A problem for each row whose id an earlier row has. hashes: of ids to look at."""
    problems: list[Problem] = []
    row_of: dict[str, int] = {}
    if not hashes:
        return problems
    for row in opened.records.rows():
        if len(row.cells) != len(opened.records.header) or hash(id := opened.layout.read(row.cells).id) not in hashes:
            continue
        if (first := row_of.setdefault(id, row.number)) != row.number:
            problems.append(repeated(opened.records, row, id, first))
            if len(problems) == MOST_PROBLEMS:
                break
    return problems
