"""What tables hold, beyond the faults of their rows: how their answers are spread, what occurs twice, what they share.

Faulty rows do not count. Ids are those of the tables.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from scoring.inputs.digests import picture_key
from scoring.inputs.pictures import Picture
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.tables.copies import identities
from scoring.tables.row_pictures import PictureProgress
from scoring.tables.table import Table

ENOUGH = 5  # rows that each letter must expect before a chi-square test counts them
UNLIKELY, SMALL = 0.001, 0.1  # p, and Cohen's w (a small effect): answers beyond both are far from even


@dataclass(frozen=True)
class Balance:
    """How often each letter is the answer.

    counts: rows by letter, for every letter of the table. chi_square, degrees, p: Pearson's test that every option is
    right equally often, over the `tested` rows. Rows with the same number of options are expected to be even among
    themselves; where too few have that number, they are not tested. p is 1 where no row is.
    """

    counts: dict[str, int]
    tested: int = 0
    chi_square: float = 0.0
    degrees: int = 0
    p: float = 1.0

    @property
    def answers(self) -> int:
        return sum(self.counts.values())

    @property
    def is_far_from_even(self) -> bool:
        """Whether chance would hardly do it, and it is more than the trifle that a million rows make certain."""
        return self.p < UNLIKELY and math.sqrt(self.chi_square / self.tested) >= SMALL


@dataclass(frozen=True)
class TableOverview:
    """rows, good, pictures: counts of all rows, of those without a fault, and of the pictures of these.

    copies: ids of rows that ask the same question with the same options, in any order, about the same picture; a list
    for each such question. contradictions: those of them whose answers differ. same_pictures: names of files with the
    same bytes, a list for each picture.
    """

    file: str
    rows: int
    good: int
    pictures: int
    balance: Balance
    copies: list[list[str]]
    contradictions: list[list[str]]
    same_pictures: list[list[str]]

    @property
    def repeated(self) -> int:
        """How many rows are left out where of each question one is kept."""
        return sum(len(ids) - 1 for ids in self.copies)


@dataclass(frozen=True)
class Overlap:
    """What two tables share. rows: ids of rows of the second that the first has too, whatever their ids there.

    pictures: how many are in both, by content. picture_rows: ids of the second's rows that show one of these.
    """

    first: str
    second: str
    rows: list[str]
    pictures: int
    picture_rows: list[str]


@dataclass(frozen=True)
class Overview:
    """tables: in their order. overlaps: of each table with each later one."""

    tables: list[TableOverview]
    overlaps: list[Overlap]


def overview(tables: Sequence[Table], progress: PictureProgress | None = None) -> Overview:
    """Count all of it. Of picture files no more is read than it takes to tell them apart, see `identities`."""
    known = [_Known(table) for table in tables]
    contents = identities((picture for each in known for picture in each.pictures()), progress)
    for each in known:
        each.recognise(contents)
    return Overview([each.overview() for each in known], [_overlap(*pair) for pair in combinations(known, 2)])


def balance(questions: Sequence[Question]) -> Balance:
    """Of the rows that have an answer."""
    by_options: dict[int, Counter[str]] = defaultdict(Counter)
    for row in questions:
        if row.answer:
            by_options[len(row.options)][row.answer] += 1
    total = sum(by_options.values(), Counter[str]())
    counts = {letter: total[letter] for letter in LETTERS[: max(by_options, default=0)]}
    tested, chi_square, degrees = 0, 0.0, 0
    for options, found in by_options.items():
        expected = found.total() / options
        if expected >= ENOUGH:
            tested += found.total()
            chi_square += sum((found[letter] - expected) ** 2 for letter in LETTERS[:options]) / expected
            degrees += options - 1
    if not degrees:
        return Balance(counts)
    return Balance(counts, tested, chi_square, degrees, chi_square_p(chi_square, degrees))


def chi_square_p(chi_square: float, degrees: int) -> float:
    """The probability of so large a chi-square or a larger one (Abramowitz and Stegun, 26.4.4 and 26.4.5).

    `scipy.special` has it too, but takes .2 s to be imported, a fifth of a check.
    """
    if not chi_square:
        return 1.0
    half, odd = chi_square / 2, degrees % 2
    powers = [power / 2 for power in range(odd, degrees - 1, 2)]
    terms = (math.exp(power * math.log(half) - half - math.lgamma(power + 1)) for power in powers)
    return (math.erfc(math.sqrt(half)) if odd else 0.0) + math.fsum(terms)


def picture_folder(table: Table) -> Path:
    """The folder that names of pictures are relative to: the one that was given, or the table's own."""
    if table.images:
        return Path(table.images)
    return table.file if table.file.is_dir() else table.file.parent


