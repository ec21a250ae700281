"""A table that is open: how it is read, where its rows have what, and what becomes of them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from scoring.errors import InputError, Problem, counted, quoted
from scoring.inputs.option_letters import repeats_options
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureLimits
from scoring.inputs.questions import Question
from scoring.readers.records import Records, Row
from scoring.tables.answer_reading import AUTO
from scoring.tables.column_names import absent_notices, split_columns
from scoring.tables.layouts import find_layout
from scoring.tables.left_out import LeftOut
from scoring.tables.picture_columns import FIRST_ROWS, columns_with_pictures
from scoring.tables.row_pictures import PictureProgress, PictureReader, RowPictures
from scoring.tables.rows import RowReader, RowSource
from scoring.tables.survey import Survey
from scoring.tables.table import Table
from scoring.tables.unread_columns import column_notices

PICTURE_NAME = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|ppm)", re.IGNORECASE)


@dataclass(frozen=True)
class TableOptions:
    """How a table and its pictures are read.

    images: the folder that `path` is relative to; None: the table's own folder, or the one that the table is.
    allow_outside: accept pictures outside that folder.
    columns: our name of a column -> the file's, for columns that have other names there.
    deep: decode every pixel instead of reading the headers alone.
    limits: how large pictures may be, now and when they are decoded for the model.
    encoding: of a file of text, by Python's name; None: it is found out.
    answers: what the answers are, one of READINGS; None: it is found out.
    text_only_rows: accept rows without a picture in a table of pictures.
    layout: how a row holds its question, one of `layouts.LAYOUTS`; None: it is found out.
    split: read the rows of this split alone; None: all, where files of several splits are refused.
    store: where pictures that cells hold are kept as files; by default in the cache.

    >>> TableOptions(images="photos", columns={"question": "Frage"}).allow_outside
    False
    """

    images: str | Path | None = None
    allow_outside: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    deep: bool = False
    limits: PictureLimits = DEFAULT_LIMITS
    encoding: str | None = None
    answers: str | None = None
    text_only_rows: bool = False
    layout: str | None = None
    split: str | None = None
    store: PictureStore = field(default_factory=PictureStore)


@dataclass
class RowCounts:
    """What is counted of a table's rows. first_equal, first_repeating: the numbers of the first rows of their kind.

    letters: options of a row, at most. answered: rows with an answer. several_pictures: rows with more than one. equal:
    rows with equal options. repeating: rows whose question lists the options once more. unanswered: good rows without
    an answer.
    """

    rows: int = 0
    good: int = 0
    letters: int = 0
    pictures: int = 0
    good_with_pictures: int = 0
    several_pictures: int = 0
    answered: int = 0
    unanswered: int = 0
    equal: int = 0
    first_equal: int = 0
    repeating: int = 0
    first_repeating: int = 0

    def add(self, question: Question) -> None:
        """Take in a row, also a faulty one."""
        pictures, options = len(question.pictures), question.options
        self.rows += 1
        self.letters = max(self.letters, len(options))
        self.pictures += pictures > 0
        self.several_pictures += pictures > 1
        self.answered += bool(question.answer)
        if question.fault:
            return
        self.good += 1
        self.good_with_pictures += pictures > 0
        self.unanswered += not question.answer
        if len(set(options)) < len(options):
            self.equal += 1
            self.first_equal = self.first_equal or question.row
        if repeats_options(question.question, options):
            self.repeating += 1
            self.first_repeating = self.first_repeating or question.row


@dataclass(frozen=True)
class ReadRows:
    """Rows as they were read: their questions, what is wrong with them, and which of their texts are in no question."""

    questions: list[Question]
    problems: list[Problem]
    left_out: LeftOut


class OpenTable:
    """A table whose columns are known. Raises InputError where they hold no questions."""

    def __init__(self, records: Records, options: TableOptions, picture_reader: PictureReader):
        self.records, self.options, self.picture_reader = records, options, picture_reader
        self.columns, self.absent = split_columns(records.header, options.columns)
        self.inside = columns_with_pictures(records)
        self.layout = find_layout(records, self.columns, self.inside, options.layout)
        if "path" not in self.layout.fields:
            self._check_for_pictures()

    def read_all(self, progress: PictureProgress | None = None) -> Table:
        """All rows at once. progress: shows how many pictures are looked at. Raises InputError as `read_table`."""
        pictures = RowPictures(self.picture_reader)
        survey = Survey(self.records, self.layout, pictures, self.options.answers)
        row_of: dict[str, int] = {}
        survey.read(row_of, progress if self.holds_pictures else None)
        pictures.finish(row_of, progress)
        del row_of  # large, where there are a million rows
        rows = self.records.rows(without=self.read_before(pictures))
        read = self.read_rows(rows, self.source(survey, pictures, bool(pictures)))
        if survey.problems:
            raise InputError(in_file_order(survey.problems + read.problems))
        counts = RowCounts()
        for question in read.questions:
            counts.add(question)
        notices = self.notices(survey, read.left_out, counts)
        return self.table(survey, read.questions, read.problems, notices, pictures.inside)

    @property
    def holds_pictures(self) -> bool:
        """Whether the columns of pictures hold them, and do not name files."""
        return bool(self.inside & {*self.layout.pictures})

    def read_before(self, pictures: RowPictures) -> list[str]:
        """The columns that need not be read again once `pictures` has taken in their cells."""
        if pictures.named or self.layout.turns:  # turns are compared with the pictures' cells
            return []
        return [self.records.header[index] for index in self.layout.pictures]

    def source(self, survey: Survey, pictures: RowPictures, has_pictures: bool) -> RowSource:
        """What is known of the table before its rows are read. has_pictures: whether any row has one."""
        layout = self.layout
        fields = {index: name for name, index in layout.fields.items() if index not in layout.pictures}
        return RowSource(
            records=self.records,
            layout=layout,
            names=fields | layout.names_of_options(self.records.header),
            pictures=pictures,
            expected=has_pictures and not self.options.text_only_rows,
            answers=survey.reading,
            own_letters=survey.letters.in_all_rows,
            limits=self.options.limits,
        )

    def read_rows(self, rows: Iterable[Row], source: RowSource) -> ReadRows:
        """The questions of these rows; those that do not fit the header are left out."""
        questions: list[Question] = []
        problems: list[Problem] = []
        left_out, width = LeftOut(), len(self.records.header)
        for row in rows:
            if len(row.cells) == width:
                reader = RowReader(source, row)
                questions.append(reader.question())
                problems += reader.problems
                left_out.add(reader.raw)
        return ReadRows(questions, problems, left_out)

    def notices(self, survey: Survey, left_out: LeftOut, counts: RowCounts) -> list[str]:
        """What is allowed but may be a mistake, and what was found out, once all rows are read."""
        records, layout = self.records, self.layout
        file, used = records.file, {*layout.fields.values(), *layout.options, *layout.turns.values(), *layout.pictures}
        notices = [*records.notices, *column_notices(file, records.header, {*layout.fields, *self.absent}, used)]
        notices += absent_notices(records, self.absent, layout)
        if (reading := survey.reading or AUTO) in ("from-0", "from-1"):
            first = int(reading[-1])
            notices.append(f"{file}: every answer is a number; read as {first} = a, {first + 1} = b and so on")
        notices += left_out.notices(file) + survey.letters.notices(file)
        return notices + _oddities(file, "answer" in layout.fields or bool(layout.turns), counts)

    def table(
        self,
        survey: Survey,
        questions: list[Question],
        problems: list[Problem],
        notices: list[str],
        pictures_inside: bool,
    ) -> Table:
        """The table with these rows."""
        options, layout, records = self.options, self.layout, self.records
        return Table(
            file=records.file,
            digest=records.digest,
            questions=questions,
            problems=problems,
            notices=notices,
            columns=self.columns | layout.spelled,
            images=str(Path(options.images).resolve()) if options.images else None,
            format=records.format,
            layout=layout.name,
            answers=survey.reading or AUTO,
            own_letters=survey.letters.in_all_rows,
            split=options.split,
            pictures_inside=pictures_inside,
        )

    def _check_for_pictures(self) -> None:
        """Raises InputError where a table without a known column of pictures has a column that seems to be one."""
        records, layout = self.records, self.layout
        used = {*layout.fields.values(), *layout.options, *layout.turns.values()}
        for row in islice(records.rows(), FIRST_ROWS):
            for index, cell in enumerate(row.cells[: len(records.header)]):
                named = isinstance(cell, str) and PICTURE_NAME.fullmatch(cell.strip())
                if index not in used and (named or index in self.inside):
                    what = quoted(cell.strip()) if named else "pictures"
                    found = f"no such column, but {what} in column {quoted(records.header[index])}"
                    fix = f"give --column path={records.header[index]}, or drop the column to ask in words alone"
                    raise InputError([Problem(str(records.file), 0, 0, "", "path", found, "a column of pictures", fix)])


def in_file_order(problems: Sequence[Problem]) -> list[Problem]:
    """The problems by file and row."""
    return sorted(problems, key=lambda problem: (problem.file, problem.row))


def _oddities(file: Path, answers: bool, counts: RowCounts) -> list[str]:
    """Notices of what is allowed but may be a mistake. answers: whether the table has a column of them."""
    notices = []
    if counts.equal:
        notices.append(f"{file}: {counts.equal} rows have equal options (first: row {counts.first_equal})")
    if counts.repeating:
        found = f"the questions of {counted(counts.repeating, 'row')} list the options once more"
        first = f"first: row {counts.first_repeating}"
        notices.append(f"{file}: {found} ({first}); such rows cannot be shown in other option orders")
    if answers and 0 < counts.unanswered < counts.rows:
        notices.append(f"{file}: {counts.unanswered} of {counts.rows} rows have no answer")
    return notices
