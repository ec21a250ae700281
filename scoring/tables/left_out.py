"""What of a table's texts is in no question: instructions behind the options, system turns, and marks of pictures."""

from collections import Counter
from pathlib import Path

from scoring.errors import counted, quoted
from scoring.inputs.image_marks import FIRST_MARKS, MARK
from scoring.tables.layouts import RawQuestion

MOST_TEXTS = 5  # different ones that a notice each tells of
MOST_COUNTED = 10_000  # different ones that are remembered, of each kind
OTHERS = ""  # counts the rows with other texts than these


class LeftOut:
    """Counts the texts that are left out, row by row."""

    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        self.systems: Counter[str] = Counter()
        self.places = self.first_marks = 0  # rows

    def add(self, raw: RawQuestion) -> None:
        """Take in a row, also a faulty one."""
        if raw.instruction:
            _count(self.instructions, raw.instruction)
        if raw.system.strip():
            _count(self.systems, " ".join(raw.system.split()))
        texts = [raw.question, *(raw.options or ()), raw.task_hint]
        if "<image" in "".join(texts):
            first = FIRST_MARKS.match(raw.question)
            texts[0] = raw.question[first.end() :] if first else raw.question
            self.first_marks += bool(first)
            self.places += any(map(MARK.search, texts))

    def update(self, other: "LeftOut") -> None:
        """Take in what was counted of other rows."""
        for texts, others in ((self.instructions, other.instructions), (self.systems, other.systems)):
            for text, count in others.items():
                _count(texts, text, count)
        self.places += other.places
        self.first_marks += other.first_marks

    def notices(self, file: Path) -> list[str]:
        """What to tell of it, the most frequent text first."""
        marks = []
        if self.first_marks:
            begin = "begins" if self.first_marks == 1 else "begin"
            what = f"{counted(self.first_marks, 'question')} {begin} with marks such as <image>"
            marks.append(f"{file}: {what}; such pictures come first in any case")
        if self.places:
            marks.append(
                f"{file}: marks such as <image> in the texts of {counted(self.places, 'row')}: pictures stand there"
            )
        return [
            *_tell(file, self.instructions, "an instruction behind the options was cut off"),
            *_tell(file, self.systems, "a system turn was left out (the prompt template has its own)"),
            *marks,
        ]


def _count(texts: Counter[str], text: str, rows: int = 1) -> None:
    texts[text if text in texts or len(texts) < MOST_COUNTED else OTHERS] += rows


def _tell(file: Path, texts: Counter[str], what: str) -> list[str]:
    named = [(text, count) for text, count in texts.most_common() if text != OTHERS]
    notices = [f"{file}: {what} in {counted(count, 'row')}: {quoted(text, 200)}" for text, count in named[:MOST_TEXTS]]
    if (more := len(named) - MOST_TEXTS) > 0:
        rows = sum(count for _, count in named[MOST_TEXTS:]) + texts[OTHERS]
        least = "over " if texts[OTHERS] else ""
        notices.append(f"{file}: {what} in {counted(rows, 'row')} more, {least}{counted(more, 'other text')}")
    return notices
