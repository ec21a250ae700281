"""Rows with pictures, for a base that sees none: faults of those rows, known before the base is loaded."""

from dataclasses import replace

from scoring.errors import Problem, counted
from scoring.inputs.families.family import Family
from scoring.inputs.prepare import unseen_pictures
from scoring.tables.table import Table


def mark_unseen(table: Table, family: Family) -> Table:
    """The table for a base of this family: where it sees no pictures, rows that have some are faulty.

    If all good rows have some, one problem speaks for them.
    """
    rows = [] if family.sees_pictures else [question for question in table.good if question.pictures]
    if not rows:
        return table
    errors = {question.row: unseen_pictures(family, len(question.pictures)) for question in rows}
    problems = [
        Problem(str(table.file), question.row, 0, question.id, "path", error.found, error.expected, error.fix)
        for question, error in zip(rows, errors.values())
    ]
    faults = {problem.row: problem.text for problem in problems}
    if len(rows) == len(table.good):
        where = f"all {counted(len(rows), 'row')}" if len(rows) > 1 else "the only row"
        found = f"pictures in {where}, which a {family.name} base does not see"
        fix = "name a base that sees pictures, or leave the column out"
        problems = [Problem(str(table.file), 0, 0, "", "path", found, "questions in words alone", fix)]
    questions = [replace(row, fault=row.fault or faults.get(row.row, "")) for row in table.questions]
    return replace(table, questions=questions, problems=[*table.problems, *problems])
