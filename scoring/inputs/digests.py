"""Digests that recognise a picture or a question in any table, whatever its name or id there.

All digests are 16 hexadecimal digits of SHA-256.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from PIL import Image

from scoring.inputs.questions import Question

READERS = 4  # threads that read files


def picture_digest(picture: Path | Image.Image | None) -> str:
    """Of a file's bytes, or of an opened picture's pixels; "" if there is no picture, or its file is gone."""
    if isinstance(picture, Image.Image):
        head = f"{picture.mode} {picture.size}".encode()
        return hashlib.sha256(head + picture.tobytes()).hexdigest()[:16]
    if picture is None:
        return ""
    try:
        state = os.stat(picture)
        return _file_digest(str(picture), state.st_size, state.st_mtime_ns)
    except OSError:
        return ""


@lru_cache(maxsize=1 << 20)
def _file_digest(path: str, size: int, changed: int) -> str:
    """Read once in a process while the file keeps its size and time of change."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def picture_digests(questions: Sequence[Question]) -> list[str]:
    """(N,) the digest of each question's picture; every file is read once."""
    pictures: dict[object, Path | Image.Image | None] = {_key(question): question.picture for question in questions}
    with ThreadPoolExecutor(READERS) as threads:
        digests = dict(zip(pictures, threads.map(picture_digest, pictures.values())))
    return [digests[_key(question)] for question in questions]


def question_digest(picture: str, question: str, options: Iterable[str]) -> str:
    """Of the picture's digest, the question and the options in any order. The id and the answer do not count.

    A question whose options were shuffled is still the same question: a model that was trained on it knows it.
    """
    return hashlib.sha256(repr((picture, question, sorted(options))).encode()).hexdigest()[:16]


def question_digests(questions: Sequence[Question]) -> list[str]:
    """(N,) `question_digest` of each."""
    return [
        question_digest(picture, question.question, question.options)
        for picture, question in zip(picture_digests(questions), questions)
    ]


def _key(question: Question) -> object:
    """What tells a question's picture from others: the path, or the opened picture itself."""
    return id(question.picture) if isinstance(question.picture, Image.Image) else question.picture
