"""What public calls take in several forms."""

import logging
from pathlib import Path
from threading import Event

import pytest

from scoring.errors import CallError, InputError
from scoring.inputs.orders import OrdersError
from scoring.inputs.pixel_budgets import PixelsError
from scoring.inputs.prompt import PromptTemplate
from scoring.library.arguments import (
    budget_of,
    context_of,
    names_of,
    orders_from,
    pixels_from,
    refuse_several_processes,
    template_of,
    usable_rows,
)


def test_a_budget_is_a_side_or_from_10000_on_a_number_of_pixels():
    assert [budget_of(number) for number in (32, 448, 9_999, 10_000, 200_704)] == [
        *(32 * 32, 448 * 448, 9_999 * 9_999),
        *(10_000, 200_704),
    ]
    with pytest.raises(PixelsError, match="pixels '31': expected a side of at least 32"):
        budget_of(31)
    assert pixels_from(None) == () and pixels_from(448) == pixels_from("448") == (448 * 448,)
    assert pixels_from([448, "224,448"]) == pixels_from("448,224") == (448 * 448, 224 * 224)


def test_orders_are_one_choice_or_several():
    assert orders_from("1") == orders_from(1) == ("1",)
    assert orders_from(["Cyclic", 4]) == orders_from("cyclic,4") == ("cyclic", "4")
    for value in ([], "most", 0, [1, "none"]):
        with pytest.raises(OrdersError):
            orders_from(value)


def test_a_template_is_one_or_its_file(tmp_path):
    template = PromptTemplate(user="{question} {options}")
    (tmp_path / "t.toml").write_text('user = "{question} {options}"\n')
    assert template_of(template) is template and template_of(None) is None
    assert template_of(tmp_path / "t.toml") == template_of(str(tmp_path / "t.toml")) == template


def test_one_checkpoint_or_several_are_names():
    assert names_of("a") == names_of(Path("a")) == ["a"] and names_of(("a", Path("b"))) == ["a", "b"]


def test_a_run_tells_the_logger_and_calls_the_function(caplog):
    steps, stop = [], Event()
    context = context_of(lambda *step: steps.append(step), stop)
    with caplog.at_level(logging.INFO, "scoring"):
        context.say("leave out --pixels")
    context.progress(5, 2).update(3)
    assert caplog.messages == ["leave out pixels="] and steps == [(2, 5), (5, 5)] and context.stop is stop
    assert context_of(None, None).progress is None and not context_of(None, None).stop.is_set()


def test_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    refuse_several_processes("score")
    monkeypatch.setenv("WORLD_SIZE", "1")
    refuse_several_processes("score")
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(CallError, match=r"one of 8 processes .* `torchrun … cli.py train`"):
        refuse_several_processes("train")


def test_faulty_rows_are_refused_or_left_out_and_told(caplog):
    rows = [{"question": "?", "a": "x", "b": "y"}, {"question": "", "a": "x", "b": "y"}]
    with pytest.raises(InputError, match="row 2"):
        usable_rows(rows, None, None, skip=False)
    with caplog.at_level(logging.INFO, "scoring"):
        assert len(usable_rows(rows, None, None, skip=True).good) == 1
    assert "going on without 1 of 2 rows" in caplog.text
