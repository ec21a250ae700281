"""A name that is not there: what it may have meant is offered, and never taken."""

import os
import unicodedata

import pytest

from scoring.inputs import near_names as module
from scoring.inputs.near_names import near_names
from scoring.inputs.pictures import PictureError, locate


@pytest.fixture
def root(tmp_path):
    """A folder of pictures."""
    names = (
        "a.JPG",
        "b.jpeg",
        "images/c.png",
        "images/d/e.webp",
        "My Pic.png",
        "1.jpg",
        "사진.jpg",
        "x/f.jpg",
        "y/f.png",
    )
    for name in names:
        (tmp_path / "r" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "r" / name).write_bytes(b"x")
    (tmp_path / "secret.JPG").write_bytes(b"x")
    return tmp_path / "r"


@pytest.mark.parametrize(
    "cell, expected",
    [
        ("a.jpg", ["a.JPG"]),  # the extension's case
        ("A.jpg", ["a.JPG"]),
        ("b.jpg", ["b.jpeg"]),  # another extension
        ("b.png", ["b.jpeg"]),
        ("1", ["1.jpg"]),  # none
        ("images/c", ["images/c.png"]),
        ("c.png", ["images/c.png"]),  # no folder
        ("c.jpg", ["images/c.png"]),
        ("Images/C.png", ["images/c.png"]),
        ("./images/c.PNG", ["images/c.png"]),
        ("/kaggle/input/r/images/c.png", ["images/c.png"]),  # another machine's folders
        ("C:\\Users\\me\\images\\d\\e.webp", ["images/d/e.webp"]),
        ("train/c.png", ["images/c.png"]),  # another folder
        ("my_pic.png", []),
        ("MyPic.png", ["My Pic.png"]),  # blanks
        ("my%20pic.png", ["My Pic.png"]),  # escapes
        ("１.jpg", ["1.jpg"]),  # full width
        (unicodedata.normalize("NFD", "사진") + ".png", ["사진.jpg"]),
        ("f.jpg", ["x/f.jpg"]),  # the same name but for the folder goes before another extension
        ("f", ["x/f.jpg", "y/f.png"]),
        ("none.jpg", []),
        ("../secret.jpg", []),
        ("images/../a.jpg", []),
        ("", []),
        ("/", []),
        (".", []),
        ("a\0.jpg", []),
        ("x" * 5000, []),
    ],
)
def test_names_that_are_near(root, cell, expected):
    assert near_names(root, cell) == expected


def test_a_near_name_is_offered_and_not_taken(root):
    with pytest.raises(PictureError) as caught:
        locate(root, "a.jpg")
    assert caught.value.found == f"no file 'a.jpg' in {root}"
    assert caught.value.fix.startswith("did you mean 'a.JPG'? correct the path")


def test_the_same_name_goes_before_other_extensions_and_few_are_offered(tmp_path):
    for extension in ("jpeg", "JPG", "png", "webp", "bmp"):
        (tmp_path / f"a.{extension}").write_bytes(b"x")
    assert near_names(tmp_path, "a.jpg") == ["a.JPG"]
    assert near_names(tmp_path, "a.tif") == ["a.JPG", "a.bmp", "a.jpeg"]


def test_links_to_folders_are_not_looked_into(tmp_path, root):
    os.symlink(tmp_path, root / "up")
    assert near_names(root, "up/secret.jpg") == near_names(root, "secret.jpg") == []


def test_a_new_file_is_seen_and_a_missing_folder_has_none(tmp_path):
    assert near_names(tmp_path / "none", "a.jpg") == near_names(tmp_path, "a.jpg") == []
    (tmp_path / "a.JPG").write_bytes(b"x")
    os.utime(tmp_path, ns=(1, 1))  # clocks of folders may be coarse
    assert near_names(tmp_path, "a.jpg") == ["a.JPG"]


def test_a_folder_is_listed_once_and_not_where_it_is_too_large(root, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(str(folder)) or scandir(folder))
    module._listing.cache_clear()
    module._files_below.cache_clear()
    for number in range(100):
        assert near_names(root, f"none{number}.jpg") == []
    assert sorted(listed) == sorted(map(str, [root, root / "images", root / "x", root / "y"]))
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    os.utime(root, ns=(2, 2))
    assert near_names(root, "a.jpg") == []
