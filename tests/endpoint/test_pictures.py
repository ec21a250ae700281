"""What is sent of a picture: the file itself, or one with the pixels that `score` reads."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from scoring.endpoint.pictures import encode_picture
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureError, read_picture
from tests.shared.pictures import noise


def saved(picture: Image.Image, kind: str, **more) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise("RGB"), "JPEG", exif=exif)


@pytest.mark.parametrize("mode, kind", [("RGB", "PNG"), ("L", "PNG"), ("RGB", "JPEG")])
def test_a_plain_picture_goes_as_it_is(tmp_path, mode, kind):
    content = saved(noise(mode), kind)
    path = tmp_path / "picture.bin"
    path.write_bytes(content)
    for picture in (content, path):
        sent = encode_picture(picture, DEFAULT_LIMITS)
        assert sent.content == content and sent.format == kind.lower()
    head, _, data = sent.data_url.partition(",")
    assert head == f"data:image/{kind.lower()};base64" and base64.b64decode(data) == content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(turned(), id="turned"),
        pytest.param(saved(noise("RGBA"), "PNG"), id="transparent"),
        pytest.param(saved(noise("RGB"), "WEBP", lossless=True), id="webp"),
        pytest.param(saved(noise("P"), "GIF"), id="gif"),
        pytest.param(saved(noise("CMYK"), "JPEG"), id="cmyk"),
        pytest.param(
            saved(Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257), "PNG"), id="16 bits"
        ),
    ],
)
def test_another_picture_is_sent_with_the_pixels_that_score_reads(content):
    sent = encode_picture(content, DEFAULT_LIMITS)
    assert sent.format == "png"
    with Image.open(io.BytesIO(sent.content)) as seen:
        assert seen.mode == "RGB" and np.array_equal(seen, read_picture(content))


def test_a_picture_of_a_program_is_sent_too():
    picture = noise("RGBA")
    with Image.open(io.BytesIO(encode_picture(picture, DEFAULT_LIMITS).content)) as seen:
        assert np.array_equal(seen, read_picture(picture))


def test_a_broken_picture_is_not_sent():
    with pytest.raises(PictureError, match="broken pixels"):
        encode_picture(saved(noise("RGB"), "JPEG")[:-900], DEFAULT_LIMITS)
