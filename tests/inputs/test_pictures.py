"""Pictures as they come: what is read, how, and what is refused."""

import io
import os
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from scoring.inputs.exif import upright_size
from scoring.inputs.pictures import (
    PictureError,
    PictureLimits,
    locate,
    open_picture,
    picture_size,
    read_picture,
)
from tests.shared.pictures import noise


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_by_their_exif_orientation(tmp_path, orientation):
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "p.png", exif=exif)
    upright = read_picture(tmp_path / "p.png")
    turned = orientation >= 5
    assert upright.size == ((20, 40) if turned else (40, 20))
    with open_picture(tmp_path / "p.png") as opened:
        assert upright_size(opened) == upright.size
    corner = {1: (1, 1), 2: (-2, 1), 3: (-2, -2), 4: (1, -2), 5: (1, 1), 6: (-2, 1), 7: (-2, -2), 8: (1, -2)}[
        orientation
    ]
    assert upright.getpixel(tuple(index % side for index, side in zip(corner, upright.size))) == (255, 0, 0)


def test_transparency_lies_on_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "rgba.png")
    Image.new("LA", (40, 40), (0, 0)).save(tmp_path / "la.png")
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "key.png", transparency=(1, 2, 3))
    Image.new("P", (40, 40), 0).save(tmp_path / "palette.png", transparency=0)
    for name in ("rgba", "la", "key", "palette"):
        assert read_picture(tmp_path / f"{name}.png").getpixel((5, 5)) == (255, 255, 255), name


def test_sixteen_bit_grey_is_scaled(tmp_path):
    Image.fromarray(np.full((40, 40), 65535, np.uint16)).save(tmp_path / "white.png")
    Image.fromarray(np.full((40, 40), 257 * 100, np.uint16)).save(tmp_path / "grey.png")
    assert read_picture(tmp_path / "white.png").getpixel((0, 0)) == (255, 255, 255)
    assert read_picture(tmp_path / "grey.png").getpixel((0, 0)) == (100, 100, 100)


def test_the_first_frame_is_read_and_the_format_is_taken_from_the_content(tmp_path):
    frames = [Image.new("RGB", (40, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "moving.jpg", "GIF", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "moving.jpg").getpixel((3, 3)) == (255, 0, 0)


def picture_bytes(format_: str = "PNG", size=(64, 64)) -> bytes:
    buffer = io.BytesIO()
    noise("RGB", size).save(buffer, format_)
    return buffer.getvalue()


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_cut_off_pictures_are_refused(tmp_path, format_):
    data = picture_bytes(format_)
    for share in (0.3, 0.6, 0.9):
        (tmp_path / "x").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(PictureError):
            read_picture(tmp_path / "x")


def test_shapes_beyond_200_to_1_are_refused(tmp_path):
    noise("RGB", (201, 1)).save(tmp_path / "thin.png")
    with pytest.raises(PictureError, match="201x1 pixels"):
        open_picture(tmp_path / "thin.png")
    noise("RGB", (200, 1)).save(tmp_path / "ok.png")
    assert read_picture(tmp_path / "ok.png").size == (200, 1)


def test_a_pixel_bomb_is_refused_from_its_header(tmp_path):
    small = Image.new("1", (16, 16))
    small.save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = (20_000).to_bytes(4, "big") * 2  # 400 million pixels in the header
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(PictureError, match="over 200,000,000 pixels"):
        open_picture(tmp_path / "bomb.png")


def icon_bomb(width: int, height: int) -> bytes:
    """An icon that says it is 16 x 16, around a PNG whose header says otherwise."""
    buffer = io.BytesIO()
    Image.new("RGBA", (16, 16)).save(buffer, "ICO", sizes=[(16, 16)])
    data = bytearray(buffer.getvalue())
    header = data.index(b"IHDR")
    data[header + 4 : header + 12] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[header + 17 : header + 21] = zlib.crc32(bytes(data[header : header + 17])).to_bytes(4, "big")
    return bytes(data)


def test_an_icon_is_not_decoded_beyond_the_limit(tmp_path):
    """Pillow decodes icons while it opens them, before their true size can be seen."""
    (tmp_path / "icon.png").write_bytes(icon_bomb(400, 300))
    with pytest.raises(PictureError, match="over 100,000 pixels"):
        open_picture(tmp_path / "icon.png", PictureLimits(pixels=100_000))


def test_limits_apply_to_one_call_alone(tmp_path):
    noise("RGB", (40, 30)).save(tmp_path / "p.png")
    pillows = Image.MAX_IMAGE_PIXELS
    for read in (open_picture, read_picture):
        with pytest.raises(PictureError, match="over 1,199 pixels"):
            read(tmp_path / "p.png", PictureLimits(pixels=1199))
        with pytest.raises(PictureError, match="expected at most 50"):
            read(tmp_path / "p.png", PictureLimits(file_bytes=50))
        assert read(tmp_path / "p.png", PictureLimits(pixels=1200)).size == (40, 30)
        assert read(tmp_path / "p.png").size == (40, 30)  # nothing is left of the limits before
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_threads_keep_their_own_limits(tmp_path):
    noise("RGB", (40, 30)).save(tmp_path / "p.png")
    pillows = Image.MAX_IMAGE_PIXELS

    def fits(pixels: int) -> bool:
        try:
            return read_picture(tmp_path / "p.png", PictureLimits(pixels)).size == (40, 30)
        except PictureError:
            return False

    limits = [1199, 1200, 10, 10**9] * 50
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(fits, limits)) == [pixels >= 1200 for pixels in limits]
    assert pillows == Image.MAX_IMAGE_PIXELS


def test_the_bytes_of_a_file_and_an_opened_picture_are_read_as_the_file_is(tmp_path):
    for format_ in ("PNG", "JPEG", "TIFF", "GIF"):
        data = picture_bytes(format_, (40, 30))
        (tmp_path / "p").write_bytes(data)
        expected = read_picture(tmp_path / "p").tobytes()
        with Image.open(io.BytesIO(data)) as opened:
            assert read_picture(data).tobytes() == read_picture(opened).tobytes() == expected
            assert picture_size(data) == picture_size(opened) == picture_size(tmp_path / "p") == (40, 30)
            assert read_picture(opened).tobytes() == expected  # it is still open


def test_limits_hold_for_pictures_that_a_program_has_opened():
    for picture in (Image.new("RGB", (40, 30)), Image.open(io.BytesIO(picture_bytes("PNG", (40, 30))))):
        for look_at in (read_picture, picture_size):
            with pytest.raises(PictureError, match="over 1,199 pixels"):
                look_at(picture, PictureLimits(pixels=1199))
    for picture, message in ((Image.new("L", (201, 1)), "1:200"), (Image.new("F", (9, 9)), "mode F")):
        with pytest.raises(PictureError, match=message):
            read_picture(picture)


def test_an_opened_picture_whose_file_is_cut_off_or_closed_is_refused():
    data = picture_bytes("JPEG")
    cut, closed = Image.open(io.BytesIO(data[:-900])), Image.open(io.BytesIO(data))
    closed.close()
    for picture in (cut, closed):
        with pytest.raises(PictureError, match="broken pixels"):
            read_picture(picture)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "TIFF"])
