"""What of a table's texts is in no question: instructions behind the options, system turns, and marks of pictures."""

from collections import Counter
from pathlib import Path

from scoring.errors import counted, quoted
from scoring.inputs.image_marks import FIRST_MARKS, MARK
from scoring.tables.layouts import RawQuestion

MOST_TEXTS = 5  # different ones that a notice each tells of


class LeftOut:
    """Counts the texts that are left out, row by row."""

    def __init__(self) -> None:
        self.instructions: Counter[str] = Counter()
        self.systems: Counter[str] = Counter()
        self.places = self.first_marks = 0  # rows

    def add(self, raw: RawQuestion) -> None:
        """Take in a row, also a faulty one."""
        if raw.instruction:
            self.instructions[raw.instruction] += 1
        if raw.system.strip():
            self.systems[" ".join(raw.system.split())] += 1
        texts = [raw.question, *(raw.options or ()), raw.task_hint]
        if "<image" in "".join(texts):
            first = FIRST_MARKS.match(raw.question)
            texts[0] = raw.question[first.end() :] if first else raw.question
            self.first_marks += bool(first)
            self.places += any(map(MARK.search, texts))

    def update(self, other: "LeftOut") -> None:
        """Take in what was counted of other rows."""
        self.instructions += other.instructions
        self.systems += other.systems
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


def _tell(file: Path, texts: Counter[str], what: str) -> list[str]:
    notices = [
        f"{file}: {what} in {counted(count, 'row')}: {quoted(text, 200)}"
        for text, count in texts.most_common(MOST_TEXTS)
    ]
    if more := len(texts) - MOST_TEXTS:
        rows = sum(count for _, count in texts.most_common()[MOST_TEXTS:])
        notices += [f"{file}: {what} in {counted(rows, 'row')} more, {counted(more, 'other text')}"] * (more > 0)
    return notices
