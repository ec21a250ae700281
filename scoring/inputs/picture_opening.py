"""Opens pictures by Pillow's readers of their formats, without the limit of pixels that Pillow has for the process.

`Image.open` warns above that limit and refuses above its double, and a program that imports this package may have set
it to whatever it likes. Here it is never changed: the readers are called by themselves, and each picture has its own
limit. Three formats take more care, since their readers apply Pillow's limit while they open a picture:

- WEBP: its size is read from its first bytes, and compared; then the reader is not shown the size before it decodes.
- ICO and GIF: their size is looked up, and compared with Pillow's limit too, which holds for them as well.

A TIFF's reader applies it when it decodes, see `make_room`.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, cast

from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import DibImageFile
from PIL.ExifTags import Base
from PIL.IcoImagePlugin import IcoFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from scoring.errors import ScoringError

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO")
HEAD = 16  # bytes by which Pillow's readers tell whether a file is of their format


class TooManyPixelsError(ScoringError):
    """A picture with more pixels than it may have; `most` is how many it may have."""

    def __init__(self, most: int):
        super().__init__(f"over {most:,} pixels")
        self.most = most


@cache
def _formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_unlimited(source: str | Path | bytes, pixels: int) -> Image.Image:
    """The picture of a file, or of its bytes, with its header read; what decodes at once has at most `pixels`.

    Raises TooManyPixelsError, UnidentifiedImageError for what is no picture, and a dozen types for broken ones.
    """
    with _opened(source) as file:
        head = file.read(HEAD)
        for name in _formats():
            reader, accepts = Image.OPEN[name]
            accepted = accepts is None or accepts(head)
            if not accepted or isinstance(accepted, str):  # a text says that this build lacks what it takes
                continue
            try:
                _check_size(file, name, pixels)
                return reader(cast("IO[bytes]", _for_reader(source, name)), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # of another format that begins alike
                continue
    raise UnidentifiedImageError("no reader of Pillow's knows it")


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[IO[bytes]]:
    with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
        yield file


def _for_reader(source: str | Path | bytes, name: str) -> IO[bytes] | str | Path:
    """What a reader of Pillow's is given: a file that it opens, and closes, by its path, or the bytes."""
    if name != "WEBP":
        return io.BytesIO(source) if isinstance(source, bytes) else source
    return _HeadFirst(source if isinstance(source, bytes) else Path(source).read_bytes())


class _HeadFirst(io.BytesIO):
    """The bytes of a WEBP, of which the first read gives the head alone: it does not reach as far as the size."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if self.tell() else HEAD)


def _check_size(file: IO[bytes], name: str, pixels: int) -> None:
    """Raises TooManyPixelsError for a picture whose reader would use the memory before its size can be seen."""
    look_up = {"WEBP": _size_of_webp, "GIF": _size_of_gif, "ICO": _size_of_icon}.get(name)
    if look_up is None:
        return
    file.seek(0)
    width, height = look_up(file)
    most = pixels if name == "WEBP" or Image.MAX_IMAGE_PIXELS is None else min(pixels, Image.MAX_IMAGE_PIXELS)
    if width * height > most:
        raise TooManyPixelsError(most)


def _size_of_webp(file: IO[bytes]) -> tuple[int, int]:
    """Raises struct.error where the file ends before."""
    head = file.read(30)
    if head[12:16] == b"VP8X":
        width, height = (int.from_bytes(head[start : start + 3], "little") for start in (24, 27))
        return width + 1, height + 1
    if head[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def _size_of_gif(file: IO[bytes]) -> tuple[int, int]:
    """Of the screen, or of its first frame where that is larger. Raises struct.error where the file ends before."""
    width, height, flags = struct.unpack("<6xHHB2x", file.read(13))
    if flags & 128:
        file.read(3 << (flags & 7) + 1)  # the colours
    while (sign := file.read(1)) not in (b"", b",", b";"):
        if sign == b"!":
            file.read(1)
            while (length := file.read(1)) not in (b"", b"\0"):
                file.read(length[0])
    if sign != b",":
        return width, height
    left, top, frame_width, frame_height = struct.unpack("<HHHH", file.read(8))
    return max(width, left + frame_width), max(height, top + frame_height)


def _size_of_icon(file: IO[bytes]) -> tuple[int, int]:
    """Of the picture in the icon that Pillow takes, by that picture's own header."""
    start = IcoFile(file).entry[0].offset
    file.seek(start)
    is_png = file.read(8) == b"\x89PNG\r\n\x1a\n"
    file.seek(start)
    return (PngImageFile if is_png else DibImageFile)(file).size


def make_room(picture: Image.Image) -> None:
    """Give a large TIFF the memory for its pixels before it is decoded: its reader would apply Pillow's limit."""
    most = Image.MAX_IMAGE_PIXELS
    if isinstance(picture, TiffImageFile) and picture.tile and most is not None:
        size = picture.tag_v2[Base.ImageWidth], picture.tag_v2[Base.ImageLength]
        if size[0] * size[1] > most:
            picture.im = Image.new(picture.mode, size).im
