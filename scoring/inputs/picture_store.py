"""Files for pictures that come without one, such as those inside tables."""

import errno
import hashlib
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from scoring.files.cache import cache_folder
from scoring.files.reading import FileError
from scoring.files.writing import write_whole

SUFFIXES = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}  # of Pillow's formats; of others, their names


@dataclass(frozen=True)
class PictureStore:
    """Files of the pictures inside tables, each once, named by the SHA-256 of its bytes.

    keep: write them; without it, they only have the names that they would have.
    """

    keep: bool = True
    folder: Path = field(default_factory=lambda: cache_folder() / "pictures")

    def file_of(self, data: bytes, format: str) -> Path:
        """The file of a picture. format: Pillow's name of it. Raises FileError where it cannot be written."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.{SUFFIXES.get(format, format.lower())}"
        if self.keep and not _has_size(path, len(data)):
            self._write(path, data)
        return path

    def digest_of(self, path: Path) -> str:
        """The SHA-256 that the name of a file of this store tells, also where it was not kept; "" for other files."""
        return path.stem if path.is_relative_to(self.folder) else ""

    def _write(self, path: Path, data: bytes) -> None:
        mark = f".{os.getpid()}-{threading.get_ident()}"  # others may write the same picture now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, lambda file: file.write(data), mark, sync=False)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise FileError(
                f"{self.folder}: found {'a full disk' if full else error.strerror or error}; expected room for the "
                "pictures inside the table, which are kept there as files; free some, or name another folder with the "
                "environment variable XDG_CACHE_HOME"
            ) from None


def _has_size(path: Path, size: int) -> bool:
    """Whether a file is there whole: one that a power cut emptied has another size."""
    try:
        return path.stat().st_size == size
    except OSError:
        return False
