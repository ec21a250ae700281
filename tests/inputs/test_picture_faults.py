"""Files that are no pictures are named by what they are, with what to do about it."""

import io
import os

import pytest
from PIL import Image

from scoring.inputs.picture_faults import HEAD, describe_link
from scoring.inputs.pictures import PictureError, locate, open_picture

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32\nsize 12345\n"


def boxes(brand: bytes, *compatible: bytes) -> bytes:
    """The beginning of a file of ISO boxes."""
    names = brand + b"\0\0\0\0" + b"".join(compatible)
    return (8 + len(names)).to_bytes(4, "big") + b"ftyp" + names + b"\0\0\0\x08mdat"


def start_of(format_: str, length: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, format_)
    return buffer.getvalue()[:length]


@pytest.mark.parametrize(
    "content, found, fix",
    [
        (boxes(b"heic", b"mif1", b"heic"), "a HEIC picture, as iPhones save them", "convert it to JPEG"),
        (boxes(b"heix"), "a HEIC picture", "convert it"),
        (boxes(b"hevc"), "a HEIC picture", "convert it"),
        (boxes(b"mif1", b"heic"), "a HEIC picture", "convert it"),
        (boxes(b"msf1"), "a HEIC picture", "convert it"),
        (boxes(b"mif1", b"avif"), "an AVIF that cannot be read", "convert it"),
        (boxes(b"avif"), "an AVIF that cannot be read", "convert it"),
        (boxes(b"isom"), "a video", "one of its frames"),
        (boxes(b"qt  "), "a video", "one of its frames"),
        (boxes(b"crx "), "a camera's raw file", "export it as JPEG"),
        (b"\x1a\x45\xdf\xa3" + b"\0webm", "a video", "one of its frames"),
        (b"RIFF\0\0\0\0AVI LIST", "a video", "one of its frames"),
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/SHA256E-s1--ab.jpg\n", "a git-annex pointer", "git annex get"),
        (b"../.git/annex/objects/Xk/SHA256E-s1--ab.jpg", "a git-annex pointer", "git annex get"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing", "convert it"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg/>", "an SVG drawing", "convert it"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html><body><svg/></body></html>", "a web page", "fetch the picture again"),
        (b"\n <HTML><head>", "a web page", "fetch the picture again"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML", "fetch the picture again"),
        (b"%PDF-1.7\n", "a PDF document", "save its page"),
        (b"8BPS\0\x01", "a Photoshop document", "convert it"),
        (b"\xff\x0a\xfa\x1f", "a JPEG XL picture", "convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture", "convert it"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 picture", "convert it"),
        (b"II*\0\x10\0\0\0CR\x02\0", "a TIFF that cannot be read, such as a camera's raw file", "export it"),
        (b"MM\0*\xff\xff\xff\xff", "a TIFF that cannot be read", "export it"),
        (b"\0" * 128 + b"DICM", "a DICOM picture", "convert it"),
        (b"PK\x03\x04" + b"\0" * 30, "a zip archive", "unpack it"),
        (b"\x93NUMPY\x01\0", "a NumPy array", "convert it"),
        (b"\0\x05\x16\x07\0\x02\0\0", "begins with ._", "name the picture"),
        (b"\0" * 5000, "nothing but zeros", "fetch the picture again"),
        (b"", "an empty file", "fetch the picture again"),
        (b"data:image/png;base64,iVBORw0KGgo", "written as text", "decode it"),
        (b"/9j/4AAQSkZJRgABAQ", "written as text", "decode it"),
        (b'{"message": "Not Found"}', 'text, \'{"message": "Not Found"}\'', "replace the file"),
        ("사진이 없습니다".encode(), "text, '사진이 없습니다'", "replace the file"),
        (("사진" * 2000).encode(), "text, '사진", "replace the file"),
        (b"\x81\x02\x93\x04" * 9, "not a picture", "replace the file"),
        (start_of("PNG", 12), "a broken picture", "replace the file"),
        (start_of("JPEG", 3), "a broken picture", "replace the file"),
        (start_of("GIF", 6), "a broken picture", "replace the file"),
        (start_of("WEBP", 14), "a broken picture", "replace the file"),
    ],
)
def test_each_is_named_with_what_to_do(tmp_path, content, found, fix):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(PictureError) as caught:
        open_picture(tmp_path / "x.jpg")
    assert found in caught.value.found and fix in caught.value.fix
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()


def test_a_text_that_ends_within_a_character_of_the_head_is_text(tmp_path):
    for shift in range(3):
        content = b"a" * shift + "진".encode() * (HEAD // 3 + 10)
        (tmp_path / "x.jpg").write_bytes(content)
        with pytest.raises(PictureError, match="^text, 'a*진"):
            open_picture(tmp_path / "x.jpg")


def test_links_that_lead_nowhere_are_told_with_their_target(tmp_path):
    annex = ".git/annex/objects/Xk/9p/SHA256E-s1--ab.jpg/SHA256E-s1--ab.jpg"
    os.symlink(f"../{annex}", tmp_path / "annexed.jpg")
    os.symlink("gone.jpg", tmp_path / "lost.jpg")
    with pytest.raises(PictureError, match="'annexed.jpg', a git-annex link whose picture is not here.*git annex get"):
        locate(tmp_path, "annexed.jpg")
    with pytest.raises(PictureError, match="a link to 'gone.jpg', which is not there"):
        locate(tmp_path, "lost.jpg")
    (tmp_path / "gone.jpg").write_bytes(b"x")
    assert describe_link(tmp_path / "lost.jpg") is None and describe_link(tmp_path / "gone.jpg") is None
    assert locate(tmp_path, "lost.jpg") == (tmp_path / "gone.jpg").resolve()
