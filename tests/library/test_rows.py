"""Rows in every form that a program has: what they mean, and that a bad one costs itself alone."""

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scoring.errors import InputError
from scoring.inputs.pictures import PictureError, PictureLimits
from scoring.inputs.questions import Question
from scoring.library.rows import as_table, question_of
from scoring.tables.reading import TableOptions, read_questions, read_table
from tests.shared.picture_tables import coded, pictures, write_tables
from tests.shared.pictures import noise

ROWS = [
    {"id": "x", "path": "p.png", "question": "q?", "choices": ["w", "v"], "answer": "b", "hint": "h", "category": "t"},
    {"id": "y", "path": "p.png", "question": "see <image>", "choices": ["1", "2", "3"], "answer": 2},
    {"id": "z", "path": "", "question": "in words", "choices": '["a", "b"]', "answer": None},
    {"id": "n", "path": "none.png", "question": " ", "choices": {"A": "w", "B": "v"}, "answer": "z"},
]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of its own, in which nothing may be written."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder
    assert not os.listdir(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    noise("RGB", (40, 30)).save(folder / "p.png")
    (folder / "t.json").write_text(json.dumps(ROWS))
    return folder


def asked(pictures, **changes):
    """A good row with these pictures."""
    return {"image": pictures, "question": "q?", "options": ["w", "v"], "answer": "a"} | changes


def faults_of(table) -> dict[int, str]:
    """What was found, by the numbers of the faulty rows."""
    assert {problem.row for problem in table.problems} == {row.row for row in table.questions if row.fault}
    return {
        row.row: row.fault.partition("found ")[2].partition("; expected")[0] for row in table.questions if row.fault
    }


# ------------------------------------------------------------------ the same as in a file
@pytest.mark.parametrize("form", [list, tuple, iter, lambda rows: (row for row in rows), pd.DataFrame, pd.Series])
def test_rows_mean_what_the_same_columns_in_a_file_mean(folder, form):
    read = read_table(folder / "t.json", TableOptions(text_only_rows=True))
    table = as_table(form(ROWS), folder, TableOptions(text_only_rows=True))
    assert table.questions == read.questions and [row.id for row in table.good] == ["x", "y", "z"]
    assert (table.columns, table.layout, table.answers) == (read.columns, read.layout, read.answers)
    name = "DataFrame" if form is pd.DataFrame else "rows"
    assert [replace(problem, file=str(read.file)) for problem in table.problems] == read.problems
    assert {problem.file for problem in table.problems} == {name} == {str(table.file)} == {table.format}


def test_a_path_a_table_and_the_options_of_reading(folder):
    read = as_table(str(folder / "t.json"))
    assert as_table(folder / "t.json").questions == read.questions == read_table(folder / "t.json").questions
    assert as_table(read) is read
    rows = [{"frage": "q", "w": "x", "b": "y", "split": part} for part in ("test", "train")]
    options = TableOptions(columns={"question": "frage", "a": "w"}, split="train")
    (question,) = as_table(rows, options=options).questions
    assert (question.question, question.options, question.row) == ("q", ("x", "y"), 2)


def test_tables_of_benchmarks_are_the_same_as_frames(tmp_path, monkeypatch):
    """Pictures inside stay in memory: the same bytes as in the files that a table's file leaves in the cache."""
    write_tables(tmp_path)
    for path in sorted(tmp_path.glob("*.parquet")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "kept"))
        read = read_table(path)
        table = as_table(pd.read_parquet(path))
        held = [replace(row, pictures=tuple(file.read_bytes() for file in row.pictures)) for row in read.questions]
        assert table.questions == held and table.pictures_inside, path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))


def test_base64_and_conversations_hold_pictures_too():
    first, second, _ = pictures()
    turns = [{"role": "user", "content": [{"type": "image", "image": Image.open(io.BytesIO(first))},
                                          {"type": "text", "text": "What is it?\nA. cat\nB. dog"}]}]  # fmt: skip
    (talk,) = as_table([{"messages": turns}]).questions
    assert talk.options == ("cat", "dog") and talk.sizes == ((40, 30),) and not talk.fault
    (row,) = as_table([asked([coded(first), second])]).questions
    assert row.pictures == (first, second) and row.sizes == ((40, 30), (48, 36))


