"""Members are matched question by question, weights are fitted where that pays, and what files hold is always told."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax, softmax

from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.external import calibrate_file, open_or_import, read_calibrations
from scoring.scores.fitting import describe_choices
from scoring.scores.folder import RunError, open_scores
from scoring.scores.members import read_members
from scoring.scores.pooling import PoolOptions, import_file, pool_files
from scoring.stats.calibration import Calibration
from scoring.stats.pool_weights import PoolWeights, apply_weights, choices, convex_weights, fit_weights, greedy_weights
from scoring.stats.pools import EnsembleError, pool
from scoring.stats.sets import SetRequest, SetsError
from tests.shared.number_files import long_file, table, write_csv
from tests.shared.predictions import drawn, likeliest_temperature, members
from tests.shared.scores_folders import expose, scores, settings, two_folders


# ------------------------------------------------------------------ what a file's numbers are
@pytest.mark.parametrize(
    "header, rows, problem",
    [
        ("id,p_a,p_b", ["x,40,60", "y,30,70"], "row must sum to 1; not so in 'x' (100.0000), 'y' (100.0000)"),
        ("id,p_a,p_b", ["x,0.4,0.5", "y,0.3,0.6"], "not so in 'x' (0.9000), 'y' (0.9000)"),
        (
            "id,a,b",
            ["x,40,60", "y,30,70"],
            "neither probabilities (row 'x' sums to 100.0000, not to 1) nor like logits",
        ),
        ("id,a,b", ["x,0.9,0.8", "y,0.3,0.6"], "neither probabilities (row 'x' sums to 1.7000"),
        ("id,logprob_a,logprob_b", ["x,-1,-1"], "log-probabilities of a row must sum to 1; not so in 'x' (0.7358)"),
        ("id,p_a,p_b", ["x,0.5,0.5", "y,-0.4,1.4"], "probabilities must not be negative; they are in 'y' (-0.4)"),
        ("id,p_a,p_b", ["x,-0.4,1.5"], "probabilities must not be negative; they are in 'x' (-0.4)"),
        ("id,l_a,l_b", ["x,inf,1", "y,1,inf"], "expected numbers; rows 'x' (l_a is infinite), 'y' (l_b is infinite)"),
        ("id,l_a,l_b", ["x,inf,1"], "expected numbers; row 'x' (l_a is infinite)"),
    ],
)
def test_columns_that_are_no_distribution_are_refused_with_row_and_sum(tmp_path, header, rows, problem):
    path = table(tmp_path / "file.csv", "\n".join([header, *rows, ""]))
    with pytest.raises(EnsembleError) as error:
        read_members(path)
    assert problem in str(error.value)
    if "infinite" not in problem:
        assert "--format" in str(error.value) and "shares" in str(error.value)


def test_what_was_assumed_is_always_told(tmp_path):
    cases = {
        "id,a,b\nx,0.4,0.6\n": "a … b read as probabilities, since each row sums to 1",
        "id,a,b\nx,-0.693147,-0.693147\n": "read as log-probabilities, since the exponentials",
        "id,a,b\nx,21.5,3\ny,20,-2\n": "read as logits, since rows do not sum to 1",
        "id,p_a,p_b\nx,0.4,0.6\n": "p_a … p_b read as probabilities, by their names",
        "id,l_a,l_b\nx,0.4,0.6\n": "l_a … l_b read as logits, by their names",
    }
    for text, told in cases.items():
        assert told in read_members(table(tmp_path / "file.csv", text))[0].notes[0]
    shares = read_members(table(tmp_path / "file.csv", "id,a,b\nx,30,70\n"), "shares")[0]
    assert np.allclose(np.exp(shares.logits), [[0.3, 0.7]]) and "as --format says" in shares.notes[0]


def test_a_certain_zero_is_an_option_and_a_missing_cell_is_none(tmp_path):
    found = read_members(table(tmp_path / "f.csv", "id,logprob_a,logprob_b,logprob_c\nx,0,-inf,\n"))[0]
    assert np.exp(found.logits[0, 0]) == pytest.approx(1) and np.isfinite(found.logits[0, 1])
    assert np.isnan(found.logits[0, 2])
    zeros = read_members(table(tmp_path / "f.csv", "id,p_a,p_b\nx,1,0\n"))[0]
    assert np.isfinite(zeros.logits).all() and np.exp(zeros.logits[0]).tolist() == pytest.approx([1, 0])


def test_semicolons_parquet_and_several_members_in_one_file(tmp_path):
    semicolons = read_members(table(tmp_path / "f.csv", "id;a;b\nx;0.4;0.6\n"))[0]
    assert semicolons.ids == ["x"] and np.allclose(np.exp(semicolons.logits), [[0.4, 0.6]])
    columns = {
        "id": [1, 2, 1, 2],
        "a": [3.0, 1.0, 0.5, 4.0],
        "b": [1.0, 2.0, 2.5, None],
        "member": ["m", "m", "n", "n"],
    }
    pq.write_table(pa.table(columns | {"answer": ["A", "b", "(a)", "a."]}), tmp_path / "f.parquet")
    first, second = read_members(tmp_path / "f.parquet")
    assert (first.name, second.name) == ("m", "n") and first.ids == ["1", "2"]
    assert first.questions["answer"] == ["a", "b"] and second.questions["answer"] == ["a", "a"]
    assert np.isnan(second.logits[1, 1])
    pq.write_table(pa.table(columns | {"answer": ["c", "b", "a", "b"]}), tmp_path / "f.parquet")
    with pytest.raises(EnsembleError, match=r"answers that are no letter of an option with a number: '1' \('c'\)"):
        read_members(tmp_path / "f.parquet")
    (tmp_path / "f.parquet").write_bytes(b"PAR1")
    with pytest.raises(EnsembleError, match="cannot be read"):
        read_members(tmp_path / "f.parquet")


# ------------------------------------------------------------------ one question under one id
def test_options_are_matched_one_by_one(tmp_path):
    first = table(tmp_path / "a.csv", "id,p_a,p_b,p_c,p_d\nx,0,0.2,0.8,\n")
    second = table(tmp_path / "b.csv", "id,p_a,p_b,p_c,p_d\nx,0,0.2,,0.8\n")
    with pytest.raises(EnsembleError, match=r"b: other options than in a: 'x' \(abc and abd\)"):
        pool_files([first, second], tmp_path / "out")


@pytest.mark.parametrize(
    "column, change, told",
    [
        ("choices", lambda value: value[::-1], "another options' texts under the id"),
        ("question", lambda value: value + "?", "another question under the id"),
        ("picture_digest", lambda value: "f" * 16, "another picture under the id"),
    ],
)
def test_another_question_under_one_id_is_refused(tmp_path, column, change, told):
    """Two folders with the same ids and reversed options were pooled: .74 became .383."""
    first, second = scores(tmp_path / "a"), scores(tmp_path / "b", temperature=1.0)
    for folder in (first, second):
        questions = pq.read_table(folder / "questions.parquet").to_pydict()
        questions["picture_digest"] = [f"{at // 2:016x}" for at in range(200)]
        if folder == second:
            questions[column][3:5] = [change(value) for value in questions[column][3:5]]
        pq.write_table(pa.table(questions), folder / "questions.parquet")
    with pytest.raises(EnsembleError) as error:
        pool_files([first, second], tmp_path / "out")
    assert told in str(error.value) and "'row3', 'row4'" in str(error.value)


def test_answers_that_differ_are_refused(tmp_path):
    first = table(tmp_path / "a.csv", "id,a,b,answer\nx,0.4,0.6,a\n")
    second = table(tmp_path / "b.csv", "id,a,b,answer\nx,0.3,0.7,b\n")
    with pytest.raises(EnsembleError, match=r"answers of members differ: 'x' \(a and b of b\)"):
        pool_files([first, second], tmp_path / "out")


def test_what_a_folder_of_several_members_weighs_is_told(tmp_path):
    log_p, _ = members(3, 30)
    ids = [f"r{row}" for row in range(30)]
    one, two = (write_csv(tmp_path / f"{name}.csv", ids, np.exp(part)) for name, part in zip("ab", log_p))
    pool_files([one, two], tmp_path / "pair")
    three = write_csv(tmp_path / "c.csv", ids, np.exp(log_p[2]))
    told = " ".join(pool_files([tmp_path / "pair", three], tmp_path / "out").notes)
    assert "67% (a, b)" in told and "33% (c)" in told
    with pytest.raises(
        EnsembleError, match="3 numbers from 0 on, separated by commas, in the order of the members: a, b, c"
    ):
        pool_files([tmp_path / "pair", three], tmp_path / "x", PoolOptions(weights="1,2"))
    for weights in ("nan,1,1", "inf,1,1", "-1,1,1", "0,0,0"):
        with pytest.raises(EnsembleError, match="3 numbers from 0 on"):
            pool_files([tmp_path / "pair", three], tmp_path / "x", PoolOptions(weights=weights))


# ------------------------------------------------------------------ what pools remember


def test_a_pool_says_in_which_settings_its_members_saw_which_rows(tmp_path):
    a, b = two_folders(tmp_path, orders="cyclic", pixels=1024, template="t", trained_on="d")
    about = json.loads((a / "run.json").read_text())
    for folder in (a, b):
        told = json.loads((folder / "run.json").read_text()) | {"data": {"file": "x.csv", "sha256": "s"}}
        (folder / "run.json").write_text(json.dumps(told))
    expose(a, [TRAINING] * 10 + [0] * 190)
    pool_files([a, b], tmp_path / "out")
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["data"] == {"file": "x.csv", "sha256": "s"}
    for entry in about["checkpoints"]:
        assert (entry["orders"], entry["pixels"], entry["template"], entry["trained_on"]) == ("cyclic", 1024, "t", "d")
    exposed = open_scores(tmp_path / "out").exposed
    assert exposed[:, 0].tolist() == [TRAINING] * 10 + [0] * 190 and not exposed[:, 1].any()


def test_a_pool_is_fitted_on_rows_that_no_member_was_trained_on(tmp_path):
    a, b = two_folders(tmp_path)
    expose(a, [TRAINING] * 60 + [VALIDATION] * 20 + [0] * 120)
    pool_files([a, b], tmp_path / "labelled")
    found = pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    told = " ".join(found.notes)
    assert "60 rows" in told and "that a member was trained on are left out" in told
    assert "on 20 of the labelled rows the epoch of a member was chosen" in told and "on 140 rows" in told
    expose(b, [TRAINING] * 200)
    pool_files([a, b], tmp_path / "all")
    with pytest.raises(EnsembleError, match="was trained on these rows"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "all"))


def test_labelled_rows_of_other_settings_do_not_fit(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    settings(a, orders="cyclic")
    with pytest.raises(EnsembleError, match="was scored with other settings: orders 1 there, cyclic here"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled"))
    settings(a, orders="1", pixels=4096)
    with pytest.raises(EnsembleError, match="pixels None there, 4096 here"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled"))


def test_sets_of_a_pool_need_labelled_rows_and_cover_as_asked(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    with pytest.raises(SetsError, match="name them with --fit"):
        pool_files([a, b], tmp_path / "x", PoolOptions(sets=SetRequest(0.9)))
    for folder in (a, b):  # the same rows, of other questions
        questions = pq.read_table(folder / "questions.parquet").to_pydict()
        questions["digest"] = [f"{at:016x}" for at in range(200)]
        pq.write_table(pa.table(questions), folder / "questions.parquet")
    for method in ("lac", "aps"):
        found = pool_files(
            [a, b], tmp_path / method, PoolOptions(fit=tmp_path / "labelled", sets=SetRequest(0.9, method))
        )
        assert found.metrics["sets"]["covered"] == pytest.approx(0.9, abs=0.02)  # on the rows that gave the quantile
        about = json.loads((tmp_path / method / "run.json").read_text())["sets"]
        assert about["method"] == method and "at least 90%" in about["guarantee"]


# ------------------------------------------------------------------ weights
def unlike(n, seed=0):
    """Four members: one good, one good in other ways, two poor ones."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    noise = [0.7, 0.9, 3.0, 3.0]
    return np.stack([log_softmax(z + rng.normal(0, size, z.shape), axis=1) for size in noise]), y


