"""How a picture is to be turned: its EXIF orientation, read by itself where another tag of the block is broken.

Pillow stops reading a block at the first tag whose data lies outside it, and loses the tags behind. It also writes the
whole block anew when it turns a picture, and fails if that cannot be done. Here the orientation is looked up by
itself, and the block is left as it is.
"""

import io
import re
import struct
from typing import IO

from PIL import Image
from PIL.ExifTags import Base
from PIL.TiffImagePlugin import TiffImageFile

TURNS = {  # orientation -> what makes the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
NUMBERS = {3: "H", 4: "L"}  # EXIF's types that an orientation may have, as `struct` writes them
RAW_PROFILE = "Raw profile type exif"  # where ImageMagick puts the block into a PNG, as hexadecimal digits
SAYING = ("exif", RAW_PROFILE, "xmp", "XML:com.adobe.xmp")  # what Pillow keeps in `info` of an orientation


def orientation(picture: Image.Image) -> int:
    """From 1 (upright) to 8, as in EXIF; 1 where nothing says otherwise.

    What Pillow reads goes first. A TIFF must not have been decoded yet: Pillow turns it then, and closes the file.
    """
    try:
        value = picture.getexif().get(Base.Orientation)
    except Exception:  # of a broken block; getexif raises a dozen types
        value = None
    if value in TURNS or value == 1:
        return int(value)
    return next(filter(None, map(_orientation_of, _blocks(picture))), 1)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) once it is turned, of a picture that need not be decoded yet."""
    width, height = picture.size
    if isinstance(picture, TiffImageFile) and picture.tile:  # Pillow may have swapped the sides, or not
        width, height = picture.tag_v2[Base.ImageWidth], picture.tag_v2[Base.ImageLength]
    return (height, width) if orientation(picture) >= 5 else (width, height)


def keep_orientation(picture: Image.Image) -> None:
    """Let Pillow know the orientation of a TIFF, which it turns by itself while it decodes it."""
    if isinstance(picture, TiffImageFile) and picture.tile and (value := orientation(picture)) in TURNS:
        picture.getexif()[Base.Orientation] = value


def upright(picture: Image.Image) -> Image.Image:
    """A copy that is decoded and turned, and says no more that it is to be turned."""
    keep_orientation(picture)
    picture.load()
    turn = TURNS.get(orientation(picture))
    if turn is None:
        return picture.copy()
    turned = picture.transpose(turn)
    for key in SAYING:
        turned.info.pop(key, None)
    return turned


# ------------------------------------------------------------------ the block itself
def _blocks(picture: Image.Image) -> list[IO[bytes]]:
    """The EXIF blocks of a picture, each as a small TIFF file: what Pillow keeps of it, or the picture's own file."""
    blocks: list[IO[bytes]] = []
    if isinstance(data := picture.info.get("exif"), bytes):
        blocks.append(io.BytesIO(data))
    if isinstance(text := picture.info.get(RAW_PROFILE), str):
        digits = "".join(re.findall("[0-9a-fA-F]+", "".join(text.split("\n")[3:])))
        blocks.append(io.BytesIO(bytes.fromhex(digits[: len(digits) // 2 * 2])))
    if isinstance(picture, TiffImageFile) and picture.tile and (file := picture.fp):
        blocks.append(file)
    return blocks


def _orientation_of(block: IO[bytes]) -> int | None:
    """The orientation in the first directory of a TIFF; None if there is none. The file's place is kept."""
    place = block.tell()
    try:
        block.seek(0)
        start = re.match(rb"(?:Exif\0\0)*", block.read(64))
        return _look_up(block, start.end() if start else 0)
    except (OSError, struct.error, OverflowError, ValueError):  # cut off, or an offset that no file can have
        return None
    finally:
        block.seek(place)


def _look_up(block: IO[bytes], start: int) -> int | None:
    """Raises struct.error where the block ends too early. start: the place that offsets count from."""
    block.seek(start)
    head = block.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return None
    big = 43 in head[2:4]  # BigTIFF, whose counts and offsets have 8 bytes
    first, count, entry = ("Q", "Q", "HHQ8s") if big else ("L", "H", "HHL4s")
    (offset,) = struct.unpack_from(order + first, head, 8 if big else 4)
    block.seek(start + offset)
    (entries,) = struct.unpack(order + count, block.read(struct.calcsize(order + count)))
    for _ in range(entries):
        tag, kind, values, data = struct.unpack(order + entry, block.read(struct.calcsize(order + entry)))
        if tag == Base.Orientation and kind in NUMBERS and values == 1:
            (value,) = struct.unpack_from(order + NUMBERS[kind], data)
            return value if value in TURNS else None
    return None
