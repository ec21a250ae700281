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
from scipy.special import softmax

from scoring.files.reading import FileError
from scoring.inputs.digests import question_digest
from scoring.report.figures import figures_of_scores
from scoring.report.records import Metrics, read_record
from scoring.scores.evaluation import compare_folders, evaluate_scores, exposure_warnings, warnings_of
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION, exposure, read_rows, write_rows
from scoring.scores.folder import RunError, open_scores
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import Calibration
from scoring.stats.comparison import compare
from scoring.stats.metrics import measure
from scoring.stats.selective import risk_coverage, threshold_for
from tests.shared.demo import FOLD0
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
    figures = figures_of_scores(folder, read_record(Metrics, metrics))
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
