"""`check` as a function: what the command finds, as objects."""

import json
from dataclasses import asdict

import pandas as pd
import pytest

from scoring.errors import CallError
from scoring.files.reading import FileError
from scoring.inputs.questions import Question
from scoring.library.checking import check
from scoring.tables.reading import TableOptions, read_table
from tests.shared.demo import FOLD0


@pytest.fixture
def table(small_table, tmp_path):
    """Four rows: the third asks what the second asks, and the fourth has no picture."""
    path = small_table(4)
    lines = path.read_text("utf-8").splitlines()
    lines[3] = lines[2].replace("test_0001", "again")
    lines[4] = lines[4].replace("images/", "images/none-", 1)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_everything_is_found_that_the_command_prints(quick_cli, table, demo, tmp_path):
    files = [table, demo / "test.csv", tmp_path / "none.csv"]
    printed = json.loads(quick_cli("check", *files, "--json", check=2).stdout)
    checked = check(*files)
    for found, known in zip(checked.tables, printed["tables"]):
        assert [asdict(problem) for problem in found.problems] == known["problems"]
        assert (str(found.file), found.table is not None, found.notices) == (
            known["file"],
            known["readable"],
            known["notices"],
        )
        if found.overview:
            assert (found.overview.good, found.overview.pictures) == (known["good"], known["pictures"])
            assert asdict(found.overview.balance) == known["balance"] and found.overview.copies == known["copies"]
    assert checked.tables[0].overview.copies == [["test_0001", "again"]] and checked.tables[2].overview is None
    assert [asdict(overlap) for overlap in checked.overlaps] == printed["overlaps"]
    assert [problem.column for problem in checked.problems] == ["path", ""] and len(checked.notices) == sum(
        len(known["notices"]) for known in printed["tables"]
    )


def test_rows_of_a_program_are_checked_too(demo):
    first, second = read_table(demo / "test.csv").questions[:2]
    frame = pd.DataFrame([{"id": "x", "path": str(first.picture), "question": "?", "a": "1", "b": "2", "answer": "c"}])
    checked = check(frame, [first, second], read_table(demo / "train.csv"))
    assert [problem.found for problem in checked.tables[0].problems] == ["'c'"]
    assert [len(each.table.good) for each in checked.tables] == [0, 2, 600] and not checked.tables[1].problems
    assert check([Question("1", 1, (), "?", ("only",))]).problems


def test_a_base_that_sees_no_pictures_makes_them_problems(table, monkeypatch, demo):
    monkeypatch.chdir(demo.parent)
    assert len(check(table, ckpt=FOLD0).problems) == 1
    monkeypatch.setattr("scoring.library.checking.bases_of", lambda ckpt: [demo / "base"])
    monkeypatch.setattr("scoring.inputs.families.family.Family.sees_pictures", False)
    assert "does not see" in check(table, ckpt="a text model").problems[-1].found


def test_the_good_rows_are_written(table, tmp_path):
    checked = check(table, write=tmp_path / "clean.csv", options=TableOptions(text_only_rows=True))
    assert len(checked.problems) == 1 and not check(tmp_path / "clean.csv").problems
    assert len(check(tmp_path / "clean.csv").tables[0].table.good) == 3
    with pytest.raises(FileError, match="exists and holds something else"):
        check(table, write=table)
    for tables in ([], [table, table]):
        with pytest.raises(CallError, match=f"found {len(tables)} tables; expected one"):
            check(*tables, write=tmp_path / "other.csv")


def test_a_deep_check_decodes_the_pictures(table):
    picture = read_table(table).questions[0].picture
    picture.write_bytes(picture.read_bytes()[:-2000])  # its header is whole
    assert [problem.row for problem in check(table).problems] == [4]
    assert [problem.row for problem in check(table, deep=True).problems] == [1, 4]
