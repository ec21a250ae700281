"""Orders that are not the same for all rows: which rows are shown in more of them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

from scoring.inputs.orders import OrdersError
from scoring.run.options import RunOptions
from scoring.run.run import run
from scoring.run.scheduler import Scheduler, costs_to_json
from scoring.scores.folder import RunError, open_scores
from scoring.scores.probabilities import margins


def test_adaptive_orders_show_more_where_it_is_not_sure(scorer, table, tmp_path):
    table.questions[5] = replace(table.questions[5], options=(*table.questions[5].options[:3], "위의 모두"), answer="a")
    whole = run(table, scorer, tmp_path / "cyclic", RunOptions("cyclic")).logits
    finished = run(table, scorer, tmp_path / "adaptive", RunOptions("adaptive"))
    found = finished.logits
    shown = np.isfinite(found.logits[:, 0, :, 0])
    assert shown[:, 0].all() and not shown[5, 1:].any() and shown[np.arange(20) != 5, 2].all()
    half = replace(found, logits=np.where([[[[True], [False], [True], [False]]]], whole.logits, np.nan))
    lead = margins(scorer.plan.calibrations[0].apply(np.nanmean(log_softmax(half.logits[:, 0], -1), 1)))
    unsure = (lead < 0.7) & (np.arange(20) != 5)
    assert np.array_equal(shown.all(1), unsure) and 0 < unsure.sum() < 19
    assert np.abs(found.logits - whole.logits)[np.isfinite(found.logits)].max() < 1e-4
    assert f"all orders for {unsure.sum()} of 20 rows" in finished.orders_note and "saved" in finished.orders_note
    again = open_scores(tmp_path / "adaptive")
    assert np.array_equal(again.logits.logits, found.logits, equal_nan=True)


def test_a_killed_adaptive_run_goes_on_to_the_same_bytes(scorer, table, tmp_path):
    options = RunOptions("adaptive", batch_tokens=900)
    run(table, scorer, tmp_path, options)
    parts = sorted((tmp_path / "logits").iterdir())
    bytes_of = {path: path.read_bytes() for path in [*parts, tmp_path / "probabilities.csv"]}
    for gone in (parts[-1:], parts[2:3], parts[1:]):  # of the second pass, of the first, nearly all
        for path in gone:
            path.unlink()
        run(table, scorer, tmp_path, options)
        assert {path: path.read_bytes() for path in bytes_of} == bytes_of
    with pytest.raises(RunError, match="margin was 0.7, now 0.9"):
        run(table, scorer, tmp_path, RunOptions("adaptive", margin=0.9, batch_tokens=900))


def test_another_layout_is_another_run(scorer, table, tmp_path):
    run(table, scorer, tmp_path)
    for change, told in (({"layout": "inline"}, "layout was None, now inline"), ({"own_letters": True}, "own_letters")):
        with pytest.raises(RunError, match=told):
            run(replace(table, **change), scorer, tmp_path)


def test_questions_that_list_their_options_are_scored_in_the_order_of_the_data_alone(scorer, table, tmp_path):
    first = table.questions[0]
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("abcd", first.options))
    table.questions = [replace(first, question=f"{first.question} {listed}")]
    with pytest.raises(OrdersError, match="the questions of 1 row list their options too"):
        run(table, scorer, tmp_path / "cyclic", RunOptions("cyclic"))
    assert not (tmp_path / "cyclic").exists()
    with pytest.raises(OrdersError, match="--orders all"):
        scorer.score(table.questions, "all")
    assert run(table, scorer, tmp_path / "one").logits.scored.all()


def test_pride_shows_a_sample_all_orders(scorer, table, tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.run.scheduler.FEWEST_SAMPLED", 6)
    finished = run(table, scorer, tmp_path, RunOptions("pride"))
    shown = np.isfinite(finished.logits.logits[:, 0, :, 0]).sum(1)
    assert sorted(shown) == [1] * 14 + [4] * 6 and "6 rows in all cyclic orders" in finished.orders_note
    assert json.loads((tmp_path / "run.json").read_text())["orders"][0]["rows"] == 6


def test_the_costs_of_a_process_are_the_same_in_the_first(scorer, table):
    table.questions[4] = replace(table.questions[4], question="long " * 3_000)  # more than the context
    scheduler = Scheduler(table, scorer.plan, RunOptions("pride"))
    for rank in range(3):
        costs = scheduler.costs(rank, 3)
        assert scheduler.costs_from_json(json.loads(json.dumps(costs_to_json(costs))), rank, 3) == costs
        assert any(isinstance(cost, str) for share in costs for cost in share) == (rank == 1)
