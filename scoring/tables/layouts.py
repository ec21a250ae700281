"""Which columns of a table hold what, and how a row of it becomes a question.

Options stand in a column for each (`letters`), in one column as a list (`choices`), or inside the question's text
(`inline`). In a conversation (`chat`) the human turn holds question and options, and the other turn the answer.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from scoring.errors import InputError, Problem, first_of, quoted
from scoring.inputs.prompt import LETTERS
from scoring.readers.records import ObjectCell, Records, as_text, normalized
from scoring.tables import conversations
from scoring.tables.inline_options import EXPECTED, InlineError, cut_options
from scoring.tables.literals import value_in
from scoring.tables.picture_columns import FIRST_ROWS, HELD, NAMED, picture_columns

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
TURNS = ("messages", "conversations", "conversation")  # columns of lists of turns
QUERY = ("query", "response", "history", "system")  # columns of one turn each; without a question, query makes a turn
KIND, OPEN = "question_type", ("open", "open-ended", "open_ended")  # a column, and what it says of open questions
NAMES = (*SPELLINGS, "choices", "messages")  # that --column may give, beside letters
LAYOUTS = ("letters", "choices", "inline", "chat")  # that --layout may name
KNOWN = {
    *LETTERS,
    *LISTS,
    *TURNS,
    *QUERY,
    *(name for names in SPELLINGS.values() for name in names),
    *(pattern.format(letter) for pattern in LETTERED for letter in "abcd"),
    *(pattern.format(number) for pattern in NUMBERED for number in (1, 2, 3, 4)),
    *(f"image_{number}" for number in range(1, 9)),
}
MOST_NAMES = 30  # columns that a message lists


class RowFault(NamedTuple):
    """Why a row is no question: the column, and what a `Problem` says of it."""

    column: str
    found: str
    expected: str
    fix: str


@dataclass(slots=True)  # not frozen: a million are made, and that would take three times as long
class RawQuestion:
    """What a row asks, as the table has it, before anything is checked.

    pictures: a cell for each picture column that the row fills in. options: None where the row has none that can be
    told; `fault` then says why. answer: a cell, of any type. instruction: what was cut off the text behind the options.
    system: the text of a conversation's system turn, which is left out.
    """

    id: str
    pictures: list[Any]
    question: str
    options: list[str] | None
    answer: Any
    task_type: str = ""
    task_hint: str = ""
    fault: RowFault | None = None
    instruction: str = ""
    system: str = ""


@dataclass(frozen=True)
class Layout:
    """Where a table's fields and options are.

    fields: our name -> the index of its column. options: the indices of the options' columns, or of the one column that
    holds lists; none where texts hold the options. spelled: our name -> the table's, where they differ and --column did
    not say so. pictures: the indices of the pictures' columns, in the pictures' order. turns: "messages", or some of
    QUERY -> the index of its column, in conversations. kind: the index of the column that says which questions are
    open, or None.
    """

    name: str  # one of LAYOUTS
    fields: dict[str, int]
    options: list[int]
    spelled: dict[str, str] = field(default_factory=dict)
    pictures: list[int] = field(default_factory=list)
    turns: dict[str, int] = field(default_factory=dict)
    kind: int | None = None

    @cached_property
    def _texts(self) -> list[int]:
        """The indices of id, question, task type and hint; -1 for a column that the table lacks."""
        return [self.fields.get(name, -1) for name in ("id", "question", "task_type", "task_hint")]

    def read(self, cells: list[Any]) -> RawQuestion:
        """What a row asks."""
        options, fault = None, None
        if self.name == "letters":
            options = [cell if isinstance(cell := cells[index], str) else as_text(cell) for index in self.options]
        elif self.name == "choices":
            options, fault = _options_of(cells[self.options[0]])
        row_id, question, task_type, task_hint = [
            "" if index < 0 else cell if isinstance(cell := cells[index], str) else as_text(cell)
            for index in self._texts
        ]
        raw = RawQuestion(
            id=row_id,
            pictures=[cell for index in self.pictures if (cell := cells[index]) not in (None, "", [])],
            question=question,
            options=options,
            answer=cells[self.fields["answer"]] if "answer" in self.fields else None,
            task_type=task_type,
            task_hint=task_hint,
            fault=fault,
        )
        if self.name == "chat":
            raw = self._with_turns(raw, cells)
        if self.name in ("inline", "chat"):
            raw = _with_cut_options(raw)
        if self.kind is not None and not any(raw.options or ()) and as_text(cells[self.kind]).casefold() in OPEN:
            fault = RowFault("question", "an open question, without options", "options", "drop the row")
            return replace(raw, options=None, fault=fault)
        return raw

    def names_of_options(self, header: list[str]) -> dict[int, str]:
        """The indices of the columns of options or turns -> their names in messages."""
        if self.name == "letters":
            return dict(zip(self.options, LETTERS))
        return {index: header[index] for index in (*self.options, *self.turns.values())}

    def _with_turns(self, raw: RawQuestion, cells: list[Any]) -> RawQuestion:
        """The row with question, answer and pictures of its conversation."""
        turns = {name: cells[index] for name, index in self.turns.items()}
        try:
            if "messages" in turns:
                talk = conversations.read_turns(_value_of(turns["messages"]))
            else:
                history = _value_of(turns.get("history"))
                talk = conversations.read_query(turns["query"], turns.get("response"), history, turns.get("system"))
        except conversations.ConversationError as error:
            fault = RowFault("messages", error.found, conversations.EXPECTED, "split the row or drop it")
            return replace(raw, fault=fault)
        if talk.pictures and raw.pictures:
            found = "pictures in the conversation and in another column"
            return replace(raw, fault=RowFault("messages", found, "pictures in one of them", "empty one of them"))
        return replace(
            raw,
            question=talk.question,
            answer=talk.answer if talk.answer.strip() else raw.answer,
            pictures=list(talk.pictures) or raw.pictures,
            system=talk.system,
        )


def _options_of(cell: Any) -> tuple[list[str] | None, RowFault | None]:
    """(the options that a cell lists, None), or (None, why there are none)."""
    if (options := read_list(cell)) is not None:
        return options, None
    found = quoted(as_text(cell)) if cell else "an empty cell"
    if isinstance(cell, set | frozenset):
        found = "a set, which has no order"
    return None, RowFault("choices", found, 'a list of texts, such as ["cat", "dog"]', "write it as a list")


def _with_cut_options(raw: RawQuestion) -> RawQuestion:
    """The row with the options that its question's text holds."""
    if raw.fault or not raw.question.strip():
        return raw
    try:
        question, options, instruction = cut_options(raw.question)
    except InlineError as error:
        fix = "write the text so, drop the row, or leave such rows out with --skip-bad-rows"
        return replace(raw, fault=RowFault("question", error.found, EXPECTED, fix))
    return replace(raw, question=question, options=options, instruction=instruction)


