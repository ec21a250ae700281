"""Several pictures, or none, in their places: the tree against the oracle, and what is computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scoring.engine.batches import prepare_batch
from scoring.engine.costs import costs_of, plan_batches, tokens_in
from scoring.engine.tree import Tree
from tests.shared.references import largest_difference, reference_labels


@pytest.fixture(scope="module")
def questions(test_rows):
    """Of all kinds: pictures first, between the texts, as options, twice; words alone; one picture."""
    (first, second, third), one = test_rows[:3], test_rows[5]

    def asked(name, pictures, question, options=("x", "y", "z")):
        sources = [test_rows[number] for number in pictures]
        return replace(
            first,
            id=name,
            pictures=tuple(source.picture for source in sources),
            sizes=tuple(source.sizes[0] for source in sources),
            question=question,
            options=options,
        )

    return [
        asked("words", [], second.question, second.options),
        asked("first", [0, 1], second.question, second.options),
        asked("first again", [0, 1], third.question, third.options[:3]),
        asked("between", [3, 4], "무엇인가요 <image 2>\n아니면 <image 1>?", first.options),
        asked("options", [0, 1, 6], "Which is it?", ("<image 2>", "none of these <image 3>", "a boat")),
        asked("twice", [2], "<image 1> is like <image 1>?", second.options),
        asked("words again", [], third.question, second.options),
        one,
    ]


@pytest.fixture(scope="module")
def expected(scorer, questions):
    """For each question and order the label logits by transformers' own forward."""
    scorer.model.use(scorer.adapters[0])
    return reference_labels(scorer, questions)


@pytest.mark.parametrize("size, orders", [(1, "1"), (8, "1"), (8, "cyclic"), (3, "cyclic")])
def test_rows_equal_the_reference_alone_and_in_batches(scorer, questions, expected, size, orders):
    result = scorer.score(questions, orders, batch_rows=size)
    assert result.status == ["ok"] * len(questions)
    largest = largest_difference(result, questions, orders, expected)
    assert largest < 1e-5 * max(np.abs(row).max() for row in expected.values())


def test_the_places_of_pictures_change_the_answer(expected):
    """A test that every place counts: the same pictures and words in another order give other logits."""
    assert np.abs(expected["options", "abc"] - expected["options", "bca"][[2, 0, 1]]).max() > 1e-3


def test_pictures_are_encoded_once_and_their_tokens_shared(scorer, questions):
    ready = prepare_batch(scorer.prepare, questions, "cyclic")
    tree = Tree.build(ready.sequences, ready.picture_numbers)
    distinct = {picture for question in questions for picture in question.pictures}
    assert len(ready.pictures) == len(distinct) == 7
    assert len(tree.pictures) < sum(map(len, ready.picture_numbers)) / 2
    costs = list(costs_of(scorer.prepare, questions, "cyclic"))
    planned = costs[0].prefix_tokens + tokens_in(costs)
    assert abs(len(tree.ids) - planned) < 20 * len(questions)  # the system text says how many options there are
    assert costs[1].picture == costs[2].picture != costs[3].picture and costs[0].picture != costs[6].picture
    assert costs[0].picture_tokens == costs[3].picture_tokens == 0 < costs[1].picture_tokens
    order = [row for batch in plan_batches(costs, 400) for row in batch]
    assert abs(order.index(1) - order.index(2)) == 1


def test_a_batch_of_words_alone_needs_no_picture(scorer, questions):
    words = [question for question in questions if not question.pictures]
    ready = prepare_batch(scorer.prepare, words, "1")
    assert ready.pictures == [] and ready.picture_numbers == [[], []]
    answers = scorer.answer(ready, 4)
    assert torch.isfinite(answers[0].labels).all()


def test_the_halves_of_a_batch_keep_their_pictures(scorer, questions):
    whole = scorer.score(questions, batch_rows=8).logits
    halves = prepare_batch(scorer.prepare, questions, "1").halves()
    for half in halves:
        result = scorer.collect(half, scorer.begin(half, 4), 4)
        rows = sorted(set(half.rows))
        assert np.nanmax(np.abs(result.logits[rows] - whole[rows])) < 1e-4


def test_one_unreadable_picture_of_two_is_a_fault_of_its_row(scorer, questions, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    rows = [replace(questions[1], pictures=(questions[1].pictures[0], broken)), questions[2]]
    result = scorer.score(rows)
    assert result.status[0].startswith("picture:") and result.status[1] == "ok"
