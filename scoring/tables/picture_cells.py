"""What a picture cell of a table holds: names of files, or pictures themselves.

A cell is a text, bytes, an object with `bytes` or `path` (as Hugging Face's datasets have it), or a list of such, also
written as JSON or as Python writes it. A text is the name of a file, a data URL, or a picture in base64. Rows in memory
may hold other objects, see `inputs/picture_objects.py`.
"""

import binascii
import re
from typing import Any, NamedTuple

from PIL import Image

from scoring.errors import quoted
from scoring.inputs.picture_objects import may_hold_picture
from scoring.inputs.pictures import PictureError
from scoring.readers.records import ObjectCell, as_text
from scoring.tables.literals import value_in

SHORTEST = 64  # characters of base64: no picture fits into fewer
LONGEST_NAME = 4_096  # characters; no system has longer ones
HEAD = 32  # characters of a cell that a message shows
# How the files of the formats begin that are read or named in messages: JPEG, PNG, GIF, WEBP, BMP, TIFF, PPM, ICO,
# AVIF and HEIC.
SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|BM|II\*\x00|MM\x00\*|P[1-6]\s|\x00\x00\x01\x00|....ftyp", re.DOTALL
)
BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
DATA_URL = re.compile(r"data:([^,;]*)(;[^,]*)?,", re.IGNORECASE)


class CellPicture(NamedTuple):
    """A picture that a cell names or holds.

    source: a file's name, the picture's bytes, an opened picture, or the cell of an object. shown: in messages, in
    place of bytes or an object; "" for a name.
    """

    source: str | bytes | Image.Image | ObjectCell
    shown: str = ""


def plain_name(cell: Any) -> str:
    """The name of a file in a cell that holds nothing else, as most do; "" where that takes a closer look."""
    text = cell.strip() if isinstance(cell, str) and len(cell) <= SHORTEST else ""
    return "" if text[:1] in ("[", "{") or text[:5].casefold() == "data:" else text


def pictures_in(cell: Any) -> list[CellPicture]:
    """The pictures of a cell, in their order; none where it is empty. Raises PictureError for what can be none."""
    if isinstance(cell, str) and cell.strip()[:1] in ("[", "{"):
        value = value_in(cell.strip())
        cell = value if isinstance(value, list | dict) else cell
    if not isinstance(cell, list | tuple):
        return _pictures_of(cell)
    pictures = []
    for number, item in enumerate(cell, 1):
        place = f"picture {number} of {len(cell)}"
        if isinstance(item, list | tuple):
            raise PictureError(f"{place}: a list in a list", "a picture", "write one list")
        try:
            for picture in _pictures_of(item):
                pictures.append(picture._replace(shown=f"{place}, {picture.shown}") if picture.shown else picture)
        except PictureError as error:
            raise PictureError(f"{place}, {error.found}", error.expected, error.fix) from None
    return pictures


def holds_picture(cell: Any) -> bool:
    """Whether a cell holds a picture itself, not the name of a file."""
    try:
        sources = [picture.source for picture in pictures_in(cell)]
    except PictureError:
        return False
    return any(
        may_hold_picture(source.value)
        if isinstance(source, ObjectCell)
        else isinstance(source, bytes) and SIGNATURE.match(source)
        for source in sources
    )


def _pictures_of(cell: Any) -> list[CellPicture]:
    """The picture of a cell that is no list; none where it is empty."""
    if isinstance(cell, dict):
        if not cell.keys() & {"bytes", "path"}:
            keys = ", ".join(map(quoted, list(cell)[:5]))
            raise PictureError(f"an object with {keys or 'nothing'}", "one with bytes or path", "name the picture")
        data = cell.get("bytes")
        if data and not isinstance(data, bytes | str | ObjectCell):
            raise PictureError(f"an object with bytes that are a {type(data).__name__}", "bytes", "write base64")
        cell = data or cell.get("path")
    if isinstance(cell, bytes):
        return [CellPicture(cell, f"{len(cell):,} bytes")] if cell else []
    if isinstance(cell, ObjectCell):
        return [CellPicture(cell, str(cell))]
    text = as_text(cell).strip()
    return [_picture_of(text)] if text else []


def _picture_of(text: str) -> CellPicture:
    """The picture that a text names, or holds as a data URL or in base64."""
    if url := DATA_URL.match(text):
        if not (url[2] or "").casefold().endswith(";base64"):
            raise PictureError(f"{_shown(text)}: a data URL without base64", "base64", "write the picture in base64")
        return CellPicture(_decoded(text, url.end()), _shown(text, "a data URL"))
    if _is_base64(text):
        return CellPicture(_decoded(text), _shown(text, "base64"))
    if len(text) > LONGEST_NAME:
        found = f"{_shown(text)}, neither a file's name nor a picture in base64"
        raise PictureError(found, "a picture", "replace the cell or drop the row")
    return CellPicture(text)


def _is_base64(text: str) -> bool:
    """Whether a text is a picture in base64: of its letters alone, and it begins as files of pictures do."""
    if len(text) <= SHORTEST:
        return False
    head = "".join(text[: 2 * SHORTEST].split())[:SHORTEST]
    try:
        begins_well = SIGNATURE.match(binascii.a2b_base64(head[: len(head) // 4 * 4]))
    except ValueError:  # signs beyond ASCII, or a wrong number of them
        return False
    return bool(begins_well and BASE64.fullmatch(text))


def _decoded(text: str, start: int = 0) -> bytes:
    """The bytes that the base64 of a text from `start` on stands for; line breaks and missing padding do no harm."""
    signs = "".join(text[start:].split()).rstrip("=")
    try:
        return binascii.a2b_base64(signs + "=" * (-len(signs) % 4), strict_mode=True)
    except ValueError as error:  # its words are short: they hold nothing of the text
        found = f"{_shown(text)}: broken base64 ({error})"
        raise PictureError(found, "a whole picture", "replace the cell or drop the row") from None


def _shown(text: str, kind: str = "") -> str:
    """The beginning of a long cell, what it is, and how long."""
    return f"{quoted(text, HEAD)} ({kind}{', ' if kind else ''}{len(text):,} characters)"
