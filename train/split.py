"""The split into training and validation rows, by whole pictures: no validation row has a picture of training."""

import math
from collections import Counter
from pathlib import Path

from sklearn.model_selection import train_test_split

from scoring.errors import ScoringError, counted
from scoring.inputs.digests import digests_of_pictures, question_digests
from scoring.inputs.questions import Question

UNKNOWN = "unknown"
LISTED = 5  # ids in a message
SKEW = 0.5  # relative difference of the held-out share of the rows from --valid-share that is worth a notice


class SplitError(ScoringError):
    """Rows that cannot be split into training and validation, or two tables that share rows."""


def strata(questions: list[Question]) -> list[str]:
    """(N,) the task type of each row; missing ones, and those with a single row, count as "unknown"."""
    return _without_rare([question.task_type or UNKNOWN for question in questions])


def picture_groups(questions: list[Question]) -> list[int]:
    """(N,) for each row the index of the first row with which it has a picture in common, by content; its own alone.

    Rows are in one group, too, where a third one has a picture of each.
    """
    first_with: dict[str, int] = {}
    earlier = list(range(len(questions)))  # of each row, an earlier one of its group; the first of a group, itself

    def first_of_group(row: int) -> int:
        while earlier[row] != row:
            earlier[row] = earlier[earlier[row]]
            row = earlier[row]
        return row

    for row, digests in enumerate(digests_of_pictures(questions)):
        for digest in filter(None, digests):
            one, other = first_of_group(first_with.setdefault(digest, row)), first_of_group(row)
            earlier[max(one, other)] = min(one, other)
    return list(map(first_of_group, range(len(questions))))


def split(questions: list[Question], share: float, seed: int) -> tuple[list[Question], list[Question], list[str]]:
    """(training rows, validation rows, notices): a random share of the pictures, each with all of its rows.

    Stratified by task type where that can be done; a picture with rows of several types counts as its most common one.
    Where every row has a picture of its own this is scikit-learn's `train_test_split` over the rows, in its order.
    Raises SplitError where the pictures are too few.
    """
    members: dict[int, list[Question]] = {}
    for question, group in zip(questions, picture_groups(questions)):
        members.setdefault(group, []).append(question)
    pictures, held_out = len(members), math.ceil(len(members) * share)
    if pictures < 2:
        raise SplitError(
            f"{counted(len(questions), 'row')} of {counted(pictures, 'picture')} cannot be split into training and "
            "validation; expected at least 2 pictures: add rows with others, or name a validation table with --valid"
        )
    if held_out == pictures:
        raise SplitError(
            f"--valid-share {share:g} leaves none of {pictures} pictures to train on; lower it, or name a validation "
            "table with --valid"
        )
    labels: list[str] | None = _without_rare([_most_common_type(rows) for rows in members.values()])
    counts, notices = Counter(labels), []
    if min(counts.values()) < 2 or min(round(pictures * share), pictures - held_out) < len(counts):
        labels = None
        notices.append(
            f"validation rows are drawn without regard to task type: {pictures} pictures of {len(counts)} types "
            f"are too few to stratify {round(pictures * share)}"
        )
    train_groups, valid_groups = train_test_split(
        list(members), test_size=share, random_state=seed, shuffle=True, stratify=labels
    )
    train = [question for group in train_groups for question in members[group]]
    valid = [question for group in valid_groups for question in members[group]]
    if pictures < len(questions) and abs(len(valid) / len(questions) - share) > SKEW * share:
        notices.append(
            f"{len(valid):,} of {len(questions):,} rows are held out for validation, where --valid-share asks for "
            f"{share:g} of them: pictures stay whole, and some have many rows"
        )
    return train, valid, notices


def check_valid(train: list[Question], valid: list[Question], file: Path) -> list[str]:
    """Notices about a validation table that is read from `file`.

    Raises SplitError where it has rows that are also in training, whatever their ids, file names, answers and order of
    options.
    """
    trained = set(question_digests(train))
    if repeated := [row.id for row, digest in zip(valid, question_digests(valid)) if digest in trained]:
        ids = ", ".join(map(repr, repeated[:LISTED])) + (", …" if len(repeated) > LISTED else "")
        raise SplitError(
            f"{file}: {len(repeated):,} of {len(valid):,} rows are also in training: {ids}; expected rows that are not "
            "trained on: the best epoch, the temperature and prediction sets rest on them. Remove them from one of the "
            "tables, or leave out --valid to hold out a part of the training table"
        )
    pictures = {digest for digests in digests_of_pictures(train) for digest in digests} - {""}
    by_row = list(map(set, digests_of_pictures(valid)))
    if shared := set().union(*by_row) & pictures:
        rows = sum(not shared.isdisjoint(digests) for digests in by_row)
        return [
            f"{file}: {rows:,} of {len(valid):,} rows have a picture that is also in training, with other questions "
            f"({counted(len(shared), 'picture')}): the validation may be better than rows with new pictures will be"
        ]
    return []


def _most_common_type(rows: list[Question]) -> str:
    """The most common task type; the first where several are equally common."""
    return Counter(question.task_type or UNKNOWN for question in rows).most_common(1)[0][0]


def _without_rare(types: list[str]) -> list[str]:
    """The types, with "unknown" for those that occur once."""
    counts = Counter(types)
    return [UNKNOWN if counts[name] < 2 else name for name in types]
