"""A benchmark's figures against independent computations."""

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from scoring.benchmark.summary import (
    DEFAULT_WAYS,
    Answer,
    BatchSize,
    Measurement,
    Repeat,
    WaySetup,
    batch_sizes_text,
    batch_text,
    first_run_text,
    like_for_like_text,
    summarise,
)
from scoring.inputs.questions import Question
from scoring.report.tables import bench_tables, to_text
from scoring.stats.resampling import mcnemar as over_pictures
from scoring.stats.resampling import share_of

LABELS = [10, 11, 12, 13]
READS_LOGITS = ["forward", "padded", "engine-4bit", "engine-16bit", "engine", "cyclic"]
RNG = np.random.default_rng(3)


def draw_measurements(n=60, answers=True, rows_a_picture=2):
    """Questions, and ways that are right in different rows; the notebook's text fails in some."""
    right = RNG.integers(0, 4, n)
    questions = [
        Question(
            f"r{row}",
            row + 1,
            (Path(f"{row // rows_a_picture}.jpg"),),
            f"q{row}",
            ("w", "x", "y", "z"),
            "abcd"[right[row]] if answers else "",
            "count",
        )
        for row in range(n)
    ]
    measured = {}
    for name, share in zip(DEFAULT_WAYS, (0.5, 0.5, 0.5, 0.6, 0.7, 0.7, 0.8, 0.8, 0.8, 0.9), strict=True):
        answers_of_way = []
        for y in right:
            option = int(y) if RNG.random() < share else int((y + 1) % 4)
            p = None
            if name in READS_LOGITS:
                p = np.full(4, 0.1)
                p[option] = 0.7
            text = None if p is not None else "abcd"[option]
            answers_of_way.append(Answer("abcd"[option], LABELS[option], text, p=None if p is None else p.tolist()))
        repeats = [
            Repeat(seconds, RNG.random(n).tolist(), 1000 + number, 2000 - number, 30.0 * number)
            for number, seconds in enumerate((3.0, 1.0, 2.0))
        ]
        measured[name] = Measurement(answers_of_way, repeats)
    return questions, measured


def right_rows(questions, measured):
    """Which rows each way answers right, by its name."""
    return {
        name: np.array([answer.letter == question.answer for answer, question in zip(measurement.answers, questions)])
        for name, measurement in measured.items()
    }


def test_the_summary_has_medians_quantiles_memory_energy_and_cost():
    questions, measured = draw_measurements()
    report = summarise(questions, measured, LABELS, price=3.0, cost_rows=7200)
    for name, way in report["ways"].items():
        repeats = measured[name].repeats
        assert way["rows_per_second"] == pytest.approx(60 / statistics.median(repeat.seconds for repeat in repeats))
        every = sorted(value for repeat in repeats for value in repeat.row_seconds)
        assert way["seconds_per_row"]["p50"] == pytest.approx(statistics.median(every))
        cut = statistics.quantiles(every, n=20, method="inclusive")
        assert way["seconds_per_row"]["p95"] == pytest.approx(cut[-1])
        assert (way["peak_device_bytes"], way["peak_host_bytes"], way["joules_per_row"]) == (1002, 2000, 0.5)
        assert way["cost"] == {"rows": 7200, "hours": pytest.approx(7200 / 30 / 3600), "money": pytest.approx(0.2)}
        assert way["ratio"] == pytest.approx(1)


def test_rows_of_one_picture_count_together():
    questions, measured = draw_measurements()
    ways = summarise(questions, measured, LABELS)["ways"]
    clusters = np.arange(60) // 2
    right = right_rows(questions, measured)
    for name, way in ways.items():
        assert way["accuracy"] == pytest.approx(share_of(right[name], clusters)) and "design_effect" in way["accuracy"]
        if name != "engine":
            p = over_pictures(right[name], right["engine"], clusters)
            assert way["against_engine"]["mcnemar_p"] == pytest.approx(p)


def test_rows_of_one_picture_in_memory_count_together():
    questions, measured = draw_measurements()
    held = [replace(row, pictures=(str(row.picture).encode(),)) for row in questions]
    report, of_files = (summarise(rows, measured, LABELS) for rows in (held, questions))
    for name, way in report["ways"].items():
        assert way["accuracy"]["design_effect"] == pytest.approx(of_files["ways"][name]["accuracy"]["design_effect"])


