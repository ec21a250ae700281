"""What `check` prints of one table or several, for people and for programs, and its exit code."""

import base64
import csv
import json
from dataclasses import fields

import click
import pytest
from PIL import Image

from scoring.terminal.checking import CheckRequest, check_tables
from scoring.terminal.options import TableOptions
from scoring.terminal.progress import Console

HEADER = ["id", "path", "question", "a", "b", "c", "d", "answer"]


def request(skip=False, **values) -> CheckRequest:
    options = dict.fromkeys(each.name for each in fields(TableOptions))
    reading = TableOptions(**options | {"columns": {}, "skip_bad_rows": skip})
    return CheckRequest(**{"reading": reading, "deep": False, "as_json": False, "write": None} | values)


@pytest.fixture
def table(tmp_path):
    """Write a table of (picture, question, answer), each picture of the color that it is named by."""

    def make(name: str, *rows: tuple[str, str, str]):
        for picture, _, _ in rows:
            if not (tmp_path / picture).exists() and picture != "none.png":
                Image.new("RGB", (40, 30), picture.split(".")[0].split("_")[0]).save(tmp_path / picture)
        cells = [
            [f"{name[0]}{number}", picture, question, "w", "x", "y", "z", answer]
            for number, (picture, question, answer) in enumerate(rows)
        ]
        with open(tmp_path / name, "w", newline="") as file:
            csv.writer(file).writerows([HEADER, *cells])
        return tmp_path / name

    return make


@pytest.fixture
def check(capsys):
    """Call it; (exit code, stdout, stderr)."""

    def call(*files, **values):
        code = check_tables(Console(), files, request(**values))
        return code, *capsys.readouterr()

    return call


# ------------------------------------------------------------------ one table
def test_one_table_tells_its_answers_and_what_occurs_twice(check, table):
    file = table("t.csv", ("red.png", "q", "a"), ("red_2.png", "q", "b"), ("red.png", "r", "a"), ("tan.png", "q", ""))
    code, out, err = check(file)
    assert code == 0 and err.endswith(
        f"{file}: read as CSV, a column for each option; answers: letters or the options' texts\n"
    )
    assert out.splitlines() == [
        f"{file}: 4 good rows, 4 options, 3 pictures, with answers",
        f"{file}: answers: a 66.7%, b 33.3%, c 0.0%, d 0.0%",
        f"{file}: 1 row asks again what an earlier one asks about the same picture: 't0' = 't1'",
        f"{file}: 1 question that is asked again has different answers: 't0' = 't1'",
        f"{file}: 1 picture has several names: 'red.png' = 'red_2.png'",
    ]


def test_a_table_without_answers_or_copies_says_so(check, table):
    file = table("t.csv", ("red.png", "q", ""), ("tan.png", "q", ""))
    assert check(file)[1].splitlines() == [
        f"{file}: 2 good rows, 4 options, 2 pictures, no answers",
        f"{file}: no row and no picture occurs twice",
    ]


def test_letters_that_are_far_from_even_are_told_with_the_figures(check, table):
    letters = "a" * 61 + "b" * 13 + "c" * 13 + "d" * 13
    file = table("t.csv", *(("red.png", f"q{number}", letter) for number, letter in enumerate(letters)))
    assert (
        f"{file}: answers: a 61.0%, b 13.0%, c 13.0%, d 13.0%; far from even: chi-square 69.1 with 3 degrees of "
        "freedom, p = 7e-15, over 100 rows, each with those of as many options\n"
    ) in check(file)[1]


def test_a_list_of_copies_is_cut(check, table):
    file = table("t.csv", *[("red.png", "same", "a")] * 9, *[("red.png", f"q{n // 2}", "a") for n in range(14)])
    out = check(file)[1]
    assert "15 rows ask again" in out  # 8 of the first question, 7 of the others
    assert (
        "'t0' = 't1' = 't2' = 't3' = 't4', 't9' = 't10', 't11' = 't12', 't13' = 't14', 't15' = 't16' … and 3 more"
        in out
    )


# ------------------------------------------------------------------ several tables
def test_several_tables_stand_side_by_side_with_what_they_share(check, table):
    train = table("train.csv", ("red.png", "q", "a"), ("tan.png", "q", "b"), ("tan.png", "r", "b"))
    test = table("sure.csv", ("red_2.png", "q", ""), ("tan.png", "s", ""), ("blue.png", "q", ""))
    code, out, _ = check(train, test)
    assert code == 0 and out.index("3 good rows") < out.index("copies")
    grid = [line.removeprefix(f"{train.parent}/").split() for line in out.splitlines()[3:7]]
    assert grid[0] == ["rows", "good", "pictures", "answers", "a", "b", "c", "d", "copies"]
    assert grid[2] == ["train.csv", "3", "3", "2", "3", "33.3%", "66.7%", "0.0%", "0.0%", "0"]
    assert grid[3] == ["sure.csv", "3", "3", "3", "0", "0"]
    assert out.splitlines()[8:] == [
        f"{train}: no row and no picture occurs twice",
        f"{test}: no row and no picture occurs twice",
        f"{test}: 1 row is also in {train}: 's0'; a model trained on that table has seen it",
        f"{test}: 2 pictures are also in {train}, of 2 rows here: 's0', 's1'; a model trained on that table has seen "
        "them",
    ]
    other = table("other.csv", ("green.png", "q", ""))
    assert check(train, other)[1].splitlines()[-1] == f"{train} and {other} share no row and no picture"


