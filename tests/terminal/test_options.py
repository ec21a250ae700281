"""Values of options: what is understood, and what is refused with an example."""

from dataclasses import fields

import click
import pytest

from scoring.terminal.options import Column, Finite, Names, Pixels, Shard, TableOptions, only_value


@pytest.mark.parametrize(
    "kind, text, value",
    [
        (Names(("one", "two")), "two, one", ["two", "one"]),
        (Shard(), "2/4", (2, 4)),
        (Column(), "Question = Frage 1", ("question", "Frage 1")),
        (Finite(0), "0.5", 0.5),
        (Pixels(several=True), "192,160", [192 * 192, 160 * 160]),
    ],
)
def test_values_of_options_are_read(kind, text, value):
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    "kind, text, problem",
    [
        (Names(("one", "two")), "one,three", "'three': expected one or more of one, two"),
        (Shard(), "5/4", "expected the shard's number, counted from 1, and how many there are, such as 2/4"),
        (Shard(), "0/4", "such as 2/4"),
        (Column(), "question=", "such as question=Q"),
        (Finite(0), "nan", "nan"),
        (Pixels(several=False), "192x192", "expected the side of a square"),
    ],
)
def test_faulty_values_of_options_are_refused_with_what_is_expected(kind, text, problem):
    with pytest.raises(click.BadParameter) as error:
        kind.convert(text, None, None)
    assert problem in error.value.message


def test_an_option_that_may_be_given_once_is_refused_twice():
    assert only_value(None, "--orders") is None and only_value(["cyclic"], "--orders") == "cyclic"
    with pytest.raises(click.UsageError, match="--out-of-fold takes a single --orders; run the command once for each"):
        only_value(["1", "cyclic"], "--orders")


def test_pairs_of_columns_become_a_dictionary():
    names = [each.name for each in fields(TableOptions)]
    options = TableOptions(**dict.fromkeys(names) | {"columns": [("id", "no"), ("path", "file")]})
    assert options.columns == {"id": "no", "path": "file"}
