"""Readers of tables and requests for sets, whose errors name what a program gives."""

import pickle

import pytest

from scoring import SetRequest, read_questions, read_table
from scoring.errors import InputError
from scoring.stats.sets import SetRequest as OfTheCommandLine
from scoring.stats.sets import SetsError
from scoring.tables.reading import TableOptions


def test_a_table_is_read_as_by_the_commands(demo):
    questions = read_questions(demo / "test.csv")
    table = read_table(demo / "test.csv")
    assert len(questions) == 400 and [question.id for question in table.questions] == [each.id for each in questions]


def test_what_is_wrong_with_one_names_arguments(tmp_path):
    (tmp_path / "t.csv").write_text("path,question,a,b\nnone.jpg,Which?,x,y\n")
    with pytest.raises(InputError, match="give the pictures' folder with images=$") as raised:
        read_questions(tmp_path / "t.csv")
    assert raised.value.problems[0].fix.endswith("with images=")
    with pytest.raises(InputError, match='found encoding="klingon"; '):
        read_table(tmp_path / "t.csv", TableOptions(encoding="klingon"))


def test_a_request_for_sets_is_the_commands_with_other_messages():
    request = SetRequest(0.9, method="aps", seed=1)
    assert isinstance(request, OfTheCommandLine) and pickle.loads(pickle.dumps(request)) == request
    with pytest.raises(SetsError, match=r"^sets=2: expected how often"):
        SetRequest(2)
    with pytest.raises(SetsError, match=r'^SetRequest\(seed=…\): .*; use SetRequest\(method="aps"\)$'):
        SetRequest(0.9, seed=1)
