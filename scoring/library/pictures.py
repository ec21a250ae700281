"""A picture in whatever form a program holds it -> a file's path, the bytes of a file, or an opened picture."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from scoring.errors import quoted
from scoring.inputs.picture_objects import KINDS, picture_of
from scoring.inputs.pictures import DEFAULT_LIMITS, Picture, PictureError, PictureLimits, locate, picture_size

URL = re.compile(r"data:|[A-Za-z][A-Za-z0-9+.-]+:/")  # one slash, as a Path has it


def as_picture(value: object, limits: PictureLimits = DEFAULT_LIMITS) -> Picture:
    """The picture that a value is, its header checked against the limits. No file is written.

    value: a path (str or Path), the bytes of a file, a binary file object, a PIL image, a NumPy array of uint8 with
    shape (height, width), (height, width, 1), (height, width, 3) or (height, width, 4), or a dict with `bytes` or
    `path`, as Hugging Face's datasets have it. Paths come back resolved, bytes as they are, arrays as PIL images.
    Raises PictureError for everything else, URLs among it, and for what cannot be read or is too large.
    """
    return sized_picture(value, limits)[0]


def sized_picture(
    value: object, limits: PictureLimits = DEFAULT_LIMITS, folder: Path | None = None
) -> tuple[Picture, tuple[int, int]]:
    """The same with (width, height) of the upright picture. folder: what a relative path is relative to."""
    picture = _picture(value, limits, folder or Path.cwd())
    return picture, picture_size(picture, limits)


def _picture(value: object, limits: PictureLimits, folder: Path) -> Picture:
    """Raises PictureError. The header is not looked at yet."""
    if isinstance(value, Mapping):
        value = _of_mapping(value)
    if not isinstance(value, str | os.PathLike):
        return picture_of(value, limits)
    text = os.fspath(value)
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if url := URL.match(text):
        if url[0] == "data:":
            raise PictureError(f"a data URL, {quoted(text)}", KINDS, "decode its base64, and give the bytes")
        raise PictureError(f"a URL, {quoted(text)}", KINDS, "download the picture, and give its bytes")
    if not text.strip():
        raise PictureError("an empty path", KINDS, "name the picture's file")
    return locate(folder, text, allow_outside=True)


def _of_mapping(value: Mapping[object, object]) -> object:
    """What a dict with `bytes` or `path` holds; the bytes go first."""
    found = next((value[key] for key in ("bytes", "path") if value.get(key) is not None), None)
    if found is None or isinstance(found, Mapping):
        keys = ", ".join(quoted(str(key)) for key in list(value)[:5])
        raise PictureError(f"a dict with {keys or 'nothing'}", "a dict with bytes or path", f"give {KINDS}")
    return found
