"""Digests: the same for what is the same under another name, and different for everything else."""

import io
from dataclasses import replace

from PIL import Image

from scoring.inputs.digests import (
    picture_digest,
    picture_digests,
    picture_key,
    picture_path,
    question_digest,
    question_digests,
)
from scoring.inputs.picture_store import PictureStore
from tests.shared.pictures import noise
from tests.shared.questions import rows_about


def test_a_picture_is_recognised_by_its_bytes_whatever_its_name(tmp_path):
    questions = rows_about(tmp_path, [1, 2, 1])
    first, second, third = picture_digests(questions)
    assert first == third != second and len(first) == 16 and int(first, 16)
    (tmp_path / "0001.png").write_text("picture 1 changed")
    assert picture_digest(tmp_path / "0001.png") not in (first, second)
    assert picture_digest(tmp_path / "none.png") == ""


def test_a_picture_of_a_table_is_recognised_without_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "p.png").write_bytes(b"the same bytes")
    path = PictureStore(keep=False).file_of(b"the same bytes", "PNG")
    assert picture_digest(path) == picture_digest(tmp_path / "p.png") and not path.exists()


def test_an_opened_picture_is_recognised_by_its_pixels():
    red = Image.new("RGB", (4, 2), "red")
    assert picture_digest(red) == picture_digest(red.copy())
    others = [Image.new("RGB", (2, 4), "red"), Image.new("RGB", (4, 2), "blue"), Image.new("RGBA", (4, 2), "red")]
    assert len({picture_digest(picture) for picture in (red, *others)}) == 4


def test_bytes_are_recognised_as_their_file(tmp_path):
    (tmp_path / "p.png").write_bytes(b"the same bytes")
    assert picture_digest(b"the same bytes") == picture_digest(tmp_path / "p.png") != picture_digest(b"other bytes")
    assert picture_key(b"the same bytes") == picture_key(bytes(bytearray(b"the same bytes")))
    rows = [replace(row, pictures=(b"x",)) for row in rows_about(tmp_path / "rows", [1, 2])]
    assert len(set(picture_digests(rows))) == 1 and picture_path(b"x") == picture_path(None) == ""
    assert picture_path(tmp_path / "p.png") == str(tmp_path / "p.png")


def test_colours_of_a_palette_count():
    one, other = Image.new("P", (4, 2), 1), Image.new("P", (4, 2), 1)
    one.putpalette([0, 0, 0, 255, 0, 0])
    other.putpalette([0, 0, 0, 0, 0, 255])
    assert picture_digest(one) != picture_digest(other)
    assert picture_digest(one) == picture_digest(one.convert("RGBA"))


def test_an_opened_picture_that_cannot_be_decoded_has_no_digest():
    file = io.BytesIO()
    noise("RGB", (40, 30)).save(file, "PNG")
    cut = Image.open(io.BytesIO(file.getvalue()[:-100]))
    assert picture_digest(cut) == "" == picture_digest(cut)


def test_a_question_is_what_it_asks_in_any_order_of_its_options(tmp_path):
    first, other = rows_about(tmp_path, [1, 2])
    same = replace(first, id="z", answer="b", options=first.options[::-1])
    changed = [other, replace(first, question="?"), replace(first, options=("x", "z"))]
    digests = question_digests([first, same, *changed])
    assert digests[0] == digests[1] and len(set(digests)) == 4
    assert digests[0] == question_digest(picture_digest(first.picture), first.question, first.options)
