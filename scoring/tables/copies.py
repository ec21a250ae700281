"""Which picture files have the same bytes, found without reading all of them."""

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from scoring.inputs.digests import picture_digest
from scoring.inputs.picture_store import PictureStore
from scoring.tables.row_pictures import PictureProgress

READERS = 4  # threads that read files
TAIL = 4096  # bytes at a file's end, where pictures differ even if their headers are alike
T = TypeVar("T")


def identities(files: Iterable[Path], progress: PictureProgress | None = None) -> dict[Path, str]:
    """Each file -> a text that files with the same bytes share, and no others.

    A million pictures are not read whole for it: a file whose size occurs once is not opened, and one whose last 4 KiB
    no other file of its size has is read no further. The others are read once, and have their digest; all the rest,
    and files that are gone, have their own path. Pictures that tables hold have the digest that their name tells; then
    the files beside them are all read.
    """
    store, names = PictureStore(), dict.fromkeys(files, "")
    if names and all(map(store.digest_of, names)):
        for file in names:  # in the same dictionary: there may be a million
            names[file] = file.name
        return names
    found = {file: str(file) for file in names}
    held = [file for file in found if store.digest_of(file)]
    named = [file for file in found if not store.digest_of(file)]
    alike = named if held else _sharing(_sharing(named, _size), _size_and_tail, progress)
    digests = _each(alike, picture_digest, progress) | {file: picture_digest(file) for file in held}
    return found | {file: digest for file, digest in digests.items() if digest}


def _sharing(
    files: Iterable[Path], look: Callable[[Path], Hashable], progress: PictureProgress | None = None
) -> list[Path]:
    """The files for which `look` finds what it finds for another one too."""
    found = _each(files, look, progress)
    counts = Counter(found.values())
    return [file for file, value in found.items() if counts[value] > 1]


def _each(files: Iterable[Path], look: Callable[[Path], T], progress: PictureProgress | None) -> dict[Path, T]:
    names = list(files)
    with ThreadPoolExecutor(READERS) as threads:
        results: Iterable[T] = threads.map(look, names)
        return dict(zip(names, progress(results, len(names)) if progress else results))


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
