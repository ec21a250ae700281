"""Tables and pictures as people and strangers make them, through the command line: named, bounded, never guessed."""

import base64
import gzip
import json
import struct
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import command_line
from scoring.errors import InputError
from scoring.inputs.questions import TableOptions, read_table
from scoring.readers import unpacking

ROOT = Path(__file__).resolve().parents[2]
HEADER = "id,path,question,a,b,c,d,answer"
ROW = "1,p.png,q?,w,x,y,z,a"


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "p.png")
    return tmp_path


def written(folder, *lines: str):
    (folder / "t.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "t.csv"


# ------------------------------------------------------------------ check --json
def test_check_for_programs(cli, folder):
    table = written(folder, HEADER, ROW, "2,none.png,q?,w,x,y,z,e", "3,p.png,,w,x,y,z,b")
    report = json.loads(cli("check", table, "--json", check=2).stdout)
    assert (report["readable"], report["rows"], report["good"], report["answers"]) == (True, 3, 1, 1)
    assert [(problem["row"], problem["line"], problem["id"], problem["column"]) for problem in report["problems"]] == [
        (2, 3, "2", "path"),
        (2, 3, "2", "answer"),
        (3, 4, "3", "question"),
    ]
    assert all(problem["found"] and problem["expected"] and problem["fix"] for problem in report["problems"])
    assert report["exit"] == 2
    assert json.loads(cli("check", table, "--json", "--skip-bad-rows", check=3).stdout)["exit"] == 3
    assert json.loads(cli("check", written(folder, HEADER, ROW), "--json").stdout)["problems"] == []


def test_check_for_programs_of_a_table_that_cannot_be_read(cli, folder):
    report = json.loads(cli("check", folder / "none.csv", "--json", check=2).stdout)
    assert not report["readable"] and report["problems"][0]["found"] == "no such file" and report["rows"] == 0


def test_rows_that_cannot_be_told_apart_are_all_listed(folder):
    with pytest.raises(InputError) as caught:
        read_table(written(folder, HEADER, ROW, ROW, "2,p.png", ROW + ",more", "3,p.png,q,w,x,y,z,b"))
    assert [problem.row for problem in caught.value.problems] == [2, 3, 4]


def test_check_says_the_layout_and_takes_another(cli, folder):
    question = "Which? (A) cat (B) dog"
    table = written(folder, HEADER, f"1,p.png,{question},cat,dog,,,B")
    done = cli("check", table)
    assert "the questions of 1 row list the options once more (first: row 1)" in done.stderr
    done = cli("check", table, "--layout", "inline")
    assert "CSV, options inside the question; answers: letters or the options' texts" in done.stderr
    report = json.loads(cli("check", table, "--layout", "inline", "--json").stdout)
    assert (report["layout"], report["own_letters"], report["good"]) == ("inline", False, 1)
    assert "'table'" in cli("check", table, "--layout", "table", check=2).stderr


# ------------------------------------------------------------------ columns of another name
def test_columns_of_another_name(cli, folder):
    table = written(folder, "no,file,Q,one,two,a,right", "007,p.png,what?,cat,dog,not an option,two")
    names = {"id": "no", "path": "file", "question": "q", "a": "one", "b": "two", "answer": "right"}
    question = read_table(table, TableOptions(columns=names)).questions[0]
    assert (question.id, question.question, question.options) == ("007", "what?", ("cat", "dog"))
    assert cli("check", table, check=2).stderr.count("no such column") == 2
    given = [word for name, header in names.items() if name != "answer" for word in ("--column", f"{name}={header}")]
    assert "1 good rows, 2 options" in cli("check", table, *given).stdout
    swapped = read_table(written(folder, HEADER, ROW), TableOptions(columns={"a": "b", "b": "a"})).questions[0]
    assert swapped.options == ("x", "w", "y", "z")


@pytest.mark.parametrize(
    "given, message",
    [
        ("question=none", "no column 'none' among"),
        ("colour=path", "an unknown column name"),
        ("question", "expected a column's usual name"),
        ("=x", "expected a column's usual name"),
    ],
)
def test_a_column_that_is_not_there_is_named(cli, folder, given, message):
    done = cli("check", written(folder, HEADER, ROW), "--column", given, check=2)
    assert message in done.stderr and "Traceback" not in done.stderr


def test_columns_named_in_a_file_serve_every_table_and_command(cli, folder):
    train = written(folder, "no,file,Q,one,two,right", "007,p.png,what?,cat,dog,dog")
    test = folder / "test.csv"
    test.write_text("no,file,Q,one,two\n008,p.png,what?,cat,dog\n")
    names = 'id = "no"\npath = "file"\nquestion = "Q"\na = "one"\nb = "two"\nanswer = "right"\n'
    (folder / "columns.toml").write_text(names)
    done = cli("check", train, test, "--columns", folder / "columns.toml")
    assert f"{test}: no column 'right' for answer; read without it" in done.stderr
    assert f"{test}: 1 row is also in {train}: '008'" in done.stdout
    report = json.loads(cli("check", test, "--json", "--columns", folder / "columns.toml").stdout)
    assert report["columns"] == {"id": "no", "path": "file", "question": "Q", "a": "one", "b": "two"}  # those it has
    swapped = ["--column", "a=two", "--column", "b=one"]  # wins over the file
    report = json.loads(cli("check", test, "--json", "--columns", folder / "columns.toml", *swapped).stdout)
    assert (report["columns"]["a"], report["columns"]["b"]) == ("two", "one")
    (folder / "config.toml").write_text(f"rank = 8\n[columns]\n{names}")
    command = ["train", train, "--base", "./none", "--out", folder / "ckpt"]
    assert "column question: found no such column" in cli(*command, check=2).stderr
    for option in ("--config", "--columns"):  # the columns are found, and then that one row is too few
        assert "1 row of 1 picture cannot be" in cli(*command, option, folder / "config.toml", check=2).stderr
    command += ["--columns", folder / "columns.toml", "--config", folder / "config.toml"]
    (folder / "columns.toml").write_text('question = "none"')  # wins over the section
    assert "column question: found no column 'none' among" in cli(*command, check=2).stderr
    (folder / "columns.toml").write_text('colour = "Q"')
    refused = cli("check", test, "--columns", folder / "columns.toml", check=2).stderr
    assert "columns.toml: found a column 'colour'; expected" in refused


def test_the_good_rows_of_any_layout_become_a_table_that_needs_no_options(cli, folder):
    table = written(folder, "no,file,Q,one,two,right", "007,p.png,what?,cat,dog,2", "008,p.png,,cat,dog,1")
    names = ["id=no", "path=file", "question=Q", "a=one", "b=two", "answer=right"]
    given = [word for name in names for word in ("--column", name)]
    done = cli("check", table, *given, "--write", folder / "clean.csv", check=3)
    assert "row 2 (line 3, id '008'), column question" in done.stderr and "1 good row: " in done.stdout
    assert (folder / "clean.csv").read_text().splitlines()[1] == "007,p.png,what?,cat,dog,b,,"
    assert "1 good rows, 2 options, 1 pictures, with answers" in cli("check", folder / "clean.csv").stdout
    done = cli("check", folder / "clean.csv", "--write", table, check=2)
    assert "exists and holds something else" in done.stderr and "Traceback" not in done.stderr
    done = cli("check", folder / "clean.csv", table, "--write", folder / "new.csv", check=2)
    assert "--write takes one table" in done.stderr


def test_a_grouping_column_is_found_by_the_tables_own_id(cli, tmp_path, small_table):
    table = small_table(4)
    table.write_text(table.read_text("utf-8").replace("id,path", "no,path", 1), "utf-8")
    cli("score", table, "--ckpt", "demo/checkpoints/fold0", "--column", "id=no", "--out", tmp_path / "scores")
    assert json.loads((tmp_path / "scores" / "run.json").read_text())["data"]["columns"] == {"id": "no"}
    cli("evaluate", tmp_path / "scores", "--by", "path", "--no-plot")
    groups = json.loads((tmp_path / "scores" / "metrics.json").read_text())["by"]["path"]
    assert len(groups) == 4 and all(name.startswith("images/") for name in groups)


# ------------------------------------------------------------------ bombs
def test_a_packed_table_has_a_limit(cli, folder, monkeypatch):
    """A million bytes of one letter are a thousand when packed."""
    monkeypatch.setattr(unpacking, "MAX_BYTES", 100_000)
    (folder / "t.csv").write_bytes(gzip.compress(f"{HEADER}\n{ROW}{'a' * 1_000_000}\n".encode()))
    with pytest.raises(InputError, match="GiB when unpacked"):
        read_table(folder / "t.csv")


@pytest.mark.parametrize("cut", [5, 15, -5])
def test_a_packed_table_that_is_cut_off_is_refused(folder, cut):
    data = gzip.compress(f"{HEADER}\n{ROW}\n".encode())
    (folder / "t.csv").write_bytes(data[:cut])
    with pytest.raises(InputError, match="gzip"):
        read_table(folder / "t.csv")


def test_tables_packed_one_after_the_other_are_one(folder):
    (folder / "t.csv").write_bytes(gzip.compress(f"{HEADER}\n".encode()) + gzip.compress(f"{ROW}\n".encode()))
    assert len(read_table(folder / "t.csv").good) == 1


def test_an_archive_is_no_table(cli, folder):
    (folder / "t.csv").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    assert "an Excel workbook or a zip archive" in cli("check", folder / "t.csv", check=2).stderr


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that would be width x height pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" * 1000)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_pictures_have_limits_of_pixels_and_bytes(cli, folder):
    (folder / "p.png").write_bytes(bomb(20_000, 20_000))
    table = written(folder, HEADER, ROW)
    stderr = cli("check", table, check=2).stderr
    assert "over 200,000,000 pixels" in stderr and "--max-picture-pixels" in stderr
    Image.new("RGB", (40, 30), "red").save(folder / "p.png")
    stderr = cli("check", table, "--max-picture-pixels", 1199, check=2).stderr
    assert "over 1,199 pixels" in stderr and "--max-picture-pixels" in stderr
    assert "1 good rows" in cli("check", table, "--max-picture-pixels", 1200, "--deep").stdout
    stderr = cli("check", table, "--max-picture-bytes", 50, check=2).stderr
    assert "expected at most 50" in stderr and "--max-picture-bytes" in stderr


def test_text_in_a_picture_has_a_limit(cli, folder):
    """A PNG's packed text of a hundred megabytes is never unpacked whole."""
    text = b"Comment\0\0" + zlib.compress(b"a" * 100_000_000)
    data = bomb(40, 30)
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    (folder / "p.png").write_bytes(data[:33] + chunk + data[33:])
    done = cli("check", written(folder, HEADER, ROW), "--deep", check=2)
    assert "column path" in done.stderr and "Traceback" not in done.stderr


# ------------------------------------------------------------------ pictures inside tables
def test_a_table_with_pictures_inside_goes_through_the_command_line(tmp_path):
    """`check` writes nothing; `score` keeps the pictures, again where they are lost; a split must be the same."""
    folder, out, pictures = tmp_path / "set", tmp_path / "out", tmp_path / "cache" / "logit-scoring" / "pictures"

    def cli(*arguments, check=0):
        done = command_line.run(*arguments, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
        assert done.returncode == check, done.stderr
        return done

    folder.mkdir()
    rows = pq.read_table(ROOT / "tests" / "cases" / "tables" / "mmbench_ko.parquet")
    for split in ("test", "dev"):
        pq.write_table(rows, folder / f"{split}-00000-of-00001.parquet")
    refused = cli("check", folder, check=2).stderr
    assert "found files of 2 splits: 'dev', 'test'; expected those of one; choose one with --split" in refused
    report = json.loads(cli("check", folder, "--split", "test", "--json", "--deep").stdout)
    assert (report["good"], report["pictures"], report["split"]) == (3, 3, "test") and not pictures.exists()
    assert report["format"] == "Parquet, 1 file of the split 'test'"
    score = ("score", folder, "--ckpt", ROOT / "demo" / "checkpoints" / "fold0", "--out", out)
    cli(*score, "--split", "test")
    run = json.loads((out / "run.json").read_text())
    assert run["data"]["split"] == run["identity"]["table_split"] == "test"
    kept = sorted(pictures.glob("*/*"))
    digests = pq.read_table(out / "questions.parquet")["picture_digest"].to_pylist()
    assert sorted(digests) == [path.stem[:16] for path in kept] and len(kept) == 3
    assert "table_split was test, now dev" in cli(*score, "--split", "dev", check=2).stderr
    kept[0].unlink()
    cli(*score, "--split", "test")
    assert kept[0].exists()
    cli("evaluate", out, "--by", "category")  # of the same split


def test_no_message_holds_a_whole_cell_of_base64(cli, folder):
    """Nor of a question or an answer that someone took for a picture's column."""
    data = base64.b64encode((folder / "p.png").read_bytes() + bytes(30_000)).decode()
    for header in ("id,question,image,a,b,answer", "id,image,question,a,b,answer", "id,image,a,b,question,answer"):
        for cell in (data, data[:-3], f"[{data!r}, {data!r}", f"data:image/png;base64,{data}?"):
            done = cli("check", written(folder, header, f'1,"{cell}","{data}","{cell}",y,"{data}"'), check=None)
            assert max(map(len, (done.stdout + done.stderr).splitlines())) < 1_500


# ------------------------------------------------------------------ pictures that are none, or of another name
def test_a_picture_with_a_broken_tag_is_read_without_a_warning(cli, folder):
    """Its maker's name (tag 271) lies outside the block; its orientation, 6, stands behind."""
    tags = struct.pack("<HHLL", 0x010F, 2, 20, 10**9) + struct.pack("<HHLHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 2) + tags + struct.pack("<L", 0)
    Image.new("RGB", (40, 30), "red").save(folder / "p.jpg", exif=exif)
    table = written(folder, HEADER, ROW.replace("png", "jpg"))
    assert read_table(table).questions[0].sizes == ((30, 40),)
    assert "Warning" not in cli("check", table, "--deep").stderr


def test_files_in_a_pictures_place_are_named_and_near_names_offered(cli, folder):
    (folder / "l.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 1\n")
    (folder / "h.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    rows = [f"{number},{name},q?,w,x,y,z,a" for number, name in enumerate(("l.jpg", "h.jpg", "P.PNG", "images/p.jpg"))]
    stderr = cli("check", written(folder, HEADER, *rows), check=2).stderr
    lines = [line for line in stderr.splitlines() if "column path" in line]
    assert "a Git LFS pointer" in lines[0] and "run `git lfs pull`" in lines[0]
    assert "a HEIC picture, as iPhones save them" in lines[1] and "convert it to JPEG" in lines[1]
    assert "no file 'P.PNG'" in lines[2] and "did you mean 'p.png'?" in lines[2]
    assert "no file 'images/p.jpg'" in lines[3] and "did you mean 'p.png'?" in lines[3]
