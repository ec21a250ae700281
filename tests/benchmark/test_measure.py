"""The benchmark's ways on the demo: each answers as it should; batches that do not fit; what is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scoring.benchmark.extraction import extract_choice
from scoring.benchmark.generate import generate_text
from scoring.benchmark.measure import ORDERS, Bench, BenchOptions
from scoring.benchmark.measure import bench as run_bench
from scoring.benchmark.summary import DEFAULT_WAYS, TimedAnswers, summarise
from scoring.checkpoints.plan import plan_members
from scoring.engine.batch_scorer import BatchScorer
from scoring.engine.reference import reference_logits
from scoring.inputs.orders import OrdersError
from scoring.run.options import RunOptions
from scoring.scores.folder import RunError
from tests.shared.templates import THEIRS


class Silent:
    def __init__(self, total):
        self.total, self.done = total, 0

    def update(self, count):
        self.done += count

    def close(self):
        assert self.done == self.total


@pytest.fixture(scope="module")
def measured(bench):
    return last(bench.measure(list(DEFAULT_WAYS), 2, Silent, lambda text: None))


def test_a_way_in_other_orders_is_refused_where_questions_list_their_options(bench, demo, tmp_path):
    first = bench.questions[0]
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("abcd", first.options))
    table = replace(bench.table, questions=[replace(first, question=listed)])
    with pytest.raises(OrdersError, match="^--ways cyclic: the questions of 1 row"):
        run_bench(table, str(demo / "checkpoints" / "fold0"), BenchOptions(tmp_path / "out"), Silent)
    assert not (tmp_path / "out").exists()


def last(passes):
    *_, measured = passes
    return measured


def test_every_way_gives_the_answers_that_it_stands_for(bench, measured):
    scorer, questions = bench.scorer, bench.questions
    scorer.model.use(scorer.adapters[0])
    for row, question in enumerate(questions):
        prepared = scorer.prepare(question)
        generated = generate_text(scorer.model.network, scorer.prepare.chat, *prepared)
        logits = reference_logits(scorer.model.network, *prepared)
        notebook, forward = measured["seed"].answers[row], measured["forward"].answers[row]
        assert (notebook.letter, notebook.fallback) == extract_choice(generated.text)
        assert (notebook.text, notebook.token) == (generated.new_text, generated.first_token)
        assert measured["batched"].answers[row] == notebook
        assert measured["one"].answers[row].token == measured["strong"].answers[row].token == notebook.token
        assert forward.token == int(logits.argmax())
        temperature = scorer.plan.calibrations[0].temperature
        expected = torch.softmax(logits[scorer.label_ids[:4]] / temperature, 0).tolist()
        assert forward.p == pytest.approx(expected, abs=1e-5)
        for name in ("padded", "engine", "engine-4bit", "engine-16bit"):
            assert measured[name].answers[row].p == pytest.approx(expected, abs=1e-4), name
            assert measured[name].answers[row].letter == forward.letter, name
            assert measured[name].answers[row].token == forward.token, name
    cyclic = scorer.with_plan(bench.plans["cyclic"]).score(questions, "cyclic")
    assert cyclic.logits.shape[2] == 4
    assert [answer.p for answer in measured["cyclic"].answers] != [answer.p for answer in measured["engine"].answers]


def test_weights_of_4_and_16_bits_give_the_same_bits_and_leave_the_network_as_it_was(bench, measured):
    scorer = bench.scorer
    before = scorer.score(bench.questions).logits
    layers = [type(layer) for layer in scorer.model.network.modules()]
    logits, kinds = {}, {}
    for weights in ("4bit", "16bit"):
        with bench._packed(weights) as other:
            kinds[weights] = {linear.packed is None for linear in other.packed.linears}
            assert {*other.packed.linears} <= {*scorer.model.network.modules()}
            logits[weights] = other.score(bench.questions).logits
    assert kinds == {"4bit": {False}, "16bit": {True}}
    assert np.array_equal(logits["4bit"], logits["16bit"]) and np.array_equal(before, logits["16bit"])
    assert {*scorer.packed.linears} <= {*scorer.model.network.modules()}
    assert [type(layer) for layer in scorer.model.network.modules()] == layers
    assert np.array_equal(scorer.score(bench.questions).logits, before)


def test_every_way_has_the_weights_that_it_multiplies_with(bench, measured):
    engine = bench.scorer.packed.weights
    expected = dict.fromkeys(DEFAULT_WAYS, "4bit") | {"engine-16bit": "16bit", "engine": engine, "cyclic": engine}
    assert {name: measurement.setup.weights for name, measurement in measured.items()} == expected
    in_batches = {name for name, measurement in measured.items() if measurement.setup.batch}
    assert in_batches == {"one", "batched", "strong", "padded"}


def test_memory_is_that_of_a_ways_weights_alone(bench, measured):
    linears = bench.packings["16bit"].linears
    expanded = 4 * sum(linear.shape[0] * linear.shape[1] for linear in linears)  # float32
    adapters = sum(up.nbytes for linear in bench.packings["4bit"].linears for up, _ in linear.adapters.values())
    assert bench._unneeded_bytes("engine-16bit") == adapters > 0
    assert bench._unneeded_bytes("engine-4bit") == expanded
    for name in ("seed", "one", "padded"):
        assert bench._unneeded_bytes(name) == expanded + adapters


def test_ways_that_do_not_apply_are_left_out_with_a_message(bench, demo):
    messages = []
    plan = plan_members([str(demo / "checkpoints" / "fold0")], quantization="none", allow_mismatch=True)
    plain = Bench(BatchScorer(plan), bench.table, dict.fromkeys(ORDERS, plan), RunOptions(), bench.work)
    measured = last(plain.measure(["padded", "engine-4bit", "engine-16bit"], 1, Silent, messages.append))
    assert {name: measurement.setup.weights for name, measurement in measured.items()} == {
        "padded": "16bit",
        "engine-16bit": "16bit",
    }
    assert messages[0] == "engine-4bit is left out: the base is not quantised, so that there are no weights in 4 bits"
    with pytest.raises(RunError, match="none of the ways"):
        next(plain.measure(["engine-4bit"], 1, Silent, messages.append))


def test_weights_that_do_not_fit_in_16_bits_are_left_out(bench, monkeypatch):
    plan = bench.plans["engine"]
    small = Bench(BatchScorer(plan, weights="4bit"), bench.table, bench.plans, RunOptions(), bench.work)
    monkeypatch.setattr("scoring.engine.packed.free_bytes", lambda device: 1000)
    messages = []
    assert small._applicable(["engine", "engine-16bit"], messages.append) == ["engine"]
    assert messages == ["engine-16bit is left out: there is no room for the weights in 16 bits"]
    monkeypatch.undo()
    assert small._applicable(["engine", "engine-16bit"], messages.append) == ["engine", "engine-16bit"]


def test_every_row_of_every_repeat_is_timed(measured):
    for name, measurement in measured.items():
        assert len(measurement.repeats) == 2 and not measurement.unsteady, name
        for repeat in measurement.repeats:
            assert len(repeat.row_seconds) == 2 and min(repeat.row_seconds) > 0
            assert sum(repeat.row_seconds) < 1.3 * repeat.seconds, name
            assert repeat.host_bytes > 1e8 and repeat.device_bytes is None and repeat.joules is None


def test_repeats_alternate_the_order_of_the_ways(bench, monkeypatch):
    order = []
    monkeypatch.setattr(bench, "_repeat", lambda name, measurement, advance: order.append(name) or advance(2))
    assert len(list(bench.measure(["forward", "engine"], 3, Silent, lambda text: None))) == 3
    assert order == ["forward", "engine", "engine", "forward", "forward", "engine"]


def test_letters_that_change_between_repeats_are_counted(bench, monkeypatch):
    measured = last(bench.measure(["forward"], 1, Silent, lambda text: None))["forward"]
    changed = [replace(answer, letter="a" if answer.letter != "a" else "b") for answer in measured.answers]
    monkeypatch.setattr(bench, "_answer", lambda *arguments: TimedAnswers(changed, [1.0] * 2))
    bench._repeat("forward", measured, lambda count: None)
    assert measured.unsteady == 2


def test_capital_letters_are_asked_for_and_extracted(bench, demo):
    """The options are a, b, c, d; the model sees, writes and is compared by A, B, C, D."""
    checkpoint = [str(demo / "checkpoints" / "fold0")]
    plans = {
        name: plan_members(checkpoint, template=THEIRS, orders=orders, allow_mismatch=True)
        for name, orders in ORDERS.items()
    }
    scorer = bench.scorer.with_plan(plans["engine"])
    asked = Bench(scorer, bench.table, plans, RunOptions(), bench.work)
    ways = ["seed", "one", "strong", "forward", "padded", "engine"]
    measured = last(asked.measure(ways, 1, Silent, lambda text: None))
    scorer.model.use(scorer.adapters[0])
    capitals = [scorer.prepare.chat.tokenizer.token_to_id(letter) for letter in "ABCD"]
    for row, question in enumerate(bench.questions):
        logits = reference_logits(scorer.model.network, *scorer.prepare(question))
        letter = "abcd"[int(logits[capitals].argmax())]
        assert measured["forward"].answers[row].token == int(logits.argmax()) in capitals
        for name in ways:
            answer = measured[name].answers[row]
            assert (answer.letter, answer.text, answer.fallback) == (letter, answer.text and letter.upper(), False), (
                name
            )
    first = summarise(bench.questions, measured, scorer.label_ids)["first_token"]
    assert first == {"rows": 2, "top_is_a_label": 2, "violations": []}
    wrong = summarise(bench.questions, measured, bench.scorer.label_ids)["first_token"]
    assert wrong["top_is_a_label"] == 0 and sum(wrong["others"].values()) == 2 and {*wrong["others"]} <= {*"ABCD"}
