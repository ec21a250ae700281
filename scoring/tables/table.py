"""`Table`: the questions of a table, what is wrong with them, and what the table was read as."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scoring.errors import Problem, quoted
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.tables.answer_reading import AUTO

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
    most_options: int = 2  # of a row at most, where these are not all rows of the table

    def about(self) -> dict[str, Any]:
        """What a result records of the table it is made from: nothing of what is as usual."""
        usual: dict[str, object]
        usual = {"columns": {}, "layout": "letters", "answers": AUTO, "own_letters": False, "split": None}
        unusual = {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}
        return {"file": str(self.file), "sha256": self.digest} | unusual

    def identity(self) -> dict[str, Any]:
        """How it was read, as a part of what a run's results depend on."""
        identity: dict[str, Any] = {
            "columns": self.columns or None,
            "layout": self.layout if self.layout != "letters" else None,
            "own_letters": self.own_letters or None,
            "images": self.images,
        }
        return identity | ({} if self.split is None else {"table_split": self.split})

    @property
    def is_usual(self) -> bool:
        """Whether it is a CSV with our names and layout, read without a decision that a message should tell."""
        return self.is_usual_with(any(row.pictures for row in self.questions))

    def is_usual_with(self, pictures: bool) -> bool:
        """The same, where it is known whether any row has pictures."""
        with_files = pictures and not self.pictures_inside
        return self.format == "CSV" and with_files and self.about().keys() == {"file", "sha256"}

    def reading(self) -> str:
        """In one line, what the table was read as."""
        pictures = any(row.pictures for row in self.good) or not self.good
        return self.reading_with(pictures, any(row.answer for row in self.questions))

    def reading_with(self, pictures: bool, answers: bool) -> str:
        """The same, where it is known whether any row has pictures or an answer."""
        options = _PLACES[self.layout] + (", their letters taken off" if self.own_letters else "")
        renamed = ", ".join(f"{name} from {quoted(file_name)}" for name, file_name in self.columns.items())
        meaning = f"answers: {_MEANINGS[self.answers]}" if answers else "no answers"
        shown = "" if pictures else "no pictures"
        if self.pictures_inside:
            shown = "pictures inside the table"
        return "; ".join(filter(None, [f"{self.format}, {options}", renamed, shown, meaning]))

    @property
    def good(self) -> list[Question]:
        """The questions without a fault."""
        return [question for question in self.questions if not question.fault]

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.questions)

    def first(self, count: int) -> "Table":
        """The first rows alone."""
        return replace(self, questions=self.questions[:count])

    def ids(self) -> list[str]:
        """The ids of all rows."""
        return [question.id for question in self.questions]

    @property
    def good_count(self) -> int:
        """How many of them have no fault."""
        return len(self.good)

    @property
    def letters(self) -> str:
        """The letters of the table's options: "abcd" for four columns; "ab" at least, also where no row is good."""
        return LETTERS[: max([self.most_options, *(len(question.options) for question in self.questions)])]
