"""A table that is read by ranges is the same as one that is read at once: its questions, faults and notices."""

import csv
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from scoring.errors import InputError
from scoring.inputs.picture_store import PictureStore
from scoring.readers.opening import open_table
from scoring.tables.large import LargeTable, holds_more_rows
from scoring.tables.reading import TableOptions, read_in_ranges, read_table
from scoring.tables.table import Table
from scoring.tables.usable import usable
from tests.shared.picture_tables import IMAGE, coded, image, pictures

CASES = Path(__file__).resolve().parents[1] / "cases" / "tables"
HELD = (1, 2, 3, 7)  # rows of a range


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Pictures of tables are kept here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def by_ranges(monkeypatch):
    """Read a table by ranges of so many rows."""

    def read(path: Path, held: int, **options) -> Table | LargeTable:
        monkeypatch.setattr("scoring.tables.reading.ROWS_HELD", held)
        return read_in_ranges(path, TableOptions(**options))

    return read


@pytest.fixture
def same(by_ranges):
    """Read a table at once, which is returned, and by ranges, each of a table that is as the whole."""

    def compare(path: Path, held: tuple[int, ...] = HELD, **options) -> Table:
        whole = read_table(path, TableOptions(**options))
        for rows in held:
            large = by_ranges(path, rows, **options)
            assert isinstance(large, LargeTable) == (whole.count > rows), (whole.count, rows)
            if isinstance(large, LargeTable):
                check_equal(large, whole, rows)
        return whole

    return compare


def check_equal(large: LargeTable, whole: Table, held: int) -> None:
    """All that is asked of a table is the same in both."""
    tables = list(large.tables())
    assert [question for table in tables for question in table.questions] == whole.questions
    assert [problem for table in tables for problem in table.problems] == large.problems == whole.problems
    assert [len(table.questions) for table in tables[:-1]] == [held] * (len(large.ends) - 1)
    assert 1 <= len(tables[-1].questions) <= held
    for table in tables:
        assert (table.letters, table.about(), table.reading_with(True, True), table.is_usual_with(True)) == (
            whole.letters,
            whole.about(),
            whole.reading_with(True, True),
            whole.is_usual_with(True),
        )
    for name in ("file", "letters", "count", "good_count", "notices", "is_usual"):
        assert getattr(large, name) == getattr(whole, name), name
    assert (large.reading(), large.ids()) == (whole.reading(), whole.ids())
    assert large.read_all() == whole
    for count in (1, held + 1):
        assert large.first(count) == replace(whole, questions=whole.questions[:count])
    assert _told(large) == _told(whole)


def _told(table: Table | LargeTable) -> list[str]:
    """What `usable` tells of a table, with skipping and without."""
    lines: list[str] = []
    for skip in (False, True):
        try:
            assert usable(table, skip, lines.append) is table
        except InputError as error:
            lines.append(str(error))
    return lines


# ------------------------------------------------------------------ tables of all kinds
def write_rows(path: Path, rows: list[dict], header: list[str] | None = None) -> Path:
    """A CSV of these rows, in whose folder lie the pictures p0.png and p1.png."""
    for number, color in enumerate(("red", "blue")):
        Image.new("RGB", (40 + number, 30), color).save(path.parent / f"p{number}.png")
    text = io.StringIO()
    writer = csv.DictWriter(text, header or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), "utf-8")
    return path


def made_rows(count: int = 15, **cells) -> list[dict]:
    """Rows of a usual table. cells: others for all; functions of the row's number from 0."""
    usual = {
        "id": lambda n: f"r{n}",
        "path": lambda n: f"p{n % 2}.png",
        "question": lambda n: f"무엇인가요 {n}?",
        "a": "w",
        "b": "x",
        "c": lambda n: "y" if n % 3 else "",
        "answer": lambda n: "ab"[n % 2],
    }
    made = {**usual, **cells}
    return [{name: cell(n) if callable(cell) else cell for name, cell in made.items()} for n in range(count)]


