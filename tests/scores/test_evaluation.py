"""From files alone: metrics, comparison, calibration and warnings of SCORES folders, through the command line too."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from scoring.files.reading import FileError
from scoring.inputs.digests import question_digest
from scoring.report.figures import figures_of_scores
from scoring.report.records import Metrics, read_record
from scoring.scores.evaluation import (
    calibrate_folder,
    calibrate_out_of_fold,
    compare_folders,
    evaluate_members,
    evaluate_scores,
    exposure_warnings,
    order_report,
    warnings_of,
)
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION, exposure, read_rows, write_rows
from scoring.scores.folder import RunError, Scores, open_scores
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import Calibration, LabelledRows, calibrate
from scoring.stats.comparison import compare
from scoring.stats.metrics import measure
from scoring.stats.selective import risk_coverage, threshold_for
from tests.shared.demo import FOLD0
from tests.shared.predictions import likeliest_temperature
from tests.shared.report_folders import details_text
from tests.shared.scores_folders import change_exposure, write_scores

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fold(tmp_path):
    """A copy of a demo checkpoint that may be written into."""
    return Path(shutil.copytree(FOLD0, tmp_path / "fold0"))


def test_evaluate_and_calibrate_load_no_torch(tmp_path, fold):
    """evaluate, evaluate of two, calibrate: from files alone."""
    first, second = write_scores(tmp_path / "a", checkpoint=fold), write_scores(tmp_path / "b", temperature=1.0)
    code = (
        "import sys, cli\n"
        f"for call in (['evaluate', {str(first)!r}], ['evaluate', {str(first)!r}, {str(second)!r}], "
        f"['calibrate', {str(first)!r}, '--ckpt', {str(fold)!r}]):\n"
        "    cli.main(call, standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (first / "evaluation.png").read_bytes()[:4] == b"\x89PNG" and (first / "metrics.json").exists()
    for words in ("noise floor", "smooth ECE", "class-wise ECE", "AUROC", "risk–coverage", "exact McNemar p ="):
        assert words in done.stdout, words
    assert "has the better probabilities" in done.stdout and "the same rows" in done.stdout
    calibration = json.loads((fold / "calibration.json").read_text())
    assert calibration["temperature"] == pytest.approx(2.0, rel=0.3) and calibration["fingerprint"]["orders"] == "1"
    assert len(calibration["nonconformity"]) == 200 and calibration["gain"] > 0
    assert json.loads((first / "comparison.json").read_text())["rows"] == 200


def test_metrics_are_grouped_by_any_column_of_the_data(cli, tmp_path):
    out = write_scores(tmp_path / "a", n=60)
    table = tmp_path / "data.csv"
    table.write_text("id,path,question,a,b,hard\n" + "".join(f"row{row},x.jpg,q,1,2,{row % 2}\n" for row in range(60)))
    done = cli("evaluate", out, "--by", "hard", "--data", table, "--no-plot")
    assert "hard: 0" in done.stdout and "hard: 1" in done.stdout and "object" in done.stdout
    assert json.loads((out / "metrics.json").read_text())["by"]["hard"]["1"]["rows"] == 30
    refused = cli("evaluate", out, "--by", "colour", "--data", table, check=2)
    table.write_text(table.read_text() + "row60,x.jpg\n")
    assert "2 cells in line 62" in cli("evaluate", out, "--by", "hard", "--data", table, check=2).stderr
    assert "expected a column colour" in refused.stderr.replace("'", "") and "hard" in refused.stderr


def test_rows_of_two_folders_are_matched_by_id(tmp_path):
    first = open_scores(write_scores(tmp_path / "a"))
    second = open_scores(write_scores(tmp_path / "b", temperature=1.0))
    expected = compare_folders(first, second)
    order = np.random.default_rng(0).permutation(200)
    logits = second.logits
    for name in ("logits", "label_mass", "top_token"):
        setattr(logits, name, getattr(logits, name)[order])
    logits.ids = [logits.ids[row] for row in order]
    second.questions = {name: [values[row] for row in order] for name, values in second.questions.items()}
    for name in ("members", "log_p", "answered"):  # what it has worked out before
        second.__dict__.pop(name, None)
    assert compare_folders(first, second) == expected
    second.questions["answer"][0] = "a" if second.questions["answer"][0] != "a" else "b"
    with pytest.raises(RunError, match="1 row has different answers"):
        compare_folders(first, second)
    with pytest.raises(RunError, match="no scored and answered row in common"):
        logits.ids = [f"other{row}" for row in range(200)]
        compare_folders(first, second)


def of_pictures(out, pictures, **more):
    """A folder whose rows are right or wrong together: the rows of each picture are copies of one row."""
    folder = open_scores(write_scores(out, **more))
    first = np.unique(pictures, return_index=True)[1][pictures]
    for name in ("logits", "label_mass", "top_token"):
        setattr(folder.logits, name, getattr(folder.logits, name)[first])
    folder.questions["answer"] = [folder.questions["answer"][row] for row in first]
    folder.questions["picture"] = [f"{number:03}.jpg" for number in pictures]
    return folder


def test_figures_of_a_folder_count_pictures(tmp_path):
    """The figures in metrics.json are those of the rows with their pictures, for all rows and for each group."""
    pictures = np.repeat(np.arange(50), 4)
    folder = of_pictures(tmp_path / "a", pictures)
    metrics = evaluate_scores(folder)
    assert json.loads((tmp_path / "a" / "metrics.json").read_text()) == metrics
    p, y = np.exp(folder.log_p), np.array(["abcd".index(letter) for letter in folder.questions["answer"]])
    assert metrics["overall"] == measure(p, y, pictures) != measure(p, y)
    types = np.array(folder.questions["task_type"])
    assert sorted(metrics["by"]["task_type"]) == ["count", "object"]
    for name, group in metrics["by"]["task_type"].items():
        rows = types == name
        assert group == measure(p[rows], y[rows], np.unique(pictures[rows], return_inverse=True)[1])
    confidence, right = p.max(1), (p.argmax(1) == y).astype(float)
    assert metrics["selective"] == threshold_for(confidence, right, 0.95, clusters=pictures)
    assert metrics["risk_coverage"] == risk_coverage(confidence, right)
    lower = evaluate_scores(folder, target=0.6)["selective"]
    assert lower == threshold_for(confidence, right, 0.6, clusters=pictures) != threshold_for(confidence, right, 0.6)
    assert lower["threshold"] is not None


def test_a_comparison_of_two_folders_counts_pictures(tmp_path):
    pictures = np.repeat(np.arange(50), 4)
    first = of_pictures(tmp_path / "a", pictures)
    second = of_pictures(tmp_path / "b", pictures)
    second.logits.logits = second.logits.logits + np.random.default_rng(1).normal(0, 3, (50, 1, 1, 4))[pictures]
    comparison = compare_folders(first, second)
    y = np.array(["abcd".index(letter) for letter in first.questions["answer"]])
    p, q = np.exp(first.log_p), np.exp(second.log_p)
    assert comparison == compare(p, q, y, pictures) | {"only_in_one": 0}
    assert comparison["pictures"] == 50
    assert comparison["accuracy"]["mcnemar_p"] > compare(p, q, y)["accuracy"]["mcnemar_p"]
    written = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert written == {"first": str(tmp_path / "a"), "second": str(tmp_path / "b")} | comparison


def test_metrics_have_the_coverage_and_the_size_of_sets(tmp_path):
    out = write_scores(tmp_path / "a", sets={"level": 0.9, "quantile": 0.8, "guarantee": "…"})
    with open(out / "probabilities.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    held = [["ab", "abcd", "c"][row % 3] for row in range(200)]
    with open(out / "probabilities.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "set"])
        writer.writeheader()
        writer.writerows(row | {"set": letters} for row, letters in zip(rows, held))
    sets = evaluate_scores(open_scores(out))["sets"]
    covered = sum(row["answer"] in letters for row, letters in zip(rows, held)) / 200
    assert sets["asked"] == 0.9 and sets["method"] == "lac"
    assert sets["covered"] == pytest.approx(covered) and sets["mean_size"] == pytest.approx(sum(map(len, held)) / 200)


def plain(n=60, orders=1):
    rng = np.random.default_rng(0)
    shape = (n, 1, orders)
    return OptionLogits(
        [str(row) for row in range(n)], ["m"], rng.normal(size=(*shape, 4)).astype(np.float32), np.ones(shape),
        np.ones(shape, int), ["ok"] * n, "1" if orders == 1 else "cyclic",
    )  # fmt: skip


def joined_warnings(logits, calibration=None, answers=None, log_p=None):
    return " ".join(warnings_of(logits, [1, 2, 3, 4], [calibration or Calibration()], answers, log_p))


def test_warnings_name_a_cause():
    assert joined_warnings(plain()) == ""
    ties = plain()
    ties.logits[:3, ..., :] = 1.0
    assert "many ties: in 5.0%" in joined_warnings(ties) and "rounded to 16 bits" in joined_warnings(ties)
    assert "orders disagree" in joined_warnings(plain(orders=4))
    for temperature in (3.1, 0.3):
        assert "far from 1" in joined_warnings(plain(), Calibration(temperature))
    assert joined_warnings(plain(), Calibration(2.9)) == ""
    partial = plain()
    partial.status[3] = "no picture"
    assert "1 row has no score: '3' (no picture)" in joined_warnings(partial)
    partial.status[4] = "no picture"
    assert "2 rows have no score: '3' (no picture), '4' (no picture)" in joined_warnings(partial)
    lean = np.log(softmax(np.eye(4)[[3] * 40 + [0] * 20] * 2, axis=1))
    assert "one letter preferred: d is answered in 67%" in joined_warnings(plain(), log_p=lean)
    assert joined_warnings(plain(), answers=["d"] * 40 + ["a"] * 20, log_p=lean) == ""
    assert "more often than it is right" in joined_warnings(plain(), answers=["a"] * 60, log_p=lean)


def test_warnings_say_how_members_have_met_rows():
    exposed = np.zeros((20, 2), np.uint8)
    exposed[:10, 0], exposed[10:13, 0], exposed[0, 1] = VALIDATION, TRAINING | CALIBRATION, CALIBRATION
    warnings = exposure_warnings(["m", "n"], exposed)
    assert len(warnings) == 3 and warnings[0].startswith("3 of 20 rows were in the training of m")
    assert warnings[1].startswith("10 of 20 rows are validation rows of m")
    assert warnings[2].startswith("1 of 20 rows are those that the calibration of n")
    assert exposure_warnings(["m"], np.zeros((4, 1), np.uint8)) == []


def with_exposed(out, flags):
    """A folder whose member has met each row in the ways that its flag says."""
    folder = open_scores(write_scores(out, temperature=0.5))
    folder.questions["exposed"] = [[flag] for flag in flags]
    return folder


def test_a_threshold_is_promised_only_on_rows_that_no_member_has_met(tmp_path):
    flags = [TRAINING] * 40 + [VALIDATION] * 30 + [CALIBRATION] * 10 + [0] * 120
    metrics = evaluate_scores(with_exposed(tmp_path / "a", flags), target=0.6)
    opened = open_scores(tmp_path / "a")
    p, y = np.exp(opened.log_p)[80:], opened.answers(np.arange(80, 200))
    pictures = np.arange(80, 200) // 2
    expected = threshold_for(p.max(1), (p.argmax(1) == y).astype(float), 0.6, clusters=pictures)
    assert expected["threshold"] is not None
    assert metrics["selective"] == expected | {"rows": 120, "left_out": 80}
    assert metrics["overall"]["rows"] == 200
    line = f"{expected['coverage']:.0%} of the 120 rows that no member has met."
    assert line in details_text(metrics)
    none = evaluate_scores(open_scores(tmp_path / "a"), target=0.999)["selective"] | {"rows": 120, "left_out": 80}
    sentence = (
        "No confidence threshold can promise 100% right on the 120 rows that no member has met (80 are left out)."
    )
    assert sentence in details_text(metrics | {"selective": none})


@pytest.mark.parametrize(
    "flags, how",
    [
        ([TRAINING] * 200, "trained on"),
        ([CALIBRATION] * 200, "calibrated on"),
        ([TRAINING] * 180 + [VALIDATION | CALIBRATION] * 20, "trained, validated or calibrated on"),
    ],
)
def test_no_threshold_is_promised_where_members_have_met_every_row(tmp_path, flags, how):
    folder = with_exposed(tmp_path / "a", flags)
    metrics = evaluate_scores(folder, target=0.5)
    assert evaluate_scores(open_scores(tmp_path / "a"), target=0.5)["selective"]["threshold"] is not None
    chosen = metrics["selective"]
    assert chosen["threshold"] is None and chosen["bound"] is None and chosen["left_out"] == 200
    assert chosen["reason"] == f"every labelled row was {how}"
    assert f"No confidence threshold is promised: every labelled row was {how}." in details_text(metrics)


def test_the_figure_of_confidence_says_that_no_threshold_is_promised(tmp_path):
    folder = with_exposed(tmp_path / "a", [TRAINING] * 200)
    figures = figures_of_scores(folder, read_record(Metrics, evaluate_scores(folder)))
    assert any("No confidence threshold is promised" in figure.description for figure in figures)


def test_evaluate_warns_of_rows_of_the_training_as_score_does(cli, tmp_path):
    out = write_scores(tmp_path / "a")
    change_exposure(out, [TRAINING] * 180 + [0] * 20)
    warning = "180 of 200 rows were in the training of m: metrics of these rows say nothing about new ones"
    done = cli("evaluate", out, "--no-plot")
    assert f"warning: {warning}" in done.stderr.splitlines()
    assert json.loads((out / "metrics.json").read_text())["warnings"] == [warning]
    cli("evaluate", out)  # draws it, too
    assert (out / "evaluation.png").read_bytes()[:4] == b"\x89PNG"


def test_a_question_is_recognised_by_what_it_asks_and_a_row_by_that(tmp_path):
    digest = question_digest("p1", "q", ("w", "x"))
    assert digest == question_digest("p1", "q", ("x", "w"))
    assert len({digest, question_digest("p2", "q", ("w", "x")), question_digest("p1", "r", ("w", "x")), ""}) == 4
    assert digest != question_digest("p1", "q", ("w", "y"))
    write_rows(tmp_path, ["t1", "both"], ["v1", "both"])
    rows = read_rows(tmp_path)
    assert rows == {"t1": TRAINING, "v1": VALIDATION, "both": TRAINING | VALIDATION}
    assert exposure(["t1", "new", "v1", ""], rows, ["v1", "new", ""]).tolist() == [
        TRAINING,
        CALIBRATION,
        VALIDATION | CALIBRATION,
        0,
    ]
    assert read_rows(tmp_path / "none") is None
    (tmp_path / "rows.parquet").write_bytes(b"cut")
    path = re.escape(str(tmp_path / "rows.parquet"))
    with pytest.raises(FileError, match=f"^{path}: .+; expected the rows of a training; the file is damaged$"):
        read_rows(tmp_path)


# ------------------------------------------------------------------ folders that are in memory alone
def scores_of(logits, y, orders="1", folder=Path("folder"), **columns):
    """A folder of (N, M, O, K) logits of options and (N,) answers, with further columns of questions.parquet."""
    count, members = logits.shape[:2]
    ids, names = [f"row{row}" for row in range(count)], [*"mnop"[:members]]
    shape = logits.shape[:3]
    table = OptionLogits(
        ids, names, logits.astype(np.float32), np.ones(shape), np.ones(shape, int), ["ok"] * count, orders
    )
    empty = dict.fromkeys(("task_type", "picture", "picture_digest"), [""] * count)
    questions = {
        "id": ids,
        "answer": ["abcd"[index] for index in y],
        "digest": [f"d{row}" for row in range(count)],
        "question": [f"q{row}" for row in range(count)],
        "choices": [[]] * count,
        "exposed": [[]] * count,
        **empty,
        **columns,
    }
    run = {
        "checkpoints": [{"member": name, "temperature": 1.0} for name in names],
        "identity": {"letters": "abcd"[: logits.shape[3]], "orders": orders},
    }
    return Scores(folder, run, table, [Calibration()] * members, questions)


def draw(n, preferred=0.0, seed=0):
    """(n, 4) logits and (n,) answers that they give the right probabilities for, but for option a's in nats."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4))
    y = (softmax(z + [preferred, 0, 0, 0], axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    return z, y


def of_rows(each, count):
    """Names of pictures with `each` rows."""
    return [f"{row // each:03}.jpg" for row in range(count)]


@pytest.mark.parametrize("kind", ["groups", "letters"])
def test_a_calibration_has_the_task_types_the_letters_and_the_pictures_of_its_rows(kind):
    z, y = draw(260, preferred=3.0 if kind == "letters" else 0.0)
    types = ["count" if row < 130 else "color" for row in range(260)]
    if kind == "groups":
        z *= np.where(np.arange(260) < 130, 1, 5)[:, None]
    scores = scores_of(z[:, None, None], y, picture=of_rows(2, 260), task_type=types)
    fitted = calibrate_folder(scores, 0, np.zeros(260, np.uint8), {"adapter": "f"})
    labelled = LabelledRows(z.astype(np.float32), y, types, np.arange(260) // 2)
    expected = calibrate(labelled, one_order=True, fingerprint={"adapter": "f"})
    assert len(getattr(expected, kind)) == {"groups": 2, "letters": 4}[kind] and expected.pictures == 130
    assert getattr(fitted, kind) == pytest.approx(getattr(expected, kind), abs=1e-5)
    assert fitted.temperature == pytest.approx(expected.temperature, abs=1e-5)
    assert fitted.gain_error == pytest.approx(expected.gain_error, abs=1e-5)
    assert (fitted.choice, fitted.pictures, fitted.fingerprint) == (expected.choice, 130, {"adapter": "f"})
    assert fitted.digests == [f"d{row}" for row in range(260)]


def test_a_run_in_several_orders_is_calibrated_on_the_mean_over_them_without_letters():
    z, y = draw(200, preferred=3.0)
    by_order = 3 * (z[:, None] + np.random.default_rng(1).normal(0, 1, (200, 4, 4)))
    scores = scores_of(by_order[:, None], y, "cyclic", picture=of_rows(2, 200))
    fitted = calibrate_folder(scores, 0, np.zeros(200, np.uint8), {})
    mean = log_softmax(by_order, axis=2).mean(1)
    expected, first = likeliest_temperature(mean, y), likeliest_temperature(by_order[:, 0], y)
    assert fitted.temperature == pytest.approx(expected, abs=1e-3) and abs(expected - first) > 0.2
    assert fitted.choice[1] == "letter bias: not looked at, several option orders average it out"
    assert fitted.letters == [] and fitted.all_orders is None


def test_rows_of_a_pride_run_in_all_orders_have_a_temperature_of_their_own_pictures_together():
    z, y = draw(200, preferred=3.0)
    by_order = 3 * (z[:, None] + np.random.default_rng(1).normal(0, 1, (200, 4, 4)))
    by_order[140:, 1:] = np.nan
    scores = scores_of(by_order[:, None], y, "pride", picture=of_rows(4, 200))
    exposed = np.array([TRAINING] * 12 + [0] * 188, np.uint8)
    fitted = calibrate_folder(scores, 0, exposed, {})
    mean = log_softmax(log_softmax(by_order[12:140], axis=2).mean(1), axis=1)
    expected = likeliest_temperature(mean, y[12:140])
    assert fitted.all_orders == pytest.approx(expected, abs=1e-3) and fitted.rows == 188
    reason = calibrate(LabelledRows(mean, y[12:140], None, np.arange(128) // 4), one_order=False).choice[0]
    assert fitted.choice[-1] == f"rows shown in all orders: {reason}"
    assert "12 rows that the checkpoint was trained on are left out" in fitted.choice


def test_a_pride_run_whose_labelled_rows_were_shown_in_one_order_has_one_temperature():
    z, y = draw(60)
    by_order = z[:, None].repeat(4, 1)
    by_order[20:, 1:] = np.nan
    scores = scores_of(by_order[:, None], y, "pride")
    scores.questions["answer"][:20] = [""] * 20
    fitted = calibrate_folder(scores, 0, np.zeros(60, np.uint8), {})
    assert fitted.all_orders is None and fitted.rows == 40
    assert fitted.choice[-1].startswith("rows shown in all orders: temperature 1.000: 0 labelled rows are too few")


def test_a_calibration_says_that_one_row_is_left_out_and_refuses_rows_of_the_training_alone():
    z, y = draw(40)
    scores = scores_of(z[:, None, None], y)
    fitted = calibrate_folder(scores, 0, np.array([TRAINING] + [VALIDATION] * 9 + [0] * 30, np.uint8), {})
    assert fitted.choice[-1] == "1 row that the checkpoint was trained on is left out" and fitted.selected == 9
    with pytest.raises(RunError) as error:
        calibrate_folder(scores, 0, np.full(40, TRAINING | VALIDATION, np.uint8), {})
    assert str(error.value) == (
        "folder: found no scored row with an answer that the checkpoint was not trained on; a calibration on training "
        "rows would be far too confident. Score other labelled rows"
    )


def test_folds_have_one_temperature_of_all_their_rows_pictures_together():
    z, y = draw(150, preferred=3.0)
    folds, flags = [row // 3 % 3 for row in range(150)], [[VALIDATION]] * 5 + [[CALIBRATION]] * 20 + [[]] * 125
    scores = scores_of(2 * z[:, None, None], y, picture=of_rows(3, 150), exposed=flags, fold=folds)
    scores.questions["answer"][149] = ""
    fitted = calibrate_out_of_fold(scores, {"adapters": ["f0", "f1", "f2"]})
    assert fitted.temperature == pytest.approx(likeliest_temperature(2 * z[:149], y[:149]), abs=1e-3)
    labelled = LabelledRows(2 * z[:149], y[:149], None, np.arange(149) // 3)
    expected = calibrate(labelled, temperature_only=True)
    assert fitted.choice == expected.choice and len(fitted.choice) == 1 and not fitted.letters
    assert fitted.gain_error == pytest.approx(expected.gain_error, abs=1e-5) and fitted.pictures == 50
    assert fitted.selected == 5 and fitted.folds == folds[:149]
    assert fitted.digests == [f"d{row}" for row in range(149)]
    assert fitted.fingerprint == {"adapters": ["f0", "f1", "f2"]}
    del scores.questions["fold"]  # in folders of early versions
    assert calibrate_out_of_fold(scores, {}).folds == []


@pytest.mark.parametrize(
    "name, noun, other, rows",
    [
        ("picture_digest", "picture", "p", "2 rows have"),
        ("question", "question", "what?", "1 row has"),
        ("choices", "options", ["u", "v"], "2 rows have"),
    ],
)
def test_other_questions_under_the_same_ids_are_refused_with_their_number(name, noun, other, rows):
    z, y = draw(30)
    known = {"picture_digest": ["x"] * 30, "choices": [["w", "x"]] * 30}
    first, second = (scores_of(z[:, None, None], y, **known) for _ in range(2))
    changed = [5, 7] if rows == "2 rows have" else [7]
    second.questions[name] = [other if row in changed else value for row, value in enumerate(first.questions[name])]
    second.questions[name][20] = ""  # not known
    with pytest.raises(RunError) as error:
        compare_folders(first, second)
    assert str(error.value) == (
        f"{rows} another {noun} under the same id in the two folders, such as id 'row{changed[0]}'; expected the same "
        "questions"
    )


def test_other_numbers_of_options_under_the_same_ids_are_refused():
    """Files of numbers know no texts: a letter that one lacks would be cut from the other, and its answer with it."""
    z, y = draw(30)
    first, second = (scores_of(z[:, None, None], y) for _ in range(2))
    first.questions["options"], second.questions["options"] = [4] * 30, [4] * 3 + [3] * 2 + [4] * 25
    with pytest.raises(RunError, match="2 rows have another number of options under the same id .*, such as id .row3."):
        compare_folders(first, second)


def test_the_message_about_other_answers_names_the_first_id():
    z, y = draw(30)
    first, second = scores_of(z[:, None, None], y), scores_of(z[:, None, None], np.r_[y[:4], (y[4:6] + 1) % 4, y[6:]])
    with pytest.raises(RunError) as error:
        compare_folders(first, second)
    assert str(error.value) == "2 rows have different answers in the two folders, such as id 'row4'"


def test_the_pool_is_compared_with_the_member_of_lowest_loss_pictures_together():
    z, y = draw(80)
    noise = np.random.default_rng(1).normal(0, 2, (80, 3, 4)) * np.array([2, 0.1, 1])[:, None]
    scores = scores_of((z[:, None] + noise)[:, :, None], y, picture=of_rows(4, 80))
    result = evaluate_members(scores, np.arange(80), y)
    log_p = log_softmax(scores.logits.logits[:, :, 0].astype(float), axis=2)
    losses = -log_p[np.arange(80), :, y].mean(0)
    assert losses.argmin() == 1 and result["best"] == "n"
    assert [entry["member"] for entry in result["members"]] == ["m", "n", "o"]
    assert [entry["nll"]["value"] for entry in result["members"]] == pytest.approx(losses.tolist())
    assert result["pool"] == {"kind": "log", "weights": [1 / 3] * 3, "temperature": 1.0}
    pooled, pictures = softmax(log_p.mean(1), axis=1), np.arange(80) // 4
    expected = compare(np.exp(log_p[:, 1]), pooled, y, pictures)
    assert result["pool_against_best"]["pictures"] == 20
    for name in ("accuracy", "nll"):
        difference = result["pool_against_best"][name]["difference"]
        assert difference == pytest.approx(expected[name]["difference"])


def test_rows_without_a_value_of_a_column_are_a_group_called_unknown(tmp_path):
    z, y = draw(30)
    scores = scores_of(z[:, None, None], y, folder=tmp_path)
    metrics = evaluate_scores(scores, {"colour": ["red"] * 12 + [""] * 18})
    assert {name: group["rows"] for name, group in metrics["by"]["colour"].items()} == {"red": 12, "unknown": 18}


def test_the_report_of_orders_names_members_with_rows_in_several_orders_alone():
    """Two options, so that the orders are ab and ba; the first row has one answer, the second changes it."""
    logits = np.zeros((2, 2, 2, 2))
    logits[:, 1, :, 0] = np.log(3)  # the option a has 3 of 4
    logits[1, 1, 1] = [0, np.log(3)]
    logits[:, 0, 1] = np.nan
    report = order_report(scores_of(logits, [0, 0], "cyclic").logits)
    share = report[0].pop("letter_share")
    assert report == [{"member": "n", "rows": 2, "all_agree": 0.5, "changed_by_another": 0.5}]
    assert share == pytest.approx([(0.75 + 0.25 + 0.75 + 0.75) / 4, (0.25 + 0.75 + 0.25 + 0.25) / 4])


# ------------------------------------------------------------------ where warnings start, and what they say
def answered_as(counts):
    """(R, 4) log-probabilities of rows of which so many are answered by each letter."""
    return log_softmax(3.0 * np.eye(4)[np.repeat(np.arange(4), counts)], axis=1)


@pytest.mark.parametrize(
    "given, right, warned",
    [
        ([28, 11, 11, 10], None, False),  # 47 % of 60, expected 25 %: 4 standard errors are 22.4 points
        ([29, 11, 10, 10], None, True),
        ([31, 30, 30, 9], [34, 33, 33, 0], False),  # a letter that is never right has no standard error
        ([30, 30, 30, 10], [34, 33, 33, 0], True),
    ],
)
def test_a_letter_is_preferred_from_a_tenth_and_four_standard_errors_on(given, right, warned):
    n = sum(given)
    answers = [*"".join(letter * count for letter, count in zip("abcd", right))] if right else None
    assert ("one letter preferred" in joined_warnings(plain(n), answers=answers, log_p=answered_as(given))) == warned


def test_the_warning_about_a_letter_says_what_helps():
    assert joined_warnings(plain(), log_p=answered_as([15, 0, 42, 3])) == (
        "one letter preferred: c is answered in 70% of rows, more often than 1 in 4 (25%). Usual causes: training data "
        "whose answers were not balanced, or a base that prefers a letter. `--orders cyclic` averages it out."
    )


@pytest.mark.parametrize("temperature, far", [(0.33, True), (0.34, False), (0.6, False), (3.0, False), (3.01, True)])
def test_a_temperature_is_far_from_one_beyond_three_or_a_third(temperature, far):
    text = (
        f"m: its temperature is {temperature:.2f}, far from 1. Usual causes: trained for too long (over 1) or hardly "
        "at all (under 1), or fitted on rows that are not like these."
    )
    assert joined_warnings(plain(), Calibration(temperature)) == (text if far else "")
