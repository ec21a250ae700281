"""`as_picture`: every form of one picture is that picture, and what is none is refused before anything is asked."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scoring.inputs.digests import picture_digest, picture_key
from scoring.inputs.pictures import PictureError, PictureLimits, read_picture
from scoring.library.pictures import as_picture, sized_picture
from tests.shared.pictures import noise


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "사진.png"
    noise("RGB", (40, 30)).save(path)
    return path


def test_every_form_of_a_picture_is_that_picture(file, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(file.parent)
    data, pixels = file.read_bytes(), read_picture(file)
    with open(file, "rb") as opened, Image.open(file) as lazy:
        forms = [str(file), file, file.name, data, bytearray(data), memoryview(data), io.BytesIO(data), opened, lazy]
        forms += [pixels, np.asarray(pixels), {"bytes": data, "path": None}, {"bytes": None, "path": str(file)}]
        for form in forms:
            picture, size = sized_picture(form)
            assert size == (40, 30) and read_picture(picture).tobytes() == pixels.tobytes()
            assert isinstance(picture, Path | bytes | Image.Image)
    assert as_picture(file.name) == file.resolve() and as_picture(bytearray(data)) == data
    assert not os.listdir(tmp_path)  # nothing is written


def test_bytes_have_the_digest_of_their_file_and_equal_bytes_are_one_picture(file):
    data = file.read_bytes()
    assert picture_digest(as_picture(data)) == picture_digest(file)
    assert picture_key(as_picture(io.BytesIO(data))) == picture_key(as_picture(bytearray(data)))
    one, other = Image.open(file), Image.open(file)
    assert picture_key(as_picture(one)) != picture_key(as_picture(other))  # they would have to be decoded for it


@pytest.mark.parametrize(
    "value, message",
    [
        ("http://x.org/y.png", "a URL, 'http://x.org/y.png'; .*download the picture, and give its bytes"),
        ("https://x.org/y.png", "a URL"),
        ("s3://bucket/y.png", "a URL"),
        (Path("s3://bucket/y.png"), "a URL"),
        ("data:image/png;base64,iVBO", "a data URL, .*decode its base64, and give the bytes"),
        ("none.png", "no file 'none.png' in "),
        ("  ", "an empty path"),
        (".", "'.' is a folder"),
        ("x" * 5000, "no file|too long"),
        ("a\0b", "no file|null"),
        (None, "^None; expected a path, bytes"),
        (["p.png"], "^a list"),
        ({"url": "x"}, "a dict with 'url'; expected a dict with bytes or path"),
        ({}, "a dict with nothing"),
        ({"bytes": None, "path": None}, "a dict with 'bytes', 'path'"),
        (b"", "an empty file"),
        (b"no picture", "text, 'no picture'"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(value, message):
    with pytest.raises(PictureError, match=message):
        as_picture(value)


def test_the_limits_of_files_hold_for_every_form(file):
    data = file.read_bytes()
    for form in (file, data, io.BytesIO(data), Image.open(file), read_picture(file), np.zeros((30, 40), np.uint8)):
        with pytest.raises(PictureError, match="over 1,199 pixels"):
            as_picture(form, PictureLimits(pixels=1199))
    for form in (file, data, io.BytesIO(data)):
        with pytest.raises(PictureError, match="at most 50"):
            as_picture(form, PictureLimits(file_bytes=50))
    for form in (Image.new("RGB", (201, 1)), np.zeros((1, 201), np.uint8)):
        with pytest.raises(PictureError, match="201x1 pixels; expected sides of at most 1:200"):
            as_picture(form)
    for mode in "IF":
        with pytest.raises(PictureError, match=f"32-bit pixels .mode {mode}"):
            as_picture(Image.new(mode, (4, 4)))
    with pytest.raises(PictureError, match="0x4 pixels"):
        as_picture(Image.new("RGB", (0, 4)))


def test_an_array_is_taken_once_and_its_program_may_go_on_with_it(file):
    array = np.array(read_picture(file))
    picture = as_picture(array)
    array[:] = 0
    assert read_picture(picture).tobytes() == read_picture(file).tobytes()
