"""Right letters and columns that a program gives beside answers."""

from dataclasses import replace

import pytest

from scoring.errors import CallError
from scoring.scores.folder import RunError
from scoring.stats.pools import EnsembleError
from tests.shared.made_answers import N, answers_of, table


def test_an_evaluation_takes_right_letters_for_rows_without(tmp_path):
    rows = table(answers=False)
    answers, right = answers_of(rows), [question.answer for question in table().questions]
    expected = answers_of().evaluate()["overall"]
    assert answers.evaluate(answers=right)["overall"] == expected
    assert answers.evaluate(answers=dict(zip(answers.ids, right)))["overall"] == expected
    path = tmp_path / "right.csv"
    path.write_text("id,answer\n" + "".join(f"{id},{letter}\n" for id, letter in zip(answers.ids, right)))
    assert answers.evaluate(answers=path)["overall"] == expected
    with pytest.raises(RunError, match="no scored row has an answer"):
        answers.evaluate()
    with pytest.raises(EnsembleError, match="'id0' \\('d'\\)"):  # which has three options
        answers.evaluate(answers=["d"] * N)
    with pytest.raises(EnsembleError, match="another answer in answers="):
        answers_of().evaluate(answers=["a"] * N)
    with pytest.raises(CallError, match="colour \\(2\\); expected a value for each of the 60 rows"):
        answers_of().evaluate(by={"colour": ["red", "blue"]})
    with pytest.raises(CallError, match="come from no table"):
        answers_of().evaluate(by="colour")
    with pytest.raises(CallError, match="accuracy=1.5"):
        answers_of().evaluate(accuracy=1.5)


def test_an_evaluation_is_grouped_by_columns_of_the_table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("id,colour\n" + "".join(f"id{row},{('red', 'blue')[row % 2]}\n" for row in range(N)))
    answers = answers_of(replace(table(), file=path))
    assert answers.evaluate(by=["colour"]) == answers_of().evaluate(by={"colour": ["red", "blue"] * (N // 2)})


def test_a_calibration_is_fitted_on_letters_that_are_given():
    answers, right = answers_of(table(answers=False)), [question.answer for question in table().questions]
    assert answers.calibrate(answers=right, member="m1").temperature == answers_of().calibrate(member="m1").temperature
