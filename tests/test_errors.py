"""Problems as a person reads them, and errors as programs handle them."""

import copy
import inspect
import multiprocessing
import pickle
import re
from importlib import import_module
from pathlib import Path

import pytest

from scoring.errors import MAX_LISTED, InputError, Problem, ScoringError, quoted

ROOT = Path(__file__).resolve().parent.parent


def problem(row: int = 2, column: str = "answer", **values) -> Problem:
    values = {
        "file": "t.csv",
        "line": row + 1,
        "id": "x",
        "found": "'e'",
        "expected": "a or b",
        "fix": "correct it",
    } | values
    return Problem(row=row, column=column, **values)


def test_a_problem_says_where_it_is_what_was_found_what_was_expected_and_what_to_do():
    assert problem().text == "row 2 (line 3, id 'x'), column answer: found 'e'; expected a or b; correct it"
    assert problem(id="").text.startswith("row 2 (line 3), column answer: ")
    assert problem(row=0, column="").text == "found 'e'; expected a or b; correct it"


def test_problems_of_one_kind_stand_together_and_a_long_list_is_cut_with_the_number_of_the_others():
    listed = [problem(row) for row in range(1, MAX_LISTED + 4)]
    error = InputError([listed[0], problem(column="path", expected="a file"), *listed[1:]])
    lines = str(error).splitlines()
    assert isinstance(error, ScoringError) and len(error.problems) == MAX_LISTED + 4
    assert lines[:MAX_LISTED] == [f"t.csv: {one.text}" for one in listed[:MAX_LISTED]]
    assert lines[MAX_LISTED] == "t.csv: … and 3 more rows with such a problem in column answer"
    assert lines[MAX_LISTED + 1 :] == [f"t.csv: {problem(column='path', expected='a file').text}"]


def test_a_cell_is_quoted_without_control_characters_and_cut():
    assert quoted("a\x1b[31m\n가") == "'a\\x1b[31m\\n가'"
    assert quoted("x" * 60) == f"'{'x' * 60}'" and quoted("x" * 61) == f"'{'x' * 60}…'"


def error_classes() -> list[type[Exception]]:
    """Every class of error that a module of the product defines."""
    files = [*ROOT.glob("scoring/**/*.py"), *ROOT.glob("train/*.py")]
    define = [
        path for path in files if re.search(r"^ *class \w+\(.*(Error|Exception)\b", path.read_text(), re.MULTILINE)
    ]
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in define)
    modules = [import_module(name) for name in sorted(names)]
    found = {
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.__name__
    }
    return sorted(found, key=lambda kind: kind.__name__)


def one_of(kind: type[Exception]) -> Exception:
    """An error as the product makes it, with a note that a caller added."""
    if kind is InputError:
        error = InputError([problem(), problem(3)])
    elif "__init__" in vars(kind):
        parameters = inspect.signature(kind).parameters.values()
        error = kind(*(3 if parameter.annotation is int else parameter.name for parameter in parameters))
    else:
        error = kind("what was found; what was expected")
    error.add_note("in the third file")
    return error


def test_every_error_is_a_scoring_error_that_survives_pickling_and_copying_whole():
    kinds = error_classes()
    assert len(kinds) > 20 and all(issubclass(kind, ScoringError) for kind in kinds)
    for error in map(one_of, kinds):
        twins = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        for twin in [*twins, copy.copy(error), copy.deepcopy(error)]:
            assert type(twin) is type(error) and twin is not error
            assert str(twin) == str(error) != "" and twin.args == error.args and vars(twin) == vars(error)


def refuse(kind: type[Exception]) -> None:
    raise one_of(kind)


def test_errors_arrive_from_other_processes():
    """A pool's worker pickles what it raises; one that cannot be made anew hangs the pool."""
    from scoring.inputs.pictures import PictureError

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        with pytest.raises(InputError) as raised:
            pool.apply_async(refuse, [InputError]).get(30)
        assert [one.row for one in raised.value.problems] == [2, 3]
        with pytest.raises(PictureError) as raised:
            pool.apply_async(refuse, [PictureError]).get(30)
    assert (raised.value.found, raised.value.expected, raised.value.fix) == ("found", "expected", "fix")