PATTERNS = {  # what a table of 15 rows has that only all rows show, or that only some have
    "usual": {},
    "no ids": {"id": lambda n: ""},
    "answers from 0": {"answer": lambda n: 0 if n == 9 else 1},
    "answers from 1": {"answer": lambda n: 3 if n == 14 else 1, "c": "y"},
    "answers as texts": {"answer": "x", "a": "7", "b": lambda n: "x" if n else "8"},
    "letters of their own": {"a": "A. w", "b": "(B) x", "c": "", "answer": "B. x"},
    "letters in some": {"a": lambda n: "A. w" if n > 10 else "w", "b": lambda n: "B. x" if n > 10 else "x", "c": ""},
    "more options at the end": {"d": lambda n: "z" if n == 14 else "", "c": "y"},
    "no picture in some": {"path": lambda n: "" if n % 4 else "p0.png"},
    "a picture in the last row": {"path": lambda n: "p0.png" if n == 14 else ""},
    "pictures that are missing": {"path": lambda n: f"none{n % 3}.png" if n % 5 == 0 else "p0.png"},
    "lists of pictures": {"path": lambda n: '["p0.png", "p1.png"]' if n % 3 == 0 else "p1.png"},
    "marks": {"question": "<image> or <image 2>?", "path": lambda n: "['p0.png', 'p1.png']" if n % 2 else "p0.png"},
    "no answer in some": {"answer": lambda n: "" if n > 7 else "a"},
    "equal options": {"a": lambda n: "x" if n in (4, 8) else "w"},
    "options listed twice": {"question": lambda n: "Which? (A) w (B) x (C) y" if n in (5, 9) else "Which?", "c": "y"},
    "blank questions": {"question": lambda n: "" if n % 6 == 1 else "q"},
    "no good row": {"question": ""},
    "gaps": {"a": lambda n: "" if n == 6 else "w"},
    "in words alone": {"path": lambda n: ""},
    "outside": {"path": lambda n: "../p.png" if n > 11 else "p0.png"},
}


@pytest.mark.parametrize("name", PATTERNS)
def test_ranges_are_the_table(tmp_path, same, name):
    (tmp_path / "t").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    path = write_rows(tmp_path / "t" / "t.csv", made_rows(**PATTERNS[name]))
    if name in ("no ids", "in words alone"):
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        column = "id" if name == "no ids" else "path"
        write_rows(path, [{key: cell for key, cell in row.items() if key != column} for row in rows])
    same(path)
    for options in ({"text_only_rows": True}, {"allow_outside": True}, {"deep": True}):
        same(path, (4,), **options)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("cp949"),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\nr", "\n,,,,,,\nr").encode(),
        lambda text: text.replace("\nr", "\n\nr").replace("무엇인가요 3?", '"한 줄\n또 한 줄"').encode(),
        lambda text: gzip.compress(text.encode()),
    ],
)
def test_ranges_of_text_in_every_encoding(tmp_path, same, encode):
    path = write_rows(tmp_path / "t.csv", made_rows(path=lambda n: "none.png" if n == 12 else "p0.png"))
    text = path.read_text("utf-8").replace("무엇인가요 12?", '"한 줄\n또 ""한"" 줄"')
    path.write_bytes(encode(text))
    assert same(path).problems


def test_ranges_of_a_long_cell_and_more_rows_than_a_block(tmp_path, same):
    """csv's own limit is met in the middle; the rows are read on from there."""
    rows = made_rows(2_500, question=lambda n: "q" * 150_000 if n == 1_700 else "q" * 300_000 if n == 2_001 else "q")
    same(write_rows(tmp_path / "t.csv", rows), (999, 1_000, 1_001))