def read_list(cell: Any) -> list[str] | None:
    """A list of texts: a list, an object with a text for each letter, or either written as JSON or as Python does."""
    cell = _value_of(cell)
    if isinstance(cell, dict):
        names = normalized(cell)
        if sorted(names) != list(LETTERS[: len(names)]):
            return None
        cell = [value for _, value in sorted(zip(names, cell.values()))]
    if not isinstance(cell, list) or any(isinstance(value, list | dict | ObjectCell) for value in cell):
        return None
    return [as_text(value) for value in cell]


def _value_of(cell: Any) -> Any:
    """The value that a text writes; a value itself. A tuple becomes a list."""
    value = value_in(cell) if isinstance(cell, str) else cell
    return list(value) if isinstance(value, tuple) else value


def find_layout(
    records: Records, renamed: dict[str, str], inside: Collection[int] = (), wanted: str | None = None
) -> Layout:
    """The layout of a table. Raises InputError, with all that is wrong with its columns.

    renamed: our name of a column -> the table's, as --column gives them. inside: the indices of columns that hold
    pictures, not the names of files. wanted: one of LAYOUTS, as --layout names it.
    """
    columns = _Columns(records.file, records.header, renamed)
    if problems := columns.check_renamed():
        raise InputError(problems)
    pictures = columns.find_pictures(inside)
    fields, spelled = columns.find_fields(pictures)
    options, turns = columns.find_options(wanted), columns.find_turns()
    name = wanted or columns.choose(fields, options, turns, records)
    problems = columns.check_names()
    if name == "chat":
        problems += columns.check_turns(turns)
        fields.pop("question", None)
        spelled.pop("question", None)
    else:
        problems += columns.check_fields(fields)
    if name in ("letters", "choices"):
        problems += columns.check_options(options)
    if problems:
        raise InputError(problems)
    kind = columns.names.index(KIND) if KIND in columns.names else None
    layout = Layout(name, fields, [], spelled, pictures, kind=kind)
    if name == "chat":
        return replace(layout, spelled=spelled | columns.spelled_turns(turns), turns=_by_role(turns))
    if name == "inline":
        return layout
    first, indices = next(iter(options.items()))
    return replace(layout, options=indices, spelled=spelled | columns.spelled_options(first, indices))


