"""Digests that recognise a picture or a question in any table, whatever its name or id there.

All digests are 16 hexadecimal digits of SHA-256.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image

from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import Picture, PictureError, load_pixels
from scoring.inputs.questions import Question

READERS = 4  # threads that read files


def picture_digest(picture: Picture, store: PictureStore | None = None) -> str:
    """Of a file's bytes, or of an opened picture's pixels; "" if its file is gone, or cannot be decoded.

    store: of the pictures inside tables, whose digests are known without their files; None for the cache's.
    """
    if isinstance(picture, bytes):
        return hashlib.sha256(picture).hexdigest()[:16]
    if isinstance(picture, Image.Image):
        return _digest_of_pixels(picture)
    if name := (store or PictureStore()).digest_of(picture):
        return name[:16]
    try:
        state = os.stat(picture)
        return _file_digest(str(picture), state.st_size, state.st_mtime_ns)
    except OSError:
        return ""


def _digest_of_pixels(picture: Image.Image) -> str:
    try:
        load_pixels(picture)
    except PictureError:
        return ""
    if picture.mode in ("P", "PA"):  # its pixels are numbers of colours
        picture = picture.convert("RGBA")
    head = f"{picture.mode} {picture.size}".encode()
    return hashlib.sha256(head + picture.tobytes()).hexdigest()[:16]


@lru_cache(maxsize=1 << 20)
def _file_digest(path: str, size: int, changed: int) -> str:
    """Read once in a process while the file keeps its size and time of change."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def picture_digests(questions: Sequence[Question]) -> list[str]:
    """(N,) one digest of all of a question's pictures; "" without any, or where one's file is gone."""
    return list(map(_joined, digests_of_pictures(questions)))


def digests_of_pictures(questions: Sequence[Question]) -> list[list[str]]:
    """(N,) the digest of each of a question's pictures, in their order; "" if its file is gone. Files are read once."""
    pictures = {picture_key(picture): picture for question in questions for picture in question.pictures}
    digest = partial(picture_digest, store=PictureStore())  # one for all of them
    with ThreadPoolExecutor(READERS) as threads:
        digest_of = dict(zip(pictures, threads.map(digest, pictures.values())))
    return [[digest_of[picture_key(picture)] for picture in question.pictures] for question in questions]


def _joined(digests: list[str]) -> str:
    """One digest of several; "" where one of them is unknown."""
    if len(digests) < 2 or not all(digests):
        return digests[0] if len(digests) == 1 else ""
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()[:16]


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


def picture_path(picture: Picture | None) -> str:
    """The path of a file; "" for a picture without one, and for none."""
    return str(picture) if isinstance(picture, Path) else ""


def picture_key(picture: Picture) -> object:
    """What tells a picture from others: its path, its bytes (hashed once), or which opened picture it is."""
    return id(picture) if isinstance(picture, Image.Image) else picture