@pytest.mark.parametrize("kind", ["lines", "list", "parquet", "chat", "choices"])
def test_ranges_of_other_formats(tmp_path, same, kind):
    path = tmp_path / "t"
    rows = made_rows(path=lambda n: "p1.png" if n != 5 else None)
    write_rows(tmp_path / "t.csv", rows)
    if kind in ("chat", "choices"):
        for number, row in enumerate(rows):
            options = [row.pop(letter) for letter in "abc"]
            if kind == "choices":
                row |= {"choices": options[: 2 + number % 2], "answer": number % 2}
            else:
                asked = f"<image>{row.pop('question')}\n(A) w\n(B) x\nAnswer with the option's letter."
                turns = [("system", f"be kind {number % 7}"), ("human", asked), ("gpt", row.pop("answer"))]
                row["conversations"] = [{"from": who, "value": text} for who, text in turns[number % 2 :]]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=4)
    elif kind == "list":
        path.write_text(json.dumps({"rows": rows}))
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    table = same(path)
    assert [problem.row for problem in table.problems] == [6]
    assert (table.notices != []) == (kind in ("chat", "choices"))


@pytest.mark.parametrize("rows", [6, 15])
def test_ranges_of_a_folder_and_of_a_split(tmp_path, same, rows):
    """Ranges that end within files; rows of a split that do not follow each other."""
    made = made_rows(rows, split=lambda n: "ab"[n % 3 > 0], path=lambda n: "p0.png" if n % 4 else "none.png")
    write_rows(tmp_path / "t.csv", made)
    folder = tmp_path / "set"
    folder.mkdir()
    Image.new("RGB", (40, 30)).save(folder / "p0.png")
    for number, (start, end) in enumerate([(0, 4), (4, 5), (5, rows)]):
        columns = pa.Table.from_pylist(made[start:end])
        columns = columns.select(columns.column_names[:: -1 if number == 1 else 1])
        pq.write_table(columns, folder / f"test-{number:05}-of-00003.parquet", row_group_size=2)
    assert same(tmp_path / "t.csv", split="b").count == same(tmp_path / "t.csv", split="a").count * 2
    assert same(folder).problems and same(folder, split="test").problems


def test_ranges_of_columns_that_are_renamed(tmp_path, same):
    names = {"id": "kennung", "question": "Frage", "path": "Bild", "a": "eins", "b": "zwei", "answer": "Lösung"}
    rows = [{names.get(name, name): cell for name, cell in row.items() if name != "c"} for row in made_rows()]
    same(write_rows(tmp_path / "t.csv", rows), columns=names)


FILES = sorted(path.name for path in CASES.iterdir() if path.is_file())


@pytest.mark.parametrize("name", FILES)
def test_ranges_of_benchmarks_and_tools(same, demo, name):
    """Rows of one file refer to others for their pictures, so that it is read as a whole."""
    if name == "vlmevalkit_references.tsv":
        pytest.skip("see the tests of references")
    for options in ({}, {"text_only_rows": True}, {"images": demo}, {"answers": "letters"}):
        same(CASES / name, (1, 2), **options)


def test_ranges_of_the_demo(same, demo):
    assert same(demo / "test.csv", (90, 399)).count == 400


# ------------------------------------------------------------------ pictures inside cells
def held_in(kind: str) -> list:
    """15 cells with pictures."""
    data = pictures()
    if kind == "base64":
        return [coded(data[n % 3]) for n in range(15)]
    if kind == "lists":
        return [json.dumps([coded(data[n % 3]), coded(data[0])]) for n in range(15)]
    return [image(data[n % 3]) for n in range(15)] if kind == "dicts" else [data[n % 3] for n in range(15)]


def write_held(path: Path, cells: list, **others) -> Path:
    """A table with these cells as pictures: Parquet, or a CSV where all are texts."""
    Image.new("RGB", (40, 30)).save(path.parent / "p0.png")
    rows = made_rows(len(cells), path="", **others)
    for row, cell in zip(rows, cells):
        row["path"] = cell
    if all(isinstance(cell, str) for cell in cells):
        return write_rows(path, rows)
    kind = IMAGE if any(isinstance(cell, dict) for cell in cells) else pa.binary()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = {name: pa.array(values, kind if name == "path" else None) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), path, row_group_size=5)
    return path