def _by_role(turns: dict[str, int]) -> dict[str, int]:
    """Columns of conversations as `Layout.turns` has them."""
    return turns if "query" in turns else {"messages": next(iter(turns.values()))}


def _hold_options(records: Records, index: int) -> bool:
    """Whether most of the first questions, in the column of this index, hold their options."""
    rows = (row.cells for row in islice(records.rows(), FIRST_ROWS) if len(row.cells) > index)
    texts = [text for cells in rows if (text := as_text(cells[index])).strip()]
    return 2 * sum(_holds_options(text) for text in texts) > len(texts)


def _holds_options(text: str) -> bool:
    try:
        cut_options(text)
    except InlineError:
        return False
    return True


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

    def find_turns(self) -> dict[str, int]:
        """The columns that can hold conversations, by their names: those of lists of turns, or some of QUERY."""
        if "messages" in self.renamed:
            return {"messages": self.names.index("messages")}
        lists = [name for name in TURNS if name in self.names]
        single = QUERY if "query" in self.names and "question" not in self.names else ()
        return {name: self.names.index(name) for name in lists or single if name in self.names}

    def check_turns(self, turns: dict[str, int]) -> list[Problem]:
        if len(turns) == 1 or "query" in turns:
            return []
        found = f"{', '.join(map(quoted, turns)) or 'no such column'} among {self._listed()}"
        expected = f"one column {' or '.join(TURNS)}, with lists of turns, or a column query"
        return [self._problem("messages", found, expected, "name it with --column messages=NAME")]

    def choose(
        self, fields: dict[str, int], options: dict[str, list[int]], turns: dict[str, int], records: Records
    ) -> str:
        """The one layout that the columns fit. Raises InputError where they fit two."""
        asks = "question" in fields
        in_columns = bool(options) or any(letter in self.names for letter in LETTERS)
        inside = asks and not in_columns and _hold_options(records, fields["question"])
        if turns and "messages" not in self.renamed and asks and (options or inside):
            places = f"{self._listed([fields['question']])} and in conversations in {self._listed([*turns.values()])}"
            others = "inline" if inside else "letters, --layout choices"
            fix = f"say which to read with --layout chat, --layout {others} or --column messages=NAME"
            raise InputError([self._problem("question", f"questions in {places}", "one of them", fix)])
        if turns:
            return "chat"
        if inside:
            return "inline"
        return "choices" if next(iter(options), None) in LISTS else "letters"

    def find_options(self, wanted: str | None = None) -> dict[str, list[int]]:
        """A name for each set of columns that can hold the options -> their indices.

        wanted: `letters` or `choices`, where only such sets are looked for.
        """
        candidates = self._find_sets()
        if wanted in ("letters", "choices"):
            candidates = {name: found for name, found in candidates.items() if (name in LISTS) == (wanted == "choices")}
        return candidates

    def _find_sets(self) -> dict[str, list[int]]:
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
                    "rename the columns with the options, or give --layout inline if the questions hold them",
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

    def spelled_turns(self, turns: dict[str, int]) -> dict[str, str]:
        """`messages` -> the table's name of the column of turns, if that is another."""
        if "query" in turns or "messages" in self.renamed:
            return {}
        (name,) = (self.header[index].strip() for index in turns.values())
        return {} if name.casefold() == "messages" else {"messages": name}

    def _listed(self, indices: list[int] | None = None) -> str:
        names = [self.header[index] for index in indices] if indices else self.header
        return first_of(map(quoted, names), MOST_NAMES)

    def _problem(self, column: str, found: str, expected: str, fix: str) -> Problem:
        return Problem(str(self.file), 0, 0, "", column, found, expected, fix)
