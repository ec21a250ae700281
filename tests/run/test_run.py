"""Whole runs: orders are written and read back, and a calibration that a run leads to serves the next one."""

import gc
import json
import shutil
import threading
import time
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
from pyarrow.dataset import dataset
from scipy.special import log_softmax

from scoring.checkpoints.plan import plan_members
from scoring.errors import InputError
from scoring.inputs.orders import option_orders
from scoring.run.options import RunOptions
from scoring.run.run import lasting_objects, run
from scoring.run.scheduler import Scheduler
from scoring.scores.folder import RunError, open_scores
from scoring.tables.sample import read_sample

# ------------------------------------------------------------------ running out of memory


def test_another_checkpoint_does_not_mix_into_a_folder(scorer, table, tmp_path):
    run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    with pytest.raises(RunError, match="adapters was"):
        run(table, plan_members(["demo/checkpoints/fold1"]), tmp_path, RunOptions())


@pytest.mark.parametrize("orders", ["cyclic", "3"])
def test_orders_are_written_and_read_back(scorer, table, tmp_path, orders):
    table.questions[3] = replace(table.questions[3], options=table.questions[3].options[:3], answer="a")
    said = (*table.questions[5].options[:3], "위의 모두")  # keeps its order
    table.questions[5] = replace(table.questions[5], options=said, answer="a")
    finished = run(table, scorer, tmp_path, RunOptions(orders))
    assert finished.logits.status == ["ok"] * 20
    count = 4 if orders == "cyclic" else 3
    assert finished.logits.logits.shape == (20, 1, count, 4)
    found = open_scores(tmp_path)
    read, log_p = found.logits, found.log_p
    assert np.array_equal(read.logits, finished.logits.logits, equal_nan=True)
    by_hand = log_softmax(read.logits[0, 0].astype(float) / scorer.plan.calibrations[0].temperature, -1).mean(0)
    assert np.allclose(np.exp(log_p[0]), np.exp(by_hand) / np.exp(by_hand).sum())
    written = dataset(tmp_path / "logits").to_table().to_pandas()
    assert set(written[written["id"] == table.questions[0].id]["order"]) == set(option_orders(4, orders))
    assert set(written[written["id"] == table.questions[3].id]["order"]) == set(option_orders(3, orders))
    assert set(written[written["id"] == table.questions[5].id]["order"]) == {"abcd"}


# ------------------------------------------------------------------ the submission
def sample_of(folder, ids):
    path = folder / "sample_submission.csv"
    path.write_text("\n".join(["ID,Label", *(f"{id},a" for id in ids), ""]))
    return read_sample(path)


def test_a_finished_run_may_be_given_another_sample(scorer, table, tmp_path):
    ids, out = [question.id for question in table.questions], tmp_path / "out"
    run(table, scorer, out, RunOptions())
    results = [path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", "submission.csv")]
    whole = {path: path.read_bytes() for path in results}
    plain, about = (out / "submission.csv").read_text(), json.loads((out / "run.json").read_text())
    answers = dict(line.split(",") for line in plain.splitlines())
    sample = sample_of(tmp_path, [ids[7], ids[0], ids[19]])
    again = run(table, scorer, out, RunOptions(sample=sample))
    assert again.scored_now == 0  # nothing is scored again
    lines = ["ID,Label", *(f"{id},{answers[id]}" for id in sample.ids), ""]
    assert (out / "submission.csv").read_text() == "\n".join(lines)
    assert {path: path.read_bytes() for path in whole} == whole
    with_sample = json.loads((out / "run.json").read_text())
    assert with_sample["sample"] == {"file": str(sample.file), "sha256": sample.digest, "rows": 3}
    assert with_sample.keys() - about.keys() == {"sample"} and with_sample["identity"] == about["identity"]
    run(table, scorer, out, RunOptions())
    assert (out / "submission.csv").read_text() == plain and "sample" not in json.loads((out / "run.json").read_text())


def test_a_sample_with_ids_that_the_table_lacks_stops_a_run_before_it_begins(scorer, table, tmp_path):
    sample = sample_of(tmp_path, [table.questions[0].id, "stranger"])
    with pytest.raises(InputError, match="1 of 2 ids that no row of the table has: 'stranger'; 19 of 20 ids"):
        run(table, scorer, tmp_path / "out", RunOptions(sample=sample))
    assert not (tmp_path / "out").exists()
    with pytest.raises(RunError, match="a shard writes no submission.csv; give the sample to `merge`"):
        RunOptions(shard=(1, 2), sample=sample)


# ------------------------------------------------------------------ orders that are not the same for all rows


# ------------------------------------------------------------------ calibrations


def test_calibrate_then_score_with_sets(quick_cli, tmp_path, demo):
    """A checkpoint's held-out rows, scored in cyclic orders, calibrate it for cyclic orders; sets then cover."""
    fold = shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "fold0")
    base = ["--base", demo / "base"]
    refused = quick_cli(
        "score", demo / "test.csv", "--ckpt", fold, *base, "--sets", 0.9, "--out", tmp_path / "x", check=2
    )
    assert "no calibration for these orders that keeps its labelled rows" in refused.stderr
    assert not (tmp_path / "x").exists()
    labelled = [tmp_path / "labelled.csv", "--images", demo]
    labelled[0].write_text("\n".join(rows_of_training(demo, fold)) + "\n", "utf-8")
    quick_cli("score", *labelled, "--ckpt", fold, *base, "--orders", 2, "--out", tmp_path / "valid")
    done = quick_cli("calibrate", tmp_path / "valid", "--ckpt", fold)
    assert "on these 20 rows" in done.stdout
    assert (fold / "calibration.2.json").exists() and "calibration.2.json" in done.stdout
    out = tmp_path / "sets"
    quick_cli(
        "score", demo / "test.csv", "--ckpt", fold, *base, "--orders", 2, "--sets", 0.9, "--limit", 16, "--out", out
    )
    header, *rows = (out / "probabilities.csv").read_text().splitlines()
    sets = [row.split(",")[header.split(",").index("set")] for row in rows]
    assert len(sets) == 16 and all(set(held) <= set("abcd") for held in sets)
    about = json.loads((out / "run.json").read_text())
    assert "chosen on 20 of the 20 labelled rows" in about["sets"]["guarantee"]  # no promise then
    assert not any("no calibration for orders" in note for note in about["notes"])
    assert json.loads((out / "metrics.json").read_text())["sets"]["asked"] == 0.9


