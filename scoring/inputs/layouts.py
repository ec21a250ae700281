"""Which columns of a table hold what: the names that people give to them, and the two ways to write options down.

Options stand in a column for each (`letters`), or in one column as a list (`choices`).
"""

import ast
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scoring.errors import InputError, Problem, first_of, quoted
from scoring.inputs.picture_columns import HELD, NAMED, picture_columns
from scoring.inputs.prompt import LETTERS
from scoring.readers.records import as_text, normalized

SPELLINGS = {  # our name -> names that are read as it, the likeliest first
    "id": ("id", "question_id", "qid", "index"),
    "path": (*NAMED, *HELD),
    "question": ("question",),
    "answer": ("answer",),
    "task_type": ("task_type", "task type", "category"),
    "task_hint": ("task_hint", "task hint", "hint"),
}
LETTERED = ("{}", "choice_{}", "option_{}", "choice{}", "option{}")  # names of the options' columns, by their letter
NUMBERED = ("choice_{}", "option_{}", "choice{}", "option{}")  # the same, by their number from 1
LISTS = ("choices", "options")
NAMES = (*SPELLINGS, "choices")  # that --column may give, beside letters
KNOWN = {
    *LETTERS,
    *LISTS,
    *(name for names in SPELLINGS.values() for name in names),
    *(pattern.format(letter) for pattern in LETTERED for letter in "abcd"),
    *(pattern.format(number) for pattern in NUMBERED for number in (1, 2, 3, 4)),
    *(f"image_{number}" for number in range(1, 9)),
}
MOST_NAMES = 30  # columns that a message lists


@dataclass(frozen=True, slots=True)
class RawQuestion:
    """What a row asks, as the table has it, before anything is checked.

    pictures: a cell for each picture column that the row fills in. options: None where the cell holds no list of them.
    answer: a cell, of any type.
    """

    id: str
    pictures: list[Any]
    question: str
    options: list[str] | None
    answer: Any
    task_type: str = ""
    task_hint: str = ""


@dataclass(frozen=True)
class Layout:
    """Where a table's fields and options are.

    fields: our name -> the index of its column. options: the indices of the options' columns, or of the one column
    that holds lists. spelled: our name -> the table's, where they differ and --column did not say so. pictures: the
    indices of the pictures' columns, in the pictures' order.
    """

    name: str  # "letters" or "choices"
    fields: dict[str, int]
    options: list[int]
    spelled: dict[str, str] = field(default_factory=dict)
    pictures: list[int] = field(default_factory=list)

    def read(self, cells: list[Any]) -> RawQuestion:
        """What a row asks."""
        return RawQuestion(
            id=self.cell(cells, "id"),
            pictures=[cell for index in self.pictures if (cell := cells[index]) is not None and cell != ""],
            question=self.cell(cells, "question"),
            options=self.option_texts(cells),
            answer=cells[self.fields["answer"]] if "answer" in self.fields else None,
            task_type=self.cell(cells, "task_type"),
            task_hint=self.cell(cells, "task_hint"),
        )

    def cell(self, cells: list[Any], name: str) -> str:
        """The text of a field in a row; "" if the table has no such column."""
        return as_text(cells[self.fields[name]]) if name in self.fields else ""

    def option_texts(self, cells: list[Any]) -> list[str] | None:
        """The options of a row as the table has them; None where the cell holds no list of them."""
        if self.name == "letters":
            return [as_text(cells[index]) for index in self.options]
        return read_list(cells[self.options[0]])

    def names_of_options(self, header: list[str]) -> dict[int, str]:
        """The indices of the options' columns -> their names in messages."""
        if self.name == "letters":
            return dict(zip(self.options, LETTERS))
        return {self.options[0]: header[self.options[0]]}


def read_list(cell: Any) -> list[str] | None:
    """A list of texts: a list, an object with a text for each letter, or either written as JSON or as Python does."""
    if isinstance(cell, str):
        cell = _parsed(cell)
    if isinstance(cell, dict):
        names = normalized(cell)
        if sorted(names) != list(LETTERS[: len(names)]):
            return None
        cell = [value for _, value in sorted(zip(names, cell.values()))]
    if not isinstance(cell, list) or any(isinstance(value, list | dict) for value in cell):
        return None
    return [as_text(value) for value in cell]


