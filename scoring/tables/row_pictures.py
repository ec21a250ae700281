"""The pictures of all rows of a table, each looked at once: those that cells name, and those that they hold.

Pictures inside a table's file are looked at, and kept as files, while the rows are read for the first time: only a few
of them are in memory at once. The files that cells name are looked at afterwards, each name once. Pictures of rows in
memory stay there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from PIL import Image

from scoring.errors import quoted
from scoring.inputs.exif import upright_size
from scoring.inputs.picture_objects import picture_of
from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import (
    Picture,
    PictureError,
    PictureLimits,
    locate,
    open_picture,
    picture_size,
    read_picture,
)
from scoring.readers.records import ObjectCell
from scoring.tables.picture_cells import CellPicture, pictures_in, plain_name

READERS = 4  # threads that look at pictures
PENDING = 256  # pictures from cells that are looked at together, at most
PENDING_BYTES = 16 << 20  # of them
K = TypeVar("K")
T = TypeVar("T")
LONGEST_REFERENCE = 64  # characters of another row's id instead of a picture, as VLMEvalKit has it


class PictureProgress(Protocol):
    """Passes items on, and shows how many of `total` are done; None: it is not known."""

    def __call__(self, items: Iterable[T], total: int | None, /) -> Iterable[T]: ...


def look_at_each(items: Iterable[K], look: Callable[[K], T], progress: PictureProgress | None) -> dict[K, T]:
    """What `look` finds for each of them, by several threads. progress: None shows none."""
    listed = list(items)
    with ThreadPoolExecutor(READERS) as threads:
        results: Iterable[T] = threads.map(look, listed)
        return dict(zip(listed, progress(results, len(listed)) if progress else results))


class LocatedPicture(NamedTuple):
    picture: Picture
    size: tuple[int, int]  # upright


class PictureFault(NamedTuple):
    """What is wrong with a picture, for a row's fault."""

    found: str
    expected: str
    fix: str


Result = LocatedPicture | PictureFault


@dataclass(frozen=True)
class PictureReader:
    """How the pictures of a table are looked at.

    root: the folder of those that cells name. allow_outside: accept others too. deep: decode every pixel. store: for
    those that cells hold; None: they stay in memory.
    """

    root: Path
    allow_outside: bool
    limits: PictureLimits
    deep: bool
    store: PictureStore | None

    def look_at(self, picture: CellPicture) -> Result:
        """The picture and its size, or what is wrong with it. Raises FileError where it cannot be kept."""
        source = picture.source
        assert not isinstance(source, ObjectCell)  # `RowPictures` puts what it holds in its place
        try:
            if isinstance(source, bytes) and self.store:
                with open_picture(source, self.limits) as opened:
                    size, format = upright_size(opened), opened.format or ""
                if self.deep:
                    read_picture(source, self.limits)
                return LocatedPicture(self.store.file_of(source, format), size)
            found = locate(self.root, source, self.allow_outside) if isinstance(source, str) else source
            size = read_picture(found, self.limits).size if self.deep else picture_size(found, self.limits)
            return LocatedPicture(found, size)
        except PictureError as error:
            return _fault_of(picture, error)


def _fault_of(picture: CellPicture, error: PictureError) -> PictureFault:
    shown = picture.shown or quoted(str(picture.source))
    return PictureFault(f"{shown}: {error.found}", error.expected, error.fix)