def test_fitted_weights_are_the_minimum_of_their_loss():
    """By scipy's general solver on the normalised weights and the temperature."""
    from scipy.optimize import minimize

    log_p, y = unlike(400)
    found = convex_weights(log_p, y, 0.0)

    def loss(free):
        weights = np.exp(free)
        return -log_softmax(np.tensordot(weights, log_p, 1), axis=1)[np.arange(400), y].mean()

    best = minimize(loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 8000, "fatol": 1e-10, "xatol": 1e-8})
    log_q = apply_weights(found, log_p)
    assert -log_q[np.arange(400), y].mean() == pytest.approx(best.fun, abs=1e-5)
    assert found.weights.sum() == pytest.approx(1) and (found.weights >= 0).all()
    strong = convex_weights(log_p, y, 1e6)
    assert strong.weights == pytest.approx(np.full(4, 0.25), abs=1e-3)


@pytest.mark.parametrize("kind", ["fit", "greedy"])
def test_fitted_weights_beat_equal_ones_where_members_are_unlike(kind):
    log_p, y = unlike(600)
    far, truth = unlike(4000, seed=1)
    found = fit_weights(log_p, y, kind)
    loss, equal = (
        -apply_weights(weights, far)[np.arange(4000), truth].mean()
        for weights in (found, PoolWeights(np.full(4, 0.25), 1.0))
    )
    assert found.why.startswith(f"fitted weights ({kind})") and loss < equal - 0.02
    assert found.weights[:2].sum() > 0.75


