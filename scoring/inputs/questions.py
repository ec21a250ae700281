"""A table of questions -> `Question`s, with every problem of the whole table found in one reading.

Faults are of two kinds. A *table* fault (no such column, ragged rows, repeated ids) makes the whole reading
unreliable: `read_table` raises. A *row* fault (no picture, an empty question, an answer that is no
option) concerns one row: it is listed in `Table.problems`, and `read_questions` raises on any.
"""

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from PIL import Image

from scoring.errors import InputError, Problem, counted, quoted
from scoring.inputs.answer_reading import AUTO, AnswerError, AnswerSurvey, read_answer
from scoring.inputs.column_names import absent_notices, split_columns
from scoring.inputs.image_marks import number_marks
from scoring.inputs.inline_options import repeats_options, strip_letters
from scoring.inputs.layouts import KNOWN, Layout, RawQuestion, find_layout
from scoring.inputs.left_out import LeftOut
from scoring.inputs.own_letters import LetterSurvey
from scoring.inputs.picture_cells import PictureStore
from scoring.inputs.picture_columns import FIRST_ROWS, columns_with_pictures
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureError, PictureLimits
from scoring.inputs.prompt import LETTERS
from scoring.inputs.row_pictures import LocatedPicture, PictureFault, PictureReader, RowPictures
from scoring.inputs.unread_columns import column_notices
from scoring.readers.opening import open_table
from scoring.readers.records import Records, Row, as_text, normalized, table_fault

LONGEST_CELL = 200_000  # characters; longer than any model's context
PICTURE_NAME = re.compile(r".+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|ppm)", re.IGNORECASE)
T = TypeVar("T")
Picture = Path | Image.Image  # `read_table` gives files; a caller of the library may give opened pictures instead


@dataclass(frozen=True, slots=True)
class Question:
    """One row. `options` in the data's order; `answer` a letter or ""; `fault` what makes it unusable or "".

    `<image 2>` in a text is the place of the second picture; pictures that no text names come before the texts. `sizes`
    are those of the upright pictures, from their headers. `limits`: how large a file may be when it is decoded.
    """

    id: str
    row: int
    pictures: tuple[Picture, ...]
    question: str
    options: tuple[str, ...]
    answer: str = ""
    task_type: str = ""
    task_hint: str = ""
    fault: str = ""
    sizes: tuple[tuple[int, int], ...] = ()
    limits: PictureLimits = DEFAULT_LIMITS

    @property
    def picture(self) -> Picture | None:
        """The first picture; None for a question in words alone."""
        return self.pictures[0] if self.pictures else None


_PLACES = {  # of the options, by layout
    "letters": "a column for each option",
    "choices": "a list of options",
    "inline": "options inside the question",
    "chat": "conversations, options inside the human turn",
}
_MEANINGS = {
    AUTO: "letters or the options' texts",
    "letters": "letters",
    "text": "the options' texts",
    "from-0": "numbers, 0 = a",
    "from-1": "numbers, 1 = a",
}