def test_relative_paths_are_relative_to_images_or_else_to_the_current_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "inside").mkdir()
    for name in ("rows", "DataFrame"):  # what messages call the rows is no folder of theirs
        (tmp_path / name).mkdir()
    noise("RGB", (8, 8)).save(tmp_path / "q.png")
    monkeypatch.chdir(tmp_path)
    row, question = asked("q.png"), Question("k", 1, (Path("q.png"),), "q", ("w", "v"))
    for rows in ([row], [question], pd.DataFrame([row])):
        assert as_table(rows).questions[0].pictures == ((tmp_path / "q.png").resolve(),)
    assert as_table([asked(folder / "p.png"), Question("k", 1, (folder / "p.png",), "q", ("w", "v"))]).problems == []
    assert as_table([row, question], tmp_path).problems == []
    assert faults_of(as_table([row], tmp_path / "inside")) == {1: f"'q.png': no file 'q.png' in {tmp_path / 'inside'}"}
    assert "leads outside" in as_table([asked(str(tmp_path / "q.png"))], tmp_path / "inside").questions[0].fault
    assert as_table([asked("../q.png")], "inside", TableOptions(allow_outside=True)).problems == []
    assert as_table([row], tmp_path).images == str(tmp_path.resolve()) and as_table([row]).images is None


# ------------------------------------------------------------------ pictures as objects
def test_a_cell_may_hold_a_picture_in_any_form(folder):
    data, array = (folder / "p.png").read_bytes(), np.zeros((30, 40, 3), np.uint8)
    with Image.open(folder / "p.png") as lazy, open(folder / "p.png", "rb") as file:
        forms = [data, bytearray(data), lazy, array, io.BytesIO(data), file, {"bytes": data}, folder / "p.png"]
        rows = [asked(form) for form in forms] + [asked([data, lazy, str(folder / "p.png")])]
        for given in (rows, pd.DataFrame(rows)):
            for read in (io.BytesIO, type(file)):
                for form in forms:
                    if isinstance(form, read):
                        form.seek(0)
            table = as_table(given)
            assert not table.problems and [row.sizes for row in table.questions] == [((40, 30),)] * 8 + [
                ((40, 30),) * 3
            ]
            assert [type(row.picture) for row in table.questions[:2]] == [bytes, bytes]
            assert table.questions[2].picture is lazy and table.questions[8].pictures[:2] == (data, lazy)


def test_objects_in_columns_that_are_not_read_do_no_harm():
    rows = [{"question": "q", "a": "w", "b": "v", "embedding": np.zeros((4, 4)), "meta": object()}]
    assert as_table(rows).problems == []
    with pytest.raises(InputError, match="no such column, but pictures in column 'photo'; .*--column path=photo"):
        as_table([{"question": "q", "a": "w", "b": "v", "photo": Image.new("L", (4, 4))}])


def test_an_object_in_several_rows_is_read_once_and_is_one_picture():
    file, array = io.BytesIO(pictures()[0]), np.zeros((30, 40), np.uint8)
    table = as_table([asked(file), asked([array, file]), asked(array), *[asked(file)] * 300])
    assert not table.problems and table.questions[1].pictures[0] is table.questions[2].picture
    assert len({id(picture) for row in table.questions for picture in row.pictures}) == 2
    questions = [Question(str(n), n, (io, array), "q", ("w", "v")) for n, io in enumerate([io.BytesIO(b"x")] * 2)]
    assert faults_of(as_table(questions)) == dict.fromkeys((1, 2), "picture 1 of 2: text, 'x'")


