"""One row of a table -> a `Question`, and all that is wrong with it."""

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scoring.errors import Problem
from scoring.inputs.image_marks import number_marks
from scoring.inputs.option_letters import strip_letters
from scoring.inputs.pictures import PictureError, PictureLimits
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.readers.records import ObjectCell, Records, Row, as_text
from scoring.tables.answer_reading import AnswerError, read_answer
from scoring.tables.layouts import Layout, RawQuestion
from scoring.tables.row_pictures import LocatedPicture, PictureFault, RowPictures

SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can write them, and no file of text can hold them
LONGEST_CELL = 200_000  # characters; longer than any model's context


@dataclass(frozen=True)
class RowSource:
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


class RowReader:
    """Reads one row; `problems` lists what is wrong with it once `question` was called."""

    __slots__ = ("source", "layout", "row", "raw", "id", "problems")

    def __init__(self, source: RowSource, row: Row):
        self.source, self.layout, self.row = source, source.layout, row
        self.raw = source.layout.read(row.cells)
        if source.own_letters and (texts := strip_letters(filled_options(self.raw))):
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
            pictures=tuple(picture.picture for picture in pictures),
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
                if isinstance(held := self.row.cells[index], ObjectCell):
                    self._add_problem(name, str(held), "a text", "correct the cell")
                cell = as_text(held)
                if fault := text_fault(cell, "cell"):
                    self._add_problem(name, *fault)
            if not self.problems and "\0" in "".join([self.raw.question, *(self.raw.options or ())]):
                self._add_problem("question", "a NUL character in it or its options", "text", "remove it")
        if not self.id.strip():
            self._add_problem("id", "an empty cell", "an id", "fill it in")
        if not self.raw.question.strip() and not self.raw.fault:
            self._add_problem("question", "an empty cell", "a question", "fill it in or drop the row")

    def _pictures(self) -> list[LocatedPicture]:
        """The pictures and their upright sizes, without those that cannot be used."""
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
        return tuple(texts[:count]) if count <= len(LETTERS) else ()  # else all results would have 26 letters

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


def text_fault(text: str, kind: str) -> tuple[str, str, str] | None:
    """What is found in a text that cannot be read, what is expected, and what to do; kind: such as `cell`."""
    if "\0" in text:
        return "a NUL character", "text", "remove it"
    if SURROGATE.search(text):
        return "half of a character (a lone surrogate)", "text", "write the whole of it"
    if len(text) > LONGEST_CELL:
        return f"{len(text):,} characters", f"at most {LONGEST_CELL:,}", f"shorten the {kind}"
    return None


def answer_text(value: Any) -> str:
    """An answer's cell as text; "" if there is none. Whole numbers of a column of floats lose their `.0`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        value = ",".join(map(as_text, value))
    return as_text(value).strip()


def filled_options(raw: RawQuestion) -> list[str]:
    """A row's options without empty ones at the end."""
    options = list(raw.options or ())
    while options and not options[-1].strip():
        options.pop()
    return options


def _all_are_readable(cells: list[Any]) -> bool:
    """Whether all cells are whole texts, and not too long. Looking at all at once takes a fifth of the time."""
    try:
        text = "".join(cells)
        return "\0" not in text and not SURROGATE.search(text) and max(map(len, cells)) <= LONGEST_CELL
    except TypeError:  # some are no texts
        return False