class _Known:
    """The good rows of a table; after `recognise`, what tells them and their pictures apart.

    contents: of each picture. questions: a hash of what each row asks. first: a picture of each content, by its key.
    others: all of a content that has several. Nothing is kept twice: a table may hold a million pictures.
    """

    def __init__(self, table: Table):
        self.table, self.rows = table, table.good

    def pictures(self) -> Iterator[Picture]:
        """The rows' pictures, as often as they occur."""
        return (picture for row in self.rows for picture in row.pictures)

    def recognise(self, contents: dict[object, str]) -> None:
        """contents: what tells each picture apart, as `identities` does."""
        self.contents = contents
        self.questions = [  # hashes of 64 bits: of a million rows, two different ones meet once in 30 million tables
            hash((*self.pictures_of(row), row.question, *sorted(row.options))) for row in self.rows
        ]
        self.first: dict[str, object] = {}
        self.others: dict[str, dict[object, None]] = {}
        for key in map(picture_key, self.pictures()):
            if (first := self.first.setdefault(contents[key], key)) != key:
                self.others.setdefault(contents[key], {first: None})[key] = None

    def pictures_of(self, row: Question) -> list[str]:
        """The contents of a row's pictures."""
        return [self.contents[picture_key(picture)] for picture in row.pictures]

    def overview(self) -> TableOverview:
        copies = self._copies()
        root = picture_folder(self.table).resolve()
        return TableOverview(
            file=str(self.table.file),
            rows=len(self.table.questions),
            good=len(self.rows),
            pictures=len(self.first) + sum(len(keys) - 1 for keys in self.others.values()),
            balance=balance(self.rows),
            copies=[self._ids(group) for group in copies],
            contradictions=[self._ids(group) for group in copies if self._differ(group)],
            same_pictures=[
                [_shown(key, root) for key in self.others[content]] for content in self.first if content in self.others
            ],
        )

    def _copies(self) -> list[list[int]]:
        """Indices of the rows that ask the same, for each question that several ask."""
        first: dict[int, int] = {}
        groups: dict[int, list[int]] = {}
        for index, question in enumerate(self.questions):
            if (original := first.setdefault(question, index)) != index:
                groups.setdefault(original, [original]).append(index)
        return [groups[original] for original in sorted(groups)]

    def _ids(self, group: list[int]) -> list[str]:
        return [self.rows[index].id for index in group]

    def _differ(self, group: list[int]) -> bool:
        """Whether the rows have several answers, by the text of the option."""
        rows = [self.rows[index] for index in group]
        return len({row.options[LETTERS.index(row.answer)] for row in rows if row.answer}) > 1


def _overlap(first: _Known, second: _Known) -> Overlap:
    asked, shown = set(first.questions), first.first
    return Overlap(
        first=str(first.table.file),
        second=str(second.table.file),
        rows=[row.id for row, question in zip(second.rows, second.questions) if question in asked],
        pictures=sum(content in shown for content in second.first),
        picture_rows=[row.id for row in second.rows if any(content in shown for content in second.pictures_of(row))],
    )


def _shown(key: object, root: Path) -> str:
    """A picture's name in a message: relative to the pictures' folder, if it is there."""
    if not isinstance(file := key, Path):
        return "a picture in memory"
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)
