"""The benchmark's ways on the demo: each answers as what it stands for; batches that do not fit; what is measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scoring.engine import bench as benching
from scoring.engine.bench import ORDERS, Bench
from scoring.engine.generate import Generated, generate_text
from scoring.engine.meter import Meter
from scoring.engine.plan import plan_members
from scoring.engine.reference import reference_logits
from scoring.engine.run import RunOptions
from scoring.inputs.questions import read_table
from scoring.results.benchmark import WAYS
from scoring.results.extraction import extract_choice


@pytest.fixture(scope="module")
def bench(scorer, demo, tmp_path_factory):
    table = read_table(demo / "test.csv")
    plans = {
        name: plan_members([str(demo / "checkpoints" / "fold0")], orders=orders) for name, orders in ORDERS.items()
    }
    table = replace(table, questions=table.questions[:6])
    return Bench(scorer, table, plans, RunOptions(), tmp_path_factory.mktemp("work"))


class Silent:
    def __init__(self, total):
        self.total, self.done = total, 0

    def update(self, count):
        self.done += count

    def close(self):
        assert self.done == self.total


@pytest.fixture(scope="module")
def measured(bench):
    return last(bench.measure(list(WAYS), 2, Silent, lambda text: None))


def last(passes):
    *_, found = passes
    return found


def test_every_way_says_what_it_stands_for(bench, measured):
    scorer, questions = bench.scorer, bench.questions
    scorer.model.use(scorer.adapters[0])
    for row, question in enumerate(questions):
        prepared = scorer.prepare(question)
        generated = generate_text(scorer.model.network, scorer.prepare.chat, *prepared)
        logits = reference_logits(scorer.model.network, *prepared)
        seed, forward = measured["seed"].answers[row], measured["forward"].answers[row]
        assert (seed.letter, seed.fallback) == extract_choice(generated.text)
        assert (seed.text, seed.token) == (generated.new_text, generated.first_token)
        assert measured["batched"].answers[row] == seed
        assert measured["strong"].answers[row].token == seed.token
        assert forward.token == int(logits.argmax())
        temperature = scorer.plan.calibrations[0].temperature
        expected = torch.softmax(logits[scorer.label_ids[:4]] / temperature, 0).tolist()
        assert forward.p == pytest.approx(expected, abs=1e-5)
        assert measured["engine"].answers[row].p == pytest.approx(expected, abs=1e-4)
    cyclic = scorer.with_plan(bench.plans["cyclic"]).score(questions, "cyclic")
    assert cyclic.logits.shape[2] == 4
    assert [answer.p for answer in measured["cyclic"].answers] != [answer.p for answer in measured["engine"].answers]


def test_every_row_of_every_repeat_is_timed(measured):
    for name, found in measured.items():
        assert len(found.repeats) == 2 and not found.unsteady, name
        for repeat in found.repeats:
            assert len(repeat.row_seconds) == 6 and min(repeat.row_seconds) > 0
            assert sum(repeat.row_seconds) == pytest.approx(repeat.seconds, rel=0.3), name
            assert repeat.host_bytes > 1e8 and repeat.device_bytes is None and repeat.joules is None


def test_ways_take_turns_forth_and_back(bench, monkeypatch):
    order = []
    monkeypatch.setattr(bench, "_repeat", lambda name, found, done: order.append(name) or done(6))
    assert len(list(bench.measure(["forward", "engine"], 3, Silent, lambda text: None))) == 3
    assert order == ["forward", "engine", "engine", "forward", "forward", "engine"]


def test_a_batch_that_does_not_fit_is_not_taken(bench, monkeypatch):
    """The largest that fits is; with enough memory, all rows."""

    def fits(most):
        def generate(network, chat, prepared, new_tokens):
            if len(prepared) > most:
                raise torch.OutOfMemoryError("no room")
            return [Generated("a", 1, "a")] * len(prepared)

        monkeypatch.setattr(benching, "generate_batch", generate)
        return bench._largest_batch()

    assert fits(5)[0] == 4
    batch, tried = fits(100)
    assert batch == 6 or tried["4"] > tried["6"]  # a smaller one only where it was faster
    with pytest.raises(torch.OutOfMemoryError):
        fits(1)


def test_a_batch_that_does_not_fit_in_the_end_is_halved(bench, monkeypatch):
    seen = []

    def generate(network, chat, prepared, new_tokens):
        seen.append(len(prepared))
        if len(prepared) > 2:
            raise torch.OutOfMemoryError("no room")
        return [Generated(str(row), 1, str(row)) for row in prepared]

    monkeypatch.setattr(benching, "generate_batch", generate)
    assert [found.text for found in bench._generated(list(range(6)), 2)] == list("012345")
    assert seen == [6, 3, 1, 2, 3, 1, 2]


def test_letters_that_change_between_repeats_are_counted(bench, monkeypatch):
    measured = last(bench.measure(["forward"], 1, Silent, lambda text: None))["forward"]
    changed = [replace(answer, letter="a" if answer.letter != "a" else "b") for answer in measured.answers[:2]]
    monkeypatch.setattr(bench, "_answer", lambda name, rows, done: (changed + measured.answers[2:], [1.0] * 6, 1.0))
    bench._repeat("forward", measured, lambda count: None)
    assert measured.unsteady == 2


def test_the_meter_sees_memory_that_is_given_back():
    with Meter(torch.device("cpu")) as meter:
        block = np.ones(40_000_000)  # 320 MB
        del block
    before = meter.host_bytes
    with Meter(torch.device("cpu")) as meter:
        pass
    assert before - meter.host_bytes > 2e8 and meter.seconds >= 0
