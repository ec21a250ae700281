"""What a program gives beside answers: right letters for their rows, and columns to group them by."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from scoring.errors import CallError
from scoring.library.messages import say_to_log
from scoring.scores.external import read_labelled, table_columns
from scoring.scores.folder import Scores
from scoring.tables.answers import AnswerTable, read_answers

GivenAnswers = Mapping[str, str] | Sequence[str] | str | PathLike[str]
GIVEN = Path("answers=")  # the name of answers that a program gives, in messages


def answer_table(given: GivenAnswers, ids: Sequence[str]) -> AnswerTable:
    """Right letters by id. given: {id: letter}, a list of letters for these ids, or the path of a table with answers.

    Raises CallError for a list of another length, InputError for a table that cannot be read.
    """
    if isinstance(given, (str, PathLike)):
        return read_answers(Path(given))
    if not isinstance(given, Mapping):
        if len(given) != len(ids):
            raise CallError(f"answers=: {len(given):,} letters; expected one for each of the {len(ids):,} rows")
        given = dict(zip(ids, given))
    letters = {str(id): str(letter or "").strip("()[]. ").lower() for id, letter in given.items()}
    return AnswerTable(GIVEN, letters, {})


def labelled(scores: Scores, given: GivenAnswers | None) -> Scores:
    """The results with these right letters where rows have none. Raises EnsembleError for one that cannot be right."""
    if given is None:
        return scores
    table = answer_table(given, scores.logits.ids)
    filled, _ = read_labelled(scores, "auto", table, say_to_log)
    return filled or scores


def columns_by(scores: Scores, by: Mapping[str, Sequence[str]] | Sequence[str] | None) -> dict[str, list[str]]:
    """name -> (N,) values in the rows' order, of columns that are given, or of the table that was scored.

    Raises CallError where a column has another length, or the results record no table; InputError where the table lacks
    a column.
    """
    ids = scores.logits.ids
    if isinstance(by, Mapping):
        if wrong := [f"{name} ({len(values):,})" for name, values in by.items() if len(values) != len(ids)]:
            raise CallError(f"by=: {', '.join(wrong)}; expected a value for each of the {len(ids):,} rows")
        return {name: [str(value) for value in values] for name, values in by.items()}
    if not by:
        return {}
    names, table = [by] if isinstance(by, str) else list(by), scores.run_json.get("data", {})
    if not Path(table.get("file", "")).is_file():
        raise CallError(f"by={names}: the rows come from no table on this disk; give a column's values by its name")
    return table_columns(scores, names)