class RowPictures:
    """The pictures of all rows: `add` each row's cells, `finish` once, then ask for each row's pictures with `of`.

    inside: whether a cell held a picture, of rows that are not added too. named: whether a row only named files or
    another row; its cells are not remembered.
    """

    def __init__(self, reader: PictureReader, inside: bool = False):
        self.inside, self.named = inside, False
        self._reader = reader
        self._names: dict[str, PictureFault | LocatedPicture | None] = {}
        self._rows: dict[int, list[Result | str]] = {}  # by number, of rows that hold pictures or are faulty
        self._pending: list[tuple[list[Result | str], int, CellPicture]] = []
        self._pending_bytes = 0
        self._objects: dict[ObjectCell, bytes | Image.Image | PictureError] = {}
        self._row_of: dict[str, int] = {}  # of ids that cells refer to
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}  # each once, since a million rows share a few

    def __bool__(self) -> bool:
        """Whether any row has a picture, or should have one."""
        return bool(self._rows or self._names)

    def add(self, number: int, cells: Sequence[Any]) -> None:
        """Take in the picture cells of the row of this number."""
        if len(cells) == 1 and (name := plain_name(cells[0])):
            self._names[name] = None
            self.named = True
            return
        entries: list[Result | str] = []
        for picture in map(self._with_object, pictures_of_cells(cells)):
            if isinstance(picture, PictureFault):
                entries.append(picture)
            elif isinstance(picture.source, str):
                self._names[picture.source] = None
                entries.append(picture.source)
            else:
                self._pending.append((entries, len(entries), picture))
                self._pending_bytes += len(picture.source) if isinstance(picture.source, bytes) else 0
                entries.append("")
                self.inside = True
        if any(isinstance(entry, PictureFault) or entry == "" for entry in entries):
            self._rows[number] = entries
        elif entries:
            self.named = True
        if len(self._pending) >= PENDING or self._pending_bytes >= PENDING_BYTES:
            self._look_at_pending()

    def _with_object(self, picture: CellPicture | PictureFault) -> CellPicture | PictureFault:
        """The same, with what an object cell holds in place of it. An object in several cells is read once."""
        if isinstance(picture, PictureFault) or not isinstance(picture.source, ObjectCell):
            return picture
        cell = picture.source
        if cell not in self._objects:
            try:
                self._objects[cell] = picture_of(cell.value, self._reader.limits)
            except PictureError as error:
                self._objects[cell] = error
        found = self._objects[cell]
        return _fault_of(picture, found) if isinstance(found, PictureError) else picture._replace(source=found)

    def _look_at_pending(self) -> None:
        with ThreadPoolExecutor(READERS) as threads:
            results = threads.map(self._reader.look_at, [picture for _, _, picture in self._pending])
            for (entries, index, _), result in zip(self._pending, results):
                if isinstance(result, LocatedPicture):
                    result = result._replace(size=self._sizes.setdefault(result.size, result.size))
                entries[index] = result
        self._pending, self._pending_bytes = [], 0

    def finish(
        self,
        row_of: Mapping[str, int],
        progress: PictureProgress | None = None,
    ) -> None:
        """Look at all that is left. row_of: the rows' ids -> their numbers."""
        self._look_at_pending()
        if self.inside:
            short = [name for name in self._names if len(name) <= LONGEST_REFERENCE]
            self._row_of = {name: row_of[name] for name in short if name in row_of}
        names = sorted(self._names.keys() - self._row_of.keys())
        self._names |= look_at_each(names, lambda name: self._reader.look_at(CellPicture(name)), progress)

    def of(self, number: int, cells: Sequence[Any]) -> list[Result]:
        """The pictures of a row, and what is wrong with others. cells: its picture cells, if `named`.

        Each row can be asked for once, unless rows refer to others: what is known of it is forgotten.
        """
        entries: Sequence[Result | str] | None
        entries = self._rows.get(number) if self._row_of else self._rows.pop(number, None)
        if entries is None and len(cells) == 1 and (name := plain_name(cells[0])):
            return self._named(name)
        if entries is None:
            entries = [
                str(picture.source) if isinstance(picture, CellPicture) else picture
                for picture in pictures_of_cells(cells)
            ]
        results: list[Result] = []
        for entry in entries:
            results += self._named(entry) if isinstance(entry, str) else [entry]
        return results

    def _named(self, name: str) -> list[Result]:
        """The picture of a file's name, or the pictures of the row that a cell refers to."""
        if name not in self._row_of:
            result = self._names[name]
            assert result is not None
            if self.inside and isinstance(result, PictureFault) and len(name) <= LONGEST_REFERENCE:
                expected = "a picture, the id of a row with one, or a picture's file"
                return [result._replace(expected=expected)]
            return [result]
        row = self._row_of[name]
        pictures = [entry for entry in self._rows.get(row, []) if not isinstance(entry, str)]
        if pictures:
            return list(pictures)
        found = f"{quoted(name)}, the id of row {row}, which holds no picture: it is empty, or refers to a row itself"
        return [PictureFault(found, "the id of a row with a picture", "correct the cell")]


def pictures_of_cells(cells: Sequence[Any]) -> list[CellPicture | PictureFault]:
    """The pictures of a row's cells, in their order, and what is wrong with others."""
    pictures: list[CellPicture | PictureFault] = []
    for cell in cells:
        try:
            pictures += pictures_in(cell)
        except PictureError as error:
            pictures.append(PictureFault(error.found, error.expected, error.fix))
    return pictures
