"""Which picture files have the same bytes, found without reading all of them."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

from scoring.inputs.digests import picture_digest
from scoring.inputs.picture_store import PictureStore
from scoring.tables.row_pictures import PictureProgress, look_at_each

TAIL = 4096  # bytes at a file's end, where pictures differ even if their headers are alike


def identities(files: Iterable[Path], progress: PictureProgress | None = None) -> dict[Path, str]:
    """Each file -> a text that files with the same bytes share, and no others.

    A million pictures are not read whole for it: a file whose size occurs once is not opened, and one whose last 4 KiB
    no other file of its size has is read no further. The others are read once, and have their digest; all the rest,
    and files that are gone, have their own path. Pictures that tables hold have the digest that their name tells; then
    the files beside them are all read.
    """
    found, store = dict.fromkeys(files, ""), PictureStore()
    named = [file for file in found if not store.digest_of(file)]
    if not named:
        for file in found:  # in the same dictionary: there may be a million
            found[file] = file.name
        return found
    if len(named) == len(found):
        named = _sharing(_sharing(named, _size), _size_and_tail, progress)
    for file in found:
        found[file] = store.digest_of(file)[:16] or str(file)
    digests = look_at_each(named, picture_digest, progress)
    return found | {file: digest for file, digest in digests.items() if digest}


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
