"""Pools: equal members change nothing, order does not matter, files are matched by id, faults are told."""

import csv
import json

import numpy as np
import pytest
from scipy.special import log_softmax
from statsmodels.stats.inter_rater import fleiss_kappa

from scoring.results.calibration import fit_temperature, nll
from scoring.results.ensemble import EnsembleError, agreement, fit_weights, leave_one_out, pool
from scoring.results.ensemble_plots import disagreement, draw_ensemble
from scoring.results.files import write_columns
from scoring.results.files import write_csv as write_csv_rows
from scoring.results.folder import RunError, open_scores
from scoring.results.metrics import measure, measure_members
from scoring.results.pooling import claim, pool_files
from scoring.results.sources import read_sources
from tests.results.test_judging import scores


def members(m=3, n=500, seed=0, noise=1.0, sharp=3.0):
    """Over-confident members that err apart: (M, N, K) logits and (N,) answers."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 4))
    y = (np.exp(log_softmax(z, axis=1)).cumsum(1) > rng.random((n, 1))).argmax(1)
    return np.stack([log_softmax(sharp * (z + rng.normal(0, noise, z.shape)), axis=1) for _ in range(m)]), y


@pytest.mark.parametrize("kind", ["log", "linear"])
def test_equal_members_are_the_single_one_and_order_does_not_matter(kind):
    log_p, _ = members(3, 50)
    assert np.abs(np.exp(pool(log_p[[0, 0, 0]], kind)) - np.exp(log_p[0])).max() < 1e-6
    assert np.allclose(pool(log_p, kind), pool(log_p[::-1], kind), atol=1e-12)


def test_the_pools_are_their_definitions():
    log_p, _ = members(3, 40)
    p = np.exp(log_p)
    assert np.allclose(np.exp(pool(log_p, "linear")), p.mean(0))
    product = np.prod(p, 0) ** (1 / 3)
    assert np.allclose(np.exp(pool(log_p)), product / product.sum(1, keepdims=True))
    weighted = np.exp(pool(log_p, "linear", [0.5, 0.5, 0]))
    assert np.allclose(weighted, p[:2].mean(0))
    votes = np.exp(pool(log_p, "vote"))
    counts = np.stack([(log_p.argmax(2) == letter).sum(0) for letter in range(4)], 1)
    assert (counts[np.arange(40), votes.argmax(1)] == counts.max(1)).all() and np.allclose(votes, counts / 3, atol=2e-3)
    log_p[:, 0, 3] = np.nan
    assert np.isnan(pool(log_p)[0, 3]) and np.exp(pool(log_p, "linear")[0, :3]).sum() == pytest.approx(1)


def test_the_default_pool_is_the_best_of_five_ways():
    """Temperature for each, mean of log-probabilities, temperature for the pool; fitted on one half."""
    log_p, y = members(5, 4000)
    fit, far = slice(0, 2000), slice(2000, 4000)
    own = [fit_temperature(part[fit], y[fit]).temperature for part in log_p]
    calibrated = np.stack([log_softmax(part / t, axis=1) for part, t in zip(log_p, own)])

    def loss(found):
        t = fit_temperature(found[fit], y[fit]).temperature
        return nll(found[far], y[far], t), nll(found[far], y[far])

    default = loss(pool(calibrated))[0]
    others = [
        min(nll(part[far], y[far]) for part in calibrated),
        loss(pool(calibrated, "linear"))[1],
        loss(pool(log_p, "linear"))[1],
        loss(pool(log_p))[1],
    ]
    assert default < min(others)


def test_weights_are_fitted_only_where_the_rows_can_tell():
    log_p, y = members(2, 3000, sharp=1.0)
    noise = np.random.default_rng(1).normal(0, 1.5, log_p[0].shape)
    bad = np.stack([log_p[0], log_softmax(noise, axis=1)])
    weights, told = fit_weights(bad, y)
    assert weights[0] > 0.75 and "gain" in told
    assert fit_weights(bad[:, :500], y[:500])[0].tolist() == [0.5, 0.5]
    assert fit_weights(log_p[[0, 0]], y)[0].tolist() == [0.5, 0.5]


def test_agreement_equals_statsmodels():
    log_p, _ = members(4, 200)
    answers = log_p.argmax(2)
    counts = np.stack([(answers == letter).sum(0) for letter in range(4)], 1)
    found = agreement(log_p)
    assert found["fleiss_kappa"] == pytest.approx(fleiss_kappa(counts), abs=1e-9)
    assert found["pairwise"][0][1] == pytest.approx((answers[0] == answers[1]).mean())


def test_a_member_that_hurts_is_found():
    log_p, y = members(3, 1000, sharp=1.0)
    log_p[2] = np.roll(log_p[2], 7, axis=0)
    found = leave_one_out(log_p, y, "log", np.full(3, 1 / 3), 1.0)
    assert found[2]["hurts"] and not found[0]["hurts"] and not found[1]["hurts"]


# ------------------------------------------------------------------ from files
def write_csv(path, ids, values, pattern="p_{}"):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *(pattern.format(letter) for letter in "abcd"[: values.shape[1]])])
        writer.writerows([id, *(f"{value:.12g}" for value in row)] for id, row in zip(ids, values))
    return path


@pytest.mark.parametrize("pattern, make", [("p_{}", np.exp), ("{}", np.array), ("l_{}", lambda log_p: log_p * 3 + 7)])
def test_csv_files_of_others(tmp_path, pattern, make):
    log_p, _ = members(2, 30)
    ids = [f"r{at}" for at in range(30)]
    first = write_csv(tmp_path / "a.csv", ids, make(log_p[0]), pattern)
    turned = write_csv(tmp_path / "b.csv", ids[::-1], make(log_p[1])[::-1], pattern)
    found = pool_files([first, turned], tmp_path / "out").scores
    expected = pool(np.stack([log_softmax(make(part) if pattern == "l_{}" else part, axis=1) for part in log_p]))
    assert np.abs(np.exp(found.log_p) - np.exp(expected)).max() < 1e-6
    assert found.logits.members == ["a", "b"] and (tmp_path / "out" / "members" / "b.csv").exists()
    assert (tmp_path / "out" / "submission.csv").read_text().splitlines()[0] == "id,answer"
    with pytest.raises(RunError, match="exists"):
        claim(tmp_path / "out", False)


def test_faults_are_told_all_at_once(tmp_path):
    log_p, _ = members(1, 30)
    p, ids = np.exp(log_p[0]), [f"r{at}" for at in range(30)]
    good = write_csv(tmp_path / "good.csv", ids, p)
    cases = {
        "missing: 'r0', 'r1'": (ids[2:], p[2:]),
        "does not have: 'x0'": ([*ids[:-1], "x0"], p),
        "ids more than once: 'r0'": ([*ids, "r0"], np.vstack([p, p[:1]])),
        "another number of options": (ids, np.exp(log_softmax(log_p[0][:, :3], axis=1))),
        "must sum to 1; not so in 'r3'": (ids, np.where(np.arange(30)[:, None] == 3, p * 0.5, p)),
    }
    for told, (names, values) in cases.items():
        with pytest.raises(EnsembleError, match=told):
            pool_files([good, write_csv(tmp_path / "bad.csv", names, values)], tmp_path / "out")
    (tmp_path / "bad.csv").write_text("id,p_a,p_b\nr0,half,0.5\n")
    with pytest.raises(EnsembleError, match="p_a is 'half'"):
        read_sources(tmp_path / "bad.csv")
    (tmp_path / "bad.csv").write_text("name,x\n1,2\n")
    with pytest.raises(EnsembleError, match="expected `id` and a column for each letter"):
        read_sources(tmp_path / "bad.csv")
    with pytest.raises(EnsembleError, match="1 member"):
        pool_files([good], tmp_path / "out")
    with pytest.raises(EnsembleError, match="2 numbers"):
        pool_files([good, good], tmp_path / "out", weights="1,2,3")


def test_folders_are_pooled_judged_and_fitted(tmp_path):
    a, b = scores(tmp_path / "a"), scores(tmp_path / "b", temperature=1.0)
    found = pool_files([a, b], tmp_path / "out")
    assert found.metrics["ensemble"]["best"] == "b" and (tmp_path / "out" / "metrics.json").exists()
    again = open_scores(tmp_path / "out")
    assert np.array_equal(again.log_p, found.scores.log_p, equal_nan=True)
    fitted = pool_files([a, b], tmp_path / "fitted", fit=tmp_path / "out")
    assert fitted.scores.how["temperature"] > 1.1 and "temperature of the pool" in fitted.told[0]
    assert json.loads((tmp_path / "fitted" / "run.json").read_text())["pool"]["kind"] == "log"
    with pytest.raises(EnsembleError, match="nll needs labelled rows"):
        pool_files([a, b], tmp_path / "x", weights="nll")
    with pytest.raises(EnsembleError, match="expected those that are pooled"):
        pool_files([a, b], tmp_path / "x", fit=a)
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    about["data"] = {"sha256": "t"}
    about["checkpoints"][1]["trained_on"] = "t"
    (tmp_path / "out" / "run.json").write_text(json.dumps(about))
    with pytest.raises(EnsembleError, match="was trained on this table"):
        pool_files([a, b], tmp_path / "x", fit=tmp_path / "out")


def test_members_are_measured_as_one_alone_is():
    log_p, y = members(3, 400)
    clusters = np.arange(400) // 2
    for part, found in zip(np.exp(log_p), measure_members(np.exp(log_p), y, clusters)):
        alone = measure(part, y, clusters)
        assert found["accuracy"] == alone["accuracy"]
        for name in ("nll", "brier", "ece"):
            assert found[name]["value"] == pytest.approx(alone[name]["value"], rel=1e-5)
            assert found[name]["low"] == pytest.approx(alone[name]["low"], rel=0.05)
            assert found[name]["high"] == pytest.approx(alone[name]["high"], rel=0.05)
        assert found["ece"]["floor_95"] == pytest.approx(alone["ece"]["floor_95"], rel=0.15)


def test_cells_of_files_mean_what_they_say(tmp_path):
    text = '\ufeffid,p_a,p_b,p_c\n"a,1",0.5, 0.25 ,0.25\n"line\n2",0.5,0.5,\n"",,,\n'
    (tmp_path / "a.csv").write_text(text, "utf-8")
    found = read_sources(tmp_path / "a.csv")[0]
    assert found.ids == ["a,1", "line\n2", ""] and found.status == ["ok", "ok", "no number in the file"]
    assert np.allclose(np.exp(found.logits[0]), [0.5, 0.25, 0.25]) and np.isnan(found.logits[1, 2])
    (tmp_path / "a.csv").write_text("id,p_a,p_b\nx,+0.5,0.5\n")
    assert np.allclose(np.exp(read_sources(tmp_path / "a.csv")[0].logits), 0.5)
    (tmp_path / "a.csv").write_text("id,p_a,p_b\nx,0.5,0.5\ny,0.5\nz,0.2,0.3,0.5\n")
    with pytest.raises(EnsembleError, match=r"expected 3 cells in every row, not so in line 3 \(2\), line 4 \(4\)"):
        read_sources(tmp_path / "a.csv")


def test_columns_are_written_as_the_csv_module_writes_them(tmp_path):
    columns = {"id": ["a", 'b"c', "d,e", "f\ng", "", " j"], "x": list("123456")}
    write_columns(tmp_path / "columns.csv", columns)
    write_csv_rows(tmp_path / "rows.csv", [list(columns), *zip(*columns.values())])
    assert (tmp_path / "columns.csv").read_bytes() == (tmp_path / "rows.csv").read_bytes()


def test_disagreement_is_its_definition():
    p = np.array([[[0.7, 0.3], [1.0, 0.0], [0.5, 0.5]], [[0.2, 0.8], [0.0, 1.0], [0.5, 0.5]]])
    with np.errstate(divide="ignore"):
        found = disagreement(np.log(p))
    mean = p.mean(0)
    entropy = -(mean[0] * np.log(mean[0])).sum() + (p[:, 0] * np.log(p[:, 0])).sum() / 2
    assert found == pytest.approx([entropy, np.log(2), 0.0])
    assert np.isnan(disagreement(np.full((2, 1, 3), np.nan))).all()


def test_the_picture_is_drawn_without_the_pictures_too(tmp_path):
    found = pool_files([scores(tmp_path / "a"), scores(tmp_path / "b", temperature=1.0)], tmp_path / "out")
    assert draw_ensemble(found.scores, found.metrics).read_bytes()[:4] == b"\x89PNG"