@dataclass
class Table:
    """A table as read: all rows, also faulty ones, in the file's order."""

    file: Path  # or the folder of its files
    digest: str  # SHA-256 of the file's bytes
    questions: list[Question]
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # our name -> the file's, where they differ
    images: str | None = None  # the folder of the pictures, if one was given
    format: str = "CSV"
    layout: str = "letters"  # one of `layouts.LAYOUTS`
    answers: str = AUTO  # how they were read: AUTO or one of READINGS
    own_letters: bool = False  # all options began with their letters, which were taken off
    split: str | None = None  # the only one that was read, if one was chosen
    pictures_inside: bool = False  # whether cells hold pictures

    def about(self) -> dict[str, Any]:
        """What a result records of the table it is made from: nothing of what is as usual."""
        usual: dict[str, object]
        usual = {"columns": {}, "layout": "letters", "answers": AUTO, "own_letters": False, "split": None}
        unusual = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return {"file": str(self.file), "sha256": self.digest} | unusual

    @property
    def is_usual(self) -> bool:
        """Whether it is a CSV with our names and layout, read without a decision that a message should tell."""
        with_pictures = any(row.pictures for row in self.questions)
        with_files = with_pictures and not self.pictures_inside
        return self.format == "CSV" and with_files and self.about().keys() == {"file", "sha256"}

    def reading(self) -> str:
        """In one line, what the table was read as."""
        options = _PLACES[self.layout] + (", their letters taken off" if self.own_letters else "")
        renamed = ", ".join(f"{name} from {quoted(file_name)}" for name, file_name in self.columns.items())
        answers = f"answers: {_MEANINGS[self.answers]}" if any(row.answer for row in self.questions) else "no answers"
        pictures = "" if any(row.pictures for row in self.good) or not self.good else "no pictures"
        if self.pictures_inside:
            pictures = "pictures inside the table"
        return "; ".join(filter(None, [f"{self.format}, {options}", renamed, pictures, answers]))

    @property
    def good(self) -> list[Question]:
        """The questions without a fault."""
        return [question for question in self.questions if not question.fault]

    @property
    def letters(self) -> str:
        """The letters of the table's options: "abcd" for four columns."""
        return LETTERS[: max(len(question.options) for question in self.questions)]


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


class PictureProgress(Protocol):
    """Passes items on, and shows how many of `total` are done; None: it is not known."""

    def __call__(self, items: Iterable[T], total: int | None, /) -> Iterable[T]: ...


def read_questions(file: str | Path, images: str | Path | None = None, allow_outside: bool = False) -> list[Question]:
    """All questions of a table. Raises InputError, with everything that is wrong, if any row is faulty.

    images, allow_outside: as in `TableOptions`.
    """
    table = read_table(file, TableOptions(images, allow_outside))
    if table.problems:
        raise InputError(table.problems)
    return table.questions