def test_threads_may_read_one_opened_picture_at_once(format_):
    data = picture_bytes(format_, (400, 300))
    expected = read_picture(data).tobytes()
    for _ in range(5):
        opened = Image.open(io.BytesIO(data))
        with ThreadPoolExecutor(8) as threads:
            assert {picture.tobytes() for picture in threads.map(read_picture, [opened] * 8)} == {expected}


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16"])
def test_every_mode_that_pillow_opens_becomes_rgb(mode):
    assert read_picture(Image.new(mode, (5, 4))).mode == "RGB"


class TestLocate:
    def test_names_match_in_both_unicode_normal_forms(self, tmp_path):
        for stored in ("NFC", "NFD"):
            (tmp_path / unicodedata.normalize(stored, "사진.png")).write_bytes(b"x")
            for asked in ("NFC", "NFD"):
                assert locate(tmp_path, unicodedata.normalize(asked, "사진.png")).is_file()
            (tmp_path / unicodedata.normalize(stored, "사진.png")).unlink()

    def test_backslashes(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b.png").write_bytes(b"x")
        assert locate(tmp_path, "a\\b.png").name == "b.png"
        (tmp_path / "a\\b.png").write_bytes(b"y")  # a literal name goes first
        assert locate(tmp_path, "a\\b.png").name == "a\\b.png"

    def test_paths_out_of_the_folder_are_refused_unless_allowed(self, tmp_path):
        inside = tmp_path / "inside"
        inside.mkdir()
        (tmp_path / "out.png").write_bytes(b"x")
        (inside / "link.png").symlink_to(tmp_path / "out.png")
        for cell in ("../out.png", str(tmp_path / "out.png"), "link.png"):
            with pytest.raises(PictureError, match="outside"):
                locate(inside, cell)
            assert locate(inside, cell, allow_outside=True).is_file()
        (inside / "in.png").write_bytes(b"x")
        assert locate(inside, "../inside/in.png").is_file() and locate(inside, str(inside / "in.png")).is_file()

    def test_paths_that_are_no_file_are_refused_with_the_reason(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        for cell, message in (
            ("none.png", "no file"),
            (".", "a folder"),
            ("pipe", "pipe"),
            ("loop", "loop|Too many"),
            ("http://x/y.png", "URL"),
            ("x" * 5000, "no file|long"),
            ("a\0b", "no file|null"),
        ):
            with pytest.raises(PictureError, match=message):
                locate(tmp_path, cell)
