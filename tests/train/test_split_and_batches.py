"""Which rows train, which validate, and that none is lost on the way."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from scoring.inputs.questions import Question
from train.batches import AugmentingPreparer, epoch_order, shuffled
from train.folds import FoldError, fold_places
from train.split import split, strata


def rows(types):
    return [Question(str(n), n + 1, Path(f"{n}.png"), "q", ("x", "y"), "a", name) for n, name in enumerate(types)]


def test_rare_and_missing_types_fold_into_unknown():
    assert strata(rows(["x", "x", "rare", "", "y", "y"])) == ["x", "x", "unknown", "unknown", "y", "y"]


def test_the_split_is_the_notebooks():
    types = ["x"] * 50 + ["y"] * 45 + ["rare"] + [""] * 4
    questions = rows(types)
    labels = ["x"] * 50 + ["y"] * 45 + ["unknown"] * 5
    train, valid, notices = split(questions, 0.1, 42)
    theirs = train_test_split(questions, test_size=0.1, random_state=42, shuffle=True, stratify=labels)
    assert (train, valid) == tuple(theirs) and not notices
    assert Counter(question.task_type for question in valid)["x"] == 5


@pytest.mark.parametrize("types", [["x"] * 9 + ["rare"], ["x", "y", "z", "w"] * 3])
def test_too_few_rows_to_stratify_are_told(types):
    train, valid, notices = split(rows(types), 0.1, 42)
    assert len(train) + len(valid) == len(types) and valid and "stratify" in notices[0]


def test_shared_pictures_are_told():
    questions = [Question(str(n), n, Path("same.png"), "q", ("x", "y"), "a", "t") for n in range(20)]
    assert "2 of 2 validation rows" in split(questions, 0.1, 42)[2][0]


def test_every_row_once_an_epoch_also_the_last_few():
    for count, batch in ((540, 16), (7, 8), (17, 4)):
        steps = epoch_order(count, batch, 42, 1)
        assert sorted(np.concatenate(steps).tolist()) == list(range(count)) and len(steps) == -(-count // batch)
    first, again, second = epoch_order(50, 8, 1, 1), epoch_order(50, 8, 1, 1), epoch_order(50, 8, 1, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again)) and not all(
        np.array_equal(a, b) for a, b in zip(first, second)
    )


def test_shuffled_options_are_another_order_in_each_epoch_and_the_same_in_each_run():
    question = Question("1", 7, None, "q", ("w", "x", "y", "z"), answer="b")
    found = [shuffled(question, 0, epoch) for epoch in range(30)]
    assert found == [shuffled(question, 0, epoch) for epoch in range(30)]
    assert len({row.options for row in found}) > 10 and {row.answer for row in found} == set("abcd")
    assert all(row.options["abcd".index(row.answer)] == "x" for row in found)
    kept = Question("1", 7, None, "q", ("w", "x", "both a and b"), answer="c")
    assert all(shuffled(kept, 0, epoch) == kept for epoch in range(9))


def test_folds_hold_every_row_out_once_and_part_no_picture():
    types = ["x"] * 30 + ["y"] * 25 + ["rare"]
    questions = rows(types)
    for number, question in enumerate(questions):
        object.__setattr__(question, "picture", Path(f"{number // 2}.png"))
    folds = fold_places(questions, 4, 42)
    assert sorted(np.concatenate(folds).tolist()) == list(range(56))
    for places in folds:
        held, rest = (
            {questions[at].picture for at in part} for part in (places, set(range(56)) - set(places.tolist()))
        )
        assert not held & rest
        assert 5 <= sum(questions[at].task_type == "x" for at in places) <= 10
    assert all(np.array_equal(a, b) for a, b in zip(folds, fold_places(questions, 4, 42)))
    with pytest.raises(FoldError, match="28 pictures cannot be parted in 30 folds"):
        fold_places(questions, 30, 42)


def test_augmented_pictures_keep_their_size_and_repeat(base, test_rows, scorer):
    plain = scorer.prepare
    pictures = []
    for epoch in (1, 1, 2):
        prepare = AugmentingPreparer(**vars(plain), strength=1.0, seed=0, epoch=epoch)
        pictures.append(np.asarray(prepare.picture(test_rows[0])))
    original = np.asarray(plain.picture(test_rows[0]))
    assert all(picture.shape == original.shape for picture in pictures)
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
    assert not np.array_equal(pictures[0], original)
    none = AugmentingPreparer(**vars(plain)).picture(test_rows[0])
    assert np.array_equal(np.asarray(none), original)
