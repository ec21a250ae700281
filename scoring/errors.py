"""What is wrong with an input, in words that help to correct it: where, found, expected, what to do."""

from collections.abc import Iterable
from copyreg import __newobj__  # type: ignore[attr-defined]  # pickle's own, which makes an object without __init__
from dataclasses import dataclass
from typing import Any

MAX_LISTED = 10  # problems of one kind that a message lists
MAX_LINES = 200  # of a message
MAX_WIDTH = 1_000  # characters of a line of it


class ScoringError(ValueError):
    """An error that the user can fix: the command line prints its message alone and ends with exit code 2.

    All errors of `scoring` and `train` are of this class. They can be copied and pickled, with message and attributes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return __newobj__, (type(self), *self.args), vars(self)  # __init__ makes a message of what it is given


class CallError(ScoringError):
    """Arguments of a call that do not go together; the command line shows how the command is called, too."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do.

    `row` counts from 1 without the header; 0 is the whole table. `line` is 0 in files that have no lines.
    """

    file: str
    row: int
    line: int
    id: str
    column: str
    found: str
    expected: str
    fix: str

    @property
    def text(self) -> str:
        place = [f"line {self.line}"] * bool(self.line) + [f"id {quoted(self.id)}"] * bool(self.id)
        details = f" ({', '.join(place)})" if place else ""
        where = f"row {self.row}{details}, " if self.row else ""
        column = f"column {self.column}: " if self.column else ""
        return f"{where}{column}found {self.found}; expected {self.expected}; {self.fix}"


class InputError(ScoringError):
    """Input that cannot be used. `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__(describe(problems))


def describe(problems: list[Problem]) -> str:
    """Problems grouped by file, column and what was expected; a long group is cut, with the number of the others.

    No more than MAX_LINES lines of MAX_WIDTH characters, whatever is wrong.
    """
    groups: dict[tuple[str, str, str], list[Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.file, problem.column, problem.expected), []).append(problem)
    lines = []
    for (file, _, _), group in groups.items():
        lines += [f"{file}: {problem.text}" for problem in group[:MAX_LISTED]]
        if len(group) > MAX_LISTED:
            lines.append(
                f"{file}: … and {len(group) - MAX_LISTED:,} more rows with such a problem in column {group[0].column}"
            )
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"… and {len(lines) - MAX_LINES + 1:,} more lines"]
    return "\n".join(line if len(line) <= MAX_WIDTH else line[:MAX_WIDTH] + "…" for line in lines)


def first_of(items: Iterable[str], most: int = MAX_LISTED) -> str:
    """The first of a list, separated by commas, and how many more there are."""
    listed = list(items)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" … and {more:,} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """A number and its noun: `1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def quoted(text: str, longest: int = 60) -> str:
    """A cell in a message: quoted, control characters escaped, long text cut."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return "'" + "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in cut) + "'"