@pytest.mark.parametrize("kind", ["fit", "greedy"])
def test_like_members_keep_equal_weights(kind):
    rng = np.random.default_rng(2)
    z = rng.normal(0, 2, (200, 4))
    y = (softmax(z, axis=1).cumsum(1) > rng.random((200, 1))).argmax(1)
    log_p = np.stack([log_softmax(z + rng.normal(0, 0.5, z.shape), axis=1) for _ in range(4)])
    found = fit_weights(log_p, y, kind)
    assert found.why.startswith("equal weights: ") and found.weights.tolist() == [0.25] * 4


def test_greedy_weights_count_draws():
    log_p, y = unlike(500)
    found = greedy_weights(log_p, y)
    draws = found.weights * np.arange(1, 16)[:, None]
    assert np.isclose(draws, np.rint(draws)).all(1).any() and found.weights[:2].sum() > 0.6


def test_what_each_choice_gives_is_told_by_rows_held_out(tmp_path):
    log_p, y = unlike(600)
    found = choices(log_p, y)
    assert [part["nll"] for part in found] == sorted(part["nll"] for part in found)
    by_name = {part["weights"]: part for part in found}
    assert set(by_name) == {"equal", "fit", "greedy", "best single"} and by_name["equal"]["gain"] == 0
    assert {part["weights"] for part in choices(log_p, y, greedy=False)} == set(by_name) - {"greedy"}
    assert by_name["fit"]["gain"] > 2 * by_name["fit"]["error"] > 0
    ids = [f"r{row}" for row in range(600)]
    columns = {"id": ids * 4, "member": np.repeat(list("wxyz"), 600), "answer": ["abcd"[at] for at in y] * 4}
    columns |= {f"p_{letter}": np.exp(log_p[:, :, at]).ravel() for at, letter in enumerate("abcd")}
    pq.write_table(pa.table(columns), tmp_path / "file.parquet")
    pooled = pool_files([tmp_path / "file.parquet"], tmp_path / "out")
    told = " ".join(pooled.notes)
    assert "these rows prefer fitted weights: --weights fit" in told
    fitted = pool_files(
        [tmp_path / "file.parquet"], tmp_path / "fit", PoolOptions(weights="fit", fit=tmp_path / "file.parquet")
    )
    assert fitted.metrics["overall"]["nll"]["value"] < pooled.metrics["overall"]["nll"]["value"] - 0.02
    how = json.loads((tmp_path / "fit" / "run.json").read_text())["pool"]
    zero = [name for name, weight in zip("wxyz", how["weights"]) if weight == 0]
    assert all(name in " ".join(how["told"]) for name in zero)
    expected = pool(log_p, "log", how["weights"], how["temperature"])
    assert np.abs(np.exp(fitted.scores.log_p) - np.exp(expected)).max() < 1e-5


