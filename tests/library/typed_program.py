"""A program as users write it, which nothing runs: `mypy` (strict, `make lint`) holds public names to their types."""

from pathlib import Path
from typing import assert_type

import numpy as np

from scoring import (
    Answer,
    Answers,
    AskLimits,
    Calibration,
    CancelToken,
    InputError,
    OptionLogits,
    PictureLimits,
    Question,
    Scorer,
    ScoringError,
    SetRequest,
    Table,
    TableOptions,
    Template,
    TrainConfig,
    check,
    describe,
    metrics,
    read_questions,
    read_table,
    train,
)


def score(folder: Path, picture: bytes) -> Answers:
    """Rows of every kind, through a scorer."""
    questions = assert_type(read_questions(folder / "test.csv"), list[Question])
    table = assert_type(read_table(folder / "test.csv", TableOptions(limits=PictureLimits(pixels=10**7))), Table)
    template = Template.read(folder / "template.toml")
    with Scorer.load("ckpt/fold0", orders="cyclic", template=template, calibration=Calibration(1.2)) as scorer:
        answer = assert_type(scorer.ask(picture, "What?", ["a dog", "a cat"], hint="It barks.", orders=2), Answer)
        assert_type(answer["a"], float)
        limits = AskLimits(most_tokens=4_096, cancel=CancelToken())
        assert_type(
            scorer.ask_together([questions[0], {"question": "What?", "a": "x", "b": "y"}], limits=limits), list[Answer]
        )
        for each in scorer.stream([{"path": "a.jpg", "question": "What?", "a": "x", "b": "y"}, questions[0]]):
            assert_type(each, Answer)
        scorer.score(table, progress=lambda done, total: print(done / total))
        return scorer.score(folder / "test.csv", images=folder)


def judge(answers: Answers) -> float:
    """What there is to know of answers."""
    assert_type(answers[0].letter, str)
    assert_type(answers.option_logits, OptionLogits)
    assert_type(answers.probabilities, np.ndarray)
    pooled = assert_type(answers.pool(answers, sets=SetRequest(0.9)), Answers)
    return float(metrics(pooled.probabilities, answers.answers)["accuracy"]["value"])


def learn(folder: Path) -> None:
    """A training and its checkpoint."""
    trained = train(folder / "train.csv", "base", folder / "ckpt", config=TrainConfig(epochs=1), folds=2)
    try:
        print(describe(trained.folder).text, check(folder / "test.csv").problems)
    except InputError as error:
        print(error.problems[0].fix)
    except ScoringError as error:
        print(error)
