"""Which pictures have the same content, found without reading all of their files."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path

from scoring.inputs.digests import picture_digest, picture_key
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import Picture
from scoring.tables.row_pictures import PictureProgress, look_at_each

TAIL = 4096  # bytes at a file's end, where pictures differ even if their headers are alike


def identities(pictures: Iterable[Picture], progress: PictureProgress | None = None) -> dict[object, str]:
    """Each picture, by `picture_key` -> a text that pictures with the same content share, and no others.

    A million pictures are not read whole for it: a file whose size occurs once is not opened, and one whose last 4 KiB
    no other file of its size has is read no further. The others are read once, and have their digest; all the rest,
    and files that are gone, have their own path. Pictures that tables or programs hold have their digest; then the
    files beside them are all read.
    """
    found, store = dict[object, str](), PictureStore()
    held: dict[object, Picture] = {}  # by programs
    for picture in pictures:
        found[key := picture_key(picture)] = ""
        if not isinstance(picture, Path):
            held[key] = picture
    files = [key for key in found if isinstance(key, Path)]
    named = [file for file in files if not store.digest_of(file)]
    if not named and not held:
        for file in files:  # in the same dictionary: there may be a million
            found[file] = file.name
        return found
    if len(named) == len(found):
        named = _sharing(_sharing(named, _size), _size_and_tail, progress)
    for file in files:
        found[file] = store.digest_of(file)[:16] or str(file)
    digests = look_at_each([*named, *held], lambda key: picture_digest(_picture_of(key, held)), progress)
    return found | {key: digest or found[key] or str(key) for key, digest in digests.items()}


def _picture_of(key: object, held: Mapping[object, Picture]) -> Picture:
    """The picture of a key: a file is its own."""
    return key if isinstance(key, Path) else held[key]


def _sharing(
    files: Iterable[Path], look: Callable[[Path], Hashable], progress: PictureProgress | None = None
) -> list[Path]:
    """The files for which `look` finds what it finds for another one too."""
    found = look_at_each(files, look, progress)
    counts = Counter(found.values())
    return [file for file, value in found.items() if counts[value] > 1]


def _size(file: Path) -> Hashable:
    """In bytes; the file's own path where it is gone."""
    try:
        return os.stat(file).st_size
    except OSError:
        return file


def _size_and_tail(file: Path) -> Hashable:
    """The size and a hash of the last bytes; the file's own path where it cannot be read."""
    try:
        with open(file, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - TAIL))
            return size, hash(stream.read())
    except OSError:
        return file