@pytest.mark.parametrize("kind", ["base64", "lists", "dicts", "bytes"])
def test_ranges_of_pictures_inside_the_table(tmp_path, same, kind):
    cells = held_in(kind)
    cells[4] = cells[4][:90] if isinstance(cells[4], str | bytes) else {"bytes": cells[4]["bytes"][:60], "path": None}
    cells[8] = "" if isinstance(cells[8], str) else None
    path = write_held(tmp_path / "t", cells)
    assert [problem.row for problem in same(path).problems] == [5, 9]
    same(path, (4,), text_only_rows=True)
    same(path, (4,), deep=True, store=PictureStore(keep=False))


@pytest.mark.parametrize("first", [1, 14, 130])
def test_ranges_without_a_picture_know_that_others_hold_some(tmp_path, same, first):
    """Such as in what is expected of a name; also where a table holds its first picture behind its first rows."""
    cells = ["p0.png"] * 3 + ["none.png"] * (first - 1) + [coded(pictures()[0])] + ["none.png", "p0.png"]
    table = same(write_held(tmp_path / "t.csv", cells))
    assert table.pictures_inside and len(table.problems) == first
    assert {problem.expected for problem in table.problems} == {
        "a picture, the id of a row with one, or a picture's file"
    }


@pytest.mark.parametrize("first", [0, 130])
@pytest.mark.parametrize("cell", ["r{}", " r{} ", "['r{}', 'p0.png']", '{{"path": "r{}"}}', " " * 70 + "r{}"])
def test_rows_that_share_the_pictures_of_others_are_read_at_once(tmp_path, by_ranges, cell, first):
    """Across ranges, wherever the first such cell and the first picture are."""
    cells = ["p0.png"] * first + [cell.format(first + 4), *held_in("base64")]
    path = write_held(tmp_path / "t.csv", cells)
    whole = read_table(path)
    assert whole.questions[first].pictures[:1] == whole.questions[first + 4].pictures
    read = by_ranges(path, 3)
    assert isinstance(read, Table) and read == whole


def test_rows_that_share_a_picture_in_one_of_several_columns_are_read_at_once(tmp_path, by_ranges):
    data = coded(pictures()[0])
    rows = [{"id": f"r{n}", "image_1": data, "image_2": "", "question": "q", "a": "x", "b": "y"} for n in range(9)]
    rows[7]["image_2"] = "r2"
    path = write_rows(tmp_path / "t.csv", rows)
    assert by_ranges(path, 3) == read_table(path)


def test_names_that_are_ids_are_files_where_no_cell_holds_a_picture(tmp_path, same):
    rows = made_rows(id=lambda n: f"p{n}.png" if n < 2 else f"r{n}")
    assert not same(write_rows(tmp_path / "t.csv", rows)).problems


# ------------------------------------------------------------------ faults
def refused(read) -> list:
    with pytest.raises(InputError) as caught:
        read()
    return caught.value.problems


