"""Labels that are probably wrong: planted ones are named, in the file, in the terminal and on the page."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from scoring.files.reading import FileError
from scoring.inputs.questions import Question
from scoring.report.page import write_report
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.exposure import CALIBRATION, TRAINING, VALIDATION
from scoring.scores.folder import columns_of, open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.scores.suspects import as_balanced_classes, find_suspects, read_flagged
from scoring.stats.calibration import Calibration
from tests.shared.report_folders import details_text

ROOT = Path(__file__).resolve().parents[2]


def draw_rows(n: int, k: int = 4, sharp: float = 4.0, wrong: float = 0.05, seed: int = 0):
    """(N, K) calibrated probabilities, (N,) labels of which a share is another option's, (N,) which."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal(0, sharp, (n, k)), axis=1)
    right = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    planted = rng.random(n) < wrong
    return p, np.where(planted, (right + rng.integers(1, k, n)) % k, right), planted


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Share of pairs (positive, negative) whose positive has the higher score; ties count half."""
    difference = score[positive][:, None] - score[~positive]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def confident_count(p: np.ndarray, y: np.ndarray) -> int:
    """Confident learning's count by its definition, with one threshold for all letters: labels of rows in which
    another option is likelier, and at least as likely as labels are on average."""
    labelled = p[np.arange(len(y)), y]
    others = p.copy()
    others[np.arange(len(y)), y] = 0
    return int(((others.max(1) >= labelled.mean()) & (others.max(1) > labelled)).sum())


def write_scores(out: Path, p: np.ndarray, y: np.ndarray, exposed: np.ndarray | None = None, members: int = 1) -> Path:
    """A SCORES folder with these probabilities; an option without one is missing."""
    n = len(p)
    ids, names = [f"row{row}" for row in range(n)], [f"m{member}" for member in range(members)]
    with np.errstate(divide="ignore"):
        z = np.where(p > 0, np.log(p), np.nan)
    shape = (n, members, 1)
    z = np.repeat(z[:, None, None], members, 1).astype(np.float32)
    logits = OptionLogits(ids, names, z, np.ones(shape, np.float32), np.ones(shape, int), ["ok"] * n)
    questions = [
        Question(
            id,
            row + 1,
            (Path(f"{row}.jpg"),),
            f'what, "so"\nand {row}?',
            tuple(f"option {option}" for option in range(int((p[row] > 0).sum()))),
            "abcdef"[y[row]],
            "count",
        )
        for row, id in enumerate(ids)
    ]
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_results(out, columns_of(questions, exposed), logits, [Calibration()] * members)
    record = {
        "checkpoints": [{"member": name, "fingerprint": "x", "temperature": 1.0} for name in names],
        "identity": {"letters": "abcdef"[: p.shape[1]], "orders": "1"},
    }
    (out / "run.json").write_text(json.dumps(record))
    return out


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "suspects.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ------------------------------------------------------------------ arrays
def test_planted_labels_have_the_lowest_quality_and_are_flagged():
    p, y, planted = draw_rows(3000, sharp=8.0)
    suspects = find_suspects(p, y)
    assert suspects.quality == pytest.approx(p[np.arange(3000), y], abs=0)  # self-confidence: p of the label
    assert auroc(-suspects.quality, planted) > 0.95
    assert suspects.flags.sum() == pytest.approx(confident_count(p, y), abs=1)
    assert suspects.flags[planted].mean() > 0.8 and planted[suspects.flags].mean() > 0.6
    assert planted[suspects.order[:20]].all()
    falling = suspects.quality[suspects.order]
    count = int(suspects.flags.sum())
    assert suspects.flags[suspects.order[:count]].all() and sorted(suspects.order) == list(range(3000))
    assert (np.diff(falling[:count]) >= 0).all() and (np.diff(falling[count:]) >= 0).all()


def test_neither_the_order_of_rows_nor_that_of_options_matters():
    p, y, _ = draw_rows(500)
    suspects, rng = find_suspects(p, y), np.random.default_rng(1)
    rows = rng.permutation(500)
    assert (find_suspects(p[rows], y[rows]).flags == suspects.flags[rows]).all()
    letters = rng.permuted(np.tile(np.arange(4), (500, 1)), axis=1)  # another order in each row
    turned = find_suspects(np.take_along_axis(p, letters, 1), (letters == y[:, None]).argmax(1))
    assert (turned.flags == suspects.flags).all() and (turned.order == suspects.order).all()


def test_a_letter_that_is_rarely_right_flags_no_more_than_others():
    """With a threshold for each letter the two rows of `d`, one of them wrong, flag many right labels."""
    from cleanlab.filter import find_label_issues

    p, y, _ = draw_rows(800, sharp=2.0, seed=3)
    last = np.flatnonzero(y == 3)
    few = last[np.argsort(p[last, 3])[:2]]
    rows = np.concatenate([np.flatnonzero(y != 3), few])
    count = confident_count(p[rows], y[rows])
    assert find_suspects(p[rows], y[rows]).flags.sum() == pytest.approx(count, abs=1)
    assert find_label_issues(y[rows], p[rows], filter_by="low_self_confidence", n_jobs=1).sum() > 1.5 * count


@pytest.mark.parametrize("missing", [np.nan, 0.0])
def test_rows_with_fewer_options_are_checked_too(missing):
    p, y, planted = draw_rows(1000, k=3, seed=2)
    wide = np.full((1000, 6), missing)
    wide[:, :3] = p
    more, more_y, more_planted = draw_rows(1000, k=6, seed=3)
    both, labels = np.concatenate([wide, more]), np.concatenate([y, more_y])
    suspects = find_suspects(both, labels)
    assert np.isfinite(suspects.quality).all()
    assert auroc(-suspects.quality, np.concatenate([planted, more_planted])) > 0.95
    assert suspects.flags.sum() == pytest.approx(confident_count(np.nan_to_num(both), labels), abs=2)
    alone = find_suspects(wide, y)
    assert (alone.flags == find_suspects(p, y).flags).mean() > 0.998 and (alone.order[:10] < 1000).all()


def test_where_all_is_right_nothing_is_flagged():
    rng = np.random.default_rng(0)
    p = softmax(rng.normal(0, 3, (400, 4)), axis=1)
    suspects = find_suspects(p, p.argmax(1))
    assert not suspects.flags.any() and suspects.order[0] == p.max(1).argmin()


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 7, 8])
@pytest.mark.filterwarnings("error")
def test_few_rows_are_ranked_and_flagged_from_two_for_each_option_on(rows):
    p, y = np.tile([0.97, 0.01, 0.01, 0.01], (rows, 1)), np.zeros(rows, int)
    right = find_suspects(p, y)
    assert not right.flags.any() and len(right.order) == len(right.quality) == rows
    assert right.flags.dtype == bool and len(right.quality[right.order]) == len(right.order[~right.flags]) == rows
    y[2:3] = 2
    wrong = find_suspects(p, y)
    assert np.flatnonzero(wrong.flags).tolist() == ([2] if rows == 8 else [])
    assert rows < 3 or wrong.order[0] == 2


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"probabilities \(3, 4\) and labels \(2,\)"):
        find_suspects(np.full((3, 4), 0.25), np.zeros(2, int))


def test_no_process_is_started(monkeypatch):
    import multiprocessing

    def refuse(*arguments, **names):
        raise AssertionError("a process was started")

    monkeypatch.setattr(multiprocessing, "Pool", refuse)
    monkeypatch.setattr(multiprocessing.Process, "start", refuse)
    assert find_suspects(*draw_rows(200)[:2]).flags.any()


def test_equal_labels_are_dealt_to_the_positions_in_the_order_of_the_rows():
    p, y = np.tile([[0.4, 0.35, 0.25], [0.6, 0.3, 0.1]], (150, 1)), np.zeros(300, int)
    classes, position = as_balanced_classes(p, y)
    assert position.tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 1, 1, 0, 0] * 25  # the rows of 0.4 in turn, then those of 0.6
    first = {0: [0.4, 0.35, 0.25], 1: [0.25, 0.4, 0.35], 2: [0.35, 0.25, 0.4]}  # the others follow by falling p
    second = {0: [0.6, 0.3, 0.1], 1: [0.1, 0.6, 0.3], 2: [0.3, 0.1, 0.6]}
    assert classes.tolist() == [(second if row % 2 else first)[index] for row, index in enumerate(position)]


# ------------------------------------------------------------------ folders
def test_the_file_holds_what_is_needed_to_look_at_a_label(tmp_path):
    p, y, planted = draw_rows(300)
    summary = evaluate_scores(open_scores(write_scores(tmp_path / "s", p, y)), suspects=True)["suspects"]
    rows, suspects = rows_of(tmp_path / "s"), find_suspects(p, y)
    expected = suspects.order[: max(20, suspects.flags.sum())]
    assert [row["id"] for row in rows] == [f"row{row}" for row in expected]
    assert summary == {
        "rows": 300,
        "flagged": suspects.flags.sum(),
        "left_out": 0,
        "file": "suspects.csv",
        "worst": [f"row{row}" for row in expected[:10]],
        "first": {name: rows[0][name] for name in ("id", "answer", "pred")} | {"p_pred": float(rows[0]["p_pred"])},
    }
    assert json.loads((tmp_path / "s" / "metrics.json").read_text())["suspects"] == summary
    for row, number in zip(rows, expected):
        assert row["answer"] == "abcd"[y[number]] and row["pred"] == "abcd"[p[number].argmax()]
        assert float(row["p_answer"]) == pytest.approx(p[number, y[number]], abs=1e-6)
        assert float(row["p_pred"]) == pytest.approx(p[number].max(), abs=1e-6)
        assert row["label_quality"] == row["p_answer"] and row["flagged"] == str(int(suspects.flags[number]))
        assert row["picture"] == f"{number}.jpg" and row["question"] == f'what, "so"\nand {number}?'
    assert list(rows[0]) == "id answer pred p_answer p_pred label_quality flagged picture question".split()
    assert planted[expected[:10]].all()
    assert read_flagged(tmp_path / "s") == {f"row{row}" for row in np.flatnonzero(suspects.flags)}


def test_at_least_twenty_rows_are_listed_or_all(tmp_path):
    p, _, _ = draw_rows(30)
    for n in (30, 7):
        summary = evaluate_scores(open_scores(write_scores(tmp_path / str(n), p[:n], p[:n].argmax(1))), suspects=True)[
            "suspects"
        ]
        rows = rows_of(tmp_path / str(n))
        assert len(rows) == min(n, 20) and summary["flagged"] == 0 and {row["flagged"] for row in rows} == {"0"}
        assert rows == sorted(rows, key=lambda row: float(row["label_quality"]))


def test_rows_that_any_member_was_trained_on_are_left_out(tmp_path):
    p, y, _ = draw_rows(200)
    worst = find_suspects(p, y).order[:6]
    exposed = np.zeros((200, 2), np.uint8)
    exposed[worst[0], 0], exposed[worst[1], 1] = TRAINING, TRAINING | VALIDATION
    exposed[worst[2]] = VALIDATION, CALIBRATION
    metrics = evaluate_scores(open_scores(write_scores(tmp_path / "s", p, y, exposed, members=2)), suspects=True)
    summary, listed = metrics["suspects"], [row["id"] for row in rows_of(tmp_path / "s")]
    assert summary["rows"] == 198 and summary["left_out"] == 2 and summary["worst"][0] == f"row{worst[2]}"
    assert not {f"row{worst[0]}", f"row{worst[1]}"} & set(listed)
    assert "2 rows of the training are left out." in details_text(metrics)


def test_where_all_rows_were_trained_on_nothing_is_listed_and_the_reason_is_given(tmp_path):
    p, y, _ = draw_rows(60)
    folder = write_scores(tmp_path / "s", p, y, np.full((60, 1), TRAINING, np.uint8))
    (folder / "suspects.csv").write_text("id,flagged\nrow1,1\n")  # of an earlier evaluation
    metrics = evaluate_scores(open_scores(folder), suspects=True)
    assert metrics["suspects"] == {
        "rows": 0,
        "flagged": 0,
        "left_out": 60,
        "file": None,
        "worst": [],
        "reason": "every labelled row was trained on",
    }
    assert not (folder / "suspects.csv").exists()
    assert "Labels are not checked: every labelled row was trained on." in details_text(metrics)
    assert "label doubtful" not in write_report(folder).read_text("utf-8")


def test_the_terminal_names_the_number_and_the_first(tmp_path):
    p = np.tile([0.01, 0.01, 0.97, 0.01], (40, 1))
    y = np.full(40, 2)
    y[7] = 0
    metrics = evaluate_scores(open_scores(write_scores(tmp_path / "s", p, y)), suspects=True)
    line = (
        "At most 1 label looks wrong; look at it in suspects.csv, first: row7 (labelled a, the model says c with 0.97)."
    )
    assert line in details_text(metrics).splitlines()
    metrics["suspects"] |= {"flagged": 3, "rows": 40}
    assert "At most 3 labels look wrong; look at them in suspects.csv, first: row7" in details_text(metrics)
    assert "weak model" not in details_text(metrics)
    metrics["suspects"] |= {"flagged": 5}
    assert "so many of 40 rows suggest a weak model" in details_text(metrics)
    metrics["suspects"] |= {"flagged": 0}
    assert "No label looks wrong; the least credible ones are in suspects.csv." in details_text(metrics)


def test_evaluate_writes_suspects_and_scoring_does_not(quick_cli, tmp_path):
    p, y, _ = draw_rows(120)
    folder = write_scores(tmp_path / "s", p, y)
    assert "suspects" not in evaluate_scores(open_scores(folder)) and not (folder / "suspects.csv").exists()
    done = quick_cli("evaluate", folder, "--no-plot")
    flagged = find_suspects(p, y).flags.sum()
    assert f"At most {flagged} labels look wrong; look at them in suspects.csv, first: row" in done.stdout
    assert (
        json.loads((folder / "metrics.json").read_text())["suspects"]["flagged"] == flagged == len(read_flagged(folder))
    )


def test_evaluating_without_suspects_loads_no_cleanlab(tmp_path):
    p, y, _ = draw_rows(50)
    folder = write_scores(tmp_path / "s", p, y)
    code = (
        "import sys; from pathlib import Path; from scoring.report import page\n"
        "from scoring.scores import evaluation, folder\n"
        f"scores = folder.open_scores(Path({str(folder)!r})); evaluation.evaluate_scores(scores)\n"
        "assert 'cleanlab' not in sys.modules; evaluation.evaluate_scores(scores, suspects=True)\n"
        "assert 'cleanlab' in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ the page
def test_the_page_filters_doubtful_labels_once_they_were_looked_for(tmp_path):
    p, y, _ = draw_rows(200)
    folder = write_scores(tmp_path / "s", p, y)
    assert "label doubtful" not in write_report(folder).read_text("utf-8")
    count = evaluate_scores(open_scores(folder), suspects=True)["suspects"]["flagged"]
    text = write_report(folder).read_text("utf-8")
    assert f"label doubtful ({count})" in text and "<kbd>l</kbd>" in text
    named = [flags.split() for flags in re.findall('data-flags="([^"]*)"', text)]
    assert len(named) == 200 and sum("label" in flags for flags in named) == count
    evaluate_scores(open_scores(folder))  # as `score` does: suspects.csv may be of other numbers now
    assert "label doubtful" not in write_report(folder).read_text("utf-8")


def test_doubtful_labels_come_first_where_the_page_is_cut(tmp_path):
    p = np.tile([0.6, 0.2, 0.1, 0.1], (400, 1))  # never a sure answer: no other filter names a row
    y = np.zeros(400, int)
    p[50:55], y[50:55] = (0.01, 0.66, 0.32, 0.01), 0
    folder = write_scores(tmp_path / "s", p, y)
    evaluate_scores(open_scores(folder), suspects=True)
    assert read_flagged(folder) == {f"row{row}" for row in range(50, 55)}
    text = write_report(folder, limit=20).read_text("utf-8")
    assert text.count("<article") == 20 and "label doubtful (5)" in text


def test_a_file_that_is_no_suspects_file_is_refused(tmp_path):
    assert read_flagged(tmp_path) == set()
    (tmp_path / "suspects.csv").write_text("name\nx\n")
    with pytest.raises(FileError, match=r"suspects\.csv: .*expected what `evaluate` wrote; run it again"):
        read_flagged(tmp_path)
