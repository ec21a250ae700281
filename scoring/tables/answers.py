"""Answers from a table: a letter for each id, for numbers that come without them."""

from dataclasses import dataclass
from pathlib import Path

from scoring.inputs.prompt import LETTERS
from scoring.readers.opening import open_table
from scoring.readers.records import as_text, normalized, table_fault
from scoring.tables.answer_reading import AnswerError, read_answer


@dataclass
class AnswerTable:
    """Letters and task types by id, "" if the table has none, and the file that they are from."""

    file: Path
    answer: dict[str, str]
    task_type: dict[str, str]


def read_answers(file: Path) -> AnswerTable:
    """The answers of a table by id. Raises InputError if the table has no column id or answer, or a wrong answer.

    Answers may be letters or, if the table has the options in columns a, b, …, their texts.
    """
    text = open_table(file, {"id", "answer", "task_type", *LETTERS})
    names = normalized(text.header)
    index_of = {name: names.index(name) for name in ("id", "answer", "task_type", *LETTERS) if name in names}
    if missing := [name for name in ("id", "answer") if name not in index_of]:
        raise table_fault(file, f"columns {', '.join(text.header)}", f"a column {missing[0]}", "add it")
    letters = [letter for letter in LETTERS if letter in index_of]
    answers, types = {}, {}
    for row in text.rows():
        if len(row.cells) != len(names):
            raise table_fault(
                file,
                f"{len(row.cells)} cells in line {row.line}",
                f"{len(names)}, as in the header",
                "correct that line",
            )
        cells = [as_text(cell) for cell in row.cells]
        row_id, cell = cells[index_of["id"]], cells[index_of["answer"]].strip()
        options = [cells[index_of[letter]] for letter in letters]
        options = [option for option in options if option.strip()] or [""] * len(LETTERS)
        try:
            answers[row_id] = read_answer(cell, options) if cell else ""
        except AnswerError as error:
            found = f"the answer {error.found} in {f'line {row.line}' if row.line else f'row {row.number}'}"
            raise table_fault(file, found, error.expected, "correct it") from None
        types[row_id] = cells[index_of["task_type"]].strip() if "task_type" in index_of else ""
    return AnswerTable(file, answers, types)
