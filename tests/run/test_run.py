"""A folder belongs to one run: what is taken up, what is refused, what a killed start leaves."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow.dataset import dataset
from scipy.special import log_softmax

from scoring.checkpoints.compatibility import MismatchError
from scoring.checkpoints.plan import plan_members
from scoring.inputs.orders import option_orders
from scoring.inputs.questions import read_table
from scoring.run.options import RunContext, RunOptions
from scoring.run.run import run
from scoring.run.run_folder import RunState, prepare_folder, read_state
from scoring.scores.folder import RunError, open_scores
from scoring.scores.probabilities import margins

PLAN = {"data": "d", "batch_tokens": 100, "compile": False, "split": 1}


def claim(out, values, overwrite=False):
    """The folder of parts, claimed for a run with these values in its plan."""
    before = read_state(out, values, overwrite)
    prepare_folder(out, before or RunState.from_json(values, "test"), is_new=before is None)
    return out / "logits"


def test_a_new_folder_gets_its_plan(tmp_path):
    assert claim(tmp_path / "a" / "b", PLAN).is_dir()
    assert json.loads((tmp_path / "a" / "b" / "plan.json").read_text()) == PLAN


def test_a_start_that_was_killed_at_once_is_no_obstacle(tmp_path):
    (tmp_path / "logits").mkdir()
    (tmp_path / "plan.json.tmp").write_text("{")
    assert claim(tmp_path, PLAN) == tmp_path / "logits"


def test_differences_are_named_and_overwriting_starts_anew(tmp_path):
    parts = claim(tmp_path, PLAN)
    (parts / "part-000000.parquet").write_bytes(b"x")
    (parts / "part-000001.parquet.tmp").write_bytes(b"x")
    claim(tmp_path, PLAN)
    assert [path.name for path in parts.iterdir()] == ["part-000000.parquet"]
    with pytest.raises(RunError, match="batch_tokens was 100, now 200"):
        claim(tmp_path, PLAN | {"batch_tokens": 200})
    assert not any(claim(tmp_path, PLAN | {"batch_tokens": 200}, True).iterdir())


def test_what_was_chosen_is_not_asked_again(tmp_path):
    """A run that goes on takes its figures from the plan: they are not part of what it must be asked for."""
    claim(tmp_path, PLAN)
    assert read_state(tmp_path, {"data": "d"}, False).to_json() == PLAN


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(RunError, match="other files"):
        claim(tmp_path, PLAN)


# ------------------------------------------------------------------ running out of memory
@pytest.fixture
def table(demo):
    found = read_table(demo / "test.csv")
    found.questions = found.questions[:20]
    return found


def scarce(scorer, monkeypatch, rows: int):
    """A card on which batches of more than `rows` sequences do not fit; the sizes that were tried."""
    whole, tried = scorer.packed.answer, []

    def answer(batch, labels):
        tried.append(batch.count)
        if batch.count > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(batch, labels)

    monkeypatch.setattr(scorer.packed, "answer", answer)
    return tried


def test_out_of_memory_splits_the_batch_and_the_rest_of_the_plan(scorer, table, tmp_path, monkeypatch):
    options = RunOptions(batch_tokens=900)
    whole = run(table, scorer, tmp_path / "whole", options)
    said = []
    tried = scarce(scorer, monkeypatch, 3)
    split = run(table, scorer, tmp_path / "split", options, RunContext(say=said.append))
    assert np.abs(split.logits.logits - whole.logits.logits).max() < 1e-4 and split.logits.status == ["ok"] * 20
    assert sum("out of memory" in line for line in said) == 1 and "out of memory with 900 tokens" in said[0]
    assert sum(size > 3 for size in tried) == 2, tried  # the first batch, and its half: never again after that
    assert json.loads((tmp_path / "split" / "plan.json").read_text())["split"] == 4
    assert json.loads((tmp_path / "split" / "run.json").read_text())["split"] == 4


def test_a_run_that_goes_on_remembers_how_much_fits(scorer, table, tmp_path, monkeypatch):
    run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"split": 4}))
    for part in list((tmp_path / "logits").iterdir())[1:]:
        part.unlink()
    tried = scarce(scorer, monkeypatch, 3)
    finished = run(table, scorer, tmp_path, RunOptions())
    assert finished.logits.scored.all() and max(tried) <= 3


def test_a_row_that_does_not_fit_alone_is_marked(scorer, table, tmp_path, monkeypatch):
    scarce(scorer, monkeypatch, 0)
    finished = run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    assert set(finished.logits.status) == {"out of memory, alone in its batch"}


def test_another_checkpoint_does_not_mix_into_a_folder(scorer, table, tmp_path):
    run(table, scorer, tmp_path, RunOptions(batch_tokens=900))
    with pytest.raises(RunError, match="adapters was"):
        run(table, plan_members(["demo/checkpoints/fold1"]), tmp_path, RunOptions())


def test_other_errors_stop_the_run(scorer, table, tmp_path, monkeypatch):
    def fail(batch, labels):
        raise RuntimeError("a kernel failed")

    monkeypatch.setattr(scorer.packed, "answer", fail)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        run(table, scorer, tmp_path, RunOptions())


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


# ------------------------------------------------------------------ orders that are not the same for all rows
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


def test_pride_shows_a_sample_all_orders(scorer, table, tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.run.scheduler.FEWEST_SAMPLED", 6)
    finished = run(table, scorer, tmp_path, RunOptions("pride"))
    shown = np.isfinite(finished.logits.logits[:, 0, :, 0]).sum(1)
    assert sorted(shown) == [1] * 14 + [4] * 6 and "6 rows in all cyclic orders" in finished.orders_note
    assert json.loads((tmp_path / "run.json").read_text())["orders"][0]["rows"] == 6


# ------------------------------------------------------------------ calibrations
def test_which_calibration_is_used(tmp_path):
    fold0, fold1 = (f"demo/checkpoints/{name}" for name in ("fold0", "fold1"))
    own = plan_members([fold0]).calibrations[0].temperature
    assert own != 1 and plan_members([fold0], calibration="none").calibrations[0].temperature == 1
    values = json.loads(Path(fold0, "calibration.json").read_text())
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(values | {"temperature": 2.5}))
    assert [found.temperature for found in plan_members([fold0, fold1], calibration=str(path)).calibrations][0] == 2.5
    with pytest.raises(MismatchError, match="it is for adapter 62a165f8618886c6, but this run has dc418232be17c9dc"):
        plan_members([fold1], calibration=str(path))
    with pytest.raises(MismatchError, match="calibration's orders is 1, but this run has cyclic"):
        plan_members([fold0], calibration=str(path), orders="cyclic")
    with pytest.raises(ValueError, match="no calibration; expected a file that `calibrate` wrote"):
        plan_members([fold0], calibration=f"{fold0}/scoring.json")


def test_calibrate_then_score_with_sets(cli, tmp_path, demo):
    """A checkpoint's held-out rows, scored in cyclic orders, calibrate it for cyclic orders; sets then cover."""
    import shutil

    fold = shutil.copytree(demo / "checkpoints" / "fold0", tmp_path / "fold0")
    base = ["--base", demo / "base"]
    refused = cli("score", demo / "test.csv", "--ckpt", fold, *base, "--sets", 0.9, "--out", tmp_path / "x", check=2)
    assert "no calibration for these orders that keeps its labelled rows" in refused.stderr
    assert not (tmp_path / "x").exists()
    cli("score", demo / "train.csv", "--ckpt", fold, *base, "--orders", 2, "--limit", 200, "--out", tmp_path / "valid")
    held_out = sum(f"train_{at:04d}," in (fold / "validation.csv").read_text() for at in range(200))
    done = cli("calibrate", tmp_path / "valid", "--ckpt", fold)
    if held_out >= 20:
        assert f"on these {held_out} rows" in done.stdout
    assert (fold / "calibration.2.json").exists() and "calibration.2.json" in done.stdout
    out = tmp_path / "sets"
    cli("score", demo / "test.csv", "--ckpt", fold, *base, "--orders", 2, "--sets", 0.9, "--limit", 40, "--out", out)
    header, *rows = (out / "probabilities.csv").read_text().splitlines()
    sets = [row.split(",")[header.split(",").index("set")] for row in rows]
    assert len(sets) == 40 and all(set(held) <= set("abcd") for held in sets)
    about = json.loads((out / "run.json").read_text())
    assert f"chosen on {held_out} of the {held_out} labelled rows" in about["sets"]["guarantee"]  # no promise then
    assert not any("no calibration for orders" in note for note in about["notes"])
    assert json.loads((out / "metrics.json").read_text())["sets"]["asked"] == 0.9