def rows_of_training(demo, fold) -> list[str]:
    """The header, 20 rows of the training's table that the fold held out, and four that it was trained on."""
    header, *lines = (demo / "train.csv").read_text("utf-8").splitlines()
    ids = {line.split(",")[0] for line in (fold / "validation.csv").read_text("utf-8").splitlines()}
    held_out = [line for line in lines if line.split(",")[0] in ids]
    trained = [line for line in lines if line.split(",")[0] not in ids]
    return [header, *held_out[:20], *trained[:4]]


# ------------------------------------------------------------------ loading
def test_prompts_are_encoded_while_the_model_loads(scorer, table, tmp_path, monkeypatch):
    loading, encoding, costs = Event(), Event(), Scheduler.costs
    table.questions = table.questions[:4]

    def load(plan, device, weights):
        loading.set()
        assert encoding.wait(20)
        return scorer

    def encode(self, *arguments):
        encoding.set()
        assert loading.wait(20)
        return costs(self, *arguments)

    monkeypatch.setattr("scoring.run.loader.BatchScorer", load)
    monkeypatch.setattr(scorer.model, "seconds", {"weights": 2.0, "adapters": 1.0})
    monkeypatch.setattr(Scheduler, "costs", encode)
    finished = run(table, scorer.plan, tmp_path / "one")
    seconds = json.loads((tmp_path / "one" / "run.json").read_text())["seconds"]
    steps = {step: seconds[f"loading_{step}"] for step in ("tokenizer", "libraries", "weights", "adapters", "layers")}
    assert seconds["loading"] == pytest.approx(sum(steps.values()), abs=0.003)
    assert (steps["weights"], steps["adapters"]) == (2, 1) and 0 < seconds["first_batch"] < seconds["scoring"]
    monkeypatch.undo()
    again = run(table, scorer, tmp_path / "two")
    assert np.array_equal(finished.logits.logits, again.logits.logits)


def test_a_model_that_cannot_load_does_not_wait_for_the_prompts(scorer, table, tmp_path, monkeypatch):
    encoded = []

    def costs(*arguments):
        for number in range(10_000):
            encoded.append(number)
            time.sleep(0.001)
            yield number

    def load(*arguments, **options):
        while not encoded:
            time.sleep(0.001)
        raise KeyboardInterrupt

    threads = threading.active_count()
    monkeypatch.setattr("scoring.run.loader.BatchScorer", load)
    monkeypatch.setattr("scoring.run.scheduler.row_costs", costs)
    with pytest.raises(KeyboardInterrupt):
        run(table, scorer.plan, tmp_path)
    assert len(encoded) < 1_000 and threading.active_count() == threads


def test_what_another_run_left_is_refused_before_anything_loads(scorer, table, tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.run.loader.BatchScorer", lambda *arguments, **options: pytest.fail("it is loaded"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="holds other files"):
        run(table, scorer.plan, tmp_path)


def test_objects_that_a_program_froze_stay_frozen_and_others_are_free_again():
    gc.freeze()
    frozen = gc.get_freeze_count()
    with lasting_objects():
        assert gc.get_freeze_count() > 0.99 * frozen > 0  # some may be freed by what else works here
    assert gc.get_freeze_count() > 0.99 * frozen
    gc.unfreeze()
    try:
        with lasting_objects():
            assert gc.get_freeze_count() > 0
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()  # as it was, see conftest.py