def test_deep_reading_decodes_objects_too():
    cut = pictures()[0][:-30]
    for form in (cut, Image.open(io.BytesIO(cut))):
        assert not as_table([asked(form)]).problems
        assert "broken pixels" in as_table([asked(form)], options=TableOptions(deep=True)).questions[0].fault


# ------------------------------------------------------------------ one bad object costs its row alone
def test_every_bad_row_is_a_fault_of_its_own(folder):
    data = (folder / "p.png").read_bytes()
    good = Question("good", 1, (data,), "q", ("w", "v"), "a")
    rows = [
        asked(data),
        None,
        "text",
        ("w", "v"),
        asked(data[:20]),
        asked(object()),
        asked(np.zeros((3, 4, 5), np.uint8)),
        asked(data, options=[]),
        asked(data, options={"w", "v"}),
        asked(data, options={"w": 1, "v": 2}),
        asked(data, options=[str(number) for number in range(27)]),
        asked(data, question=Image.new("L", (2, 2))),
        asked(data, options=["w", Image.new("L", (2, 2))]),
        {},
        good,
        replace(good, id="none", pictures=None, options=()),
        replace(good, id="one", pictures=data),
        replace(good, id="list", pictures=([data],)),
        replace(good, id="large", limits=PictureLimits(pixels=100)),
        replace(good, id="fault", fault="row 3: found nothing"),
        replace(good, id=None),
        asked("http://x.org/p.png"),
        asked(Image.new("F", (4, 4))),
    ]
    table = as_table(iter(rows))
    assert [row.row for row in table.questions] == list(range(1, 24))
    assert faults_of(table) == {
        2: "None",
        3: "a str",
        4: "a tuple",
        5: "20 bytes: a broken picture (Truncated File Read)",
        6: "<object>: an object",
        7: "<numpy.ndarray>: an array of uint8 with shape (3, 4, 5)",
        8: "0 options",
        9: "a set, which has no order",
        10: '\'{"w": 1, "v": 2}\'',
        11: "27 options",
        12: "<PIL.Image>",
        13: '\'["w", "<PIL.Image>"]\'',
        14: "an empty cell",
        16: "0 options",
        18: "a list",
        19: "over 100 pixels",
        20: "nothing",
        21: "None",
        22: "'http://x.org/p.png': a URL, 'http://x.org/p.png'",
        23: "<PIL.Image>: 32-bit pixels (mode F)",
    }
    assert table.questions[19].fault == "row 3: found nothing" and as_table([None]).letters == "ab"
    assert [row.id for row in table.good] == ["1", "good", "one"] and table.letters == "ab"  # not 26, of row 11


def test_ids_are_those_of_tables(folder):
    question = Question("k", 7, (), "q", ("w", "v"))
    rows = [{"question": "q", "a": "w", "b": "v"}, question, None, replace(question, id="3")]
    assert [row.id for row in as_table(rows).questions] == ["1", "k", "row 3", "3"]
    for repeated in ([question, question], [{**ROWS[0], "path": ""}, replace(question, id="x")]):
        with pytest.raises(InputError, match="row 2 .*found '[kx]' again .first in row 1.; expected a unique id"):
            as_table(repeated)
    with pytest.raises(InputError, match="'x' again"):
        as_table([ROWS[0], ROWS[0]])


def test_questions_of_a_table_pass_unchanged(demo):
    questions = read_questions(demo / "test.csv")[:20]
    table = as_table(questions)
    assert table.questions == [replace(question, row=number) for number, question in enumerate(questions, 1)]
    assert table.problems == [] and table.reading().startswith("rows")


# ------------------------------------------------------------------ rows that cannot be read at all
class Frame:
    def to_dicts(self):
        raise AssertionError