def test_the_exit_code_is_the_worst_of_all_tables(check, table, tmp_path):
    good = table("good.csv", ("red.png", "q", "a"))
    bad = table("bad.csv", ("red.png", "q", "a"), ("none.png", "q", "a"))
    assert (check(good)[0], check(good, bad, skip=True)[0], check(bad, good)[0]) == (0, 3, 2)
    code, out, err = check(tmp_path / "missing.csv", bad, good, skip=True)
    assert code == 2 and "error: " in err and "no such file" in err and "going on without 1 of 2 rows" in err
    assert "'g0'; a model trained" in out  # the readable tables are compared all the same
    code, out, err = check(bad, good)
    assert "error: " in err and "row 2 (line 3, id 'b1'), column path" in err and "'g0'; a model trained" in out


def test_a_table_without_a_good_row_has_no_overview(check, table):
    bad = table("bad.csv", ("none.png", "q", "a"))
    code, out, err = check(bad)
    assert code == 2 and not out and err.count("error: ") == 1
    assert check(bad, skip=True)[0] == 2


# ------------------------------------------------------------------ for programs
def test_one_table_keeps_its_keys_and_gets_those_of_the_overview(check, table):
    file = table("t.csv", ("red.png", "q", "a"), ("red_2.png", "q", "b"), ("none.png", "q", "a"))
    code, out, _ = check(file, as_json=True)
    report = json.loads(out)
    assert (code, report["exit"], report["rows"], report["good"], report["pictures"], report["answers"]) == (
        2,
        2,
        3,
        2,
        2,
        2,
    )
    assert report["balance"]["counts"] == {"a": 1, "b": 1, "c": 0, "d": 0} and report["balance"]["p"] == 1
    assert report["copies"] == report["contradictions"] == [["t0", "t1"]]
    assert report["same_pictures"] == [["red.png", "red_2.png"]]
    known = "file readable rows good options pictures answers format layout columns reading notices problems exit"
    assert {*known.split()} <= report.keys()


def test_several_tables_are_a_list_with_what_they_share(check, table, tmp_path):
    first, second = table("first.csv", ("red.png", "q", "a")), table("second.csv", ("red.png", "q", ""))
    code, out, _ = check(first, tmp_path / "none.csv", second, as_json=True)
    report = json.loads(out)
    assert report.keys() == {"tables", "overlaps", "exit"} and code == report["exit"] == 2
    assert [each["readable"] for each in report["tables"]] == [True, False, True]
    assert [each["exit"] for each in report["tables"]] == [0, 2, 0]
    assert "balance" in report["tables"][2] and "balance" not in report["tables"][1]
    overlap = {"first": str(first), "second": str(second), "rows": ["s0"], "pictures": 1, "picture_rows": ["s0"]}
    assert report["overlaps"] == [overlap]


# ------------------------------------------------------------------ the clean table
def test_the_good_rows_are_written_and_checked_clean(check, table, tmp_path):
    file, clean = table("t.csv", ("none.png", "q", "a"), ("red.png", "q", "b")), tmp_path / "clean.csv"
    code, out, err = check(file, write=clean)
    assert code == 3 and "going on without 1 of 2 rows" in err and out.endswith(f"1 good row: {clean}\n")
    code, out, err = check(clean)
    assert code == 0 and "1 good rows" in out
    code, out, _ = check(file, write=clean, as_json=True)
    assert code == 3 and json.loads(out)["good"] == 1  # nothing else on stdout


def test_one_table_at_a_time_is_written(table, tmp_path):
    file = table("t.csv", ("red.png", "q", "b"))
    with pytest.raises(click.UsageError, match="--write takes one table"):
        check_tables(Console(), [file, file], request(write=tmp_path / "clean.csv"))
    bad = table("bad.csv", ("none.png", "q", "b"))
    assert check_tables(Console(), [bad], request(write=tmp_path / "clean.csv")) == 2
    assert not (tmp_path / "clean.csv").exists()


def test_pictures_inside_a_table_become_files_only_where_they_are_written(check, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Image.new("RGB", (40, 30), "red").save(tmp_path / "red.png")
    data = base64.b64encode((tmp_path / "red.png").read_bytes()).decode()
    (tmp_path / "t.json").write_text(json.dumps([{"path": data, "question": "q", "a": "w", "b": "v"}]))
    assert "1 good rows, 2 options, 1 pictures" in check(tmp_path / "t.json")[1]
    assert not (tmp_path / "cache").exists()
    clean = tmp_path / "clean.csv"
    assert check(tmp_path / "t.json", write=clean)[0] == 0
    (picture,) = (tmp_path / "clean_pictures").iterdir()
    assert picture.read_bytes() == (tmp_path / "red.png").read_bytes()
    assert f",clean_pictures/{picture.name},q,w,v," in clean.read_text()
    out = check(tmp_path / "t.json", clean)[1]
    assert f"{clean}: 1 row is also in {tmp_path / 't.json'}: '1'" in out
