"""What is fitted on labelled rows for a pool: which rows count, temperature, weights, sets, and what is reported."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import log_softmax

from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.fitting import FitRequest, describe_choices, fit_pool
from scoring.scores.folder import open_scores
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.members import MemberPool, aligned, read_members
from scoring.scores.pooling import PoolOptions, pool_files
from scoring.stats.calibration import Calibration, LabelledRows, calibrate
from scoring.stats.pool_weights import (
    choices,
    fit_weights,
    held_out_pool,
    likeliest_weights,
)
from scoring.stats.pools import EnsembleError, PoolSettings, nll_weights, pool
from scoring.stats.resampling import clusters_of
from scoring.stats.selective import set_quantile
from scoring.stats.sets import SetRequest, SetsError
from scoring.tables.answers import AnswerTable
from tests.shared.number_files import write_csv, write_long_file
from tests.shared.predictions import draw_rows, good_and_poor, likeliest_temperature, members
from tests.shared.scores_folders import (
    change_columns,
    change_exposure,
    change_run,
    change_settings,
    columns_of,
    run_json,
    two_folders,
    write_scores,
)


# ------------------------------------------------------------------ fitted on labelled rows
def as_pool(log_p):
    """(M, N, K) logits of members as probabilities of the log pool of equal weights, normalised."""
    return log_softmax(log_p.mean(0), axis=1)


def notes_of(folder):
    return run_json(folder)["notes"]


def files_of(tmp_path, rows=120, fewer=()):
    """Labelled rows and other rows of three members; `fewer`: labelled rows without a number of the second."""
    log_p, y, ids = draw_rows(rows, 3)
    log_p[1, list(fewer)] = np.nan
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    new_log_p, new_y, new_ids = draw_rows(50, 4, rows)
    return labelled, write_long_file(tmp_path / "rows.parquet", new_log_p, new_y, new_ids), log_p, y, new_log_p


@pytest.mark.parametrize("kind, weights", [("log", "5,1,1"), ("linear", "5,1,1"), ("vote", "5,1,2"), ("log", "equal")])
def test_the_temperature_of_a_pool_is_that_of_its_kind_and_weights(tmp_path, kind, weights):
    labelled, rows, log_p, y, new_log_p = files_of(tmp_path)
    pooled = pool_files([rows], tmp_path / "out", PoolOptions(kind, weights, fit=labelled)).scores
    shares = None if weights == "equal" else [float(weight) for weight in weights.split(",")]
    temperature = likeliest_temperature(pool(log_p, kind, shares), y)
    assert pooled.pool.temperature == pytest.approx(temperature, abs=1e-3) and abs(temperature - 1) > 0.05
    assert np.exp(pooled.log_p) == pytest.approx(np.exp(pool(new_log_p, kind, shares, temperature)), abs=1e-3)
    note = next(note for note in pooled.run_json["notes"] if note.startswith("temperature of the pool"))
    assert note.startswith(
        f"temperature of the pool {temperature:.3f}, on 120 rows: temperature {temperature:.3f}: rows held out of the "
        "fit "
    )


@pytest.mark.parametrize("kind, weights, proposed", [("log", "equal", 1), ("log", "5,1,1", 0), ("vote", "equal", 0)])
def test_other_weights_are_proposed_by_labelled_rows_for_the_equal_log_pool_alone(tmp_path, kind, weights, proposed):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    pool_files([rows], tmp_path / "out", PoolOptions(kind, weights, fit=labelled))
    expected = describe_choices(choices(log_p, y, np.arange(120)))
    assert notes_of(tmp_path / "out")[2:] == (expected if proposed else [])


def test_rows_without_a_number_or_an_answer_are_not_fitted_on(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path, fewer=[0, 7])
    columns = pq.read_table(labelled).to_pydict()
    columns["answer"] = ["" if row % 120 in (5, 6, 7) else letter for row, letter in enumerate(columns["answer"])]
    pq.write_table(pa.table(columns), labelled)
    pooled = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled)).scores
    used = [row for row in range(120) if row not in (0, 5, 6, 7)]
    expected = likeliest_temperature(as_pool(log_p[:, used]), y[used])
    assert pooled.pool.temperature == pytest.approx(expected, abs=1e-4)
    assert f"temperature of the pool {expected:.3f}, on 116 rows: " in " ".join(pooled.run_json["notes"])


def test_labelled_rows_without_answers_are_refused(tmp_path):
    labelled, rows, *_ = files_of(tmp_path)
    columns = pq.read_table(labelled).to_pydict()
    pq.write_table(pa.table(columns | {"answer": [""] * 360}), labelled)
    with pytest.raises(EnsembleError) as error:
        pool_files([rows], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: no scored row has an answer, so that nothing can be fitted on it"
    key = {f"r{row}": "a" for row in range(120)}
    answers = AnswerTable(Path("answers.csv"), key, {})
    pooled = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled, answers=answers)).scores
    assert "on 120 rows" in " ".join(pooled.run_json["notes"])


@pytest.mark.parametrize("weights", ["fit", "greedy"])
def test_fitted_weights_and_their_temperature_are_those_of_the_labelled_rows(tmp_path, weights):
    log_p, y, ids = draw_rows(300, 6)
    other_letters = np.clip(3 * np.roll(log_p[0], 1, axis=1), -15, 0)  # mostly wrong
    log_p[2] = log_softmax(other_letters + np.random.default_rng(1).normal(0, 1, (300, 4)), axis=1)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    rows = write_long_file(tmp_path / "rows.parquet", *draw_rows(50, 4, 300))
    options = PoolOptions("log", weights, fit=labelled, sets=SetRequest(0.8))
    pooled = pool_files([rows], tmp_path / "out", options).scores
    expected = fit_weights(log_p, y, weights, np.arange(300))
    assert pooled.pool.weights == pytest.approx(expected.weights.tolist(), abs=1e-4)
    assert pooled.pool.temperature == pytest.approx(expected.temperature, abs=1e-4)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in zip("uvw", expected.weights))
    notes = [f"{expected.why}: {listed}"]
    if none := [name for name, weight in zip("uvw", expected.weights) if weight == 0]:
        notes.append(f"weight 0, so that the pool does without: {', '.join(none)}")
    assert pooled.run_json["notes"][1:] == notes and expected.fit
    assert none == ["w"]
    wrong = np.sort(1 - np.exp(held_out_pool(expected.fit, log_p, y, np.arange(300)))[np.arange(300), y])
    assert pooled.run_json["sets"]["quantile"] == pytest.approx(wrong[int(np.ceil(301 * 0.8)) - 1], abs=1e-4)


def test_weights_of_lowest_loss_come_with_a_temperature_of_their_pool(tmp_path):
    log_p, y, ids = draw_rows(1000, 6)
    log_p[2] = log_softmax(np.random.default_rng(1).normal(0, 5, (1000, 4)), axis=1)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    rows = write_long_file(tmp_path / "rows.parquet", *draw_rows(50, 4, 1000))
    options = PoolOptions("log", "nll", fit=labelled, sets=SetRequest(0.8, "aps"))
    pooled = pool_files([rows], tmp_path / "out", options).scores
    chosen = nll_weights(log_p, y, np.arange(1000))
    weights = chosen.weights
    temperature = likeliest_temperature(pool(log_p, "log", weights), y)
    assert pooled.pool.weights == pytest.approx(weights.tolist(), abs=1e-4)
    assert pooled.pool.temperature == pytest.approx(temperature, abs=1e-3)
    listed = ", ".join(f"{name} {weight:.2f}" for name, weight in zip("uvw", weights))
    assert chosen.fitted and pooled.run_json["notes"][1] == f"{chosen.why}: {listed}"
    assert pooled.run_json["notes"][2].startswith(f"temperature of the pool {temperature:.3f}, on 1,000 rows: ")
    p = np.exp(held_out_pool(likeliest_weights, log_p, y, np.arange(1000)))
    right = p[np.arange(1000), y]
    up_to = np.sort(np.where(p >= right[:, None], p, 0).sum(1))
    assert pooled.run_json["sets"]["quantile"] == pytest.approx(up_to[int(np.ceil(1001 * 0.8)) - 1], abs=1e-4)


def test_few_labelled_rows_leave_weights_of_lowest_loss_equal(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    options = PoolOptions("log", "nll", fit=labelled, sets=SetRequest(0.8))
    pooled = pool_files([rows], tmp_path / "out", options).scores
    assert pooled.pool.weights == pytest.approx([1 / 3] * 3)
    assert pooled.run_json["notes"][1] == ("equal weights: 120 labelled rows are under 1,000: u 0.33, v 0.33, w 0.33")
    assert len(pooled.run_json["notes"]) == 3 and pooled.run_json["notes"][2].startswith("temperature of the pool")


def test_rows_of_one_picture_stay_together_in_the_comparison_of_weights(tmp_path):
    a, b = two_folders(tmp_path)
    digests = ["" if row >= 150 else f"{row // 3:016x}" for row in range(200)]
    for folder in (a, b):
        change_columns(folder, picture_digest=digests)
    pool_files([a, b], tmp_path / "labelled")
    change_columns(tmp_path / "labelled", digest=[f"{row:016x}" for row in range(200)])
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    opened = open_scores(tmp_path / "labelled")
    clusters = clusters_of([digest or f"row {row}" for row, digest in enumerate(digests)])
    y = opened.answers(np.arange(200))
    expected = describe_choices(choices(opened.members, y, clusters))
    assert len(set(clusters)) == 100
    assert notes_of(tmp_path / "out")[-len(expected) :] == expected
    assert not pooled.scores.exposed.any()


@pytest.mark.parametrize("weights, n", [("fit", 60), ("greedy", 60), ("nll", 1000)])
def test_rows_of_one_picture_stay_together_in_the_fit_of_weights_and_of_sets(tmp_path, weights, n):
    a, b = write_scores(tmp_path / "a", n), write_scores(tmp_path / "b", n)
    logits = open_scores(b).logits
    logits.logits += np.random.default_rng(1).normal(0, 9, logits.logits.shape).astype(np.float32)  # says little
    write_part(b / "logits", 0, logits)
    pictures = [f"{row // 4:016x}" for row in range(n)]
    for folder in (a, b):
        change_settings(folder, fingerprint=folder.name)
        change_columns(folder, picture_digest=pictures)
    labelled = tmp_path / "labelled"
    labelled_folder(a, b, labelled, digest=[f"{row:016x}" for row in range(n)])
    options = PoolOptions("log", weights, fit=labelled, sets=SetRequest(0.8))
    pooled = pool_files([a, b], tmp_path / "out", options).scores
    opened, clusters = open_scores(labelled), clusters_of(pictures)
    y = opened.answers(np.arange(n))
    if weights == "nll":
        chosen, fit = nll_weights(opened.members, y, clusters), likeliest_weights
    else:
        chosen = fit_weights(opened.members, y, weights, clusters)
        fit = chosen.fit
    values, why = chosen.weights, chosen.why
    assert fit and why.startswith("fitted weights")
    assert pooled.run_json["notes"][0] == f"{why}: a {values[0]:.2f}, b {values[1]:.2f}"
    unseen = np.exp(held_out_pool(fit, opened.members, y, clusters))
    quantile = set_quantile(1 - unseen[np.arange(n), y], 0.8, None, n // 4)
    assert pooled.run_json["sets"]["quantile"] == pytest.approx(quantile, abs=1e-5)


def test_rows_of_one_picture_stay_together_in_the_fit_of_a_temperature(tmp_path):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture_digest=[f"{row // 4:016x}" for row in range(200)])
    pool_files([a, b], tmp_path / "out", labelled_folder(a, b, tmp_path / "labelled"))
    opened = open_scores(tmp_path / "labelled")
    clusters = clusters_of([f"{row // 4:016x}" for row in range(200)])
    calibration = calibrate(
        LabelledRows(as_pool(opened.members), opened.answers(np.arange(200)), None, clusters),
        False,
        temperature_only=True,
    )
    assert notes_of(tmp_path / "out") == [
        f"temperature of the pool {calibration.temperature:.3f}, on 200 rows: {calibration.choice[0]}"
    ]


def test_task_types_and_letters_of_calibrations_count_in_the_fit_of_the_pool(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    bias = np.array([0.0, 1.0, -1.0, 0.5])
    calibrations = [
        Calibration(1.0, groups={"count": 4.0, "object": 0.5}, fingerprint={"adapter": "fa"}),
        Calibration(1.0, bias.tolist(), fingerprint={"adapter": "fb"}),
    ]
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled", calibrations=calibrations)
    scores = pool_files([a, b], tmp_path / "out", options).scores
    first, second = (open_scores(folder).members[0] for folder in (a, b))
    divisor = np.array([4.0 if row % 3 else 0.5 for row in range(200)])[:, None]
    pooled = (log_softmax(first / divisor, axis=1) + log_softmax(second + bias, axis=1)) / 2
    y = open_scores(a).answers(np.arange(200))
    assert scores.pool.temperature == pytest.approx(likeliest_temperature(pooled, y), abs=1e-3)


def test_a_bias_of_letters_does_not_count_where_options_stood_at_several_letters(tmp_path):
    a, b = two_folders(tmp_path, orders="cyclic")
    pool_files([a, b], tmp_path / "labelled")
    calibration = Calibration(1.0, [0.0, 2.0, -2.0, 1.0], fingerprint={"adapter": "fb", "orders": "cyclic"})
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled", calibrations=[calibration])
    scores = pool_files([a, b], tmp_path / "out", options).scores
    pooled = np.mean([open_scores(folder).members[0] for folder in (a, b)], axis=0)
    y = open_scores(a).answers(np.arange(200))
    assert scores.pool.temperature == pytest.approx(likeliest_temperature(pooled, y), abs=1e-3)


# ------------------------------------------------------------------ which labelled rows count
def test_labelled_rows_of_a_training_are_left_out_of_the_fit(tmp_path):
    a, b = two_folders(tmp_path)
    change_exposure(a, [TRAINING] * 60 + [VALIDATION] * 20 + [0] * 120)
    change_exposure(b, [0] * 50 + [TRAINING] * 20 + [0] * 130)
    labelled = tmp_path / "labelled"
    pool_files([a, b], labelled)
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions("log", "1,1", fit=labelled)).scores
    opened = open_scores(labelled)
    rows = np.arange(70, 200)
    expected = likeliest_temperature(as_pool(opened.members[:, rows]), opened.answers(rows))
    assert pooled.pool.temperature == pytest.approx(expected, abs=1e-3)
    notes = pooled.run_json["notes"]
    assert notes[0] == f"70 rows of {labelled} that a member was trained on are left out"
    assert notes[1] == "on 10 of the labelled rows the epoch of a member was chosen: it looks better there"
    assert f"on {len(rows)} rows: " in notes[2]
    assert [flags[0] & CALIBRATION > 0 for flags in pooled.exposed] == [False] * 70 + [True] * 130


@pytest.mark.parametrize("exposed, names", [((0, 1), "b"), ((1, 0), "a"), ((1, 1), "a, b")])
def test_the_members_that_were_trained_on_all_labelled_rows_are_named(tmp_path, exposed, names):
    a, b = two_folders(tmp_path)
    for folder, flag in zip((a, b), exposed):
        change_exposure(folder, [TRAINING * flag] * 200)
    pool_files([a, b], tmp_path / "labelled")
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value) == (
        f"{tmp_path / 'labelled'}: {names} was trained on these rows; a pool fitted on them would be far too "
        "confident. Use other labelled rows, or the out-of-fold scores of a training with --folds"
    )


@pytest.mark.parametrize("trained_on, exposed, left", [("t", 0, 0), ("u", 0, 200), ("t", 5, 195)])
def test_a_checkpoint_without_a_record_of_rows_is_known_by_its_table(tmp_path, trained_on, exposed, left):
    a, b = two_folders(tmp_path)
    change_settings(b, trained_on=trained_on, data={"sha256": "t"})
    change_exposure(b, [TRAINING] * exposed + [0] * (200 - exposed))
    pool_files([a, b], tmp_path / "labelled")
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled")
    if not left:
        with pytest.raises(EnsembleError, match="labelled: a member was trained on these rows; a pool fitted on"):
            pool_files([a, b], tmp_path / "out", options)
        return
    notes = " ".join(pool_files([a, b], tmp_path / "out", options).scores.run_json["notes"])
    assert f"on {left} rows: " in notes


def test_no_labelled_row_is_left_out_where_no_table_is_known(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    options = PoolOptions("log", "1,1", fit=tmp_path / "labelled")
    assert "on 200 rows: " in " ".join(pool_files([a, b], tmp_path / "out", options).notes)


def test_members_are_matched_to_labelled_rows_whatever_their_order(tmp_path):
    labelled, rows, log_p, y, _ = files_of(tmp_path)
    reordered = write_long_file(tmp_path / "turned.parquet", log_p, y, [f"r{row}" for row in range(120)])
    columns = pq.read_table(reordered).to_pydict()
    columns["member"] = [{"u": "w", "v": "u", "w": "v"}[name] for name in columns["member"]]
    pq.write_table(pa.table(columns), reordered)
    options = PoolOptions("log", "7,2,1", fit=reordered)
    pooled = pool_files([rows], tmp_path / "out", options).scores
    expected = likeliest_temperature(pool(log_p[[1, 2, 0]], "log", [7, 2, 1]), y)
    assert pooled.pool.temperature == pytest.approx(expected, abs=1e-3)


def test_two_members_of_one_checkpoint_are_told_apart_by_their_names(tmp_path):
    a, b = two_folders(tmp_path)
    change_settings(b, fingerprint="fa")
    pool_files([b, a], tmp_path / "labelled", PoolOptions(names=["b", "a"]))
    options = PoolOptions("log", "9,1", fit=tmp_path / "labelled")
    pooled = pool_files([a, b], tmp_path / "out", options).scores
    log_p = np.stack([open_scores(folder).members[0] for folder in (a, b)])
    y = open_scores(a).answers(np.arange(200))
    expected, other = (likeliest_temperature(pool(log_p, "log", shares), y) for shares in ([9, 1], [1, 9]))
    assert pooled.pool.temperature == pytest.approx(expected, abs=1e-3) and abs(expected - other) > 0.1


def test_members_that_the_labelled_rows_lack_are_named(tmp_path):
    a, b = two_folders(tmp_path)
    other = write_csv(tmp_path / "c.csv", open_scores(a).logits.ids, np.exp(draw_rows(200, 1)[0][0]))
    third = write_csv(tmp_path / "d.csv", open_scores(a).logits.ids, np.exp(draw_rows(200, 1)[0][1]))
    pool_files([a, third], tmp_path / "labelled")
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b, other], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value) == (
        f"{tmp_path / 'labelled'}: expected the members that are pooled; b (fb) is missing; c (of a file) is "
        "missing. It has m (fa), d (of a file). --fit takes one folder or file that holds all members: of several, "
        "make one by `ensemble` of the labelled rows of each"
    )


def test_settings_in_which_labelled_rows_differ_are_named(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    change_settings(b, orders="cyclic", template="t", pixels=4)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    assert str(error.value).startswith(
        f"{tmp_path / 'labelled'}: expected the members that are pooled; b was scored with other settings: template "
        "None there, t here, pixels None there, 4 here, orders 1 there, cyclic here. It has a (fa), b (fb). --fit takes"
    )


# ------------------------------------------------------------------ rows of the pool that are labelled rows too
def labelled_folder(a, b, folder, **columns):
    pool_files([a, b], folder)
    change_columns(folder, **columns)
    return PoolOptions("log", "1,1", fit=folder)


def fitted_rows(pooled):
    return [bool(row.all()) for row in pooled.scores.exposed & CALIBRATION > 0]


@pytest.mark.parametrize("name, labelled_name, known", [("x.jpg", "x.jpg", True), ("x.jpg", "y.jpg", False)])
def test_a_picture_without_a_digest_is_recognised_by_its_name(tmp_path, name, labelled_name, known):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture=[f"{row}-{name}" for row in range(200)], picture_digest=[""] * 200)
    options = labelled_folder(a, b, tmp_path / "labelled", picture=[f"{row}-{labelled_name}" for row in range(200)])
    pooled = pool_files([a, b], tmp_path / "out", options)
    assert fitted_rows(pooled) == [known] * 200


def test_the_name_of_a_picture_does_not_matter_where_its_content_is_known(tmp_path):
    a, b = two_folders(tmp_path)
    for folder in (a, b):
        change_columns(folder, picture_digest=[f"{row:016x}" for row in range(100)] + [""] * 100)
    options = labelled_folder(a, b, tmp_path / "labelled", picture=["other.jpg"] * 200)
    assert fitted_rows(pool_files([a, b], tmp_path / "out", options)) == [True] * 100 + [False] * 100


def test_a_row_of_a_file_is_a_labelled_row_by_its_id_and_the_numbers_of_every_member(tmp_path):
    log_p, y, ids = draw_rows(40, 3)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    changed = log_p.copy()
    changed[:, 0:5] = draw_rows(40, 8)[0][:, 0:5]  # one id, other numbers
    changed[1, 5:10] = draw_rows(40, 8)[0][1, 5:10]  # of one member alone
    changed[:, 10:15] += 2e-4 * np.array([1, -1, 1, -1])  # another way to write the same
    others = [*ids[:30], *(f"n{row}" for row in range(30, 40))]  # other ids, the same numbers
    rows = write_long_file(tmp_path / "rows.parquet", changed, y, others)
    pooled = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(pooled) == [False] * 10 + [True] * 20 + [False] * 10
    warning = run_json(tmp_path / "out")["warnings"][0]
    first = ", ".join(f"'r{row}'" for row in range(10, 20))
    assert warning == (
        f"20 of 40 rows are also labelled rows of --fit {labelled}, on which the pool is fitted ({first} … and 10 "
        "more): what is measured on them flatters it"
    )


@pytest.mark.parametrize("wide", ["labelled", "rows"])
def test_labelled_rows_may_have_another_greatest_number_of_options(tmp_path, wide):
    log_p, y, ids = draw_rows(40, 3)
    narrow = log_softmax(log_p[:, :, :3], axis=2)
    both = log_p.copy()
    both[:, :30, :3], both[:, :30, 3] = narrow[:, :30], np.nan  # 30 rows with three options, 10 with four
    few = write_long_file(tmp_path / "few.parquet", np.pad(narrow, [(0, 0), (0, 0), (0, 1)]), np.minimum(y, 2), ids)
    pq.write_table(pq.read_table(few).drop_columns(["p_d"]), few)
    many = write_long_file(tmp_path / "many.parquet", both, np.where(np.arange(40) < 30, np.minimum(y, 2), y), ids)
    labelled, rows = (many, few) if wide == "labelled" else (few, many)
    pooled = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(pooled) == [True] * 30 + [False] * 10
    assert pooled.scores.logits.logits.shape[-1] == (3 if wide == "labelled" else 4)


def test_a_labelled_row_that_is_not_fitted_on_is_not_flagged(tmp_path):
    log_p, y, ids = draw_rows(40, 3)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    columns = pq.read_table(labelled).to_pydict()
    columns["answer"] = ["" if row % 40 < 10 else letter for row, letter in enumerate(columns["answer"])]
    pq.write_table(pa.table(columns), labelled)
    rows = write_long_file(tmp_path / "rows.parquet", log_p, y, ids)
    pooled = pool_files([rows], tmp_path / "out", PoolOptions("log", "1,1,1", fit=labelled))
    assert fitted_rows(pooled) == [False] * 10 + [True] * 30


def test_rows_are_recognised_by_the_first_member_that_knows_their_questions(tmp_path):
    a = write_scores(tmp_path / "a")
    change_settings(a, fingerprint="fa")
    ids = open_scores(a).logits.ids
    file = write_csv(tmp_path / "c.csv", ids, np.exp(draw_rows(200, 1)[0][0]))
    labelled = tmp_path / "labelled"
    pool_files([a, file], labelled)
    renamed = [f"new {id}" for id in ids]
    change_columns(labelled, id=renamed)
    opened = open_scores(a).logits
    for path in (labelled / "logits").iterdir():
        columns = pq.read_table(path).to_pydict()
        pq.write_table(pa.table(columns | {"id": [f"new {id}" for id in columns["id"]]}), path)
    pooled = pool_files([file, a], tmp_path / "out", PoolOptions("log", "1,1", fit=labelled))
    assert opened.ids == ids and fitted_rows(pooled) == [True] * 200


def test_sets_of_labelled_rows_are_refused_with_what_to_do(tmp_path):
    log_p, y, ids = draw_rows(40, 3)
    rows = write_long_file(tmp_path / "rows.parquet", log_p, y, ids)
    other = write_long_file(tmp_path / "other.parquet", log_p[:, :3], y[:3], ids[:3])
    with pytest.raises(SetsError) as error:
        pool_files([other], tmp_path / "out", PoolOptions("log", "1,1,1", fit=rows, sets=SetRequest(0.8)))
    assert str(error.value) == (
        f"--sets: 3 of 3 rows are also labelled rows of --fit {rows}, on which the pool is fitted ('r0', 'r1', 'r2'), "
        "so that sets of these promise nothing; leave them out of the rows to be pooled, or name other labelled rows "
        "with --fit"
    )


# ------------------------------------------------------------------ folds
def folds_of(tmp_path, adapters=("fa", "fb"), fold=(0, 1), fresh=True):
    """Two checkpoints of folds, and out-of-fold rows of them with the temperature 2."""
    a, b = two_folders(tmp_path)
    labelled = write_scores(tmp_path / "out-of-fold", seed=5)
    change_settings(labelled, adapters=list(adapters))
    columns = {"fold": [fold[row % len(fold)] for row in range(200)]}
    if fresh:
        columns["digest"] = [f"{row:016x}" for row in range(200)]
    change_columns(labelled, **columns)
    return a, b, labelled


def test_folds_have_one_temperature_and_their_pool_has_none(tmp_path):
    a, b, labelled = folds_of(tmp_path)
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled)).scores
    opened = open_scores(labelled)
    temperature = likeliest_temperature(opened.members[0], opened.answers(np.arange(200)))
    assert temperature > 1.5 and pooled.pool == PoolSettings("log", [0.5, 0.5], 1.0)
    assert [calibration.temperature for calibration in pooled.calibrations] == pytest.approx(
        [temperature] * 2, abs=1e-3
    )
    assert pooled.run_json["notes"] == [
        f"one temperature for all folds, {temperature:.3f}, on 200 rows each scored by the fold that had not seen it; "
        "the pool has none of its own: no row was left unseen by all folds"
    ]
    log_p = np.stack([open_scores(folder).members[0] for folder in (a, b)])
    assert np.exp(pooled.log_p) == pytest.approx(np.exp(pool(log_p, temperature=temperature)), abs=1e-3)
    assert not pooled.exposed.any()


@pytest.mark.parametrize(
    "order, adapters, fold",
    [
        ("ab", ("fa", "fb"), (0, 1)),
        ("ba", ("fa", "fb"), (0, 0, 1)),
        ("ba", ("fb", "fc", "fa"), (0, 1, 2, 2)),
    ],
)
def test_sets_of_folds_compare_each_labelled_row_with_the_fold_that_had_not_seen_it(tmp_path, order, adapters, fold):
    a, b, labelled = folds_of(tmp_path, adapters, fold)
    folders = {"a": a, "b": b}
    options = PoolOptions(fit=labelled, sets=SetRequest(0.8))
    pooled = pool_files([folders[name] for name in order], tmp_path / "out", options).scores
    opened = open_scores(labelled)
    temperature = pooled.calibrations[0].temperature
    y, rows = opened.answers(np.arange(200)), np.arange(200)
    wrong = 1 - np.exp(log_softmax(opened.members[0] / temperature, axis=1))[rows, y]
    below = np.zeros((200, 4))
    for name in order:
        p = np.exp(log_softmax(open_scores(folders[name]).members[0] / temperature, axis=1))
        fold_wrong = wrong[[adapters[number] == f"f{name}" for number in columns_of(labelled)["fold"]]]
        below += (fold_wrong < (1 - p)[:, :, None]).sum(2) / 200
    pictures = pooled.calibrations[0].pictures
    held = below < 0.8 * (1 + 1 / pictures)
    assert (pooled.option_sets() == held).mean() > 0.99  # the labelled rows' numbers are of fits without them
    assert pooled.run_json["sets"]["quantile"] is None and "sets of folds (CV+)" in pooled.run_json["sets"]["guarantee"]


def test_rows_of_other_folds_are_refused(tmp_path):
    a, b, labelled = folds_of(tmp_path, ("fx", "fb"))
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: not the out-of-fold rows of a"
    change_settings(labelled, adapters=["fx", "fy"])
    with pytest.raises(EnsembleError, match="not the out-of-fold rows of a, b$"):
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))


@pytest.mark.parametrize(
    "labelled_orders, run_orders, member_orders",
    [
        ("cyclic", "1", None),
        (None, "cyclic", "1"),
        (None, "1", "cyclic"),
        ("cyclic", "1", "reverse"),
        (None, None, "cyclic"),
    ],
)
def test_rows_of_folds_in_other_orders_are_refused(tmp_path, labelled_orders, run_orders, member_orders):
    a, b, labelled = folds_of(tmp_path)
    orders = labelled_orders or run_orders or "1"
    if labelled_orders:
        change_settings(labelled, orders=labelled_orders)
    change_run(labelled, identity={"letters": "abcd"} | ({"orders": run_orders} if run_orders else {}))
    change_settings(a, orders=orders)
    if member_orders:
        change_settings(b, orders=member_orders)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == (
        f"{labelled}: scored in orders {orders}, but b in orders {member_orders or '1'}; make out-of-fold rows in "
        "these: score the training table with --out-of-fold --orders …"
    )
    change_settings(b, orders=orders)
    assert pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled)).scores.calibrations[0].rows == 200


@pytest.mark.parametrize("weights", ["nll", "fit", "greedy"])
def test_folds_have_no_fitted_weights(tmp_path, weights):
    a, b, labelled = folds_of(tmp_path)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(weights=weights, fit=labelled))
    assert str(error.value) == (
        f"--weights {weights} needs rows that no member was trained on; folds have none, since all folds but one were "
        "trained on each row"
    )
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(weights="3,1", fit=labelled)).scores
    assert pooled.pool.weights == [0.75, 0.25]


def test_rows_of_folds_without_answers_are_refused(tmp_path):
    a, b, labelled = folds_of(tmp_path)
    change_columns(labelled, answer=[""] * 200)
    with pytest.raises(EnsembleError) as error:
        pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert str(error.value) == f"{labelled}: no scored row has an answer, so that nothing can be fitted on it"


def test_rows_that_folds_were_fitted_on_are_those_with_answers(tmp_path):
    a, b, labelled = folds_of(tmp_path, fresh=False)
    for name in ("question", "choices", "digest"):
        change_columns(labelled, **{name: columns_of(a)[name]})
    answers = columns_of(labelled)["answer"]
    change_columns(labelled, answer=["" if row < 30 else letter for row, letter in enumerate(answers)])
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(fit=labelled))
    assert fitted_rows(pooled) == [False] * 30 + [True] * 170
    assert "on 170 rows each" in pooled.notes[0]


# ------------------------------------------------------------------ what is reported of weights
def choice(name, gain=0.0, error=0.01, accuracy=0.5, nll=0.7):
    return {"weights": name, "accuracy": accuracy, "nll": nll, "gain": gain, "error": error}


@pytest.mark.parametrize(
    "gains, preferred",
    [
        ([choice("best single", 0.02), choice("fit", 0.015), choice("equal")], "the best member alone"),
        ([choice("best single", 0.01), choice("fit", 0.005), choice("equal")], None),
        ([choice("best single", 0.005), choice("fit", 0.02), choice("equal")], "fitted weights: --weights fit"),
        ([choice("greedy", 0.02), choice("fit", 0.015), choice("equal")], "fitted weights: --weights greedy"),
        ([choice("equal"), choice("fit", -0.02), choice("best single", 0.3)], None),
        ([choice("fit", 0.01), choice("equal")], None),
        ([choice("equal")], None),
    ],
)
def test_weights_are_preferred_where_they_gain_more_than_its_error(gains, preferred):
    lines = describe_choices(gains)
    option = " --fit LABELLED" if preferred and "--weights" in preferred else ""
    assert lines[1:] == ([f"these rows prefer {preferred}{option}"] if preferred else [])


def test_all_choices_of_weights_are_reported_in_one_line():
    gains = [choice("fit", 0.0123, 0.0045, 0.81, 0.512), choice("equal", nll=0.524), choice("best single", -0.2, nll=1)]
    assert describe_choices(gains)[0] == (
        "weights, on rows held out of their fit: fit: accuracy 0.810, NLL 0.512 (gains 0.0123 ± 0.0045); equal: "
        "accuracy 0.500, NLL 0.524; best single: accuracy 0.500, NLL 1.000 (loses 0.2000 ± 0.0100)"
    )


@pytest.mark.parametrize("rows, proposed", [(39, False), (40, True)])
def test_from_forty_labelled_rows_on_a_pool_says_what_other_weights_would_give(tmp_path, rows, proposed):
    log_p, y, ids = draw_rows(rows, 3)
    path = write_long_file(tmp_path / "rows.parquet", log_p, y, ids)
    pooled = pool_files([path], tmp_path / "out")
    expected = describe_choices(choices(log_p, y, np.arange(rows), greedy=False)) if proposed else []
    assert pooled.notes[1:] == expected and notes_of(tmp_path / "out")[1:] == []


@pytest.mark.parametrize("kind", ["linear", "vote"])
def test_other_pools_say_nothing_of_weights_of_the_log_pool(tmp_path, kind):
    path = write_long_file(tmp_path / "rows.parquet", *draw_rows(60, 3))
    assert len(pool_files([path], tmp_path / "out", PoolOptions(kind)).notes) == 1


def test_a_pool_that_a_run_makes_says_nothing_of_other_weights(tmp_path):
    path = write_long_file(tmp_path / "rows.parquet", *draw_rows(60, 3))
    assert len(pool_files([path], tmp_path / "out", run_json={"command": []}).notes) == 1


def test_weights_are_proposed_by_rows_of_no_training_and_pictures_together(tmp_path):
    a, b = two_folders(tmp_path)
    change_exposure(a, [TRAINING] * 50 + [VALIDATION] * 50 + [0] * 100)
    change_exposure(b, [0] * 40 + [TRAINING] * 20 + [0] * 140)
    pooled = pool_files([a, b], tmp_path / "out")
    rows = np.arange(60, 200)
    clusters = clusters_of(pooled.scores.pictures(rows))
    assert len(set(clusters)) == 70
    expected = describe_choices(
        choices(pooled.scores.members[:, rows], pooled.scores.answers(rows), clusters, greedy=False)
    )
    assert pooled.notes[: len(expected)] == expected


def test_a_pool_is_fitted_on_rows_that_no_member_was_trained_on(tmp_path):
    a, b = two_folders(tmp_path)
    change_exposure(a, [TRAINING] * 60 + [VALIDATION] * 20 + [0] * 120)
    pool_files([a, b], tmp_path / "labelled")
    pooled = pool_files([a, b], tmp_path / "out", PoolOptions(fit=tmp_path / "labelled"))
    notes = " ".join(pooled.notes)
    assert "60 rows" in notes and "that a member was trained on are left out" in notes
    assert "on 20 of the labelled rows the epoch of a member was chosen" in notes and "on 140 rows" in notes
    change_exposure(b, [TRAINING] * 200)
    pool_files([a, b], tmp_path / "all")
    with pytest.raises(EnsembleError, match="was trained on these rows"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "all"))


def test_labelled_rows_of_other_settings_do_not_fit(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    change_settings(a, orders="cyclic")
    with pytest.raises(EnsembleError, match="was scored with other settings: orders 1 there, cyclic here"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled"))
    change_settings(a, orders="1", pixels=4096)
    with pytest.raises(EnsembleError, match="pixels None there, 4096 here"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled"))


def test_sets_of_a_pool_need_labelled_rows_and_cover_as_asked(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    with pytest.raises(SetsError, match="name them with --fit"):
        pool_files([a, b], tmp_path / "x", PoolOptions(sets=SetRequest(0.9)))
    for folder in (a, b):  # the same rows, of other questions
        change_columns(folder, digest=[f"{row:016x}" for row in range(200)])
    for method in ("lac", "aps"):
        pooled = pool_files(
            [a, b], tmp_path / method, PoolOptions(fit=tmp_path / "labelled", sets=SetRequest(0.9, method))
        )
        assert pooled.metrics["sets"]["covered"] == pytest.approx(0.9, abs=0.02)  # on the rows that gave the quantile
        sets = run_json(tmp_path / method)["sets"]
        assert sets["method"] == method and "at least 90%" in sets["guarantee"]


@pytest.mark.parametrize("kind", ["linear", "vote"])
@pytest.mark.parametrize("weights", ["equal", "0.7,0.2,0.1"])
def test_sets_of_linear_pools_and_votes_cover_rows_to_come(tmp_path, kind, weights):
    """The pool that the sets come from is the one that is written: the same kind, weights and temperature."""
    log_p, y, ids = draw_rows(1000, 1)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    new_log_p, new_y, new_ids = draw_rows(2000, 2, 1000)
    rows = write_long_file(tmp_path / "rows.parquet", new_log_p, new_y, new_ids)
    for method in ("lac", "aps"):
        options = PoolOptions(kind, weights, fit=labelled, sets=SetRequest(0.9, method))
        pooled = pool_files([rows], tmp_path / method, options)
        settings, numbers = pooled.scores.pool, None if weights == "equal" else [0.7, 0.2, 0.1]
        covered = pooled.metrics["sets"]["covered"]
        assert covered >= 0.87 and (method == "aps" or covered < 0.93)
        written = pool(new_log_p, kind, numbers, settings.temperature)
        assert np.abs(np.exp(pooled.scores.log_p) - np.exp(written)).max() < 1e-5
        temperature = likeliest_temperature(pool(log_p, kind, numbers), y)
        assert settings.temperature == pytest.approx(temperature, abs=1e-3) and abs(temperature - 1) > 0.1


def test_sets_on_rows_that_the_pool_is_fitted_on_are_refused(tmp_path):
    log_p, y, ids = draw_rows(120, 3)
    labelled = write_long_file(tmp_path / "labelled.parquet", log_p, y, ids)
    new_log_p, new_y, new_ids = draw_rows(120, 4)  # other rows of the same ids, but for the last 12
    new_log_p[:, 108:], new_y[108:] = log_p[:, 108:], y[108:]
    rows = write_long_file(tmp_path / "rows.parquet", new_log_p[:, ::-1], new_y[::-1], new_ids[::-1])
    for weights in ("equal", "fit", "0.5,0.3,0.2"):
        with pytest.raises(SetsError) as error:
            options = PoolOptions(weights=weights, fit=labelled, sets=SetRequest(0.9))
            pool_files([rows], tmp_path / "out", options)
        assert f"12 of 120 rows are also labelled rows of --fit {labelled}" in str(error.value)
        assert "'r119', 'r118'" in str(error.value) and "… and 2 more" in str(error.value)
        assert "leave them out" in str(error.value)
    assert not (tmp_path / "out").exists()
    pooled = pool_files([rows], tmp_path / "out", PoolOptions(fit=labelled))
    warning = next(text for text in pooled.scores.run_json["warnings"] if "--fit" in text)
    assert warning.startswith("12 of 120 rows are also labelled rows") and f"warning: {warning}" in pooled.notes
    assert pooled.scores.exposed.tolist() == [[CALIBRATION] * 3] * 12 + [[0] * 3] * 108
    fresh = write_long_file(tmp_path / "fresh.parquet", new_log_p[:, :108], new_y[:108], new_ids[:108])
    sets = pool_files([fresh], tmp_path / "fresh", PoolOptions(fit=labelled, sets=SetRequest(0.9))).scores
    assert not sets.exposed.any() and not [text for text in sets.run_json["warnings"] if "--fit" in text]


def test_rows_of_folders_are_recognised_by_their_questions_under_other_ids(tmp_path):
    a, b = two_folders(tmp_path)
    pool_files([a, b], tmp_path / "labelled")
    columns = columns_of(tmp_path / "labelled")
    answers = [*[""] * 20, *columns["answer"][20:]]
    digests = [*columns["digest"][:190], *["f" * 16] * 10]  # the same ids and numbers, but known to be other questions
    change_columns(tmp_path / "labelled", answer=answers, digest=digests)
    with pytest.raises(SetsError, match=r"170 of 200 rows are also labelled rows of --fit .*'row20', 'row21'"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=tmp_path / "labelled", sets=SetRequest(0.9)))
    exposed = pool_files([a, b], tmp_path / "y", PoolOptions(fit=tmp_path / "labelled")).scores.exposed
    assert exposed.tolist() == [[0, 0]] * 20 + [[CALIBRATION] * 2] * 170 + [[0, 0]] * 10


def test_folds_have_no_sets_for_the_rows_that_they_were_trained_on(tmp_path):
    a, b = two_folders(tmp_path)
    labelled = write_scores(tmp_path / "out-of-fold")
    change_settings(labelled, adapters=["fa", "fb"])
    digests = [*columns_of(labelled)["digest"][:50], *(f"{row:016x}" for row in range(150))]
    change_columns(labelled, fold=[0, 1] * 100, digest=digests)
    with pytest.raises(SetsError, match="50 of 200 rows are also labelled rows of --fit .*'row0', 'row1'"):
        pool_files([a, b], tmp_path / "x", PoolOptions(fit=labelled, sets=SetRequest(0.9)))
    pooled = pool_files([a, b], tmp_path / "y", PoolOptions(fit=labelled)).scores
    assert pooled.exposed.tolist() == [[CALIBRATION] * 2] * 50 + [[0, 0]] * 150


def test_what_other_weights_would_lose_is_reported_as_a_loss(tmp_path):
    log_p, y, ids = draw_rows(300, 6)
    log_p[2] = log_softmax(np.random.default_rng(1).normal(0, 2, (300, 4)), axis=1)
    like, right = members(2, 300)
    gains = {entry["weights"]: entry for entry in choices(log_p, y, greedy=False)}
    lost = {entry["weights"]: entry for entry in choices(like, right, greedy=False)}
    assert gains["fit"]["gain"] > 0 > lost["best single"]["gain"]
    for name, pooled, answers, entries in (("gains", log_p, y, gains), ("loses", like, right, lost)):
        notes = " ".join(
            pool_files([write_long_file(tmp_path / "f.parquet", pooled, answers, ids)], tmp_path / name).notes
        )
        for entry in entries.values():
            if entry["weights"] != "equal":
                word = "gains" if entry["gain"] > 0 else "loses"
                assert f"NLL {entry['nll']:.3f} ({word} {abs(entry['gain']):.4f} ± {entry['error']:.4f})" in notes
        assert "gains -" not in notes and "gains +" not in notes


def test_a_best_member_that_gains_nothing_is_not_preferred():
    zero = {"accuracy": 0.5, "nll": 0.7, "gain": 0.0, "error": 0.0}
    alike = [{"weights": name} | zero for name in ("best single", "equal", "fit")]
    assert len(describe_choices(alike)) == 1
    clear = [{"weights": "best single"} | zero | {"gain": 0.1, "error": 0.02}, *alike[1:]]
    assert describe_choices(clear)[1] == "these rows prefer the best member alone"


def test_choices_of_weights_are_compared_on_held_out_rows(tmp_path):
    log_p, y = good_and_poor(600)
    gains = choices(log_p, y)
    assert [entry["nll"] for entry in gains] == sorted(entry["nll"] for entry in gains)
    by_name = {entry["weights"]: entry for entry in gains}
    assert set(by_name) == {"equal", "fit", "greedy", "best single"} and by_name["equal"]["gain"] == 0
    assert {entry["weights"] for entry in choices(log_p, y, greedy=False)} == set(by_name) - {"greedy"}
    assert by_name["fit"]["gain"] > 2 * by_name["fit"]["error"] > 0
    path = write_long_file(tmp_path / "file.parquet", log_p, y, [f"r{row}" for row in range(600)])
    pooled = pool_files([path], tmp_path / "out")
    notes = " ".join(pooled.notes)
    assert "these rows prefer fitted weights: --weights fit" in notes
    fitted = pool_files([path], tmp_path / "fit", PoolOptions(weights="fit", fit=path))
    assert fitted.metrics["overall"]["nll"]["value"] < pooled.metrics["overall"]["nll"]["value"] - 0.02
    record = run_json(tmp_path / "fit")["pool"]
    zero = [name for name, weight in zip("uvwx", record["weights"]) if weight == 0]
    dropped = f"weight 0, so that the pool does without: {', '.join(zero)}"
    assert (dropped in record["told"]) == bool(zero)
    expected = pool(log_p, "log", record["weights"], record["temperature"])
    assert np.abs(np.exp(fitted.scores.log_p) - np.exp(expected)).max() < 1e-5


# ------------------------------------------------------------------ the fit alone, without a folder of its results
def fit_on(labelled, weights="1", rows=None):
    """What the labelled rows give a log pool of the members of `rows`, or of the labelled rows themselves."""
    members = read_members(rows or labelled)
    equal = PoolSettings("log", [1 / len(members)] * len(members))
    calibrations = [Calibration()] * len(members)
    return fit_pool(MemberPool(members, aligned(members), calibrations, equal), FitRequest(labelled, weights))


def two_members(out, n, each, noise):
    """A folder of two members, of which the second has noise; `each` rows show one picture."""
    folder = write_scores(out, n)
    table = open_scores(folder).logits
    noisy = table.logits + np.random.default_rng(1).normal(0, noise, table.logits.shape).astype(np.float32)
    both = [np.concatenate([values, values], 1) for values in (table.label_mass, table.top_token)]
    logits = np.concatenate([table.logits, noisy], 1)
    write_part(folder / "logits", 0, OptionLogits(table.ids, ["m", "n"], logits, *both, table.status))
    change_run(folder, checkpoints=[{"member": name, "fingerprint": name, "temperature": 1.0} for name in "mn"])
    change_columns(folder, picture_digest=[f"{row // each:016x}" for row in range(n)], exposed=[[]] * n)
    opened = open_scores(folder)
    return folder, opened.members, opened.answers(np.arange(n)), np.arange(n) // each


def test_weights_of_lowest_loss_are_fitted_with_pictures_together(tmp_path):
    folder, log_p, y, pictures = two_members(tmp_path / "a", 1000, 4, 9.0)
    chosen = nll_weights(log_p, y, pictures)
    assert chosen.why != nll_weights(log_p, y).why
    first, second = chosen.weights
    assert fit_on(folder, "nll").notes[0] == f"{chosen.why}: m {first:.2f}, n {second:.2f}"


def test_an_equal_log_pool_says_what_other_weights_would_give_with_pictures_together(tmp_path):
    folder, log_p, y, pictures = two_members(tmp_path / "a", 24, 2, 1.0)
    temperature, *others = fit_on(folder, "equal").notes
    assert temperature.startswith("temperature of the pool") and len(others) > 0
    assert others == describe_choices(choices(log_p, y, pictures)) != describe_choices(choices(log_p, y))
    assert len(fit_on(folder, "1,1").notes) == 1


def test_the_pictures_of_labelled_rows_count(tmp_path):
    folder = write_scores(tmp_path / "a", 60)
    change_columns(folder, picture_digest=[f"{row // 3:016x}" for row in range(60)])
    fitted = fit_on(folder)
    assert fitted.labelled.rows == 60 and fitted.labelled.pictures == 20 and fitted.shared.all()


@pytest.mark.parametrize("content, name, known", [("", "x", True), ("", "y", False), ("p", "y", True)])
def test_the_name_of_a_picture_counts_where_its_content_is_not_known(tmp_path, content, name, known):
    rows, labelled = (write_scores(tmp_path / folder, 40) for folder in "ab")
    for folder, picture in ((rows, "x"), (labelled, name)):
        change_columns(folder, picture=[f"{picture}{row}.jpg" for row in range(40)], picture_digest=[content] * 40)
    assert fit_on(labelled, rows=rows).shared.tolist() == [known] * 40


def test_rows_of_folds_of_which_only_the_id_is_known_are_not_taken_for_those_of_the_pool(tmp_path):
    unknown = {
        "question": [""] * 40,
        "choices": pa.array([[]] * 40, pa.list_(pa.string())),
        "picture_digest": [""] * 40,
    }
    rows, labelled = (write_scores(tmp_path / folder, 40) for folder in "ab")
    for folder in (rows, labelled):
        change_columns(folder, **unknown)
    change_settings(labelled, adapters=["x"])
    change_columns(labelled, fold=[0] * 40)
    assert not fit_on(labelled, rows=rows).shared.any()


def test_the_folds_of_labelled_rows_are_numbered_as_the_members_of_the_pool(tmp_path):
    folder, *_ = two_members(tmp_path / "rows", 40, 1, 1.0)
    labelled = write_scores(tmp_path / "labelled", 40)
    change_settings(labelled, adapters=["n", "other", "m"])
    change_columns(labelled, fold=[0, 1, 2, 2] * 10)
    first, second = fit_on(labelled, rows=folder).pool.calibrations
    assert first.folds == second.folds == [1, -1, 0, 0] * 10  # the pool does without the fold in the middle