def test_intervals_and_mcnemar_equal_statsmodels():
    questions, measured = draw_measurements(rows_a_picture=1)
    ways = summarise(questions, measured, LABELS)["ways"]
    right = right_rows(questions, measured)
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
        pairs = enumerate(zip(measured[name].answers, measured["engine"].answers))
        assert way["against_engine"]["differ"] == [f"r{row}" for row, (a, b) in pairs if a.letter != b.letter]


def test_cost_is_of_a_hundred_thousand_rows_if_no_number_is_given():
    questions, measured = draw_measurements(20)
    cost = summarise(questions, measured, LABELS)["ways"]["engine"]["cost"]
    assert cost == {"rows": 100_000, "hours": pytest.approx(100_000 / 10 / 3600), "money": None}


def test_a_setup_has_what_is_known_of_it():
    assert WaySetup().to_json() == {}
    assert WaySetup("4bit").to_json() == {"weights": "4bit"}
    assert WaySetup(batch=BatchSize(8, {8: 2.5})).to_json() == {
        "batch_rows": 8,
        "rows_per_second_by_batch": {"8": 2.5},
    }


def test_nll_is_that_of_the_right_options_where_a_way_has_probabilities():
    questions, measured = draw_measurements()
    ways = summarise(questions, measured, LABELS)["ways"]
    assert [name for name, way in ways.items() if way["nll"]] == READS_LOGITS
    for name in READS_LOGITS:
        p = [answer.p["abcd".index(question.answer)] for answer, question in zip(measured[name].answers, questions)]
        assert ways[name]["nll"]["value"] == pytest.approx(-np.log(p).mean())
        assert ways[name]["nll"]["low"] < ways[name]["nll"]["value"] < ways[name]["nll"]["high"]


def test_first_tokens_that_generation_does_not_start_with_are_listed():
    questions, measured = draw_measurements(8)
    for row in range(8):
        measured["forward"].answers[row].token = measured["seed"].answers[row].token = 11
    measured["seed"].answers[2].token = 12  # a violation
    measured["forward"].answers[5].token = 999  # no label on top: nothing is promised
    check = summarise(questions, measured, LABELS)["first_token"]
    written = measured["seed"].answers[5].text
    assert check == {"rows": 8, "top_is_a_label": 7, "violations": ["r2"], "others": {written: 1}}
    del measured["seed"]
    assert summarise(questions, measured, LABELS)["first_token"] is None


def test_the_texts_that_begin_with_no_letter_are_quoted_the_most_frequent_first():
    questions, measured = draw_measurements(12)
    texts = ["A", "A", "A", "<think>", "<think>", " A", "The", "Well", "Oh", "b", "b", "b"]
    for row, text in enumerate(texts):
        measured["forward"].answers[row].token = 999 if text != "b" else 11
        measured["seed"].answers[row].text = text
    report = summarise(questions, measured, LABELS)
    others = {"A": 3, "<think>": 2, " A": 1, "The": 1, "Well": 1}
    assert report["first_token"]["top_is_a_label"] == 3 and report["first_token"]["others"] == others
    text = to_text(*bench_tables(report | {"price_per_hour": None}))
    assert "Where it is no letter, the texts begin with 'A' (3), '<think>' (2), ' A' (1)" in " ".join(text.split())


def test_letters_that_are_missing_or_fallen_back_to_are_counted_and_wrong():
    questions, measured = draw_measurements(10)
    measured["strong"].answers[:] = [Answer("", text="?")] * 10
    measured["seed"].answers[:] = [Answer("a", text="?", fallback=True)] * 10
    ways = summarise(questions, measured, LABELS)["ways"]
    assert (ways["strong"]["unanswered"], ways["strong"]["accuracy"]["value"]) == (10, 0)
    assert (ways["seed"]["fallbacks"], ways["seed"]["unanswered"]) == (10, 0)


def test_rows_of_the_summary_have_questions_and_answers():
    questions, measured = draw_measurements(3)
    rows = summarise(questions, measured, LABELS)["per_row"]
    assert [row["id"] for row in rows] == ["r0", "r1", "r2"]
    expected = {"id": "r0", "picture": "0.jpg", "question": "q0", "options": ["w", "x", "y", "z"], "task_type": "count"}
    expected["answer"] = questions[0].answer
    assert {name: value for name, value in rows[0].items() if name != "ways"} == expected
    notebook = measured["seed"].answers[0]
    assert rows[0]["ways"]["seed"] == {"letter": notebook.letter, "text": notebook.text, "fallback": False}
    assert sum(rows[0]["ways"]["engine"]["p"]) == pytest.approx(1) and "text" not in rows[0]["ways"]["engine"]


