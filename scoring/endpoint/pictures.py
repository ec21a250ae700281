"""Pictures as endpoints take them: PNG or JPEG that every reader sees as this product does.

A file goes as it is where that is so. One in another format, turned by EXIF, transparent, or with other pixels than 8
bits of grey or RGB is written anew as PNG, with the pixels that `score` reads.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from scoring.inputs.exif import orientation
from scoring.inputs.pictures import Picture, PictureLimits, load_pixels, open_picture, read_picture

PLAIN = ("RGB", "L")  # Pillow's modes that all readers decode alike


@dataclass(frozen=True)
class EncodedPicture:
    """format: as interfaces name it."""

    format: Literal["png", "jpeg"]
    content: bytes

    @property
    def base64(self) -> str:
        return base64.b64encode(self.content).decode()

    @property
    def data_url(self) -> str:
        return f"data:image/{self.format};base64,{self.base64}"


def encode_picture(picture: Picture, limits: PictureLimits) -> EncodedPicture:
    """A picture to be sent. Raises PictureError where it cannot be read to its end."""
    if not isinstance(picture, Image.Image):
        content = picture.read_bytes() if isinstance(picture, Path) else picture
        with open_picture(content, limits) as opened:
            kind, is_plain = opened.format, _is_plain(opened)
            load_pixels(opened)
        if is_plain:
            return EncodedPicture("png" if kind == "PNG" else "jpeg", content)
        picture = content
    file = io.BytesIO()
    read_picture(picture, limits).save(file, "PNG")
    return EncodedPicture("png", file.getvalue())


def _is_plain(opened: Image.Image) -> bool:
    """Whether any reader makes the same pixels of a picture, whose header is read."""
    return (
        opened.format in ("PNG", "JPEG")
        and opened.mode in PLAIN
        and "transparency" not in opened.info
        and getattr(opened, "n_frames", 1) == 1
        and orientation(opened) == 1
    )
