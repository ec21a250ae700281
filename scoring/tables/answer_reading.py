"""What the answers of a table mean: letters, texts of options, or numbers. One reading holds for the whole table.

A number is taken for the place of an option only where that is certain: counted from 0 where a 0 occurs, from 1 where
the number of options occurs and no 0 does. Otherwise the table is refused until `--answers` says what they are.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from scoring.errors import ScoringError, quoted
from scoring.inputs.prompt import LETTERS

READINGS = ("letters", "text", "from-0", "from-1")  # that --answers may name
AUTO = "letters or text"  # each answer is certain by itself
_LETTER = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:]*")  # b, B, (b), b. and so on
_WITH_TEXT = re.compile(r"[(\[]?\s*([A-Za-z])\s*[)\].:]+\s*(.+)", re.DOTALL)  # B. pear
_INTRODUCED = re.compile(
    r"^(?:the )?(?:correct |right )?(?:answer|정답|답)(?: is)?\s*[:：]?\s*", re.IGNORECASE
)  # Answer: B
_SEVERAL = re.compile(r"[(\[]?[A-Za-z][)\]]?(?:\s*(?:[,;/&|+]|and|or)\s*[(\[]?[A-Za-z][)\]]?)+|[A-Z]{2,}")
_NUMBER = re.compile(r"0?(\d{1,2})(?:\.0+)?")  # 2, 02, or 2.0 as pandas writes it beside a missing answer
_NAMED = re.compile(r"(?:option|choice)\s+", re.IGNORECASE)  # Option B
_MISSING = {"nan", "none", "null", "n/a", "na", "nat", "-", "?"}  # what stands for no answer elsewhere
_CIRCLED = "①②③④⑤⑥⑦⑧⑨⑩⑪⑫⑬⑭⑮⑯⑰⑱⑲⑳"


class AnswerError(ScoringError):
    """An answer that means no option, or several; `found` says what it is, `expected` what it should be."""

    def __init__(self, found: str, expected: str):
        super().__init__(f"{found}; expected {expected}")
        self.found, self.expected = found, expected


def read_answer(cell: str, options: Sequence[str], reading: str = AUTO) -> str:
    """The letter that an answer means. Raises AnswerError.

    cell: not empty, without blanks around it. options: the row's. reading: AUTO or one of READINGS.
    """
    letters = LETTERS[: len(options)]
    if reading in ("from-0", "from-1"):
        number = _NUMBER.fullmatch(cell)
        place = int(number[1]) - int(reading[-1]) if number else -1
        if not 0 <= place < len(options):
            first = int(reading[-1])
            raise AnswerError(quoted(cell), f"a number from {first} to {first + len(options) - 1}")
        return letters[place]
    letter = _read_letter(cell, options) if reading != "text" else None
    text = _read_text(cell, options) if reading != "letters" else None
    if not letter and not text:
        plain = unicodedata.normalize("NFKC", cell)
        letter = _read_letter(_NAMED.sub("", plain.rstrip(" ,;、。"), count=1), options) if reading != "text" else None
        text = _read_text(plain.casefold(), list(map(_folded, options))) if reading != "letters" else None
    if letter and text and letter != text:
        found = f"{quoted(cell)}, which is a letter and the text of option {text}"
        raise AnswerError(found, "one or the other; say which with --answers letters or --answers text")
    if not letter and not text:
        if _means_several(cell, options):
            raise AnswerError(f"several right answers, {quoted(cell)}", "one right answer")
        ways = {"letters": f"one of {', '.join(letters)}", "text": "an option's text"}
        expected = ways.get(reading, f"one of {', '.join(letters)} or an option's text")
        if cell.casefold() in _MISSING:
            expected += "; or an empty cell where there is no answer"
        raise AnswerError(quoted(cell) + _look_alike(cell), expected)
    return letter or text or ""


def _folded(option: str) -> str:
    """An option's text without what does not tell it from others: width, case, blanks around it."""
    return unicodedata.normalize("NFKC", option).strip().casefold()


def _look_alike(cell: str) -> str:
    """For a message: which letter this is, where it looks like one of the alphabet and is another."""
    name = unicodedata.name(cell, "") if len(cell) == 1 else ""
    return f", which is {name}" if name.startswith(("CYRILLIC", "GREEK")) else ""


def _read_letter(cell: str, options: Sequence[str]) -> str | None:
    """The letter that a cell names; None where it names none of the options, or a letter beside another text."""
    letters = LETTERS[: len(options)]
    if cell in _CIRCLED:
        return letters[_CIRCLED.index(cell) : _CIRCLED.index(cell) + 1] or None
    for text in (cell, _INTRODUCED.sub("", cell, count=1)):
        if match := _LETTER.fullmatch(text):
            letter = match[1].lower()
            return letter if letter in letters else None
        match = _WITH_TEXT.fullmatch(text)
        if match and match[1].lower() in letters:
            letter = match[1].lower()
            return letter if options[letters.index(letter)].strip() == match[2].strip() else None
    return None


def _read_text(cell: str, options: Sequence[str]) -> str | None:
    """The letter of the one option with this text."""
    equal = [letter for letter, option in zip(LETTERS, options) if option.strip() == cell]
    return equal[0] if len(equal) == 1 else None


def _means_several(cell: str, options: Sequence[str]) -> bool:
    letters = [sign for sign in re.sub(r"\b(?:and|or)\b", "", cell).lower() if sign.isalpha()]
    known = set(LETTERS[: len(options)])
    return bool(_SEVERAL.fullmatch(cell)) and len(set(letters)) == len(letters) and set(letters) <= known


@dataclass
class AnswerSurvey:
    """All answers of a table, counted before any is read.

    numbers: how many are whole numbers. texts: how many of those are the text of one option. zeros, lasts: how many are
    0, and how many are the number of their row's options. below, within: whether each is a place from 0, or from 1.
    """

    answers: int = 0
    numbers: int = 0
    texts: int = 0
    zeros: int = 0
    lasts: int = 0
    below: bool = True
    within: bool = True

    def add(self, cell: str, options: Sequence[str]) -> None:
        """cell: not empty, without blanks around it."""
        self.answers += 1
        match = _NUMBER.fullmatch(cell)
        if not match:
            return
        number, count = int(match[1]), len(options)
        self.numbers += 1
        self.texts += _read_text(cell, options) is not None
        self.zeros += number == 0
        self.lasts += number == count
        self.below &= number < count
        self.within &= 1 <= number <= count

    def reading(self, from_0: bool) -> str | None:
        """AUTO or one of READINGS; None where it is not certain, and --answers must say it.

        from_0: the answers are whole numbers by the column's type, beside a list of options, which counts from 0.
        """
        if not self.answers or self.numbers < self.answers:
            return AUTO
        places = [name for name, possible in (("from-0", self.below), ("from-1", self.within)) if possible]
        if self.texts == self.answers:
            return None if places else "text"
        if from_0 and self.below:
            return "from-0"
        if self.zeros and self.below:
            return "from-0"
        if self.lasts and self.within:
            return "from-1"
        return None if places else AUTO