def test_probabilities_of_a_row_have_six_digits_and_a_row_without_picture_has_no_name():
    questions, measured = draw_measurements(2)
    questions[1] = replace(questions[1], pictures=())
    measured["engine"].answers[0].p = [0.12345678, 0.87654322, 0.0, 0.0]
    summary = summarise(questions, measured, LABELS)
    assert summary["rows"] == 2 and summary["per_row"][0]["ways"]["engine"]["p"] == [0.123457, 0.876543, 0, 0]
    assert summary["per_row"][1]["picture"] == ""
    assert summary["ways"]["engine"]["seconds"] == [3.0, 1.0, 2.0]


def test_the_interval_of_nll_counts_the_rows_of_a_picture_together():
    alone, together = draw_measurements(60, rows_a_picture=1), draw_measurements(60, rows_a_picture=20)
    for _, measured in (alone, together):
        for row, answer in enumerate(measured["engine"].answers):
            answer.p = [0.7, 0.1, 0.1, 0.1] if row < 20 else [0.1, 0.1, 0.1, 0.7]
    for questions, _ in (alone, together):
        questions[:] = [replace(question, answer="a") for question in questions]
    widths = []
    for questions, measured in (alone, together):
        nll = summarise(questions, measured, LABELS)["ways"]["engine"]["nll"]
        widths.append(nll["high"] - nll["low"])
    assert widths[1] > 2 * widths[0]  # three pictures, each with one loss


def test_rows_without_pictures_count_each_for_itself():
    questions, measured = draw_measurements(60, rows_a_picture=60)
    without = summarise([replace(question, pictures=()) for question in questions], measured, LABELS)["ways"]["engine"]
    apart = [replace(question, pictures=(Path(f"{row}.jpg"),)) for row, question in enumerate(questions)]
    apart = summarise(apart, measured, LABELS)["ways"]["engine"]
    assert without["accuracy"] == apart["accuracy"] and without["nll"] == apart["nll"]


def test_without_batches_no_sizes_are_listed():
    assert batch_sizes_text({"engine": {}}) == ""


def test_without_answers_there_are_only_speed_and_agreement():
    questions, measured = draw_measurements(5, answers=False)
    ways = summarise(questions, measured, LABELS)["ways"]
    assert all(way["accuracy"] is None and way["nll"] is None for way in ways.values())
    assert ways["seed"]["against_engine"]["mcnemar_p"] is None


def timed(seconds, weights, **batches):
    """Measurements of ways that took so many seconds for four rows, in the middle repeat of three."""
    answers = [Answer("a")] * 4
    return {
        name: Measurement(
            answers,
            [Repeat(middle * factor, [middle * factor / 4] * 4) for factor in (3, 1, 0.5)],
            setup=WaySetup(weights[name], batches.get(name)),
        )
        for name, middle in seconds.items()
    }


SECONDS = {
    "seed": 8.0,
    "one": 3.0,
    "batched": 4.0,
    "strong": 6.0,
    "forward": 5.0,
    "padded": 2.5,
    "engine-4bit": 1.25,
    "engine-16bit": 1.0,
    "engine": 0.8,
    "cyclic": 2.0,
}
WEIGHTS = dict.fromkeys(SECONDS, "4bit") | {"engine-16bit": "16bit", "engine": "16bit", "cyclic": "16bit"}


def compared(seconds, weights):
    questions, _ = draw_measurements(4)
    ways = summarise(questions, timed(seconds, weights), LABELS)["ways"]
    return ways, {name: way["like_for_like"] for name, way in ways.items() if "like_for_like" in way}


def test_like_for_like_is_the_engine_in_the_same_weights_against_the_libraries_batches():
    ways, pairs = compared(SECONDS, WEIGHTS)
    assert pairs == {
        "one": {"engine": "engine-4bit", "weights": "4bit", "engine_ratio": pytest.approx(2.4)},
        "batched": {"engine": "engine-4bit", "weights": "4bit", "engine_ratio": 3.2},
        "padded": {"engine": "engine-4bit", "weights": "4bit", "engine_ratio": 2.0},
    }
    assert {name: way["ratio"] for name, way in ways.items()} == pytest.approx(
        {name: 8 / seconds for name, seconds in SECONDS.items()}
    )
    assert like_for_like_text(ways) == (
        "Like for like (4-bit weights, batches, one order): the engine is 2.00x as fast as the padded forward, "
        "2.40x as fast as generating one token, 3.20x as fast as generating two tokens."
    )


