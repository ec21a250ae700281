"""Pictures are opened whatever Pillow's own limit is, and that limit stays as it is."""

import io
import struct
import subprocess
import sys
import types
import warnings

import pytest
from PIL import Image

from scoring.inputs.picture_opening import TooManyPixelsError, open_unlimited
from scoring.inputs.pictures import PictureError, PictureLimits, read_picture
from tests.shared.pictures import noise


def saved(format: str, size: tuple[int, int] = (40, 30), mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    noise(mode, size).save(file, format, **options)
    return file.getvalue()


class Frozen(types.ModuleType):
    """Pillow's module with a limit that cannot be set."""

    def __setattr__(self, name, value):
        assert name != "MAX_IMAGE_PIXELS", "Pillow's limit was changed"
        super().__setattr__(name, value)


@pytest.fixture
def low_limit(monkeypatch):
    """Pillow's limit as a program has set it: at 100 pixels. It cannot be changed, and no warning goes by."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    kind = type(Image)
    Image.__class__ = Frozen
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    Image.__class__ = kind


@pytest.mark.parametrize(
    "format, options",
    [
        ("JPEG", {}),
        ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (40, 30))]}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0"}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {}),
        ("PPM", {}),
    ],
)
def test_a_format_is_read_beyond_pillows_limit(low_limit, tmp_path, format, options):
    data = saved(format, **options)
    (tmp_path / "p").write_bytes(data)
    for source in (data, tmp_path / "p"):
        assert read_picture(source).size == (40, 30)
        with open_unlimited(source, 1200) as picture:
            assert picture.format == format
        with pytest.raises(PictureError, match="over 1,199 pixels.*--max-picture-pixels"):
            read_picture(source, PictureLimits(pixels=1199))


def test_pictures_are_the_same_as_pillow_opens_them(tmp_path):
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO"):
        data = saved(format)
        (tmp_path / "p").write_bytes(data)
        with Image.open(io.BytesIO(data)) as picture:
            expected = picture.convert("RGB").tobytes()
        assert read_picture(data).tobytes() == read_picture(tmp_path / "p").tobytes() == expected, format


@pytest.mark.parametrize("format", ["GIF", "ICO"])
def test_pillows_limit_holds_for_icons_and_gifs_too(low_limit, format):
    data = saved(format, (16, 16), "P" if format == "GIF" else "RGBA")
    with pytest.raises(PictureError, match="over 100 pixels; .* save it in another format"):
        read_picture(data)
    assert read_picture(saved(format, (16, 6), "P" if format == "GIF" else "RGBA")).size == (16, 6)


def test_a_gif_is_as_large_as_its_first_frame(low_limit):
    """Its screen may be small; its reader then enlarges it, and fills as much as the frame says."""
    data = bytearray(saved("GIF", (4, 3), "P", comment=b"x" * 300))
    data[6:10] = struct.pack("<HH", 2, 2)
    place = data.index(b",", data.rindex(b"xxx")) + 1
    data[place : place + 8] = struct.pack("<HHHH", 1, 1, 11, 9)
    with pytest.raises(TooManyPixelsError, match="over 100 pixels"):
        open_unlimited(bytes(data), 1000)
    with pytest.raises(TooManyPixelsError, match="over 50 pixels"):
        open_unlimited(bytes(data), 50)


def test_an_icon_is_as_large_as_its_picture_whatever_its_directory_says():
    for options in ({}, {"bitmap_format": "bmp"}):
        data = saved("ICO", (20, 20), "RGBA", sizes=[(20, 20)], **options)
        assert open_unlimited(data, 1000).size == (20, 20)
        with pytest.raises(TooManyPixelsError, match="over 399 pixels"):
            open_unlimited(data, 399)


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}])
def test_a_webp_is_refused_before_its_reader_makes_room_for_it(monkeypatch, options):
    from PIL import WebPImagePlugin

    data = saved("WEBP", **options)
    monkeypatch.setattr(WebPImagePlugin, "_webp", None)
    with pytest.raises(TooManyPixelsError, match="over 1,199 pixels"):
        open_unlimited(data, 1199)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "ICO"])
def test_what_ends_within_its_header_is_no_picture(format):
    data = saved(format)
    for length in (0, 4, 8, 14, 18, 25):
        with pytest.raises(PictureError):
            read_picture(data[:length])


def test_importing_it_changes_no_filter_of_warnings():
    code = (
        "import warnings, numpy, PIL.Image as P\nbefore, limit = list(warnings.filters), P.MAX_IMAGE_PIXELS\n"
        "import scoring.tables.reading, scoring.library.rows\n"
        "assert warnings.filters == before and P.MAX_IMAGE_PIXELS == limit"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
