"""Files that are no tables are named by what they are."""

import io
import tarfile

import pytest
from PIL import Image

from scoring.errors import InputError
from scoring.readers.opening import open_table


def picture(format_: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format_)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("t.csv"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content, found, fix",
    [
        (b"PK\x03\x04" + b"\0" * 99, "an Excel workbook or a zip archive", "save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0" + b"\0" * 99, "an Excel workbook", "save it as 'CSV UTF-8'"),
        (b"version https://git-lfs.github.com/spec/v1\noid x\n", "a Git LFS pointer", "git lfs pull"),
        (b"/annex/objects/MD5E-s1--ab.csv\n", "a git-annex pointer", "git annex get"),
        (b"\n<!DOCTYPE HTML><p>404", "a web page", "download the table again"),
        (b"\xef\xbb\xbf<html>", "a web page", "download the table again"),
        (b"%PDF-1.7\n\xe2\xe3", "a PDF document", "CSV"),
        (b"BZh91AY&SY", "a bzip2 file", "unpack it"),
        (b"\xfd7zXZ\0\0", "an xz file", "unpack it"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
        (b"ARROW1\0\0", "an Arrow file", "save it as Parquet"),
        (b"SQLite format 3\0", "an SQLite database", "save it as Parquet"),
        (tar(), "a tar archive", "unpack it"),
        (picture("PNG"), "a picture", "name the table"),
        (picture("JPEG"), "a picture", "name the table"),
    ],
)
def test_each_is_named_with_what_to_do(tmp_path, content, found, fix):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_table(tmp_path / "t.csv", {"id", "question"})
    assert found in str(caught.value) and fix in str(caught.value)
    assert len(caught.value.problems) == 1
