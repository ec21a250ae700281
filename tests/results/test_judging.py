"""From files alone: metrics, comparison, calibration and warnings of SCORES folders, through the command line too."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from scoring.engine.checkpoint import read_checkpoint
from scoring.inputs.questions import Question
from scoring.results.calibration import Calibration
from scoring.results.folder import RunError, conformal_sets, open_scores, question_digest, write_results
from scoring.results.judging import compare_folders, judge, plan_overlaps, warnings_of
from scoring.results.logits import OptionLogits, write_part

ROOT = Path(__file__).resolve().parents[2]
FOLD0 = ROOT / "demo" / "checkpoints" / "fold0"


def scores(out, n=200, temperature=2.0, seed=0, checkpoint=None, **about):
    """A SCORES folder of a model whose right temperature is known."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4)).astype(np.float32)
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    ids, shape = [f"row{at}" for at in range(n)], (n, 1, 1)
    logits = OptionLogits(ids, ["m"], temperature * z[:, None, None], np.ones(shape), np.ones(shape, int), ["ok"] * n)
    types = ["count" if at % 3 else "object" for at in range(n)]
    questions = [
        Question(id, at + 1, Path(f"{at // 2}.jpg"), f"q{at}", ("w", "x", "y", "z"), "abcd"[y[at]], types[at])
        for at, id in enumerate(ids)
    ]
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()])
    fingerprint = read_checkpoint(str(checkpoint)).fingerprint() if checkpoint else "x"
    told = {
        "checkpoints": [{"member": "m", "fingerprint": fingerprint, "temperature": 1.0}],
        "identity": {"letters": "abcd", "orders": "1"},
    }
    (out / "run.json").write_text(json.dumps(told | about))
    return out


@pytest.fixture
def fold(tmp_path):
    """A copy of a demo checkpoint that may be written into."""
    return Path(shutil.copytree(FOLD0, tmp_path / "fold0"))


def test_everything_works_without_torch(tmp_path, fold):
    """evaluate, evaluate of two, calibrate: from files alone."""
    first, second = scores(tmp_path / "a", checkpoint=fold), scores(tmp_path / "b", temperature=1.0)
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
    for told in ("noise floor", "smooth ECE", "class-wise ECE", "AUROC", "risk–coverage", "exact McNemar p ="):
        assert told in done.stdout, told
    assert "has the better probabilities" in done.stdout and "the same rows" in done.stdout
    found = json.loads((fold / "calibration.json").read_text())
    assert found["temperature"] == pytest.approx(2.0, rel=0.3) and found["fingerprint"]["orders"] == "1"
    assert len(found["nonconformity"]) == 200 and found["gain"] > 0
    assert json.loads((first / "comparison.json").read_text())["rows"] == 200


def test_by_any_column_of_the_data(cli, tmp_path):
    out = scores(tmp_path / "a", n=60)
    table = tmp_path / "data.csv"
    table.write_text("id,path,question,a,b,hard\n" + "".join(f"row{at},x.jpg,q,1,2,{at % 2}\n" for at in range(60)))
    done = cli("evaluate", out, "--by", "hard", "--data", table, "--no-plot")
    assert "hard: 0" in done.stdout and "hard: 1" in done.stdout and "object" in done.stdout
    assert json.loads((out / "metrics.json").read_text())["by"]["hard"]["1"]["rows"] == 30
    refused = cli("evaluate", out, "--by", "colour", "--data", table, check=2)
    table.write_text(table.read_text() + "row60,x.jpg\n")
    assert "2 cells in line 62" in cli("evaluate", out, "--by", "hard", "--data", table, check=2).stderr
    assert "expected a column colour" in refused.stderr.replace("'", "") and "hard" in refused.stderr


def test_rows_of_two_folders_are_matched_by_id(tmp_path):
    first, second = open_scores(scores(tmp_path / "a")), open_scores(scores(tmp_path / "b", temperature=1.0))
    whole = compare_folders(first, second)
    turn = np.random.default_rng(0).permutation(200)
    logits = second.logits
    for name in ("logits", "label_mass", "top_token"):
        setattr(logits, name, getattr(logits, name)[turn])
    logits.ids = [logits.ids[at] for at in turn]
    second.questions = {name: [values[at] for at in turn] for name, values in second.questions.items()}
    second.__dict__.pop("log_p", None), second.__dict__.pop("answered", None)
    assert compare_folders(first, second) == whole
    second.questions["answer"][0] = "a" if second.questions["answer"][0] != "a" else "b"
    with pytest.raises(RunError, match="1 rows have different answers"):
        compare_folders(first, second)
    with pytest.raises(RunError, match="no scored and answered row in common"):
        logits.ids = [f"other{at}" for at in range(200)]
        compare_folders(first, second)