# ------------------------------------------------------------------ anyone's file in the place of a folder
def test_a_file_is_evaluated_calibrated_and_its_calibration_applied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log_p, y = members(1, 400, sharp=3.0)
    ids = [f"r{row}" for row in range(400)]
    write_csv(tmp_path / "mine.csv", ids, np.exp(log_p[0]))
    answers = table(tmp_path / "key.csv", "id,answer\n" + "".join(f"{id},{'abcd'[at]}\n" for id, at in zip(ids, y)))
    found, notes = open_or_import(tmp_path / "mine.csv", None, "auto", answers, ())
    assert found.folder.name == "mine" and (found.folder / "metrics.json").exists()
    assert "read as probabilities" in notes[0]
    raw = json.loads((found.folder / "metrics.json").read_text())["overall"]["nll"]["value"]
    assert raw == pytest.approx(-log_p[0][np.arange(400), y].mean(), abs=1e-6)
    fitted = calibrate_file(tmp_path / "mine.csv", tmp_path / "c.json", answers=answers)["mine"]
    assert fitted.temperature > 1.5 and read_calibrations(tmp_path / "c.json")[0].temperature == fitted.temperature
    again, notes = open_or_import(tmp_path / "mine.csv", None, "auto", answers, [tmp_path / "c.json"])
    after = json.loads((again.folder / "metrics.json").read_text())["overall"]["nll"]["value"]
    assert after == pytest.approx(fitted.nll_after, abs=1e-6) and after < raw - 0.1
    other = table(tmp_path / "other.csv", (tmp_path / "mine.csv").read_text())
    with pytest.raises(EnsembleError, match="--calibration: made for mine; expected one of the members: other"):
        open_or_import(other, None, "auto", answers, [tmp_path / "c.json"])
    with pytest.raises(EnsembleError, match="no scored row with an answer"):
        calibrate_file(tmp_path / "mine.csv", tmp_path / "d.json")
    with pytest.raises(RunError, match="holds other results"):
        import_file(other, tmp_path / "scores" / "mine")


