"""A table of questions -> `Question`s, with every problem of the whole table found in one reading.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the whole reading
unreliable: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from scoring.errors import InputError, Problem, counted, quoted
from scoring.inputs.option_letters import repeats_options
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureLimits
from scoring.inputs.questions import Question
from scoring.readers.opening import open_table
from scoring.readers.records import Records, as_text, normalized, table_fault
from scoring.tables.answer_reading import AUTO
from scoring.tables.column_names import absent_notices, split_columns
from scoring.tables.layouts import KNOWN, Layout, find_layout
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


def read_questions(file: str | Path, images: str | Path | None = None, allow_outside: bool = False) -> list[Question]:
    """All questions of a table. Raises InputError, with everything that is wrong, if any row is faulty.

    images, allow_outside: as in `TableOptions`.

    >>> question = read_questions("demo/test.csv")[1]
    >>> question.id, question.options[2], question.answer
    ('test_0001', 'violin', 'c')
    """
    table = read_table(file, TableOptions(images, allow_outside))
    if table.problems:
        raise InputError(table.problems)
    return table.questions


def read_table(file: str | Path, options: TableOptions | None = None, progress: PictureProgress | None = None) -> Table:
    """Read a table, a file or a folder of Parquet files, and look at every picture it names or holds, each once.

    Raises InputError, with the faults of rows too, where rows cannot be told apart or the answers' meaning is not
    certain. Otherwise faults of rows are listed in the result.

    >>> table = read_table("demo/test.csv")
    >>> len(table.questions), table.problems, table.reading()
    (400, [], "CSV, a column for each option; answers: letters or the options' texts")
    """
    file, options = Path(file), options or TableOptions()
    records = open_table(file, {*KNOWN, *normalized(options.columns.values())}, options.encoding, options.split)
    root = Path(options.images) if options.images else file if file.is_dir() else file.parent
    picture_reader = PictureReader(root, options.allow_outside, options.limits, options.deep, options.store)
    return read_records(records, options, picture_reader, progress)


def read_records(
    records: Records, options: TableOptions, picture_reader: PictureReader, progress: PictureProgress | None = None
) -> Table:
    """The same for a table that is open. Of the options only those count that concern rows."""
    file = records.file
    columns, absent = split_columns(records.header, options.columns)
    inside = columns_with_pictures(records)
    layout = find_layout(records, columns, inside, options.layout)
    if "path" not in layout.fields:
        _check_for_pictures(records, layout, inside)
    pictures = RowPictures(picture_reader)
    survey = Survey(records, layout, pictures, options.answers)
    row_of = survey.read(progress if inside & {*layout.pictures} else None)
    pictures.finish(row_of, progress)
    del row_of  # large, where there are a million rows
    fields = {index: name for name, index in layout.fields.items() if index not in layout.pictures}
    source = RowSource(
        records=records,
        layout=layout,
        names=fields | layout.names_of_options(records.header),
        pictures=pictures,
        expected=bool(pictures) and not options.text_only_rows,
        answers=survey.reading,
        own_letters=survey.letters.in_all_rows,
        limits=options.limits,
    )
    questions, problems, left_out = [], [], LeftOut()
    known = [] if pictures.named or layout.turns else layout.pictures  # turns are compared with the pictures' cells
    for row in records.rows(without=[records.header[index] for index in known]):
        if len(row.cells) == len(records.header):
            reader = RowReader(source, row)
            questions.append(reader.question())
            problems += reader.problems
            left_out.add(reader.raw)
    if survey.problems:
        raise InputError(sorted(survey.problems + problems, key=lambda problem: (problem.file, problem.row)))
    used = {*layout.fields.values(), *layout.options, *layout.turns.values(), *layout.pictures}
    notices = [*records.notices, *column_notices(file, records.header, {*layout.fields, *absent}, used)]
    notices += absent_notices(records, absent, layout)
    if (reading := survey.reading or AUTO) in ("from-0", "from-1"):
        first = int(reading[-1])
        notices.append(f"{file}: every answer is a number; read as {first} = a, {first + 1} = b and so on")
    notices += left_out.notices(file) + survey.letters.notices(file)
    return Table(
        file=file,
        digest=records.digest,
        questions=questions,
        problems=problems,
        notices=notices + _oddities(file, "answer" in layout.fields or bool(layout.turns), questions),
        columns=columns | layout.spelled,
        images=str(Path(options.images).resolve()) if options.images else None,
        format=records.format,
        layout=layout.name,
        answers=reading,
        own_letters=survey.letters.in_all_rows,
        split=options.split,
        pictures_inside=pictures.inside,
    )


def read_columns(
    file: Path, names: Sequence[str], id_column: str = "id", split: str | None = None
) -> dict[str, dict[str, str]]:
    """column -> id -> cell, of any columns of a table. Raises InputError if one is missing.

    Rows of a table without `id_column` are named by their numbers. split: see `TableOptions`.
    """
    records = open_table(file, {*KNOWN, *normalized(names)}, split=split)
    header = [name.strip() for name in records.header]
    index_of = dict(zip(normalized(header), range(len(header)))) | {name: index for index, name in enumerate(header)}
    if missing := [name for name in names if name not in index_of]:
        raise table_fault(file, f"columns {', '.join(header)}", f"a column {missing[0]}", "name one of them with --by")
    cells: dict[str, dict[str, str]] = {name: {} for name in names}
    id_index = index_of.get(id_column.strip().casefold(), index_of.get(id_column))
    for row in records.rows():
        if len(row.cells) != len(header):
            count, expected = f"{len(row.cells)} cells in line {row.line}", f"{len(header)}, as in the header"
            raise table_fault(file, count, expected, "`check` lists all such rows")
        row_id = str(row.number) if id_index is None else as_text(row.cells[id_index])
        for name in names:
            cells[name][row_id] = as_text(row.cells[index_of[name]]).strip()
    return cells


def _check_for_pictures(records: Records, layout: Layout, inside: Collection[int]) -> None:
    """Raises InputError where a table without a known column of pictures has a column that seems to be one.

    inside: the indices of columns that hold pictures.
    """
    used = {*layout.fields.values(), *layout.options, *layout.turns.values()}
    for row in islice(records.rows(), FIRST_ROWS):
        for index, cell in enumerate(row.cells[: len(records.header)]):
            named = isinstance(cell, str) and PICTURE_NAME.fullmatch(cell.strip())
            if index not in used and (named or index in inside):
                what = quoted(cell.strip()) if named else "pictures"
                found = f"no such column, but {what} in column {quoted(records.header[index])}"
                fix = f"give --column path={records.header[index]}, or drop the column to ask in words alone"
                raise InputError([Problem(str(records.file), 0, 0, "", "path", found, "a column of pictures", fix)])


def _oddities(file: Path, answers: bool, questions: list[Question]) -> list[str]:
    """Notices of what is allowed but may be a mistake. answers: whether the table has a column of them."""
    notices = []
    equal = [
        question.row
        for question in questions
        if len(set(question.options)) < len(question.options) and not question.fault
    ]
    if equal:
        notices.append(f"{file}: {len(equal)} rows have equal options (first: row {equal[0]})")
    repeating = [row.row for row in questions if not row.fault and repeats_options(row.question, row.options)]
    if repeating:
        found = f"the questions of {counted(len(repeating), 'row')} list the options once more"
        notices.append(f"{file}: {found} (first: row {repeating[0]}); such rows cannot be shown in other option orders")
    unanswered = sum(not question.answer and not question.fault for question in questions)
    if answers and 0 < unanswered < len(questions):
        notices.append(f"{file}: {unanswered} of {len(questions)} rows have no answer")
    return notices