def test_a_first_run_is_told_beside_a_long_one():
    """2,000 rows at 10 rows/s, after 10 seconds."""
    ways = {"engine": {"rows_per_second": 10.0}}
    text = first_run_text({"starting": 3.0, "loading": 5.0, "first_batch": 2.0}, ways)
    assert text == (
        "First run: 10.0 s pass before the engine is at speed (3.0 to start, 5.0 to load, 2.0 for the first rows), so "
        "that 2,000 rows take 210 s: 9.5 rows/s. Long run: 10.0 rows/s."
    )
    assert first_run_text(None, ways) == first_run_text({"starting": 1.0}, {"seed": {"rows_per_second": 1.0}}) == ""


def test_like_for_like_on_a_base_that_is_not_quantised_is_in_16_bits():
    seconds = {name: value for name, value in SECONDS.items() if name != "engine-4bit"}
    ways, pairs = compared(seconds, dict.fromkeys(seconds, "16bit"))
    assert pairs["padded"] == {"engine": "engine-16bit", "weights": "16bit", "engine_ratio": 2.5}
    assert like_for_like_text(ways).startswith("Like for like (16-bit weights,")


@pytest.mark.parametrize(
    ("names", "engines"),
    [
        ("seed one padded engine-16bit engine cyclic", {}),  # no engine in 4 bits
        ("seed strong forward engine-4bit", {}),  # nothing in batches that could be compared
        ("padded engine-4bit engine", {"padded": "engine-4bit"}),
        ("one", {}),
    ],
)
def test_without_both_ways_there_is_no_ratio(names, engines):
    ways, pairs = compared({name: SECONDS[name] for name in names.split()}, WEIGHTS)
    assert {name: pair["engine"] for name, pair in pairs.items()} == engines
    assert bool(like_for_like_text(ways)) == bool(engines)


def test_an_engine_that_chose_4_bits_by_itself_is_compared_too():
    chosen = WEIGHTS | {"engine": "4bit", "cyclic": "4bit"}
    _, pairs = compared({name: SECONDS[name] for name in ("padded", "engine", "cyclic")}, chosen)
    assert pairs == {"padded": {"engine": "engine", "weights": "4bit", "engine_ratio": pytest.approx(2.5 / 0.8)}}


def test_every_way_has_what_it_shares_with_others():
    ways, _ = compared(SECONDS, WEIGHTS)
    shared = {name: (way["weights"], way["batched"], way["tokens"], way["probabilities"]) for name, way in ways.items()}
    assert shared == {
        "seed": ("4bit", False, 2, False),
        "one": ("4bit", True, 1, False),
        "batched": ("4bit", True, 2, False),
        "strong": ("4bit", True, 16, False),
        "forward": ("4bit", False, 0, True),
        "padded": ("4bit", True, 0, True),
        "engine-4bit": ("4bit", True, 0, True),
        "engine-16bit": ("16bit", True, 0, True),
        "engine": ("16bit", True, 0, True),
        "cyclic": ("16bit", True, 0, True),
    }


def test_the_printed_table_says_which_rows_are_alike():
    batches = {
        "one": BatchSize(8, dict.fromkeys((4, 8), 1.0)),
        "padded": BatchSize(16, dict.fromkeys((4, 8, 16), 1.0)),
    }
    questions, _ = draw_measurements(4)
    measured = timed({name: SECONDS[name] for name in ("seed", "one", "padded", "engine-4bit")}, WEIGHTS, **batches)
    summary = summarise(questions, measured, LABELS)
    text = to_text(*bench_tables(summary | {"price_per_hour": None}))
    cells = {line[:28].rstrip(): line[28:].split() for line in text.split("\n\n")[0].splitlines()}
    assert cells[""][:2] == ["weights", "batch"]
    assert cells["generate, one row (notebook)"][:4] == ["4bit", "1", "row", "0.5"]
    assert cells["generate 1 token, batches"][:4] == ["4bit", "8", "rows", "1.3"]
    assert cells["padded forward, batches"][:4] == ["4bit", "16", "rows", "1.6"]
    assert cells["engine, 4-bit weights"][:4] == ["4bit", "by", "tokens", "3.2"]
    assert like_for_like_text(summary["ways"]) in text
    assert batch_sizes_text(summary["ways"]) in text and "the largest of 4, 8, 16 that fits" in text
    assert batch_text({}) == "–"  # of a benchmark that an older version wrote
