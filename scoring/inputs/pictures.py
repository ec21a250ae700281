"""Files -> upright RGB pictures -> patches, as the library's processors cut them.

A picture always goes through the same steps: its format is taken from the content, not the name; of an
animation the first frame is used; the EXIF orientation is applied; transparency is laid on white; 16-bit
grey is scaled to 8; everything else becomes RGB; colour profiles are ignored, as they were in training.
A picture that cannot be read whole is an error, never a partly filled one.
"""

import io
import math
import os
import stat
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scoring.errors import UserError, quoted
from scoring.files.reading import FileError, as_object, read_json
from scoring.inputs.exif import keep_orientation, upright
from scoring.inputs.families.registry import family_of
from scoring.inputs.near_names import near_names
from scoring.inputs.picture_faults import HEAD, Content, describe_content, describe_link

MAX_RATIO = 200  # longer side over shorter side: the library's processors refuse more
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO")
DEFAULT_BUDGET = 448 * 448  # pixels, as in the competition notebook

warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # such pictures are read, or refused with an error


# ------------------------------------------------------------------ how large a picture may be
@dataclass(frozen=True)
class PictureLimits:
    """How large a picture may be. Both are checked before a pixel is decoded, from the file and its header."""

    pixels: int = 200_000_000
    file_bytes: int = 256 * 2**20

    @classmethod
    def of(cls, pixels: int | None = None, file_bytes: int | None = None) -> "PictureLimits":
        """With the default for each that is None."""
        return cls(pixels or cls.pixels, file_bytes or cls.file_bytes)


DEFAULT_LIMITS = PictureLimits()


class _PillowLimit:
    """Pillow's own limit of pixels, raised or lowered while pictures are opened, and restored afterwards.

    It is needed since Pillow decodes some formats (icons) while it opens them. It is a global of Pillow's: if threads
    open pictures under different limits, the highest applies to all, and `open_picture` checks each one's own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active: Counter[int] = Counter()
        self._original: int | None = None

    @contextmanager
    def set_to(self, pixels: int) -> Iterator[None]:
        """Inside, Pillow raises DecompressionBombError for pictures of more pixels."""
        with self._lock:
            if not self._active:
                self._original = Image.MAX_IMAGE_PIXELS
            self._active[pixels] += 1
            self._apply()
        try:
            yield
        finally:
            with self._lock:
                self._active -= Counter([pixels])
                self._apply()

    def _apply(self) -> None:
        # Pillow raises for more than twice its number.
        Image.MAX_IMAGE_PIXELS = max(self._active) // 2 + 1 if self._active else self._original


_PILLOW_LIMIT = _PillowLimit()


# ------------------------------------------------------------------ a file -> an upright RGB picture
class PictureError(UserError):
    """A picture that cannot be used; `found`, `expected` and `fix` say what, for a row's fault."""

    def __init__(self, found: str, expected: str, fix: str):
        super().__init__(f"{found}; expected {expected}; {fix}")
        self.found, self.expected, self.fix = found, expected, fix


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
            fix = "correct the path or give the pictures' folder with --images"
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


@cache
def _formats() -> tuple[str, ...]:
    """The FORMATS that this build of Pillow can read."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_picture(path: str | Path | bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """The picture with its header read and checked, its pixels not yet decoded. Raises PictureError.

    path: its file, or the bytes of one.
    """
    fix = "scale it down, or raise --max-picture-{}"
    try:
        size = len(path) if isinstance(path, bytes) else os.path.getsize(path)
        if size > limits.file_bytes:
            raise PictureError(f"{size:,} bytes", f"at most {limits.file_bytes:,}", fix.format("bytes"))
        with _PILLOW_LIMIT.set_to(limits.pixels):
            picture = Image.open(io.BytesIO(path) if isinstance(path, bytes) else path, formats=_formats())
        if picture.width * picture.height > limits.pixels:
            picture.close()
            raise Image.DecompressionBombError
    except PictureError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"over {limits.pixels:,} pixels", "a smaller picture", fix.format("pixels")) from None
    except Exception as error:  # decoders raise a dozen types; each means the same to the user
        content = _content(path, error)
        raise PictureError(content.found, f"a picture ({', '.join(FORMATS)})", content.fix) from None
    width, height = picture.size
    if min(width, height) < 1 or max(width, height) > MAX_RATIO * min(width, height):
        raise PictureError(f"{width}x{height} pixels", f"sides of at most 1:{MAX_RATIO}", "crop the picture")
    if picture.mode in ("I", "F"):
        raise PictureError(f"32-bit pixels (mode {picture.mode})", "8 or 16 bits a channel", "save it with 8 bits")
    return picture


def _content(path: str | Path | bytes, error: Exception) -> Content:
    """What a file holds that Pillow could not open."""
    try:
        with io.BytesIO(path) if isinstance(path, bytes) else open(path, "rb") as file:
            return describe_content(file.read(HEAD), error)
    except OSError as problem:
        return Content(f"not readable ({problem.strerror})", "check the file")


def read_picture(path: str | Path | bytes, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """The picture of a file, or of the bytes of one, decoded, upright, in RGB. Raises PictureError."""
    with open_picture(path, limits) as picture:
        try:
            with _PILLOW_LIMIT.set_to(limits.pixels):
                keep_orientation(picture)
                picture.load()
        except Exception as error:  # decoders raise a dozen types
            raise PictureError(
                f"broken pixels ({error})", "a whole picture", "replace the file or drop the row"
            ) from None
        return to_rgb(picture)


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


# ------------------------------------------------------------------ a picture -> patches
@dataclass
class _Preprocessor:
    """The fields of a base's picture settings that are used here."""

    patch_size: int = 16
    merge_size: int = 2
    temporal_patch_size: int = 2
    image_mean: list[float] = field(default_factory=lambda: [0.5] * 3)
    image_std: list[float] = field(default_factory=lambda: [0.5] * 3)
    size: dict[str, int | None] | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        sides = min(self.patch_size, self.merge_size, self.temporal_patch_size)
        if sides < 1 or len(self.image_mean) != 3 or len(self.image_std) != 3 or 0 in self.image_std:
            raise ValueError("found impossible patch sizes or colour statistics; expected those of a base")

    @property
    def fewest_pixels(self) -> int:
        edge = (self.size or {}).get("shortest_edge")
        return (self.min_pixels or 0) if edge is None else edge

    @property
    def most_pixels(self) -> int | None:
        """None if the settings set no limit."""
        edge = (self.size or {}).get("longest_edge")
        return (self.max_pixels or None) if edge is None else edge


