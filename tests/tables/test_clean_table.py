"""The good rows as a table of our own: read again, they are the same questions."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from scoring.files.reading import FileError
from scoring.inputs.digests import digests_of_pictures
from scoring.inputs.pictures import read_picture
from scoring.inputs.questions import Question
from scoring.tables.clean_table import write_clean
from scoring.tables.reading import TableOptions, read_table
from scoring.tables.table import Table

CASES = Path(__file__).parents[1] / "cases" / "tables"


def same(first, second) -> bool:
    """Whether two lists of questions are equal, whatever their rows' numbers."""
    return [replace(row, row=0) for row in first] == [replace(row, row=0) for row in second]


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "p.png")
    return tmp_path


TABLES = {
    "letters": ("t.csv", 'id,path,question,a,b,c,answer,task_type,task_hint\nx,p.png," q ""1""\r\n ?",w,"x,y",,b,k,h'),
    "semicolons": ("t.csv", "id;path;question;a;b;answer\nx;p.png;q, or not;w;v;b"),
    "other names": ("t.tsv", "question_id\timage_path\tquestion\toption1\toption2\thint\n7\tp.png\tq\tw\tv\tlook"),
    "no ids, no answers": ("t.csv", "path,question,a,b\np.png,q,w,v\np.png,r,w,v"),
    "lists": ("t.csv", "path,question,choices,answer\np.png,q,\"['w', 'v', '1']\",v"),
    "numbers": (
        "t.jsonl",
        '{"path": "p.png", "question": "q", "choices": ["0", "1"], "answer": 1}\n'
        '{"path": "p.png", "question": "r", "choices": [3, "x"], "answer": 0}',
    ),
    "letters that are texts": ("t.csv", "path,question,a,b,c,answer\np.png,q,b,(a),a,(A)\np.png,r,w,v,u,w"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_clean_table_asks_the_same(folder, name):
    file, text = TABLES[name]
    (folder / file).write_bytes(text.encode())
    table = read_table(folder / file)
    assert table.good
    assert write_clean(table, folder / "clean.csv") == []
    clean = read_table(folder / "clean.csv")
    assert clean.problems == [] and clean.is_usual and same(clean.questions, table.good)


def test_pictures_in_memory_become_files_beside_the_table(folder):
    data, picture = (folder / "p.png").read_bytes(), Image.new("RGB", (8, 8), "blue")
    rows = [
        Question("1", 1, (data,), "q", ("w", "v"), "a"),
        Question("2", 2, (picture, folder / "p.png", data), "q", ("w", "v")),
    ]
    table = Table(Path("rows"), "", rows)
    assert write_clean(table, folder / "clean.csv") == [] == write_clean(table, folder / "clean.csv")
    clean = read_table(folder / "clean.csv")
    assert not clean.problems and [len(row.pictures) for row in clean.questions] == [1, 3]
    for row, read in zip(rows, clean.questions):
        for held, file in zip(row.pictures, read.pictures):
            assert read_picture(file).tobytes() == read_picture(held).tobytes()
    assert len(list((folder / "clean_pictures").iterdir())) == 2


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir() if path.is_file()))
def test_tables_of_benchmarks_keep_their_questions(tmp_path, demo, monkeypatch, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, clean = demo, tmp_path / "clean.csv"
    if not (table := read_table(CASES / name, TableOptions(images=demo))).good:
        folder, table = CASES, read_table(CASES / name)
    notices = write_clean(table, clean)
    options = TableOptions(images=folder, text_only_rows=not all(row.pictures for row in table.good))
    if table.pictures_inside:
        shutil.rmtree(tmp_path / "cache")
        options, files = TableOptions(), {digest for row in table.good for digest in digests_of_pictures([row])[0]}
        assert not notices and len([*(tmp_path / "clean_pictures").iterdir()]) == len(files)
    elif any(row.pictures for row in table.good):
        assert f"{clean}: its pictures are relative to {folder}; read it with --images {folder}" in notices
    again = read_table(clean, options)
    assert again.problems == [] and again.layout == "letters" and table.good
    assert same(without_names(again.questions), without_names(table.good))


def without_names(questions):
    """The questions with the digests of their pictures instead of these."""
    digests = map(tuple, digests_of_pictures(questions))
    return [replace(row, pictures=pictures) for row, pictures in zip(questions, digests)]


@pytest.mark.parametrize("name", ["[1].png", "{1}.png", "a, b.png"])
def test_names_that_look_like_lists_are_names(folder, name):
    (folder / "p.png").rename(folder / name)
    (folder / "t.json").write_text(json.dumps([{"path": [name, name], "question": "q", "a": "w", "b": "v"}]))
    table = read_table(folder / "t.json")
    write_clean(table, folder / "clean.csv")
    assert len(table.good[0].pictures) == 2 and same(read_table(folder / "clean.csv").questions, table.good)
    (folder / "one.json").write_text(json.dumps([{"path": [name], "question": "q", "a": "w", "b": "v"}]))
    table = read_table(folder / "one.json")
    write_clean(table, folder / "one.csv")
    assert table.good and same(read_table(folder / "one.csv").questions, table.good)


def test_the_columns_are_always_the_same_and_answers_are_letters(folder):
    (folder / "t.jsonl").write_text('{"path": "p.png", "question": "q", "choices": ["w", "v"], "answer": "v"}')
    write_clean(read_table(folder / "t.jsonl"), folder / "clean.csv")
    text = "id,path,question,a,b,answer,task_type,task_hint\n1,p.png,q,w,v,b,,\n"
    assert (folder / "clean.csv").read_bytes() == text.encode()


def test_faulty_rows_are_left_out_and_the_ids_of_the_others_stay(folder):
    (folder / "t.csv").write_text("path,question,a,b,answer\np.png,q,w,v,c\nnone.png,q,w,v,a\np.png,q,w,v,a\n")
    table = read_table(folder / "t.csv")
    write_clean(table, folder / "clean.csv")
    clean = read_table(folder / "clean.csv")
    assert [row.id for row in clean.questions] == ["3"] and same(clean.questions, table.good)
    (folder / "bad.csv").write_text("path,question,a,b,answer\np.png,q,w,v,c\n")
    with pytest.raises(FileError, match="found no row without a fault"):
        write_clean(read_table(folder / "bad.csv"), folder / "none.csv")
    assert not (folder / "none.csv").exists()


# ------------------------------------------------------------------ pictures
def test_rows_without_pictures_stay_so(folder):
    (folder / "t.csv").write_text("path,question,a,b\np.png,q,w,v\n,r,w,v\n")
    words = TableOptions(text_only_rows=True)
    table = read_table(folder / "t.csv", words)
    (notice,) = write_clean(table, folder / "clean.csv")
    assert "some rows have no picture; read it with --text-only-rows" in notice
    assert same(read_table(folder / "clean.csv", words).questions, table.questions)
    (folder / "words.csv").write_text("question,a,b\nq,w,v\n")
    table = read_table(folder / "words.csv")
    assert write_clean(table, folder / "clean words.csv") == []
    assert same(read_table(folder / "clean words.csv").questions, table.questions)


@pytest.mark.parametrize("question", ["<image>", "<image 1> ", "Is <image> a dog?", "<image 1>Is <image 1> a dog?"])
def test_marks_of_pictures_keep_their_places(folder, question):
    (folder / "t.csv").write_text(f"path,question,a,b\np.png,{question},w,v\n")
    table = read_table(folder / "t.csv")
    write_clean(table, folder / "clean.csv")
    assert table.good and same(read_table(folder / "clean.csv").questions, table.questions)


def test_pictures_are_named_from_the_folder_of_the_file_where_they_are_inside_it(folder):
    (folder / "images").mkdir()
    (folder / "p.png").rename(folder / "images" / "p.png")
    (folder / "t.csv").write_text("path,question,a,b\np.png,q,w,v\n")
    table = read_table(folder / "t.csv", TableOptions(images=folder / "images"))
    assert write_clean(table, folder / "clean.csv") == []
    assert same(read_table(folder / "clean.csv").questions, table.questions)
    with open(folder / "clean.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["images/p.png"]


def test_pictures_in_several_folders_keep_their_whole_names(folder):
    (folder / "data").mkdir()
    Image.new("RGB", (40, 30), "blue").save(folder / "data" / "p.png")
    (folder / "data" / "t.csv").write_text("path,question,a,b\np.png,q,w,v\n../p.png,q,w,v\n")
    outside = TableOptions(allow_outside=True)
    table = read_table(folder / "data" / "t.csv", outside)
    (notice,) = write_clean(table, folder / "new" / "clean.csv")
    assert "read it with --allow-outside" in notice
    assert same(read_table(folder / "new" / "clean.csv", outside).questions, table.questions)


# ------------------------------------------------------------------ what is there already
def test_a_file_is_only_replaced_by_itself(folder):
    (folder / "t.json").write_text(json.dumps([{"path": "p.png", "question": "q", "a": "w", "b": "v"}]))
    table, clean = read_table(folder / "t.json"), folder / "clean.csv"
    write_clean(table, clean)
    written = clean.stat().st_mtime_ns
    write_clean(table, clean)
    assert clean.stat().st_mtime_ns == written
    clean.write_text("mine")
    for taken in (clean, folder, folder / "t.json"):
        with pytest.raises(FileError, match="exists and holds something else; choose another name for --write"):
            write_clean(table, taken)
    assert clean.read_text() == "mine"
