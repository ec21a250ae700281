"""The places of pictures in texts: `<image 2>` is the second picture of the question.

Tables also write `<image>` for the next picture. `number_marks` makes one form of both, and refuses marks that do not
fit the pictures, so that every mark in a `Question` is a place. Pictures that no text names come before the texts.
"""

import re
from collections.abc import Sequence

from scoring.errors import counted
from scoring.inputs.pictures import PictureError

MARK = re.compile(r"<image(?: ?(\d+))?>")
FIRST_MARKS = re.compile(r"(?:\s*<image(?: ?\d+)?>)+\s*")

Parts = tuple[str | int, ...]  # texts, and pictures by their index


def number_marks(texts: Sequence[str], pictures: int) -> list[str]:
    """The texts of a question in their order, with `<image N>` for every mark. pictures: how many the question has.

    Marks at the very beginning are left out where their pictures come first in any case. Raises PictureError, a row's
    fault, where the marks do not fit the pictures.
    """
    if "<image" not in "".join(texts):
        return list(texts)
    numbers = [match[1] for text in texts for match in MARK.finditer(text)]
    if None in numbers:
        if any(numbers):
            raise PictureError(
                "marks <image> and <image N> in one row", "one kind of them", "number all of them, or none"
            )
        if len(numbers) != pictures:
            found = f"{counted(len(numbers), '<image> mark')} and {counted(pictures, 'picture')}"
            raise PictureError(found, "a mark for each picture, or none", "correct the text or the pictures")
        count = iter(range(1, pictures + 1))
        texts = [MARK.sub(lambda _: f"<image {next(count)}>", text) for text in texts]
    else:
        texts = [MARK.sub(lambda match: f"<image {int(match[1])}>", text) for text in texts]
    _check(texts, pictures)
    return [_without_first(texts[0], texts), *texts[1:]]


def _check(texts: Sequence[str], pictures: int) -> None:
    numbers = [int(match[1]) for text in texts for match in MARK.finditer(text)]
    if wrong := [number for number in numbers if not 1 <= number <= pictures]:
        found = f"the mark <image {wrong[0]}>, but {counted(pictures, 'picture')}"
        raise PictureError(found, "marks of pictures that the row has", "correct the text or add the picture")


def _without_first(text: str, texts: Sequence[str]) -> str:
    """The first text without the marks that it begins with, if they name the first pictures once each and in order."""
    if not (first := FIRST_MARKS.match(text)):
        return text
    numbers = [int(number) for number in MARK.findall(first[0])]
    others = MARK.findall("".join([text[first.end() :], *texts[1:]]))
    if numbers != list(range(1, len(numbers) + 1)) or {*map(int, others)} & {*numbers}:
        return text
    return text[first.end() :]


def parts_of(text: str, pictures: int) -> Parts:
    """Texts and pictures in their order: first the pictures that the text does not name, then the text and the others.

    text: with marks `<image N>`. pictures: how many the question has. Raises PictureError as `number_marks` does.
    """
    if "<image" not in text:
        return (*range(pictures), text)
    if None in (numbers := [match[1] for match in MARK.finditer(text)]):
        raise PictureError("a mark without a number", "<image 1>, <image 2> and so on", "number the marks")
    _check([text], pictures)
    named = {int(number) - 1 for number in numbers}
    parts: list[str | int] = [index for index in range(pictures) if index not in named]
    position = 0
    for match in MARK.finditer(text):
        if match.start() > position:
            parts.append(text[position : match.start()])
        parts.append(int(match[1]) - 1)
        position = match.end()
    if position < len(text):
        parts.append(text[position:])
    return tuple(parts)
