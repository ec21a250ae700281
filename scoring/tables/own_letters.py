"""Options that carry letters of their own, such as "A. cat": taken off where a whole table has them, and told.

The prompt puts a letter before each option. One in the option's text would contradict it in every other order.
"""

from dataclasses import dataclass
from pathlib import Path

from scoring.errors import counted, quoted
from scoring.inputs.option_letters import strip_letters


@dataclass
class LetterSurvey:
    """All options of a table, counted before any is read.

    rows: how many have options. lettered: how many of those have a letter before each of them. first: the number of the
    first of these; sample: its first option.
    """

    rows: int = 0
    lettered: int = 0
    first: int = 0
    sample: str = ""

    def add(self, row: int, options: list[str]) -> list[str]:
        """The options without their letters, if all have one; else themselves.

        row: its number. options: up to the last that is filled in.
        """
        if len(options) < 2:
            return options
        self.rows += 1
        if (texts := strip_letters(options)) is None:
            return options
        if not self.lettered:
            self.first, self.sample = row, options[0].strip()
        self.lettered += 1
        return texts

    @property
    def in_all_rows(self) -> bool:
        """Whether the letters are taken off."""
        return 0 < self.lettered == self.rows

    def notices(self, file: Path) -> list[str]:
        """What to tell of it."""
        if not self.lettered:
            return []
        if self.in_all_rows:
            text = f"the options of all {counted(self.rows, 'row')} begin with their letters, such as"
            return [f"{file}: {text} {quoted(self.sample)}; they were taken off"]
        text = (
            f"the options of {self.lettered:,} of {counted(self.rows, 'row')} begin with letters of their own, such as"
        )
        fix = "nothing was taken off; write the options of all rows with such letters, or those of none"
        return [f"{file}: {text} {quoted(self.sample)} (first: row {self.first}); {fix}"]
