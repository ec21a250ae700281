"""The pictures of a table's rows: named, held, referred to, broken; each looked at once, few in memory."""

import pytest
from PIL import Image

from scoring.inputs.picture_store import PictureStore
from scoring.inputs.pictures import DEFAULT_LIMITS, PictureLimits
from scoring.tables import row_pictures
from scoring.tables.row_pictures import LocatedPicture, PictureReader, RowPictures
from tests.shared.picture_tables import coded, image, pictures

FIRST, SECOND, THIRD = pictures()


@pytest.fixture
def reader(tmp_path):
    """One whose files are in a folder of this test, beside a picture p.png of 12x8."""
    Image.new("RGB", (12, 8)).save(tmp_path / "p.png")

    def make(deep=False, limits=DEFAULT_LIMITS, keep=True):
        return PictureReader(tmp_path, False, limits, deep, PictureStore(keep, tmp_path / "kept"))

    return make


def read(reader, rows, ids=()):
    """The pictures of rows, each a list of cells."""
    found = RowPictures(reader)
    for number, cells in enumerate(rows, 1):
        found.add(number, cells)
    found.finish({id: number for number, id in enumerate(ids, 1)})
    return [found.of(number, cells) for number, cells in enumerate(rows, 1)]


def test_pictures_are_found_in_their_order_wherever_they_are(reader, tmp_path):
    rows = read(reader(), [[image(FIRST), "p.png"], [coded(SECOND)], [None, ""], ["p.png"], [["p.png", THIRD]]])
    assert [[picture.size for picture in row] for row in rows] == [
        [(40, 30), (12, 8)],
        [(48, 36)],
        [],
        [(12, 8)],
        [(12, 8), (30, 40)],
    ]
    assert rows[1][0].picture.read_bytes() == SECOND and rows[3][0].picture == tmp_path / "p.png"


def test_many_small_batches_give_the_same(reader, monkeypatch):
    rows = [[FIRST], [image(SECOND), THIRD], ["p.png"], [coded(FIRST)]] * 5
    expected = read(reader(), rows)
    for name, value in (("PENDING", 1), ("PENDING", 3), ("PENDING_BYTES", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(row_pictures, name, value)
            assert read(reader(), rows) == expected


def test_pictures_of_cells_are_not_kept_in_memory(reader):
    """500 cells of 100 KB are 50 MB; those that wait to be looked at are 16 MiB at most."""
    found, waiting = RowPictures(reader(keep=False)), []
    for number in range(500):
        found.add(number, [FIRST + bytes(100_000)])
        waiting.append(found._pending_bytes)
    assert max(waiting) < row_pictures.PENDING_BYTES and found._pending_bytes < 500 * 100_000
    found.finish({})
    assert not found._pending and all(isinstance(found.of(number, [])[0], LocatedPicture) for number in range(500))


def test_what_is_broken_is_told_in_few_words(reader):
    broken = coded(FIRST[:40] + bytes(60))
    rows = read(reader(), [[broken], ["none.png"], [["p.png", b"nothing"]], [{"url": "x"}], [{}]])
    faults = [[result for result in row if not isinstance(result, LocatedPicture)] for row in rows]
    assert [len(row) for row in faults] == [1] * 5 and len(rows[2]) == 2
    assert faults[0][0].found.startswith("'iVBORw0KGgoAAAANSUhEUgAAACgAAAAe…' (base64, 136 characters): ")
    assert faults[1][0].found.startswith("'none.png': no file 'none.png' in ")
    assert faults[2][0].found == "picture 2 of 2, 7 bytes: text, 'nothing'"
    assert faults[3][0].found == "an object with 'url'" and all(row[0].expected and row[0].fix for row in faults)


def test_pixels_are_looked_at_where_that_is_asked_for(reader):
    cut = [[FIRST[:-30]]]
    assert isinstance(read(reader(), cut)[0][0], LocatedPicture)
    assert "broken pixels" in read(reader(deep=True), cut)[0][0].found
    assert [picture.size for picture in read(reader(deep=True), [[SECOND, "p.png"]])[0]] == [(48, 36), (12, 8)]


def test_limits_hold_for_pictures_in_cells(reader):
    assert "over 1,199 pixels" in read(reader(limits=PictureLimits(1199)), [[FIRST]])[0][0].found
    small = PictureLimits(file_bytes=len(FIRST) - 1)
    assert f"{len(FIRST)} bytes: {len(FIRST)} bytes" in read(reader(limits=small), [[FIRST]])[0][0].found


def test_without_keeping_nothing_is_written(reader, tmp_path):
    (row,) = read(reader(keep=False), [[FIRST]])
    assert row[0].size == (40, 30) and not row[0].picture.exists() and not (tmp_path / "kept").exists()


# ------------------------------------------------------------------ references to other rows
def test_a_cell_with_another_rows_id_has_its_pictures(reader):
    rows = read(reader(), [["3"], [coded(SECOND)], [str([coded(FIRST), coded(THIRD)])], ["2"]], ["1", "2", "3", "4"])
    assert [[picture.size for picture in row] for row in rows] == [
        [(40, 30), (30, 40)],
        [(48, 36)],
        [(40, 30), (30, 40)],
        [(48, 36)],
    ]


def test_a_reference_that_leads_to_no_picture_is_a_fault(reader):
    rows = read(reader(), [[FIRST], ["3"], ["1"], ["5"], [""], ["6"], ["none"]], ["1", "2", "3", "4", "5", "6", "7"])
    found = [row[0].found for row in (rows[1], rows[3], rows[5])]
    ending = "which holds no picture: it is empty, or refers to a row itself"
    assert found == [f"'{id}', the id of row {id}, {ending}" for id in ("3", "5", "6")]
    assert isinstance(rows[2][0], LocatedPicture)
    assert rows[6][0].found.startswith("'none': no file") and "the id of a row with one" in rows[6][0].expected


def test_where_no_cell_holds_a_picture_texts_are_names_alone(reader, tmp_path):
    (tmp_path / "2").write_bytes(FIRST)
    rows = read(reader(), [["2"], ["p.png"]], ["1", "2"])
    assert rows[0][0].picture == tmp_path / "2"
    assert "the id of a row" not in read(reader(), [["none"]], ["1"])[0][0].expected


def test_a_broken_picture_is_a_fault_of_every_row_that_refers_to_it(reader):
    rows = read(reader(), [[coded(FIRST[:40] + bytes(60))], ["1"], [SECOND]], ["1", "2", "3"])
    assert rows[0] == rows[1] and not isinstance(rows[0][0], LocatedPicture)
