"""`Question`s that a program made: every fault that a row of a table could have, found one by one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from scoring.errors import counted, quoted
from scoring.inputs.image_marks import number_marks
from scoring.inputs.picture_objects import type_name
from scoring.inputs.pictures import DEFAULT_LIMITS, Picture, PictureError, PictureLimits
from scoring.inputs.prompt import LETTERS
from scoring.inputs.questions import Question
from scoring.tables.layouts import RowFault
from scoring.tables.rows import text_fault

TEXTS = ("id", "question", "task_type", "task_hint", "answer")
EXPECTED = f"a list of 2 to {len(LETTERS)} texts"


class SizedPicture(NamedTuple):
    picture: Picture
    size: tuple[int, int]  # upright


def checked(given: Question, pictures: Sequence[SizedPicture | PictureError]) -> tuple[Question, list[RowFault]]:
    """The question with these pictures, numbered marks and clean texts, and all that is wrong with it.

    given: its fields may be of any type. pictures: what was found of each of its own. What is wrong is left out of the
    question, so that a table can hold it. One that is faulty already is not looked at again.
    """
    if given.fault:
        held = tuple(picture for picture in given.pictures if isinstance(picture, Picture))
        fault = RowFault("", given.fault, "a question without a fault", "correct the row or drop it")
        return replace(given, pictures=held), [fault]
    faults: list[RowFault] = []
    texts = {name: _text(name, getattr(given, name), faults) for name in TEXTS}
    for name, needed in (("id", True), ("question", not pictures)):
        if needed and isinstance(value := getattr(given, name), str) and not value.strip():
            faults.append(RowFault(name, "an empty text", f"{'an' if name == 'id' else 'a'} {name}", "fill it in"))
    options = _options(given.options, faults)
    texts["answer"] = _answer(texts["answer"], options, faults)
    limits = given.limits
    if not isinstance(limits, PictureLimits):
        faults.append(RowFault("limits", type_name(limits), "PictureLimits", "leave it out"))
        limits = DEFAULT_LIMITS
    found = _found(pictures, faults)
    if not faults:
        try:
            marked = number_marks([texts["question"], *options, texts["task_hint"]], len(pictures))
            texts["question"], options, texts["task_hint"] = marked[0], tuple(marked[1:-1]), marked[-1]
        except PictureError as error:
            faults.append(RowFault("question", error.found, error.expected, error.fix))
    return Question(
        id=texts["id"],
        row=given.row,
        pictures=tuple(picture.picture for picture in found),
        question=texts["question"],
        options=options,
        answer=texts["answer"],
        task_type=texts["task_type"],
        task_hint=texts["task_hint"],
        sizes=tuple(picture.size for picture in found),
        limits=limits,
    ), faults


def _found(pictures: Sequence[SizedPicture | PictureError], faults: list[RowFault]) -> list[SizedPicture]:
    """The pictures that can be used."""
    found = []
    for number, picture in enumerate(pictures, 1):
        if isinstance(picture, PictureError):
            place = f"picture {number} of {len(pictures)}: " if len(pictures) > 1 else ""
            faults.append(RowFault("pictures", place + picture.found, picture.expected, picture.fix))
        else:
            found.append(picture)
    return found


def _answer(given: str, options: Sequence[str], faults: list[RowFault]) -> str:
    """The letter; "" where there is none, or none of an option."""
    letters = list(LETTERS[: len(options)])
    if given and options and given not in letters:
        expected = f"one of {', '.join(letters)}, or an empty text"
        faults.append(RowFault("answer", quoted(given), expected, "correct the answer"))
    return given if given in letters else ""


def _text(name: str, value: object, faults: list[RowFault]) -> str:
    """A text without what no file can hold; "" for another object."""
    if not isinstance(value, str):
        faults.append(RowFault(name, type_name(value), "a text", "give a str"))
        return ""
    if fault := text_fault(value, "text"):
        faults.append(RowFault(name, *fault))
        return ""
    return value


def _options(given: object, faults: list[RowFault]) -> tuple[str, ...]:
    """The options; none where they cannot be used."""
    if isinstance(given, np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if not isinstance(given, list | tuple):
        fix = "give a list: a set has no order" if isinstance(given, set | frozenset) else "give the texts in a list"
        faults.append(RowFault("options", type_name(given), EXPECTED, fix))
        return ()
    before = len(faults)
    if not 2 <= len(given) <= len(LETTERS):
        expected = "at least 2" if len(given) < 2 else f"at most {len(LETTERS)}"
        faults.append(RowFault("options", counted(len(given), "option"), expected, "correct the list"))
    for letter, option in zip(LETTERS, given):
        if not isinstance(option, str):
            faults.append(RowFault("options", f"{type_name(option)} as option {letter}", "a text", "give a str"))
        elif not option.strip():
            faults.append(RowFault("options", f"an empty text as option {letter}", "a text", "fill it in"))
        else:
            _text("options", option, faults)
    return tuple(given) if len(faults) == before else ()
