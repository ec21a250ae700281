"""Which file a name may have meant that is not there. It is offered in a message, never taken."""

import os
import re
import threading
import unicodedata
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

MOST_NAMES = 200_000  # of a folder; in a larger one no near names are looked for
MOST_FOLDERS = 50  # in the pictures' folder that are looked into
MOST_OFFERED = 3
EXTENSIONS = {"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "ico", "heic", "heif"}
_LOCK = threading.Lock()  # so that a folder is listed once


def near_names(root: Path, cell: str) -> list[str]:
    """Files in `root` that a cell may mean, as a cell would name them; none where no name is near.

    They differ in case, extension, Unicode form, blanks or escapes (%20), or in the folders before the name. Folders
    are listed once while they stay as they are, so that many missing names take little time.
    """
    parts = [part for part in re.split(r"[\\/]", unquote(cell)) if part.strip(" .")]
    if not parts or ".." in re.split(r"[\\/]", cell):
        return []
    try:
        for start in range(len(parts)):  # with fewer and fewer of the folders before the name
            if found := _near(root, parts[start:]):
                return found[:MOST_OFFERED]
        with _LOCK:
            below = _files_below(str(root), _changed(root))
        return below.like(parts[-1])[:MOST_OFFERED]
    except (OSError, ValueError):  # a NUL, a name too long, a folder that cannot be read
        return []


def _near(folder: Path, parts: list[str]) -> list[str]:
    """Files in `folder` whose paths are nearly `parts`, with `/` between."""
    with _LOCK:
        files, folders = _listing(str(folder), _changed(folder))
    if len(parts) == 1:
        return files.like(parts[0])
    return [f"{name}/{rest}" for name in folders.like(parts[0]) for rest in _near(folder / name, parts[1:])]


def _changed(folder: Path) -> int:
    """A number that changes when a file is added to a folder or removed; 0 where there is no folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


def _folded(name: str) -> str:
    """A name in the form in which names are near: without case, blanks and Unicode's forms."""
    return re.sub(r"[\s\u200b\ufeff]+", "", unicodedata.normalize("NFKC", name)).casefold()


def _stem(folded: str) -> str:
    """A folded name without the extension of a picture."""
    stem, dot, extension = folded.rpartition(".")
    return stem if dot and extension in EXTENSIONS else folded


class _Names:
    """Paths that are found by the form in which their last part is near."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self._paths: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            self._paths[_stem(_folded(path.rpartition("/")[2]))].append(path)

    def like(self, name: str) -> list[str]:
        """Those that differ in case and form alone, if there are any; else those with the extension of a picture."""
        folded = _folded(name)
        near = sorted(self._paths.get(_stem(folded), []))
        return [path for path in near if _folded(path.rpartition("/")[2]) == folded] or near


@lru_cache(maxsize=8)
def _listing(folder: str, changed: int) -> tuple[_Names, _Names]:
    """(files, folders) in a folder; links to folders count as files, so that nothing outside is listed.

    changed: as `_changed` says: a folder is listed again once it has another.
    """
    files: list[str] = []
    folders: list[str] = []
    if changed:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
                if len(files) + len(folders) > MOST_NAMES:
                    return _Names([]), _Names([])
    return _Names(files), _Names(folders)


@lru_cache(maxsize=1)
def _files_below(root: str, changed: int) -> _Names:
    """The files in the folders of a folder."""
    files: list[str] = []
    for folder in sorted(_listing(root, changed)[1].paths)[:MOST_FOLDERS]:
        with os.scandir(os.path.join(root, folder)) as entries:
            files += [f"{folder}/{entry.name}" for entry in entries if not entry.is_dir(follow_symlinks=False)]
        if len(files) > MOST_NAMES:
            return _Names([])
    return _Names(files)