def test_a_calibration_for_one_choice_of_orders_serves_no_other(tmp_path):
    a, b = two_folders(tmp_path)
    settings(b, orders="cyclic")
    made = Calibration(2.0, fingerprint={"adapter": "fb", "orders": "1"})
    with pytest.raises(EnsembleError, match="orders is 1, but b was scored in orders cyclic"):
        pool_files([a, b], tmp_path / "x", PoolOptions(calibrations=[made]))
    made.fingerprint["orders"] = "cyclic"
    found = pool_files([a, b], tmp_path / "out", PoolOptions(calibrations=[made]))
    assert [part.temperature for part in found.scores.calibrations] == [1.0, 2.0]


# ------------------------------------------------------------------ other kinds of pools, and the rows of their fit


@pytest.mark.parametrize("kind", ["linear", "vote"])
@pytest.mark.parametrize("weights", ["equal", "0.7,0.2,0.1"])
def test_sets_of_linear_pools_and_votes_cover_rows_to_come(tmp_path, kind, weights):
    """The pool that the sets come from is the one that is written: the same kind, weights and temperature."""
    log_p, y, ids = drawn(1000, 1)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    far, truth, others = drawn(2000, 2, 1000)
    rows = long_file(tmp_path / "rows.parquet", far, truth, others)
    for method in ("lac", "aps"):
        options = PoolOptions(kind, weights, fit=labelled, sets=SetRequest(0.9, method))
        found = pool_files([rows], tmp_path / method, options)
        settings, numbers = found.scores.pool, None if weights == "equal" else [0.7, 0.2, 0.1]
        covered = found.metrics["sets"]["covered"]
        assert covered >= 0.87 and (method == "aps" or covered < 0.93)
        written = pool(far, kind, numbers, settings.temperature)
        assert np.abs(np.exp(found.scores.log_p) - np.exp(written)).max() < 1e-5
        temperature = likeliest_temperature(pool(log_p, kind, numbers), y)
        assert settings.temperature == pytest.approx(temperature, abs=1e-3) and abs(temperature - 1) > 0.1


@pytest.mark.parametrize("kind", ["linear", "vote"])
@pytest.mark.parametrize("weights", ["fit", "greedy", "nll"])
def test_weights_fitted_for_the_log_pool_are_refused_for_other_pools(kind, weights):
    with pytest.raises(EnsembleError, match=f"--pool {kind} with --weights {weights}: .*use --pool log, or --weights"):
        PoolOptions(kind, weights)
    assert PoolOptions(kind, "equal").kind == PoolOptions(kind, "0.5,0.5").kind == kind