def _parsed(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        return list(value) if isinstance(value, tuple) else value
    return None


def find_layout(file: Path, header: list[str], renamed: dict[str, str], inside: Collection[int] = ()) -> Layout:
    """The layout of a table. Raises InputError, with all that is wrong with its columns.

    renamed: our name of a column -> the table's, as --column gives them. inside: the indices of columns that hold
    pictures, not the names of files.
    """
    columns = _Columns(file, header, renamed)
    if problems := columns.check_renamed():
        raise InputError(problems)
    pictures = columns.find_pictures(inside)
    fields, spelled = columns.find_fields(pictures)
    options = columns.find_options()
    if problems := columns.check_names() + columns.check_fields(fields) + columns.check_options(options):
        raise InputError(problems)
    first, indices = next(iter(options.items()))
    spelled |= columns.spelled_options(first, indices)
    return Layout("choices" if first in LISTS else "letters", fields, indices, spelled, pictures)


class _Columns:
    """The names of a table's columns, in our spelling where --column gives one."""

    def __init__(self, file: Path, header: list[str], renamed: dict[str, str]):
        self.file, self.header, self.renamed = file, header, renamed
        our_name = {normalized([file_name])[0]: name for name, file_name in renamed.items()}
        self.names = [our_name.get(name, "" if name in renamed else name) for name in normalized(header)]

    def check_renamed(self) -> list[Problem]:
        """What is wrong with the names that --column gives."""
        names, problems = normalized(self.header), []
        for name, file_name in self.renamed.items():
            fix = f"correct --column {name}=…"
            if name not in NAMES and name not in LETTERS:
                expected = f"one of {', '.join(NAMES)}, a, b, …"
                problems.append(self._problem(name, "an unknown column name", expected, fix))
            elif normalized([file_name])[0] not in names:
                found = f"no column {quoted(file_name)} among {self._listed()}"
                problems.append(self._problem(name, found, "its name", fix))
        return problems

    def check_names(self) -> list[Problem]:
        """Two columns of one name, where that column is needed."""
        return [
            self._problem(name, f"{count} columns of that name", "one", "rename or drop the others")
            for name, count in Counter(self.names).items()
            if count > 1 and name in {*NAMES, *LETTERS}
        ]

    def find_pictures(self, inside: Collection[int]) -> list[int]:
        """The indices of the pictures' columns."""
        return [self.names.index("path")] if "path" in self.renamed else picture_columns(self.names, inside)

    def find_fields(self, pictures: list[int]) -> tuple[dict[str, int], dict[str, str]]:
        """(our name -> index, our name -> the table's where they differ). `path` is the first of `pictures`."""
        fields, spelled = {}, {}
        for name, spellings in SPELLINGS.items():
            indices = [self.names.index(spelling) for spelling in spellings if spelling in self.names]
            if name in self.renamed:
                indices = [self.names.index(name)]
            elif name == "path":
                indices = pictures
            if indices:
                fields[name] = indices[0]
                if self.names[indices[0]] != name:
                    spelled[name] = self.header[indices[0]].strip()
        if len(pictures) > 1:
            spelled["path"] += f" … {self.header[pictures[-1]].strip()}"
        return fields, spelled

    def check_fields(self, fields: dict[str, int]) -> list[Problem]:
        """A table has a column of questions. Without one of pictures, it asks in words alone."""
        if "question" in fields:
            return []
        return [
            self._problem(name, f"no such column among {self._listed()}", f"a column {name!r}", "rename the column")
            for name in ("path", "question")
            if name not in fields
        ]

    def find_options(self) -> dict[str, list[int]]:
        """A name for each set of columns that can hold the options -> their indices."""
        if "choices" in self.renamed:
            return {"choices": [self.names.index("choices")]}
        sets = {}
        for pattern in LETTERED:
            sets[pattern.format("a")] = [pattern.format(letter) for letter in LETTERS]
        for pattern in NUMBERED:
            sets[pattern.format(1)] = [pattern.format(number) for number in range(1, len(LETTERS) + 1)]
        candidates = {}
        for first, names in sets.items():
            count = next((index for index, name in enumerate(names) if name not in self.names), len(names))
            if count > 1:
                candidates[first] = [self.names.index(name) for name in names[:count]]
        if not {*LETTERS} & {*self.renamed}:
            candidates |= {name: [self.names.index(name)] for name in LISTS if name in self.names}
        elif "a" in candidates:
            candidates = {"a": candidates["a"]}
        return candidates

    def check_options(self, candidates: dict[str, list[int]]) -> list[Problem]:
        """One set of columns holds the options, and none of them is left out after a gap."""
        letters = [letter for letter in LETTERS if letter in self.names]
        gap = letters and letters != list(LETTERS[: len(letters)])
        if not candidates or (gap and "a" in candidates):
            return [
                self._problem(
                    "a, b, …",
                    f"option columns {', '.join(letters) or 'none'} among {self._listed()}",
                    "two or more columns a, b, c, …, without a gap, or a column choices with lists",
                    "rename the columns with the options",
                )
            ]
        if len(candidates) > 1:
            ways = [self._listed(indices[:2]) for indices in candidates.values()]
            return [
                self._problem(
                    "a, b, …",
                    f"options in several places: {'; '.join(ways)}",
                    "one of them",
                    "name it with --column choices=NAME, or --column a=NAME --column b=NAME and so on",
                )
            ]
        return []

    def spelled_options(self, first: str, indices: list[int]) -> dict[str, str]:
        """Our letters (or `choices`) -> the table's names, where they differ. first: the key in `find_options`."""
        ours = ["choices"] if first in LISTS else list(LETTERS[: len(indices)])
        names = {name: self.header[index].strip() for name, index in zip(ours, indices)}
        return {
            name: file_name
            for name, file_name in names.items()
            if name not in self.renamed and file_name.casefold() != name
        }

    def _listed(self, indices: list[int] | None = None) -> str:
        names = [self.header[index] for index in indices] if indices else self.header
        return first_of(map(quoted, names), MOST_NAMES)

    def _problem(self, column: str, found: str, expected: str, fix: str) -> Problem:
        return Problem(str(self.file), 0, 0, "", column, found, expected, fix)
