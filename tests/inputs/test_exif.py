"""Pictures are turned by their orientation, whatever else their EXIF block holds."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from scoring.inputs.exif import orientation, upright, upright_size
from scoring.inputs.pictures import open_picture, read_picture, to_rgb

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns of what is broken
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF")
LEVELS = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
SHORT, LONG, RATIONAL, ASCII = 3, 4, 5, 2
MAKE, TURN, RESOLUTION, EXIF, GPS, MAKER_NOTE = 0x010F, 0x0112, 0x011A, 0x8769, 0x8825, 0x927C
BEYOND = 0x7FFFFFF0


def block(order: str, *entries: tuple[int, int, int, int], more: bytes = b"") -> bytes:
    """An EXIF block: a directory of (tag, type, count, value or offset), and what follows it."""
    head = b"Exif\0\0" + (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", 8)
    packed = []
    for tag, kind, count, value in entries:
        short = kind == SHORT and count == 1
        packed.append(struct.pack(order + ("HHLHH" if short else "HHLL"), tag, kind, count, value, *[0] * short))
    return head + struct.pack(order + "H", len(entries)) + b"".join(packed) + struct.pack(order + "L", 0) + more


def saved(path, format_: str, exif) -> Image.Image:
    """Write the picture with a block, as stored without being turned, and return it."""
    picture = Image.fromarray(LEVELS)
    more = {"save_all": True, "append_images": [picture]} if format_ == "MPO" else {}
    picture.save(path, format_, exif=exif, **more)
    return picture


def turned(picture: Image.Image, value: int) -> Image.Image:
    """By Pillow, without a file."""
    picture = picture.copy()
    picture.getexif()[TURN] = value
    return ImageOps.exif_transpose(picture)


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("value", range(10))
def test_every_orientation_of_every_format_is_read_as_pillow_reads_it(tmp_path, format_, value):
    exif = Image.Exif()
    exif[TURN] = value
    saved(tmp_path / "p", format_, exif)
    with Image.open(tmp_path / "p") as picture:
        expected = ImageOps.exif_transpose(picture).convert("RGB")
    assert expected.size == ((20, 40) if value in (5, 6, 7, 8) else (40, 20))
    with open_picture(tmp_path / "p") as opened:
        assert upright_size(opened) == expected.size
    assert np.array_equal(read_picture(tmp_path / "p"), expected)
    with Image.open(tmp_path / "p") as picture:
        assert np.array_equal(to_rgb(picture), expected)


NEIGHBOURS = {
    "a type that does not exist": [(MAKE, 99, 1, 0), (TURN, SHORT, 1, 6)],
    "a count without end": [(MAKE, ASCII, 0xFFFFFFFF, 8), (TURN, SHORT, 1, 6)],
    "an offset beyond the end": [(MAKE, ASCII, 20, BEYOND), (TURN, SHORT, 1, 6)],
    "an offset beyond the end, after it": [(TURN, SHORT, 1, 6), (RESOLUTION, RATIONAL, 1, BEYOND)],
    "wrong order": [(GPS, LONG, 1, 8), (RESOLUTION, RATIONAL, 1, BEYOND), (TURN, SHORT, 1, 6), (MAKE, ASCII, 4, 0)],
    "a directory of places outside": [(TURN, SHORT, 1, 6), (GPS, LONG, 1, BEYOND)],
    "an EXIF directory outside": [(MAKE, ASCII, 9, BEYOND), (TURN, SHORT, 1, 6), (EXIF, LONG, 1, BEYOND)],
    "an EXIF directory that is a text": [(TURN, SHORT, 1, 6), (EXIF, ASCII, 3, 0x414243)],
    "a maker's note that is cut off": [(TURN, SHORT, 1, 6), (EXIF, LONG, 1, 38), (MAKER_NOTE, 7, 5000, 40)],
    "a fraction over 0": [(RESOLUTION, RATIONAL, 1, 26), (TURN, SHORT, 1, 6)],
    "a long number": [(MAKE, ASCII, 20, BEYOND), (TURN, LONG, 1, 6)],
}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("neighbours", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_a_broken_tag_beside_it_does_not_matter(tmp_path, neighbours, format_, order):
    exif = block(order, *neighbours)
    saved(tmp_path / "p", format_, exif)
    with open_picture(tmp_path / "p") as opened:
        assert upright_size(opened) == (20, 40)
        assert orientation(opened) == 6
        stored = opened.convert("RGB")
    picture = read_picture(tmp_path / "p")
    assert np.array_equal(picture, turned(stored, 6))
    assert np.array_equal(to_rgb(picture), picture)  # which is not turned a second time


@pytest.mark.parametrize("order", "<>")
def test_a_block_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path, order):
    exif = block(order, (MAKE, ASCII, 4, 0), (TURN, SHORT, 1, 6), (RESOLUTION, RATIONAL, 1, 60), more=b"\0" * 20)
    for end in range(7, len(exif)):
        saved(tmp_path / "p.jpg", "JPEG", exif[:end])
        with open_picture(tmp_path / "p.jpg") as opened:
            size = upright_size(opened)
        assert size == read_picture(tmp_path / "p.jpg").size
        assert size == ((20, 40) if end >= 6 + 8 + 2 + 2 * 12 else (40, 20))


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0garbage",
        b"Exif\0\0XX*\0\x08\0\0\0",
        block("<", (TURN, SHORT, 1, 0)),
        block("<", (TURN, SHORT, 1, 9)),
        block("<", (TURN, ASCII, 1, 6)),
        block("<", (MAKE, ASCII, 20, BEYOND)),
    ],
)
def test_what_is_no_orientation_turns_nothing(tmp_path, exif):
    saved(tmp_path / "p.jpg", "JPEG", exif)
    with open_picture(tmp_path / "p.jpg") as opened:
        assert (upright_size(opened), orientation(opened)) == ((40, 20), 1)
    assert read_picture(tmp_path / "p.jpg").size == (40, 20)


def test_damaged_blocks_never_stop_a_picture_and_both_sizes_agree(tmp_path):
    exif = Image.Exif()
    exif[TURN], exif[MAKE], exif[RESOLUTION] = 6, "a camera", 72.0
    exif.get_ifd(EXIF)[0x9003], exif.get_ifd(GPS)[1] = "2026:01:01 00:00:00", "N"
    whole = exif.tobytes()
    rng = np.random.default_rng(1)
    sizes = []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(6, len(whole), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        saved(tmp_path / "p.jpg", "JPEG", bytes(damaged))
        with open_picture(tmp_path / "p.jpg") as opened:
            sizes.append(upright_size(opened))
        assert read_picture(tmp_path / "p.jpg").size == sizes[-1]
    assert {(20, 40), (40, 20)} == {*sizes}


def test_a_block_that_another_program_wrote_into_a_png_as_text(tmp_path):
    """As ImageMagick does: hexadecimal digits in lines, here with a stray character at the end."""
    from PIL.PngImagePlugin import PngInfo

    digits = block(">", (MAKE, ASCII, 20, BEYOND), (TURN, SHORT, 1, 8)).hex()
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(digits) // 2:8}\n{digits[:72]}\n{digits[72:]}z\n")
    Image.fromarray(LEVELS).save(tmp_path / "p.png", pnginfo=text)
    with open_picture(tmp_path / "p.png") as opened:
        assert upright_size(opened) == (20, 40)
    assert np.array_equal(read_picture(tmp_path / "p.png"), turned(Image.fromarray(LEVELS), 8))


def tiff(order: str, big: bool = False) -> bytes:
    """A grey TIFF of 2 x 3 pixels, whose description lies outside the file, and whose orientation comes after it."""
    inline = "Q" if big else "L"
    entry, size = ("HHQ", 20) if big else ("HHL", 12)
    tags = [(256, LONG, 2), (257, LONG, 3), (258, SHORT, 8), (259, SHORT, 1), (262, SHORT, 1), (273, LONG, 0)]
    tags += [(270, ASCII, BEYOND), (TURN, SHORT, 6), (279, LONG, 6)]
    head = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HL", 42, 8)
    start = len(head) + 2 + (8 if big else 2) + size * len(tags) + (8 if big else 4)
    data = (b"II" if order == "<" else b"MM") + head + struct.pack(order + ("Q" if big else "H"), len(tags))
    for tag, kind, value in tags:
        value = start if tag == 273 else value
        packed = struct.pack(order + ("H" if kind == SHORT else inline), value)
        count = 100 if kind == ASCII else 1
        data += struct.pack(order + entry, tag, kind, count) + packed.ljust(8 if big else 4, b"\0")
    return data + struct.pack(order + inline, 0) + bytes(range(6))


@pytest.mark.parametrize("order, big", [("<", False), (">", False), ("<", True)])
def test_a_tiff_is_turned_by_a_tag_behind_a_broken_one(tmp_path, order, big):
    (tmp_path / "p.tif").write_bytes(tiff(order, big))
    with open_picture(tmp_path / "p.tif") as opened:
        assert upright_size(opened) == (3, 2)
    assert np.asarray(read_picture(tmp_path / "p.tif"))[..., 0].tolist() == [[4, 2, 0], [5, 3, 1]]
    with Image.open(tmp_path / "p.tif") as picture:
        assert to_rgb(picture).size == (3, 2)


def test_a_picture_that_was_turned_is_not_turned_again():
    exif = Image.Exif()
    exif[TURN] = 6
    for format_ in FORMATS:
        buffer = io.BytesIO()
        saved(buffer, format_, exif)
        with Image.open(buffer) as picture:
            once = upright(picture)
            assert once.size == upright(once).size == (20, 40), format_
            assert upright_size(picture) == once.size, format_
            assert upright(picture).size == (20, 40), format_