def test_a_refused_pool_writes_nothing_and_removes_nothing(cli, tmp_path):
    rows, out = long_file(tmp_path / "rows.parquet", *drawn(60, 1)), tmp_path / "out"
    pool_files([rows], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for refused, reason in (
        (["--pool", "linear", "--weights", "fit", "--sets", 0.9], "--pool linear with --weights fit"),
        (["--sets", 0.9], "60 of 60 rows are also labelled rows"),
    ):
        assert reason in cli("ensemble", rows, "--fit", rows, *refused, "--out", out, "--overwrite", check=2).stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_sets_on_rows_that_the_pool_is_fitted_on_are_refused(tmp_path):
    log_p, y, ids = drawn(120, 3)
    labelled = long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    far, truth, others = drawn(120, 4)  # other rows of the same ids, but for the last 12
    far[:, 108:], truth[108:] = log_p[:, 108:], y[108:]
    rows = long_file(tmp_path / "rows.parquet", far[:, ::-1], truth[::-1], others[::-1])
    for weights in ("equal", "fit", "0.5,0.3,0.2"):
        with pytest.raises(SetsError) as error:
            options = PoolOptions(weights=weights, fit=labelled, sets=SetRequest(0.9))
            pool_files([rows], tmp_path / "out", options)
        assert f"12 of 120 rows are also labelled rows of --fit {labelled}" in str(error.value)
        assert "'r119', 'r118'" in str(error.value) and "… and 2 more" in str(error.value)
        assert "leave them out" in str(error.value)
    assert not (tmp_path / "out").exists()
    found = pool_files([rows], tmp_path / "out", PoolOptions(fit=labelled))
    warning = next(text for text in found.scores.run_json["warnings"] if "--fit" in text)
    assert warning.startswith("12 of 120 rows are also labelled rows") and f"warning: {warning}" in found.notes
    assert found.scores.exposed.tolist() == [[CALIBRATION] * 3] * 12 + [[0] * 3] * 108
    fresh = long_file(tmp_path / "fresh.parquet", far[:, :108], truth[:108], others[:108])
    sets = pool_files([fresh], tmp_path / "fresh", PoolOptions(fit=labelled, sets=SetRequest(0.9))).scores
    assert not sets.exposed.any() and not [text for text in sets.run_json["warnings"] if "--fit" in text]


def test_rows_of_folders_are_recognised_by_their_questions_under_other_ids(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    path = tmp_path / "labelled" / "questions.parquet"
    questions = pq.read_table(path).to_pydict()
    questions["answer"] = ["" if at < 20 else letter for at, letter in enumerate(questions["answer"])]
    questions["digest"][190:] = ["f" * 16] * 10  # the same ids and numbers, but known to be other questions
    pq.write_table(pa.table(questions), path)
    with pytest.raises(SetsError, match=r"170 of 200 rows are also labelled rows of --fit .*'row20', 'row21'"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled", sets=SetRequest(0.9)))
    exposed = pool_files([a, b], tmp_path / "y", PoolOptions(fit=tmp_path / "labelled")).scores.exposed
    assert exposed.tolist() == [[0, 0]] * 20 + [[CALIBRATION] * 2] * 170 + [[0, 0]] * 10


def test_folds_have_no_sets_for_the_rows_that_they_were_trained_on(tmp_path):
    a, b = two_folders(tmp_path)
    labelled = scores(tmp_path / "out-of-fold")
    settings(labelled, adapters=["fa", "fb"])
    questions = pq.read_table(labelled / "questions.parquet").to_pydict() | {"fold": [0, 1] * 100}
    questions["digest"][50:] = [f"{row:016x}" for row in range(150)]
    pq.write_table(pa.table(questions), labelled / "questions.parquet")
    with pytest.raises(SetsError, match="50 of 200 rows are also labelled rows of --fit .*'row0', 'row1'"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=labelled, sets=SetRequest(0.9)))
    found = pool_files([a, b], tmp_path / "y", PoolOptions(fit=labelled)).scores
    assert found.exposed.tolist() == [[CALIBRATION] * 2] * 50 + [[0, 0]] * 150


# ------------------------------------------------------------------ one member twice
TWICE = {
    "its probabilities": ("p_{}", np.exp),
    "four digits of them": ("p_{}", lambda z: np.round(np.exp(z), 4)),
    "rounded logits": ("l_{}", lambda z: np.round(z, 4)),
    "logits a little higher": ("l_{}", lambda z: z + 3),
    "16 bits of a mantissa": ("l_{}", lambda z: z.astype(np.float32)),
    "less sure": ("l_{}", lambda z: z / 1.7),
    "surer, to four digits": ("p_{}", lambda z: np.round(softmax(1.4 * z, axis=1), 4)),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_member_that_is_there_twice_in_other_words_is_refused(tmp_path, case):
    log_p, _, ids = drawn(200, 5)
    pattern, make = TWICE[case]
    one = write_csv(tmp_path / "one.csv", ids, log_p[1] + 2, "l_{}")
    two = write_csv(tmp_path / "two.csv", ids[::-1], make(log_p[1])[::-1], pattern)
    other = write_csv(tmp_path / "other.csv", ids, np.exp(log_p[0]))
    with pytest.raises(
        EnsembleError, match=r"one of .*one\.csv and two of .*two\.csv have the same numbers in every"
    ) as e:
        pool_files([one, other, two], tmp_path / "out")
    assert ("temperature" in str(e.value)) == case.endswith(("sure", "surer, to four digits"))
    pool_files([other, two], tmp_path / "out")


def test_a_folder_and_its_own_probabilities_are_one_member(tmp_path):
    folder = scores(tmp_path / "a")
    settings(folder, calibration={"temperature": 2.0, "letters": [0.0, 0.3, -0.4, 0.9]})
    first = open_scores(folder)
    write_csv(tmp_path / "own.csv", first.logits.ids, np.round(np.exp(first.log_p), 6))
    with pytest.raises(EnsembleError, match="have the same numbers in every row, but for rounding"):
        pool_files([folder, tmp_path / "own.csv"], tmp_path / "out")


def test_members_that_are_sure_of_the_same_answers_are_two(tmp_path):
    """All but a few rows look alike once they are rounded."""
    rng = np.random.default_rng(0)
    z = np.eye(4)[rng.integers(0, 4, 400)] * 14
    paths = [
        write_csv(tmp_path / f"{name}.csv", [*map(str, range(400))], z + rng.normal(0, 1, z.shape), "l_{}")
        for name in "ab"
    ]
    assert len(pool_files(paths, tmp_path / "out").scores.logits.members) == 2


# ------------------------------------------------------------------ what is said
def test_what_other_weights_would_lose_is_said_as_a_loss(tmp_path):
    log_p, y, ids = drawn(300, 6)
    log_p[2] = log_softmax(np.random.default_rng(1).normal(0, 2, (300, 4)), axis=1)
    like, right = members(2, 300)
    gains = {part["weights"]: part for part in choices(log_p, y, greedy=False)}
    lost = {part["weights"]: part for part in choices(like, right, greedy=False)}
    assert gains["fit"]["gain"] > 0 > lost["best single"]["gain"]
    for name, pooled, answers, parts in (("gains", log_p, y, gains), ("loses", like, right, lost)):
        told = " ".join(pool_files([long_file(tmp_path / "f.parquet", pooled, answers, ids)], tmp_path / name).notes)
        for part in parts.values():
            if part["weights"] != "equal":
                word = "gains" if part["gain"] > 0 else "loses"
                assert f"NLL {part['nll']:.3f} ({word} {abs(part['gain']):.4f} ± {part['error']:.4f})" in told
        assert "gains -" not in told and "gains +" not in told


def test_a_best_member_that_gains_nothing_is_not_preferred():
    zero = {"accuracy": 0.5, "nll": 0.7, "gain": 0.0, "error": 0.0}
    alike = [{"weights": name} | zero for name in ("best single", "equal", "fit")]
    assert len(describe_choices(alike)) == 1
    clear = [{"weights": "best single"} | zero | {"gain": 0.1, "error": 0.02}, *alike[1:]]
    assert describe_choices(clear)[1] == "these rows prefer the best member alone"
