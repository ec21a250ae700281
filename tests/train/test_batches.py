"""Steps of rows, orders of options and augmented pictures: different in each epoch, the same in each run."""

import numpy as np

from scoring.inputs.questions import Question
from train.batches import AugmentingPreparer, epoch_order, shuffled


def test_every_row_once_an_epoch_also_the_last_few():
    for count, batch in ((540, 16), (7, 8), (17, 4)):
        steps = epoch_order(count, batch, 42, 1)
        assert sorted(np.concatenate(steps).tolist()) == list(range(count)) and len(steps) == -(-count // batch)
    first, again, second = epoch_order(50, 8, 1, 1), epoch_order(50, 8, 1, 1), epoch_order(50, 8, 1, 2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again)) and not all(
        np.array_equal(a, b) for a, b in zip(first, second)
    )


def test_shuffled_options_are_another_order_in_each_epoch_and_the_same_in_each_run():
    question = Question("1", 7, (), "q", ("w", "x", "y", "z"), answer="b")
    shuffles = [shuffled(question, 0, epoch) for epoch in range(30)]
    assert shuffles == [shuffled(question, 0, epoch) for epoch in range(30)]
    assert len({row.options for row in shuffles}) > 10 and {row.answer for row in shuffles} == set("abcd")
    assert all(row.options["abcd".index(row.answer)] == "x" for row in shuffles)
    referring = Question("1", 7, (), "q", ("w", "x", "both a and b"), answer="c")
    assert all(shuffled(referring, 0, epoch) == referring for epoch in range(9))


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
