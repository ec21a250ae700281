"""What picture cells hold, whoever wrote them, and the files that pictures inside tables become."""

import base64
import io
import json

import pytest
from PIL import Image

from scoring.inputs.pictures import PictureError, open_picture
from scoring.tables import picture_cells
from scoring.tables.picture_cells import pictures_in


def picture(format="PNG", color="red", **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), color).save(file, format, **options)
    return file.getvalue()


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def sources(cell):
    return [found.source for found in pictures_in(cell)]


PNG, JPEG = picture(), picture("JPEG", "blue")


@pytest.mark.parametrize(
    "cell", [None, "", "  ", b"", [], [None, ""], {"bytes": None, "path": None}, {"path": ""}, "[]"]
)
def test_an_empty_cell_holds_no_picture(cell):
    assert pictures_in(cell) == []


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "AVIF"])
def test_base64_of_every_format_is_a_picture(format):
    data = picture(format)
    assert len(coded(data)) > 64 and sources(coded(data)) == [data]
    assert open_picture(sources(coded(data))[0]).format == format


@pytest.mark.parametrize(
    "text",
    [
        coded(PNG).rstrip("="),
        "\n".join(coded(PNG)[start : start + 7] for start in range(0, len(coded(PNG)), 7)),
        f"  {coded(PNG)}\r\n",
        f"data:image/png;base64,{coded(PNG)}",
        f"DATA:;charset=x;BASE64,{coded(PNG)}",
    ],
)
def test_base64_may_lack_padding_have_line_breaks_or_be_a_data_url(text):
    assert sources(text) == [PNG]


@pytest.mark.parametrize(
    "name",
    ["p.png", "images/iVBORw0KGgo.png", "사진 1.jpg", "iVBORw0KGgo", "[1].png", "{a}.png", "7", f"{'deep/' * 60}p.png"],
)
def test_other_texts_are_names_of_files(name):
    assert sources(f" {name} ") == [name]


@pytest.mark.parametrize(
    "cell, name", [(" p.png ", "p.png"), (" [p.png", ""), ("{", ""), ("DATA:,", ""), ("x" * 65, "")]
)
def test_a_name_is_seen_at_once_where_nothing_else_is_possible(cell, name):
    assert picture_cells.plain_name(cell) == name and picture_cells.plain_name([cell]) == ""


def test_a_long_name_of_base64_letters_that_begins_no_picture_is_a_name():
    name = "QUJD" * 40
    assert sources(name) == [name]


def test_numbers_are_names():
    assert sources(7) == ["7"]


@pytest.mark.parametrize(
    "cell, expected",
    [
        (PNG, [PNG]),
        ({"bytes": PNG, "path": "p.png"}, [PNG]),
        ({"bytes": None, "path": "p.png"}, ["p.png"]),
        ({"path": "p.png"}, ["p.png"]),
        ({"bytes": coded(PNG), "path": None}, [PNG]),
        ([{"bytes": PNG, "path": None}, None, "p.png"], [PNG, "p.png"]),
        ([PNG, coded(JPEG)], [PNG, JPEG]),
        (json.dumps([coded(PNG), coded(JPEG)]), [PNG, JPEG]),
        (repr([coded(PNG), "p.png"]), [PNG, "p.png"]),
        (repr({"bytes": PNG, "path": None}), [PNG]),
        (json.dumps({"bytes": coded(PNG)}), [PNG]),
        (["a.png", "b.png"], ["a.png", "b.png"]),
        ('["a.png"]', ["a.png"]),
    ],
)
def test_bytes_objects_and_lists_are_read(cell, expected):
    assert sources(cell) == expected


def test_messages_never_show_a_whole_cell():
    length = len(coded(PNG))
    shown = [
        found.shown for cell in (coded(PNG), f"data:image/png;base64,{coded(PNG)}", PNG) for found in pictures_in(cell)
    ]
    assert shown[0] == f"'{coded(PNG)[:32]}…' (base64, {length:,} characters)"
    assert shown[1].endswith(f"' (a data URL, {length + 22:,} characters)") and shown[2] == f"{len(PNG):,} bytes"
    assert [found.shown for found in pictures_in(["p.png", PNG])] == [
        "",
        f"picture 2 of 2, {len(PNG):,} bytes",
    ]


@pytest.mark.parametrize(
    "cell, found",
    [
        (
            coded(PNG)[:69],
            "broken base64 (Invalid base64-encoded string: number of data characters (69) cannot be 1 more",
        ),
        (f"data:image/png;base64,{coded(PNG)}?", "broken base64"),
        (f"data:image/svg+xml,{'<svg/>' * 9999}", "a data URL without base64"),
        ("x" * 5000, "(5,000 characters), neither a file's name nor a picture in base64"),
        ({"url": "x" * 5000}, "an object with 'url'"),
        ({}, "an object with nothing"),
        ({"bytes": [1, 2]}, "an object with bytes that are a list"),
        ([["p.png"]], "picture 1 of 1: a list in a list"),
        (["p.png", "x" * 5000], "picture 2 of 2, 'xxx"),
    ],
)
def test_what_can_be_no_picture_is_refused_in_few_words(cell, found):
    with pytest.raises(PictureError) as caught:
        pictures_in(cell)
    assert found in caught.value.found and len(str(caught.value)) < 300


def test_hostile_nesting_is_a_name_or_refused():
    assert sources("[" * 4000) == ["[" * 4000]
    with pytest.raises(PictureError, match="neither a file's name"):
        pictures_in("[" * 100_000)