def _read_preprocessor(folder: Path, defaults: Mapping[str, Any]) -> _Preprocessor | None:
    """From processor_config.json, which transformers reads first, or preprocessor_config.json; None without either.

    defaults: for what the file leaves out.
    """
    nested = (read_json(folder / "processor_config.json") or {}).get("image_processor")
    if isinstance(nested, dict):
        return as_object(_Preprocessor, {**defaults, **nested}, folder / "processor_config.json")
    values = read_json(folder / "preprocessor_config.json")
    return (
        None
        if values is None
        else as_object(_Preprocessor, {**defaults, **values}, folder / "preprocessor_config.json")
    )


def pixel_limit_of(folder: Path) -> int | None:
    """The most pixels that the picture settings in a folder allow; None if it has none, or they set no limit."""
    settings = _read_preprocessor(folder, {})
    return settings.most_pixels if settings else None


@dataclass(frozen=True)
class PixelPolicy:
    """How a picture becomes patches: the pixel budget and the base model's patch sizes and normalisation.

    min_pixels, max_pixels: of the picture as the model sees it. patch: side of a patch in pixels. merge: patches on a
    side of the square that becomes one token. frames: how often a patch holds the picture, as if it were a film. mean,
    std: of the three channels, levels from 0 to 1.
    """

    min_pixels: int = DEFAULT_BUDGET
    max_pixels: int = DEFAULT_BUDGET
    patch: int = 16
    merge: int = 2
    frames: int = 2
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of_base(cls, folder: str | Path, pixels: int | None = None) -> "PixelPolicy":
        """The patch sizes of a base; a budget of `pixels`, or of 448x448 within the limits of the base.

        Raises FileError if the folder has no picture settings, or is of no known family.
        """
        settings = _read_preprocessor(Path(folder), family_of(Path(folder)).picture_settings)
        if settings is None:
            raise FileError(
                f"{folder}: neither processor_config.json with an image_processor nor preprocessor_config.json; "
                "without them pictures might be cut and scaled unlike those of its training: copy the base's"
            )
        most = DEFAULT_BUDGET if settings.most_pixels is None else settings.most_pixels
        budget = pixels or max(settings.fewest_pixels, min(most, DEFAULT_BUDGET))
        return cls(
            min_pixels=budget,
            max_pixels=budget,
            patch=settings.patch_size,
            merge=settings.merge_size,
            frames=settings.temporal_patch_size,
            mean=tuple(settings.image_mean),
            std=tuple(settings.image_std),
        )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that a picture is resized to: multiples of patch x merge within the budget."""
        factor = self.patch * self.merge
        new_height, new_width = (round(side / factor) * factor for side in (height, width))
        if new_height * new_width > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            new_height, new_width = (
                max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)
            )
        elif new_height * new_width < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            new_height, new_width = (math.ceil(side * grow / factor) * factor for side in (height, width))
        return new_width, new_height

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """(1, rows, columns) of patches of a picture of that size."""
        new_width, new_height = self.size(width, height)
        return 1, new_height // self.patch, new_width // self.patch

    def resized(self, picture: Image.Image) -> np.ndarray:
        """(height, width, 3) uint8: the picture in the size that the model sees."""
        return np.asarray(picture.resize(self.size(*picture.size), Image.Resampling.BICUBIC))

    @property
    def values(self) -> np.ndarray:
        """(3, 256) float32: each level of each channel normalised, with the roundings of the library's processors."""
        levels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        normalised: np.ndarray = (levels - mean[:, None]) / std[:, None]
        return normalised

    def patches(self, picture: Image.Image) -> np.ndarray:
        """(rows * columns, 3 * frames * patch²) float32 of an RGB picture, in the model's 2x2 merge order.

        Equal to `Qwen2VLImageProcessorPil` to the bit.
        """
        pixels = self.resized(picture)
        height, width = pixels.shape[:2]
        values = np.stack([levels.take(pixels[..., channel]) for channel, levels in enumerate(self.values)])
        rows, columns, patch, merge = height // self.patch, width // self.patch, self.patch, self.merge
        blocks = values.reshape(3, rows // merge, merge, patch, columns // merge, merge, patch)
        blocks = blocks.transpose(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
        blocks = np.broadcast_to(blocks, (*blocks.shape[:5], self.frames, patch, patch))
        return np.ascontiguousarray(blocks).reshape(rows * columns, -1)
