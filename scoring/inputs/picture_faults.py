"""What a file is that is no picture to read, in words, and what to do about it."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from PIL import UnidentifiedImageError

from scoring.errors import quoted

HEAD = 1 << 12  # bytes that show what a file is
REPLACE = "replace the file or drop the row"
FETCH = "fetch the picture again"
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")


class Content(NamedTuple):
    """What a file holds that is no picture to read, and what to do about it."""

    found: str
    fix: str


def _convert(name: str) -> Content:
    return Content(name, "convert it to JPEG or PNG")


HEIC = _convert("a HEIC picture, as iPhones save them")
VIDEO = Content("a video", "save one of its frames as a picture")
RAW = Content("a camera's raw file", "export it as JPEG")
BRANDS = {  # of a file of ISO boxes, such as HEIC and MP4, by the start of its brand
    b"hei": HEIC,
    b"hev": HEIC,
    b"mif1": HEIC,
    b"msf1": HEIC,
    b"crx": RAW,
    b"jp": _convert("a JPEG 2000 picture"),
    b"jx": _convert("a JPEG XL picture"),
}
STARTS = {  # the first bytes of a file -> what it is
    b"version https://git-lfs": Content("a Git LFS pointer, not the picture", "run `git lfs pull` in its repository"),
    b"%PDF": Content("a PDF document", "save its page as a picture"),
    b"%!PS": Content("a PostScript document", "save its page as a picture"),
    b"8BPS": _convert("a Photoshop document"),
    b"gimp xcf": _convert("a GIMP document"),
    b"\xff\x0a": _convert("a JPEG XL picture"),
    b"\0\0\0\x0cJXL ": _convert("a JPEG XL picture"),
    b"\0\0\0\x0cjP  ": _convert("a JPEG 2000 picture"),
    b"\xff\x4f\xff\x51": _convert("a JPEG 2000 picture"),
    b"\x1a\x45\xdf\xa3": VIDEO,
    b"FLV\x01": VIDEO,
    b"\0\0\x01\xba": VIDEO,
    b"FUJIFILMCCD-RAW": RAW,
    b"IIU\0": RAW,
    b"IIRO": RAW,
    b"IIRS": RAW,
    b"icns": _convert("an icon of macOS"),
    b"DDS ": _convert("a texture (DDS)"),
    b"\xd7\xcd\xc6\x9a": _convert("a Windows metafile"),
    b"\0\x05\x16\x07": Content("what macOS keeps beside a picture (its name begins with ._)", "name the picture"),
    b"\xd0\xcf\x11\xe0": Content("an Office document, or Windows' thumbnails", "name the picture"),
    b"PK\x03\x04": Content("a zip archive", "unpack it"),
    b"\x1f\x8b": Content("a gzip file", "unpack it"),
    b"\x28\xb5\x2f\xfd": Content("a zstd file", "unpack it"),
    b"\x93NUMPY": _convert("a NumPy array"),
    b"PAR1": Content("a Parquet table", "name a picture"),
}
PICTURES = {  # the first bytes of formats that are read, if nothing is wrong with the file
    b"\xff\xd8\xff": Content("a broken picture (a JPEG with a broken header)", REPLACE),
    b"\x89PNG": Content("a broken picture (a PNG with a broken header)", REPLACE),
    b"GIF8": Content("a broken picture (a GIF with a broken header)", REPLACE),
    b"RIFF": Content("a broken picture (a WEBP with a broken header)", REPLACE),
    b"II*\0": Content("a TIFF that cannot be read, such as a camera's raw file", "export it as JPEG"),
    b"MM\0*": Content("a TIFF that cannot be read, such as a camera's raw file", "export it as JPEG"),
}


def describe_content(head: bytes, error: Exception) -> Content:
    """What a file holds that Pillow could not open, and what to do. head: its first bytes, up to HEAD."""
    other = _other_content(head)
    if other is None and isinstance(error, UnidentifiedImageError):
        other = next((what for start, what in PICTURES.items() if head.startswith(start)), None)
    if other is not None:
        return other
    is_known = not isinstance(error, UnidentifiedImageError)
    return Content(f"a broken picture ({error})" if is_known else "not a picture", REPLACE)


def _other_content(head: bytes) -> Content | None:
    """What a file is that is no picture of a format that is read; None if nothing tells."""
    if not head:
        return Content("an empty file", FETCH)
    if not head.strip(b"\0"):
        return Content("nothing but zeros, as a download leaves that was stopped", FETCH)
    if head[4:8] == b"ftyp":
        if b"avif" in head[8:64] or b"avis" in head[8:64]:
            return _convert("a broken picture (an AVIF that cannot be read)")
        return next((what for brand, what in BRANDS.items() if head[8:12].startswith(brand)), VIDEO)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return VIDEO
    if head[128:132] == b"DICM":
        return _convert("a DICOM picture, as hospitals save them")
    known = next((what for start, what in STARTS.items() if head.startswith(start)), None)
    return known or (None if head.startswith(tuple(PICTURES)) else _what_text_it_is(head))


def _what_text_it_is(head: bytes) -> Content | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = text[:HEAD].lower()
    if re.match(rb"\S*annex/objects/\S+\s*$", text):
        return Content("a git-annex pointer, not the picture", "run `git annex get` in its repository")
    if lower.startswith(b"<svg") or (lower.startswith((b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in lower):
        return _convert("an SVG drawing")
    if lower.startswith((b"<!doctype", b"<html", b"<head", b"<body")):
        return Content("a web page, as servers send when there is no picture", FETCH)
    if lower.startswith((b"<?xml", b"<error")):
        return Content("XML, as servers send when there is no picture", FETCH)
    if text.startswith((b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"UklGR", b"data:image/")):
        return Content("a picture that was written as text (base64)", "decode it")
    if TEXT.fullmatch(head) and _is_text(head):
        return Content(f"text, {quoted(text.decode('utf-8', 'replace').strip(), 40)}", REPLACE)
    return None


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4 and len(head) == HEAD  # cut within a character
    return True


def describe_link(path: Path) -> Content | None:
    """What is wrong with a link that leads nowhere; None if it is no such link."""
    if not path.is_symlink() or path.exists():
        return None
    target = os.readlink(path)
    if "annex/objects" in target:
        return Content("a git-annex link whose picture is not here", "run `git annex get` in its repository")
    return Content(f"a link to {quoted(target)}, which is not there", "correct the link")