def read_table(file: str | Path, options: TableOptions | None = None, progress: PictureProgress | None = None) -> Table:
    """Read a table, a file or a folder of Parquet files, and look at every picture it names or holds, each once.

    Raises InputError, with the faults of rows too, where rows cannot be told apart or the answers' meaning is not
    certain. Otherwise faults of rows are listed in the result.
    """
    file, options = Path(file), options or TableOptions()
    records = open_table(file, {*KNOWN, *normalized(options.columns.values())}, options.encoding, options.split)
    columns, absent = split_columns(records.header, options.columns)
    inside = columns_with_pictures(records)
    layout = find_layout(records, columns, inside, options.layout)
    if "path" not in layout.fields:
        _check_for_pictures(records, layout, inside)
    pictures = RowPictures(_picture_reader(file, options))
    survey = _Survey(records, layout, pictures, options.answers)
    row_of = survey.read(progress if inside & {*layout.pictures} else None)
    pictures.finish(row_of, progress)
    del row_of  # large, where there are a million rows
    fields = {index: name for name, index in layout.fields.items() if index not in layout.pictures}
    source = _Source(
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
            reader = _RowReader(source, row)
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


def _picture_reader(file: Path, options: TableOptions) -> PictureReader:
    root = Path(options.images) if options.images else file if file.is_dir() else file.parent
    return PictureReader(root, options.allow_outside, options.limits, options.deep, options.store)


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


# ------------------------------------------------------------------ all rows, before each is read
class _Survey:
    """One reading of all rows, for what no row shows by itself.

    pictures: gets the cells of all rows. letters: of the options' own. reading: what the answers mean; None where that
    is not certain. problems: rows that cannot be told apart, and answers whose meaning is not certain.
    """

    def __init__(self, records: Records, layout: Layout, pictures: RowPictures, answers: str | None):
        self.reading = answers
        self.letters = LetterSurvey()
        self.problems: list[Problem] = []
        self._records, self._layout, self._pictures = records, layout, pictures

    def read(self, progress: PictureProgress | None) -> dict[str, int]:
        """Read all rows; return each id with its first row. Raises InputError where there is no row.

        progress: shows how many are read.
        """
        records, row_of = self._records, dict[str, int]()
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
                self.problems.append(_repeated(records, row, raw.id, row_of[raw.id]))
            filled = _filled_options(raw)
            texts = self.letters.add(row.number, filled)
            if self.reading is None and not raw.fault and (cell := answer_text(raw.answer)):
                counts.add(cell, filled if cell[0].isdigit() else ())
                stripped.add(cell, texts if cell[0].isdigit() else ())
                from_0 = from_0 and isinstance(raw.answer, int | float)
        if self.letters.in_all_rows:
            counts = stripped
        if not count:
            raise table_fault(records.file, "no rows", "a header and at least one row", "check the file")
        self.reading = self.reading or counts.reading(from_0)
        if self.reading is None:
            self.problems.append(_uncertain(records.file, counts))
        return row_of


def answer_text(value: Any) -> str:
    """An answer's cell as text; "" if there is none. Whole numbers of a column of floats lose their `.0`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        value = ",".join(map(as_text, value))
    return as_text(value).strip()


def _filled_options(raw: RawQuestion) -> list[str]:
    """A row's options without empty ones at the end."""
    options = list(raw.options or ())
    while options and not options[-1].strip():
        options.pop()
    return options


def _ragged(table: Records, row: Row) -> Problem:
    found, expected = f"{len(row.cells)} cells", f"{len(table.header)}, as in the header"
    fix = "put quotation marks around cells with separators or line breaks"
    return Problem(str(table.file), row.number, row.line, "", "", found, expected, fix)


def _repeated(table: Records, row: Row, row_id: str, first: int) -> Problem:
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


# ------------------------------------------------------------------ one row
@dataclass(frozen=True)
class _Source:
    """What is known of a table before its rows are read.

    names: index of a column -> its name in messages, without those of pictures. expected: whether a row without a
    picture is faulty. answers: what they mean; None where that is not certain, and they are not read. own_letters:
    whether the letters before all options are taken off.
    """

    records: Records
    layout: Layout
    names: dict[int, str]
    pictures: RowPictures
    expected: bool
    answers: str | None
    own_letters: bool
    limits: PictureLimits


class _RowReader:
    """Reads one row; `problems` lists what is wrong with it once `question` was called."""

    __slots__ = ("source", "layout", "row", "raw", "id", "problems")

    def __init__(self, source: _Source, row: Row):
        self.source, self.layout, self.row = source, source.layout, row
        self.raw = source.layout.read(row.cells)
        if source.own_letters and (texts := strip_letters(_filled_options(self.raw))):
            self.raw = replace(self.raw, options=texts)
        self.id = self.raw.id if "id" in self.layout.fields else str(row.number)
        self.problems: list[Problem] = []

    def question(self) -> Question:
        """The row's question, also if it is faulty."""
        self._check_cells()
        pictures = self._pictures()
        options = self._options()
        answer = self._answer(options)
        question, options, task_hint = self._with_marks(options, len(pictures))
        return Question(
            id=self.id,
            row=self.row.number,
            pictures=tuple(picture.path for picture in pictures),
            question=question,
            options=options,
            answer=answer,
            task_type=sys.intern(self.raw.task_type.strip()),
            task_hint=task_hint,
            fault=self._fault(),
            sizes=tuple(picture.size for picture in pictures),
            limits=self.source.limits,
        )

    def _fault(self) -> str:
        """The first problem, with the file where a table has several; "" if there is none."""
        if not self.problems:
            return ""
        file = Path(self.problems[0].file)
        text = self.problems[0].text
        return text if file == self.source.records.file else f"{file.name}, {text}"

    def _add_problem(self, column: str, found: str, expected: str, fix: str) -> None:
        file, number = self.source.records.place_of(self.row.number)
        self.problems.append(Problem(str(file), number, self.row.line, self.id, column, found, expected, fix))

    def _check_cells(self) -> None:
        """Cells that no text can be, an empty id, an empty question."""
        if not _all_are_readable([self.row.cells[index] for index in self.source.names]):
            for index, name in self.source.names.items():
                cell = as_text(self.row.cells[index])
                if "\0" in cell:
                    self._add_problem(name, "a NUL character", "text", "remove it")
                elif len(cell) > LONGEST_CELL:
                    found, expected = f"{len(cell):,} characters", f"at most {LONGEST_CELL:,}"
                    self._add_problem(name, found, expected, "shorten the cell")
            if not self.problems and "\0" in "".join([self.raw.question, *(self.raw.options or ())]):
                self._add_problem("question", "a NUL character in it or its options", "text", "remove it")
        if not self.id.strip():
            self._add_problem("id", "an empty cell", "an id", "fill it in")
        if not self.raw.question.strip() and not self.raw.fault:
            self._add_problem("question", "an empty cell", "a question", "fill it in or drop the row")

    def _pictures(self) -> list[LocatedPicture]:
        """The pictures' files and upright sizes, without those that cannot be used."""
        pictures = []
        results = self.source.pictures.of(self.row.number, self.raw.pictures)
        if not results and self.source.expected:
            fix = "fill it in, drop the row, or ask it in words alone with --text-only-rows"
            self._add_problem("path", "an empty cell", "a picture", fix)
        for picture in results:
            if isinstance(picture, PictureFault):
                self._add_problem("path", picture.found, picture.expected, picture.fix)
            else:
                pictures.append(picture)
        return pictures

    def _options(self) -> tuple[str, ...]:
        """The options up to the last that is filled in; all cells if an empty one stands between."""
        texts = self.raw.options
        if texts is None:
            if self.raw.fault:
                self._add_problem(*self.raw.fault)
            return ()
        filled = [bool(text.strip()) for text in texts]
        count = sum(filled)
        if not all(filled[:count]):
            self._add_problem(
                LETTERS[filled.index(False)],
                "an empty option before a filled one",
                "options without a gap",
                "move them together",
            )
            return tuple(texts)
        if not 2 <= count <= len(LETTERS):
            expected = "at least 2" if count < len(LETTERS) else f"at most {len(LETTERS)}"
            self._add_problem("b", f"{count} options", expected, "fill the options in or drop the row")
        return tuple(texts[: min(count, len(LETTERS))])

    def _with_marks(self, options: tuple[str, ...], pictures: int) -> tuple[str, tuple[str, ...], str]:
        """The question, the options and the hint with the pictures' places as `Question` has them."""
        hint = self.raw.task_hint.strip()
        texts = [self.raw.question, *options, hint]
        if not self.problems:  # where a picture is missing already, marks say nothing
            try:
                texts = number_marks(texts, pictures)
            except PictureError as error:
                self._add_problem("question", error.found, error.expected, error.fix)
        return texts[0], tuple(texts[1:-1]), texts[-1]

    def _answer(self, options: tuple[str, ...]) -> str:
        """The right option's letter; "" if there is none, or none that can be understood."""
        cell = answer_text(self.raw.answer)
        if not cell or self.source.answers is None or self.raw.options is None:
            return ""
        try:
            return read_answer(cell, options, self.source.answers)
        except AnswerError as error:
            self._add_problem("answer", error.found, error.expected, "correct the answer")
            return ""


def repeats(question: Question) -> bool:
    """Whether a question's text lists its options too, with their letters: in another order they would contradict."""
    return repeats_options(question.question, question.options)


def _all_are_readable(cells: list[Any]) -> bool:
    """Whether all cells are texts without a NUL, and not too long. Looking at all at once takes a fifth of the time."""
    try:
        return "\0" not in "".join(cells) and max(map(len, cells)) <= LONGEST_CELL
    except TypeError:  # some are no texts
        return False


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
    repeating = [question.row for question in questions if not question.fault and repeats(question)]
    if repeating:
        found = f"the questions of {counted(len(repeating), 'row')} list the options once more"
        notices.append(f"{file}: {found} (first: row {repeating[0]}); such rows cannot be shown in other option orders")
    unanswered = sum(not question.answer and not question.fault for question in questions)
    if answers and 0 < unanswered < len(questions):
        notices.append(f"{file}: {unanswered} of {len(questions)} rows have no answer")
    return notices
