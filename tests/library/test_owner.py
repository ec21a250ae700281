"""The thread that owns a model: what waits is answered together, and each caller gets its own rows or its own error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from scoring.engine.batches import cost_of, joined, prepare_batch
from scoring.errors import ScoringError
from scoring.library.owner import ModelOwner, Request, _BatchOnDevice


def request_of(scorer, row, orders="1"):
    batch = prepare_batch(scorer.prepare, [row], orders)
    return Request(scorer, batch, orders, cost_of(batch))


@pytest.fixture
def owner():
    owner = ModelOwner(2_000, verify=False)
    yield owner
    owner.close()


@pytest.fixture
def held(monkeypatch):
    """Until it is set, the owner's thread does not look for requests, so that all of them wait together."""
    go, take = threading.Event(), ModelOwner._take

    def wait(self, wait):
        go.wait(20)
        return take(self, wait)

    monkeypatch.setattr(ModelOwner, "_take", wait)
    return go


def batches_of(monkeypatch):
    """The numbers of requests that are answered together, as they are."""
    sizes, answer = [], ModelOwner._answer

    def count(self, requests):
        sizes.append(len(requests))
        return answer(self, requests)

    monkeypatch.setattr(ModelOwner, "_answer", count)
    return sizes


def test_what_waits_is_answered_together_and_each_gets_its_own_rows(scorer, rows, owner, held, monkeypatch):
    sizes, short = batches_of(monkeypatch), replace(rows[1], options=rows[1].options[:3])
    asked = [rows[0], short, rows[2]]
    futures = [owner.submit(request_of(scorer, row)) for row in asked]
    held.set()
    for row, result in zip(asked, [future.result(60) for future in futures]):
        alone = scorer.score([row])
        assert result.ids == [row.id] and result.status == ["ok"]
        assert result.logits == pytest.approx(alone.logits, abs=1e-4)  # float32, whose sums depend on the batch
        assert result.label_mass == pytest.approx(alone.label_mass, abs=1e-5)
    assert sizes == [3]


def test_other_orders_and_what_exceeds_the_budget_wait_for_the_next_batch(scorer, rows, owner, held, monkeypatch):
    sizes = batches_of(monkeypatch)
    orders = ["1", "cyclic", "1"]
    futures = [owner.submit(request_of(scorer, row, each)) for row, each in zip(rows, orders)]
    owner.budget = 200  # two rows of one order do not fit
    held.set()
    shapes = [future.result(60).logits.shape for future in futures]
    assert shapes == [(1, 1, 1, 4), (1, 1, 4, 4), (1, 1, 1, 4)] and sizes == [1, 1, 1]


def test_a_cancelled_request_costs_nothing(scorer, rows, owner, held, monkeypatch):
    sizes = batches_of(monkeypatch)
    first, second = (owner.submit(request_of(scorer, row)) for row in rows[:2])
    assert first.cancel()
    held.set()
    assert second.result(60).status == ["ok"] and sizes == [1]


def test_an_error_is_that_of_its_request_alone(scorer, rows, owner, held, monkeypatch):
    answer = ModelOwner._answer

    def fail(self, requests):
        if any(row.id == rows[1].id for request in requests for row in request.batch.questions):
            raise RuntimeError("such a row")
        return answer(self, requests)

    monkeypatch.setattr(ModelOwner, "_answer", fail)
    futures = [owner.submit(request_of(scorer, row)) for row in rows[:3]]
    held.set()
    assert futures[0].result(60).status == futures[2].result(60).status == ["ok"]
    with pytest.raises(RuntimeError, match="such a row"):
        futures[1].result(60)


def test_a_closed_owner_refuses_what_waits_and_what_comes(scorer, rows, owner, held):
    future = owner.submit(request_of(scorer, rows[0]))
    closing = threading.Thread(target=owner.close)
    closing.start()
    held.set()
    closing.join(20)
    assert not closing.is_alive()
    with pytest.raises(ScoringError, match="closed"):
        future.result(20)
    with pytest.raises(ScoringError, match="closed"):
        owner.submit(request_of(scorer, rows[0]))


