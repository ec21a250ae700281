"""Files -> upright RGB pictures. Next: `pixels`, which says how a picture becomes patches.

A picture always goes through the same steps: its format is taken from the content, not the name; of an
animation the first frame is used; the EXIF orientation is applied; transparency is laid on white; 16-bit
grey is scaled to 8; everything else becomes RGB; colour profiles are ignored, as they were in training.
A picture that cannot be read whole is an error, never a partly filled one.
"""

import io
import os
import stat
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from scoring.errors import ScoringError, quoted
from scoring.inputs.exif import keep_orientation, upright, upright_size
from scoring.inputs.near_names import near_names
from scoring.inputs.picture_faults import HEAD, Content, describe_content, describe_link
from scoring.inputs.picture_opening import FORMATS, TooManyPixelsError, make_room, open_unlimited

MAX_RATIO = 200  # longer side over shorter side: the library's processors refuse more
OR_FOLDER = " or give the pictures' folder with --images"  # advice where a path is relative to that folder
Picture = Path | bytes | Image.Image  # a file, the bytes of one, or a picture that a program has opened


# ------------------------------------------------------------------ how large a picture may be
@dataclass(frozen=True)
class PictureLimits:
    """How large a picture may be. Both are checked before a pixel is decoded, from the file and its header.

    >>> PictureLimits(pixels=10_000_000).file_bytes
    268435456
    """

    pixels: int = 200_000_000
    file_bytes: int = 256 * 2**20

    @classmethod
    def of(cls, pixels: int | None = None, file_bytes: int | None = None) -> "PictureLimits":
        """With the default for each that is None."""
        return cls(pixels or cls.pixels, file_bytes or cls.file_bytes)


DEFAULT_LIMITS = PictureLimits()


