"""Which rows train, which validate, and that none is lost on the way."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from scoring.inputs.digests import picture_digests
from scoring.inputs.questions import Question
from scoring.tables.reading import read_table
from tests.shared.questions import rows, rows_about
from train.split import SplitError, check_valid, picture_groups, split, strata


def test_rare_and_missing_types_fold_into_unknown():
    assert strata(rows(["x", "x", "rare", "", "y", "y"])) == ["x", "x", "unknown", "unknown", "y", "y"]


def test_the_split_is_the_notebooks():
    types = ["x"] * 50 + ["y"] * 45 + ["rare"] + [""] * 4
    questions = rows(types)
    labels = ["x"] * 50 + ["y"] * 45 + ["unknown"] * 5
    train, valid, notices = split(questions, 0.1, 42)
    expected = train_test_split(questions, test_size=0.1, random_state=42, shuffle=True, stratify=labels)
    assert (train, valid) == tuple(expected) and not notices
    assert Counter(question.task_type for question in valid)["x"] == 5


@pytest.mark.parametrize("types", [["x"] * 9 + ["rare"], ["x", "y", "z", "w"] * 3])
def test_too_few_rows_to_stratify_are_reported(types):
    train, valid, notices = split(rows(types), 0.1, 42)
    assert len(train) + len(valid) == len(types) and valid and "stratify" in notices[0]


@pytest.mark.parametrize("share, seed", [(0.1, 42), (0.1, 0), (0.25, 7)])
def test_rows_with_a_picture_each_are_split_as_rows(demo, share, seed):
    """So that checkpoints from before pictures were kept together can be made again."""
    questions = read_table(demo / "train.csv").questions
    assert len(set(picture_digests(questions))) == len(questions) == 600
    labels = strata(questions)
    expected = train_test_split(questions, test_size=share, random_state=seed, shuffle=True, stratify=labels)
    assert split(questions, share, seed) == (*expected, [])


def test_no_validation_row_shares_a_picture_with_training_whatever_its_name(tmp_path):
    contents = [number % 40 for number in range(120)]  # three rows a picture, far apart, each under another name
    types = [["x", "x", "y"][number // 40] if number % 40 < 20 else "z" for number in range(120)]
    questions = rows_about(tmp_path, contents, types)
    assert picture_groups(questions) == contents
    train, valid, notices = split(questions, 0.1, 42)
    held_out = {contents[row.row - 1] for row in valid}
    assert not held_out & {contents[row.row - 1] for row in train} and not notices
    assert len(train) + len(valid) == 120 and len(valid) == 12 and len(held_out) == 4
    assert [row.row - 1 for row in valid[:3]] == sorted(row.row - 1 for row in valid[:3])  # in the table's order
    # stratified by the pictures' most common type: 20 pictures of x (with one row of y), 20 of z
    assert Counter(row.task_type for row in valid) == {"x": 4, "y": 2, "z": 6}


@given(
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["x", "y", "z", ""])), min_size=1, max_size=40),
    st.floats(0.01, 0.9),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_any_table_is_split_by_picture_or_refused(tmp_path_factory, table, share, seed):
    folder = tmp_path_factory.getbasetemp() / "any"
    contents, types = zip(*table)
    questions = rows_about(folder, contents, types)
    try:
        train, valid, _ = split(questions, share, seed)
    except SplitError:
        assert len(set(contents)) == 1 or np.ceil(share * len(set(contents))) == len(set(contents))
        return
    assert train and valid and sorted(row.row for row in [*train, *valid]) == [row.row for row in questions]
    assert not {contents[row.row - 1] for row in train} & {contents[row.row - 1] for row in valid}


def test_rows_without_a_picture_stand_by_themselves():
    questions = [Question(str(number), number + 1, (), "q", ("x", "y"), "a", "x") for number in range(20)]
    train, valid, _ = split(questions, 0.1, 42)
    assert (len(train), len(valid)) == (18, 2) and picture_groups(questions) == list(range(20))


@pytest.mark.parametrize(
    "contents, share, message",
    [
        ([1], 0.1, "1 row of 1 picture cannot be split .* at least 2 pictures.*--valid"),
        ([1] * 24, 0.1, "24 rows of 1 picture cannot be split .* at least 2 pictures.*--valid"),
        ([1, 2, 2], 0.9, "--valid-share 0.9 leaves none of 2 pictures to train on; lower it"),
    ],
)
def test_too_few_pictures_to_split_are_refused_with_what_to_do(tmp_path, contents, share, message):
    with pytest.raises(SplitError, match=message):
        split(rows_about(tmp_path, contents), share, 42)


def test_a_picture_with_most_rows_is_reported(tmp_path):
    questions = rows_about(tmp_path, [0] * 60 + list(range(1, 10)))
    sizes = {len(split(questions, 0.2, seed)[1]): split(questions, 0.2, seed)[2] for seed in range(20)}
    assert set(sizes) == {2, 61} and "61 of 69 rows are held out" in sizes[61][0] and "2 of 69 rows" in sizes[2][0]


# ------------------------------------------------------------------ a validation table of its own
def test_validation_rows_that_are_trained_on_are_refused_and_named(tmp_path):
    train = rows_about(tmp_path / "train", range(30))
    valid = rows_about(tmp_path / "valid", range(100, 112))
    assert check_valid(train, valid, tmp_path / "valid.csv") == []
    again = [replace(row, id=f"other{row.row}", options=row.options[::-1], answer="b") for row in train[:7]]
    with pytest.raises(SplitError) as error:
        check_valid(train, [*valid, *again], Path("valid.csv"))
    text = str(error.value)
    assert (
        text.startswith("valid.csv: 7 of 19 rows are also in training: 'other1', 'other2',") and "'other5', …;" in text
    )
    assert "other6" not in text and "temperature" in text and "leave out --valid" in text


def test_pictures_of_both_tables_are_reported_where_the_questions_differ(tmp_path):
    train = rows_about(tmp_path / "train", range(30))
    valid = [replace(row, question="another") for row in train[:3]]
    valid += rows_about(tmp_path / "valid", range(100, 106))
    valid.append(replace(train[0], question="a third"))
    [notice] = check_valid(train, valid, Path("valid.csv"))
    assert "valid.csv: 4 of 10 rows have a picture that is also in training" in notice and "(3 pictures)" in notice


def test_rows_are_in_one_group_where_they_have_a_picture_in_common(tmp_path):
    """The first and the third row have none in common, but the second has one of each."""
    rows = rows_about(tmp_path / "p", [0, 1, 2, 3, 0, 4])
    pictures = [row.picture for row in rows]
    of_rows = [(0,), (1, 2), (0, 2), (), (3,), (4,), ()]  # the fifth picture has the first one's content
    questions = [
        replace(rows[0], id=str(number), pictures=tuple(pictures[index] for index in indices))
        for number, indices in enumerate(of_rows)
    ]
    assert picture_groups(questions) == [0, 0, 0, 3, 4, 0, 6]