def test_a_calibration_belongs_to_its_checkpoint(cli, tmp_path, fold):
    other = scores(tmp_path / "a")
    refused = cli("calibrate", other, "--ckpt", fold, check=2)
    assert "was scored by m (x), but" in refused.stderr and read_checkpoint(str(fold)).fingerprint() in refused.stderr
    pixels = scores(tmp_path / "b", checkpoint=fold, identity={"letters": "abcd", "orders": "1", "pixels": 4096})
    assert "pixels 4096, but" in cli("calibrate", pixels, "--ckpt", fold, check=2).stderr
    none = scores(tmp_path / "c", checkpoint=fold, data={"sha256": read_checkpoint(str(fold)).manifest.data["sha256"]})
    assert "was not trained on" in cli("calibrate", none, "--ckpt", fold, check=2).stderr


def test_rows_that_were_trained_on_are_left_out(tmp_path, fold):
    from scoring.engine.calibrating import calibrate_checkpoint

    digest = read_checkpoint(str(fold)).manifest.data["sha256"]
    out = scores(tmp_path / "a", checkpoint=fold, data={"sha256": digest})
    (fold / "validation.csv").write_text("id,gold\n" + "".join(f"row{at},a\n" for at in range(40)))
    found, path = calibrate_checkpoint(out, str(fold))
    assert found.rows == 40 and path == fold / "calibration.json"
    found, path = calibrate_checkpoint(out, str(fold), tmp_path / "mine.json")
    assert path == tmp_path / "mine.json" and path.exists()


def test_sets_are_refused_where_they_promise_nothing():
    p = np.log(np.full((3, 4), 0.25))
    with pytest.raises(RunError, match="2 checkpoints are pooled"):
        conformal_sets(p, [Calibration(), Calibration()], 0.9)
    with pytest.raises(RunError, match="keeps no labelled rows"):
        conformal_sets(p, [Calibration()], 0.9)
    held, quantile, told = conformal_sets(p, [Calibration(nonconformity=[0.1] * 50)], 0.9)
    assert not held.any() and quantile == 0.1 and "at least 90%" in told


def test_metrics_tell_what_sets_cover(tmp_path):
    out = scores(tmp_path / "a", sets={"level": 0.9, "quantile": 0.8, "guarantee": "…"})
    found = judge(open_scores(out))["sets"]
    assert found["asked"] == 0.9 and 0.7 < found["covered"] <= 1 and 1 <= found["mean_size"] <= 4


def plain(n=60, orders=1):
    rng = np.random.default_rng(0)
    shape = (n, 1, orders)
    return OptionLogits(
        [str(row) for row in range(n)], ["m"], rng.normal(size=(*shape, 4)).astype(np.float32), np.ones(shape),
        np.ones(shape, int), ["ok"] * n, "1" if orders == 1 else "cyclic",
    )  # fmt: skip


def told(logits, calibration=None, answers=None, log_p=None):
    return " ".join(warnings_of(logits, [1, 2, 3, 4], [calibration or Calibration()], answers, log_p))


def test_warnings_name_a_cause():
    assert told(plain()) == ""
    ties = plain()
    ties.logits[:3, ..., :] = 1.0
    assert "many ties: in 5.0%" in told(ties) and "rounded to 16 bits" in told(ties)
    assert "orders disagree" in told(plain(orders=4))
    for temperature in (3.1, 0.3):
        assert "far from 1" in told(plain(), Calibration(temperature))
    assert told(plain(), Calibration(2.9)) == ""
    lean = np.log(softmax(np.eye(4)[[3] * 40 + [0] * 20] * 2, axis=1))
    assert "one letter preferred: d is answered in 67%" in told(plain(), log_p=lean)
    assert told(plain(), answers=["d"] * 40 + ["a"] * 20, log_p=lean) == ""
    assert "more often than it is right" in told(plain(), answers=["a"] * 60, log_p=lean)


def test_validation_rows_among_those_scored_are_told(tmp_path):
    fold = tmp_path / "fold"
    scores(fold / "validation", n=30)
    rows = open_scores(fold / "validation").questions["digest"]
    assert len(set(rows)) == 30
    warned = plan_overlaps(["m"], [fold], [{"sha256": "1"}], "2", rows[:10] + ["new"] * 10)
    assert "10 of 20 rows are validation rows of m" in warned[0]
    assert "the table that m was trained on" in plan_overlaps(["m"], [fold], [{"sha256": "1"}], "1", rows)[0]
    assert plan_overlaps(["m"], [fold], [{"sha256": "1"}], "2", ["new"]) == []
    one = Question("1", 1, Path("a/x.jpg"), "q", ("w", "x"))
    assert question_digest(one) == question_digest(Question("2", 9, Path("b/x.jpg"), "q", ("w", "x"), "a"))