@pytest.mark.parametrize(
    "rows, message",
    [
        (
            [],
            "rows: found no rows; expected a table's path, a DataFrame, or a list of dicts or Questions; give at least",
        ),
        (iter(()), "found no rows"),
        (pd.DataFrame({"question": [], "a": [], "b": []}), "DataFrame: found no rows"),
        ("none.csv", "none.csv: found no such file"),
        ("a,b\n1,2", "the text 'a,b.n1,2', which is no path"),
        ("", "the text '', which is no path"),
        ("x" * 5000, "which is no path"),
        ("a\0b", "which is no path"),
        (None, "found None"),
        (5, "found an int"),
        (b"x", "found a bytes"),
        ({"question": "q"}, "found a dict; .*put it into a list"),
        (Question("1", 1, (), "q", ("w", "v")), "found a scoring.Question; .*put it into a list"),
        (Frame(), "give the result of its to_dicts"),
        ([{3: "x"}], "a column named 3, int"),
        ([{"question": "q"}], "option columns none among 'question'"),
    ],
)
def test_what_is_no_table_is_refused_in_words(rows, message):
    with pytest.raises(InputError, match=message):
        as_table(rows)


# ------------------------------------------------------------------ the digest
def test_the_same_rows_have_the_same_digest_and_others_another(folder):
    data = (folder / "p.png").read_bytes()
    rows = [asked(data), asked(Image.open(io.BytesIO(data))), asked(folder / "p.png")]
    digest = as_table(rows).digest
    again = [asked(io.BytesIO(data)), asked(Image.open(io.BytesIO(data))), asked(str(folder / "p.png"))]
    assert len(digest) == 64 and digest == as_table(again).digest == as_table(rows).digest
    white = Image.new("RGB", (40, 30), "white")
    changed = [rows[:2], rows[::-1], [*rows[:2], asked(white)], [asked(data, question="?"), *rows[1:]]]
    changed += [[asked(data, options=["w", "u"]), *rows[1:]], [asked(data, answer="b"), *rows[1:]]]
    assert len({digest, *(as_table(other).digest for other in changed)}) == 7
    assert as_table(as_table(rows[:1]).questions).digest == as_table(rows[:1]).digest


# ------------------------------------------------------------------ one question
def test_one_question_is_asked_about_one_several_or_no_pictures(folder, monkeypatch):
    monkeypatch.chdir(folder)
    data, path = (folder / "p.png").read_bytes(), (folder / "p.png").resolve()
    one = question_of("p.png", "q", ["w", "v"], hint="h", task_type="t", id="7")
    assert one == Question("7", 1, (path,), "q", ("w", "v"), "", "t", "h", sizes=((40, 30),))
    assert question_of([data, Path("p.png")], "<image 2>?", ("w", "v")).pictures == (data, path)
    assert question_of(None, "q", ["w", "v"]).pictures == () == question_of([], "q", ["w", "v"]).sizes
    assert question_of({"bytes": data}, "q", ["w", "v"]).picture == data


def test_all_that_is_wrong_with_a_call_is_said_at_once_by_argument(folder):
    with pytest.raises(InputError) as refused:
        question_of([folder / "p.png", 5], "", {"w": 1}, hint=None, task_type=3, id="")
    assert [line.partition("; ")[0] for line in str(refused.value).splitlines()] == [
        "question: found an empty text",
        "task_type: found an int",
        "hint: found None",
        "id: found an empty text",
        "options: found a dict",
        "pictures: found picture 2 of 2: an int",
    ]
    with pytest.raises(InputError, match="^question: found the mark <image 3>, but 1 picture"):
        question_of(folder / "p.png", "<image 3>", ["w", "v"])


def test_a_picture_that_is_wrong_by_itself_is_an_error_of_a_picture(folder):
    with pytest.raises(PictureError, match="^an int; expected a path, bytes"):
        question_of(5, "q", ["w", "v"])
    with pytest.raises(PictureError, match="^picture 2 of 2: None"):
        question_of((folder / "p.png", None), "q", ["w", "v"])


def test_any_mapping_is_a_row():
    class Lazy(Mapping):
        def __getitem__(self, key):
            return {"question": "q", "options": ["w", "v"]}[key]

        def __iter__(self):
            return iter(("question", "options"))

        def __len__(self):
            return 2

    assert as_table([Lazy()]).questions[0].options == ("w", "v")
