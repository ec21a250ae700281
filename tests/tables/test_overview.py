"""How answers are spread, what occurs twice, what tables share."""

import base64
import csv
import json
from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import chi2, chisquare

from scoring.inputs.picture_store import PictureStore
from scoring.inputs.questions import Question
from scoring.tables.overview import balance, chi_square_p, overview
from scoring.tables.reading import TableOptions, read_table
from scoring.tables.table import Table

HEADER = ["id", "path", "question", "a", "b", "c", "answer"]


def answered(counts: dict[str, int], options: int = 4) -> list[Question]:
    letters = [letter for letter, count in counts.items() for _ in range(count)]
    return [Question(f"{n}", n + 1, (), "q", tuple("wxyz"[:options]), letter) for n, letter in enumerate(letters)]


@pytest.fixture
def table(tmp_path):
    """Write a table of rows (id, path, question, a, b, c, answer) and read it; pictures are named by their color."""

    def make(name: str, *rows: str):
        for row in rows:
            path = tmp_path / row.split(",")[1]
            if not path.exists():
                Image.new("RGB", (40, 30), path.stem.split("_")[0]).save(path)
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([HEADER, *(row.split(",") for row in rows)])
        return read_table(tmp_path / name)

    return make


def test_pictures_in_memory_tell_rows_apart():
    def row(number, *pictures):
        return Question(str(number), number, pictures, "q", ("x", "y"), "a")

    red = Image.new("L", (2, 2))
    rows = [row(1, b"red"), row(2, b"blue"), row(3, b"red"), row(4, red), row(5, Image.new("L", (2, 2))), row(6)]
    (found,) = overview([Table(Path("rows"), "", rows)]).tables
    assert found.copies == [["1", "3"], ["4", "5"]] and found.pictures == 4
    assert found.same_pictures == [["a picture in memory"] * 2]
    (overlap,) = overview([Table(Path("rows"), "", rows[:1]), Table(Path("rows"), "", rows[1:])]).overlaps
    assert overlap.rows == ["3"] == overlap.picture_rows and overlap.pictures == 1


# ------------------------------------------------------------------ letters
def test_the_balance_is_pearsons_chi_square():
    found = balance(answered({"a": 61, "b": 13, "c": 13, "d": 13}))
    assert found.counts == {"a": 61, "b": 13, "c": 13, "d": 13} and found.tested == 100
    assert (found.chi_square, found.degrees) == (pytest.approx(69.12), 3)  # (36² + 3 · 12²) / 25
    assert found.p == pytest.approx(chisquare([61, 13, 13, 13]).pvalue) and found.is_far_from_even


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 25, 300])
@pytest.mark.parametrize("chi_square", [0, 0.1, 3.84, 69.12, 400, 1e5])
def test_the_tail_of_chi_square_is_scipys(chi_square, degrees):
    assert chi_square_p(chi_square, degrees) == pytest.approx(chi2.sf(chi_square, degrees), rel=1e-11, abs=1e-300)


def test_rows_are_tested_among_those_with_as_many_options():
    rows = answered({"a": 50, "b": 50}, options=2) + answered({"a": 25, "b": 25, "c": 25, "d": 25})
    found = balance(rows)
    assert found.counts == {"a": 75, "b": 75, "c": 25, "d": 25}  # uneven, but only since some have two options
    assert (found.chi_square, found.degrees, found.p) == (0, 4, 1) and not found.is_far_from_even


def test_few_rows_are_not_tested_and_a_trifle_is_no_finding():
    assert balance(answered({"a": 19, "b": 0})).p == 1  # a fourth of 19 rows is less than 5
    assert balance([]).counts == {} and balance(answered({"": 9})).answers == 0
    trifle = balance(answered({"a": 25_600, "b": 24_800, "c": 24_800, "d": 24_800}))
    assert trifle.p < 0.001 and not trifle.is_far_from_even  # certain, but 1 % more than even


# ------------------------------------------------------------------ one table
def test_rows_that_ask_the_same_are_found_whatever_their_ids_and_order_of_options(table):
    read = table(
        "t.csv",
        "1,red.png,color?,red,blue,tan,a",
        "2,red.png,color?,blue,red,tan,b",  # the same, in another order
        "3,blue.png,color?,red,blue,tan,b",  # another picture
        "4,red.png,size?,red,blue,tan,a",  # another question
        "5,red_2.png,color?,red,blue,tan,b",  # the same picture under another name, and another answer
        "6,blue.png,color?,red,blue,tan,",  # not answered: no contradiction
    )
    found = overview([read]).tables[0]
    assert found.copies == [["1", "2", "5"], ["3", "6"]] and found.repeated == 3
    assert found.contradictions == [["1", "2", "5"]]
    assert found.same_pictures == [["red.png", "red_2.png"]]
    assert (found.rows, found.good, found.pictures, found.balance.answers) == (6, 6, 3, 5)


def test_faulty_rows_do_not_count(table, tmp_path):
    read = table("t.csv", "1,red.png,color?,red,blue,tan,a", "2,red.png,color?,red,blue,tan,z")
    found = overview([read]).tables[0]
    assert (found.rows, found.good, found.copies) == (2, 1, [])


def test_the_same_picture_is_named_relative_to_the_pictures_folder(table, tmp_path):
    table("t.csv", "1,red.png,q,x,y,z,a", "2,red_2.png,q,x,y,z,a")
    (tmp_path / "other").mkdir()
    moved = (tmp_path / "t.csv").rename(tmp_path / "other" / "t.csv")
    read = read_table(moved, TableOptions(images=tmp_path))
    assert overview([read]).tables[0].same_pictures == [["red.png", "red_2.png"]]


# ------------------------------------------------------------------ several tables
def test_what_tables_share_is_found_whatever_its_ids_and_names(table):
    train = table("train.csv", "1,red.png,color?,red,blue,tan,a", "2,blue.png,color?,red,blue,tan,b")
    test = table(
        "test.csv",
        "x,red_copy.png,color?,tan,red,blue,",
        "y,blue.png,size?,red,blue,tan,",
        "z,tan.png,color?,red,blue,tan,",
    )
    (found,) = overview([train, test]).overlaps
    assert (found.first.endswith("train.csv"), found.second.endswith("test.csv")) == (True, True)
    assert (found.rows, found.pictures, found.picture_rows) == (["x"], 2, ["x", "y"])
    pairs = overview([train, test, train]).overlaps
    assert [len(pair.rows) for pair in pairs] == [1, 2, 1]  # first and second, first and third, second and third


@pytest.mark.parametrize("keep", [True, False])
def test_pictures_inside_a_table_are_those_of_files_with_the_same_bytes(table, tmp_path, monkeypatch, keep):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = table("train.csv", "1,red.png,q,x,y,z,a", "2,blue.png,q,x,y,z,a")
    data = [base64.b64encode((tmp_path / name).read_bytes()).decode() for name in ("red.png", "red.png")]
    rows = [{"id": f"x{n}", "path": cell, "question": f"r{n}", "a": "x", "b": "y"} for n, cell in enumerate(data)]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    inside = read_table(tmp_path / "test.json", TableOptions(store=PictureStore(keep)))
    found = overview([files, inside])
    assert [each.pictures for each in found.tables] == [2, 1]
    assert (found.overlaps[0].rows, found.overlaps[0].pictures) == ([], 1)
    assert found.overlaps[0].picture_rows == ["x0", "x1"]