# ------------------------------------------------------------------ a file -> an upright RGB picture
class PictureError(ScoringError):
    """A picture that cannot be used; `found`, `expected` and `fix` say what, for a row's fault."""

    def __init__(self, found: str, expected: str, fix: str):
        super().__init__(f"{found}; expected {expected}; {fix}")
        self.found, self.expected, self.fix = found, expected, fix

    def alone(self) -> "PictureError":
        """The same without the calls that led to it, to be kept as a result: they hold the picture, and the result."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)


def locate(root: Path, cell: str, allow_outside: bool = False) -> Path:
    """The file that a table's `path` cell names, inside `root`.

    Tries the name as written, in NFC and NFD, and each with `\\` as the separator.
    Raises PictureError if there is no such file, if it is not a plain file, or if it is outside `root`.
    """
    if "://" in cell:
        raise PictureError(f"a URL, {quoted(cell)}", "a file", "download the picture and name the file")
    spellings = [cell, unicodedata.normalize("NFC", cell), unicodedata.normalize("NFD", cell)]
    spellings += [spelling.replace("\\", "/") for spelling in spellings]
    spellings = list(dict.fromkeys(spellings))
    try:
        path = next((root / spelling for spelling in spellings if os.path.lexists(root / spelling)), None)
        if path is None:
            fix = f"correct the path{OR_FOLDER}"
            if names := near_names(root, cell):
                fix = f"did you mean {' or '.join(map(quoted, names))}? {fix}"
            raise PictureError(f"no file {quoted(cell)} in {root}", "a picture file", fix)
        if content := describe_link(path):
            raise PictureError(f"{quoted(cell)}, {content.found}", "a picture file", content.fix)
        resolved = path.resolve()
        if not allow_outside and not resolved.is_relative_to(root.resolve()):
            raise PictureError(
                f"{quoted(cell)} leads outside {root}",
                "a path inside the pictures' folder",
                "move the picture, give its folder with --images, or add --allow-outside",
            )
        mode = resolved.stat().st_mode
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL, a loop of links, no permission
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"{quoted(cell)}: {error}", "a readable file", "correct the path") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or device"
        raise PictureError(f"{quoted(cell)} is {kind}", "a picture file", "correct the path")
    return resolved


def open_picture(path: str | Path | bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """The picture with its header read and checked, its pixels not yet decoded. Raises PictureError.

    path: its file, or the bytes of one.
    """
    fix = "scale it down, or raise --max-picture-{}"
    try:
        size = len(path) if isinstance(path, bytes) else os.path.getsize(path)
        if size > limits.file_bytes:
            raise PictureError(f"{size:,} bytes", f"at most {limits.file_bytes:,}", fix.format("bytes"))
        picture = open_unlimited(path, limits.pixels)
    except PictureError:
        raise
    except TooManyPixelsError as error:
        raise _too_many_pixels(limits, error.most) from None
    except Exception as error:  # decoders raise a dozen types; each means the same to the user
        content = _content(path, error)
        raise PictureError(content.found, f"a picture ({', '.join(FORMATS)})", content.fix) from None
    try:
        _check_header(picture, limits)
    except PictureError:
        picture.close()
        raise
    return picture


def _too_many_pixels(limits: PictureLimits, most: int) -> PictureError:
    """most: the pixels that it may have, by the limits, or by those of its format."""
    fix = "raise --max-picture-pixels" if most == limits.pixels else "save it in another format, such as PNG"
    return PictureError(f"over {most:,} pixels", "a smaller picture", f"scale it down, or {fix}")


def _check_header(picture: Image.Image, limits: PictureLimits) -> None:
    """Raises PictureError where a picture has too many pixels, too unequal sides, or pixels that are not read."""
    width, height = picture.size
    if width * height > limits.pixels:
        raise _too_many_pixels(limits, limits.pixels)
    if min(width, height) < 1 or max(width, height) > MAX_RATIO * min(width, height):
        raise PictureError(f"{width}x{height} pixels", f"sides of at most 1:{MAX_RATIO}", "crop the picture")
    if picture.mode in ("I", "F"):
        raise PictureError(f"32-bit pixels (mode {picture.mode})", "8 or 16 bits a channel", "save it with 8 bits")


def picture_size(picture: Picture, limits: PictureLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """(width, height) of a picture once it is upright, from its header, which is checked. Raises PictureError."""
    if isinstance(picture, Image.Image):
        _check_header(picture, limits)
        with _lock_of(picture):
            return upright_size(picture)
    with open_picture(picture, limits) as opened:
        return upright_size(opened)


def _content(path: str | Path | bytes, error: Exception) -> Content:
    """What a file holds that Pillow could not open."""
    try:
        with io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb") as file:
            return describe_content(file.read(HEAD), error)
    except OSError as problem:
        return Content(f"not readable ({problem.strerror})", "check the file")


def read_picture(picture: str | Picture, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """A picture, or that of a file or of its bytes, decoded, upright, in RGB. Raises PictureError."""
    if isinstance(picture, Image.Image):
        _check_header(picture, limits)
        load_pixels(picture)
        return to_rgb(picture)
    with open_picture(picture, limits) as opened:
        _decode(opened)
        return to_rgb(opened)


def load_pixels(picture: Image.Image) -> None:
    """Decode a picture that a program has opened, if it was not decoded yet. Raises PictureError."""
    with _lock_of(picture):
        _decode(picture)


_LOCKS = [threading.Lock() for _ in range(64)]


def _lock_of(picture: Image.Image) -> threading.Lock:
    """The file of a picture that a program has opened must not be read by two threads at once."""
    return _LOCKS[id(picture) // 16 % len(_LOCKS)]


def _decode(picture: Image.Image) -> None:
    """Read the pixels of a picture that may not have been decoded yet. Raises PictureError."""
    try:
        keep_orientation(picture)
        make_room(picture)
        picture.load()
    except Exception as error:  # decoders raise a dozen types
        raise PictureError(f"broken pixels ({error})", "a whole picture", "replace the file or drop the row") from None


def to_rgb(picture: Image.Image) -> Image.Image:
    """Upright, transparency on white, 16-bit grey scaled, RGB."""
    picture = upright(picture)
    if picture.mode.startswith("I;16"):
        grey = np.asarray(picture, dtype=np.float64)
        return Image.fromarray(np.rint(grey / 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