FAULTY = {
    "ids within a range": {"id": lambda n: "r0" if n == 1 else f"r{n}"},
    "ids across ranges": {"id": lambda n: f"r{n % 6}", "path": lambda n: "none.png" if n % 4 == 3 else "p0.png"},
    "one id": {"id": "r"},
    "uncertain answers": {"answer": "2", "c": "y"},
    "uncertain answers and ids": {"answer": "1", "id": lambda n: f"r{n // 2}", "question": lambda n: "q" * (n % 3)},
    "numbers that are texts": {"answer": "2", "a": "1", "b": "2"},
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.parametrize("held", HELD)
def test_a_faulty_table_is_refused_with_the_same_faults(tmp_path, by_ranges, name, held):
    path = write_rows(tmp_path / "t.csv", made_rows(**FAULTY[name]))
    problems = refused(lambda: read_table(path))
    assert refused(lambda: by_ranges(path, held)) == problems


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("line", ["r3,p0.png", "r3,p0.png,q,a,b,c,d,e,f,g", '"r3', "r3,p0.png,none,,b,c,a"])
def test_rows_that_do_not_fit_are_refused_with_all_faults(tmp_path, by_ranges, line, held):
    path = write_rows(tmp_path / "t.csv", made_rows(question=lambda n: "" if n % 5 == 2 else "q"))
    lines = path.read_text("utf-8").splitlines()
    for number in (4, 5, 11):
        lines[number] = line
    path.write_text("\n".join(lines), "utf-8")
    assert refused(lambda: by_ranges(path, held)) == refused(lambda: read_table(path))


@pytest.mark.parametrize(
    "content", ["", "id,path,question,a,b\n", "question,a,b\n,,\n\n", "[]", "{}", "question,x\nq,y\n"]
)
def test_tables_without_rows_or_options_are_refused_alike(tmp_path, by_ranges, content):
    path = tmp_path / "t.csv"
    path.write_text(content)
    assert refused(lambda: by_ranges(path, 1)) == refused(lambda: read_table(path))


def test_a_split_that_is_not_there_is_refused_alike(tmp_path, by_ranges):
    path = write_rows(tmp_path / "t.csv", made_rows(split="dev"))
    assert refused(lambda: by_ranges(path, 2, split="test")) == refused(
        lambda: read_table(path, TableOptions(split="test"))
    )


def test_of_very_many_faults_the_first_are_listed_and_the_others_counted(tmp_path, by_ranges, monkeypatch):
    monkeypatch.setattr("scoring.tables.large.MOST_PROBLEMS", 4)
    path = write_rows(tmp_path / "t.csv", made_rows(question=""))
    large, whole = by_ranges(path, 3), read_table(path)
    assert large.problems[:-1] == whole.problems[:4] and len(large.read(4).problems) == 3
    assert large.problems[-1].text.startswith("found 11 further faults of rows, which are not listed; ")
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], *(line + ",x" for line in lines[1:])]), "utf-8")
    assert refused(lambda: by_ranges(path, 3)) == refused(lambda: read_table(path))[:4]
    write_rows(path, made_rows(id="r", question=""))
    assert len(refused(lambda: by_ranges(path, 3))) == 8


def test_a_file_that_changes_between_two_ranges_is_refused(tmp_path, by_ranges):
    path = write_rows(tmp_path / "t.csv", made_rows())
    large = by_ranges(path, 6)
    assert large.read(0).questions[0].id == "r0"
    write_rows(path, made_rows()[:0:-1])
    with pytest.raises(InputError, match="another file than at the start; .*--overwrite"):
        large.read(1)
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        large.read(1)


# ------------------------------------------------------------------ how many rows
@pytest.mark.parametrize("count, ends", [(7, None), (8, [7, 8]), (14, [7, 14]), (15, [7, 14, 15])])
@pytest.mark.parametrize("kind", ["csv", "gz", "jsonl", "parquet"])
def test_a_table_is_read_by_ranges_where_it_has_more_rows_than_one_holds(tmp_path, by_ranges, count, ends, kind):
    rows = [{"question": "q", "choices": '["x","y"]'}] * count
    path = tmp_path / "t"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        text = write_rows(path, rows).read_bytes()
        path.write_bytes(gzip.compress(text) if kind == "gz" else text)
    read = by_ranges(path, 7)
    assert (list(read.ends) if isinstance(read, LargeTable) else None) == ends


def test_a_packed_table_has_more_rows_than_its_size_tells(tmp_path, by_ranges):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"question,a,b\n" + b"q,x,y\n" * 1_000))
    assert isinstance(by_ranges(path, 500), LargeTable)


def test_rows_of_a_split_are_not_counted_where_the_whole_file_is_held(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    rows = {"id": list("abcd"), "split": ["x", "y", "x", "y"]}
    pq.write_table(pa.table(rows), path)
    table = open_table(path, {"id"}, split="x")
    assert holds_more_rows(table, 1) and not holds_more_rows(table, 2)
    monkeypatch.setattr(type(table), "rows", None)
    assert not holds_more_rows(table, 4)