def test_nobody_waits_in_vain_where_the_thread_ends(scorer, rows, owner, monkeypatch):
    def broken(self, wait):
        raise SystemExit

    monkeypatch.setattr(ModelOwner, "_take", broken)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    with pytest.raises(ScoringError, match="closed"):
        owner.submit(request_of(scorer, rows[0])).result(20)


def test_a_broken_picture_is_the_fault_of_its_request(scorer, rows, owner, held, tmp_path):
    broken = tmp_path / "x.jpg"
    broken.write_bytes(rows[0].picture.read_bytes()[:500])
    futures = [owner.submit(request_of(scorer, row)) for row in (replace(rows[0], pictures=(broken,)), rows[1])]
    held.set()
    assert futures[0].result(60).status[0].startswith("picture: ") and futures[1].result(60).status == ["ok"]


def test_the_first_row_is_compared_with_the_libraries_own_forward(scorer, rows, monkeypatch):
    from scoring.library import owner as module

    compared = []
    monkeypatch.setattr(module, "compare_first", lambda scorer, questions: compared.append(questions[0].id))
    owner = ModelOwner(2_000)
    for row in rows[:2]:
        owner.submit(request_of(scorer, row)).result(60)
    owner.close()
    assert compared == [rows[0].id]


def test_batches_are_joined_with_each_picture_once(scorer, rows):
    same = replace(rows[2], pictures=rows[0].pictures, sizes=rows[0].sizes)
    alone = [prepare_batch(scorer.prepare, [row], "cyclic") for row in (rows[0], same, rows[1], rows[0])]
    whole = joined(alone)
    assert len(whole.pictures) == len(whole.grids) == 2
    assert whole.rows == [row for row in range(4) for _ in range(4)] and len(whole.questions) == 4
    for sequence, numbers in enumerate(whole.picture_numbers):
        batch, first = alone[sequence // 4], alone[sequence // 4].picture_numbers[sequence % 4]
        assert all(np.array_equal(whole.pictures[n], batch.pictures[m]) for n, m in zip(numbers, first))


def test_many_threads_get_the_probabilities_of_score(asked, rows):
    expected = asked.score(rows)
    calls = list(enumerate(rows)) * 3

    def ask(call):
        number, row = call
        options = {"hint": row.task_hint, "task_type": row.task_type}
        answer = asked.ask(row.pictures, row.question, row.options, **options)
        return dict(answer) == pytest.approx(dict(expected[number]), abs=1e-5)

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, calls))


class Busy:
    """Stands for what a card computes: a batch takes 20 ms, behind the one before."""

    free = 0.0

    def __init__(self):
        Busy.free = self.end = max(Busy.free, time.monotonic()) + 0.02

    @property
    def ready(self):
        return time.monotonic() >= self.end


def test_a_card_answers_half_of_the_callers_while_the_other_half_prepares(scorer, rows, owner, monkeypatch):
    sizes, request = [], request_of(scorer, rows[0])

    def answer(self, requests):
        sizes.append(len(requests))
        return _BatchOnDevice(requests, joined([each.batch for each in requests]), 4, [(None, Busy())])

    def deliver(self, batch):
        time.sleep(max(batch.pieces[0][1].end - time.monotonic(), 0))
        for each in batch.requests:
            each.future.set_result(None)

    def ask(_):
        for _ in range(20):
            with owner.caller():
                time.sleep(0.004)
                owner.submit(Request(scorer, request.batch, "1", request.cost)).result(20)

    monkeypatch.setattr(ModelOwner, "_answer", answer)
    monkeypatch.setattr(ModelOwner, "_deliver", deliver)
    monkeypatch.setattr(Request, "on_card", property(lambda request: True))
    owner.budget = 100_000
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(ask, range(16)))
    assert sum(sizes) == 320 and np.median(sizes) in (7, 8, 9)
