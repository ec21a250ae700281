"""A benchmark's figures against independent computations."""

import statistics
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from scoring.inputs.questions import Question
from scoring.results.benchmark import WAYS, Answer, Measured, Repeat, summarise

LABELS = [10, 11, 12, 13]
RNG = np.random.default_rng(3)


def made(n=60, answers=True):
    """Questions, and ways that are right in different rows; the notebook's text fails in some."""
    right = RNG.integers(0, 4, n)
    questions = [
        Question(
            f"r{at}",
            at + 1,
            Path(f"{at // 2}.jpg"),
            f"q{at}",
            ("w", "x", "y", "z"),
            "abcd"[right[at]] if answers else "",
            "count",
        )
        for at in range(n)
    ]
    measured = {}
    for name, share in zip(WAYS, (0.5, 0.5, 0.6, 0.7, 0.8, 0.9)):
        found = []
        for y in right:
            said = int(y) if RNG.random() < share else int((y + 1) % 4)
            p = None
            if name in ("forward", "engine", "cyclic"):
                p = np.full(4, 0.1)
                p[said] = 0.7
            text = None if p is not None else "abcd"[said]
            found.append(Answer("abcd"[said], LABELS[said], text, p=None if p is None else p.tolist()))
        repeats = [
            Repeat(seconds, RNG.random(n).tolist(), 1000 + at, 2000 - at, 30.0 * at)
            for at, seconds in enumerate((3.0, 1.0, 2.0))
        ]
        measured[name] = Measured(found, repeats)
    return questions, measured


def test_medians_quantiles_memory_energy_and_cost():
    questions, measured = made()
    found = summarise(questions, measured, LABELS, price=3.0, size=7200)
    for name, way in found["ways"].items():
        repeats = measured[name].repeats
        assert way["rows_per_second"] == pytest.approx(60 / statistics.median(repeat.seconds for repeat in repeats))
        every = sorted(value for repeat in repeats for value in repeat.row_seconds)
        assert way["seconds_per_row"]["p50"] == pytest.approx(statistics.median(every))
        cut = statistics.quantiles(every, n=20, method="inclusive")
        assert way["seconds_per_row"]["p95"] == pytest.approx(cut[-1])
        assert (way["peak_device_bytes"], way["peak_host_bytes"], way["joules_per_row"]) == (1002, 2000, 0.5)
        assert way["cost"] == {"rows": 7200, "hours": pytest.approx(7200 / 30 / 3600), "money": pytest.approx(0.2)}
        assert way["ratio"] == pytest.approx(1)


def test_intervals_and_mcnemar():
    questions, measured = made()
    ways = summarise(questions, measured, LABELS)["ways"]
    right = {
        name: np.array([answer.letter == question.answer for answer, question in zip(found.answers, questions)])
        for name, found in measured.items()
    }
    for name, way in ways.items():
        low, high = proportion_confint(right[name].sum(), 60, method="wilson")
        assert way["accuracy"] == pytest.approx({"value": right[name].mean(), "low": low, "high": high})
        if name == "engine":
            assert "against_engine" not in way
            continue
        other, engine = right[name], right["engine"]
        table = [[(other & engine).sum(), (other & ~engine).sum()], [(~other & engine).sum(), (~other & ~engine).sum()]]
        assert way["against_engine"]["mcnemar_p"] == pytest.approx(mcnemar(table, exact=True).pvalue)
        assert way["against_engine"]["only_this_right"] == table[0][1]
        assert way["against_engine"]["only_engine_right"] == table[1][0]
        ours = measured["engine"].answers
        assert way["against_engine"]["differ"] == [
            f"r{at}" for at, answer in enumerate(measured[name].answers) if answer.letter != ours[at].letter
        ]


def test_nll_is_that_of_the_right_options_where_a_way_has_probabilities():
    questions, measured = made()
    ways = summarise(questions, measured, LABELS)["ways"]
    assert [name for name, way in ways.items() if way["nll"]] == ["forward", "engine", "cyclic"]
    for name in ("forward", "engine", "cyclic"):
        p = [answer.p["abcd".index(question.answer)] for answer, question in zip(measured[name].answers, questions)]
        assert ways[name]["nll"]["value"] == pytest.approx(-np.log(p).mean())
        assert ways[name]["nll"]["low"] < ways[name]["nll"]["value"] < ways[name]["nll"]["high"]


def test_first_tokens_that_generation_does_not_start_with_are_found():
    questions, measured = made(8)
    for at in range(8):
        measured["forward"].answers[at].token = measured["seed"].answers[at].token = 11
    measured["seed"].answers[2].token = 12  # a violation
    measured["forward"].answers[5].token = 999  # no label on top: nothing is promised
    found = summarise(questions, measured, LABELS)["first_token"]
    assert found == {"rows": 8, "top_is_a_label": 7, "violations": ["r2"]}
    del measured["seed"]
    assert summarise(questions, measured, LABELS)["first_token"] is None


def test_letters_that_are_missing_or_fallen_back_to_are_counted_and_wrong():
    questions, measured = made(10)
    measured["strong"].answers[:] = [Answer("", text="?")] * 10
    measured["seed"].answers[:] = [Answer("a", text="?", fallback=True)] * 10
    ways = summarise(questions, measured, LABELS)["ways"]
    assert (ways["strong"]["unanswered"], ways["strong"]["accuracy"]["value"]) == (10, 0)
    assert (ways["seed"]["fallbacks"], ways["seed"]["unanswered"]) == (10, 0)


def test_rows_tell_what_was_asked_and_said():
    questions, measured = made(3)
    rows = summarise(questions, measured, LABELS)["per_row"]
    assert [row["id"] for row in rows] == ["r0", "r1", "r2"]
    assert rows[0]["options"] == ["w", "x", "y", "z"] and rows[0]["picture"] == "0.jpg"
    said = measured["seed"].answers[0]
    assert rows[0]["ways"]["seed"] == {"letter": said.letter, "text": said.text, "fallback": False}
    assert sum(rows[0]["ways"]["engine"]["p"]) == pytest.approx(1) and "text" not in rows[0]["ways"]["engine"]


def test_without_answers_there_is_speed_and_agreement_alone():
    questions, measured = made(5, answers=False)
    ways = summarise(questions, measured, LABELS)["ways"]
    assert all(way["accuracy"] is None and way["nll"] is None for way in ways.values())
    assert ways["seed"]["against_engine"]["mcnemar_p"] is None
