"""`score` and `merge` as functions: the files of the commands, the same call goes on, and what is refused."""

import csv
import logging
from pathlib import Path
from threading import Event

import pytest

from benchmarks.faults import SCORED, content
from scoring.errors import CallError, InputError
from scoring.library.messages import ScoringWarning
from scoring.library.runs import merge, score
from scoring.scores.folder import RunError
from scoring.stats.sets import SetRequest
from scoring.tables.reading import read_table
from tests.shared.demo import BOTH, FOLD0

pytestmark = pytest.mark.usefixtures("known_models")
QUIET = pytest.mark.filterwarnings("ignore::scoring.library.messages.ScoringWarning")


@pytest.fixture(autouse=True)
def beside_the_demo(monkeypatch, demo):
    monkeypatch.chdir(demo.parent)


def same_files(one: Path, other: Path) -> None:
    assert content(one, SCORED) == content(other, SCORED)
    for name in ("plan.json", "metrics.json", "questions.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@QUIET
@pytest.mark.parametrize(
    "options",
    [
        {"orders": "adaptive", "margin": 0.9, "limit": 4, "sample": "sample.csv"},
        {"orders": "1,cyclic", "calibration": "none", "limit": 2},
    ],
    ids=lambda options: next(iter(options.values())),
)
def test_the_files_are_those_of_the_command(quick_cli, small_table, tmp_path, options):
    table = small_table(5)
    (tmp_path / "sample.csv").write_text("id,answer\ntest_0002,a\ntest_0001,a\n")
    options = {key: str(tmp_path / value) if key == "sample" else value for key, value in options.items()}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    checkpoints = [word for name in BOTH for word in ("--ckpt", name)]
    quick_cli("score", table, *checkpoints, "--batch-tokens", 400, "--out", tmp_path / "command", *words)
    answers = score(read_table(table), BOTH, tmp_path / "function", batch_tokens=400, **options)
    assert content(tmp_path / "function", SCORED) == content(tmp_path / "command", SCORED)
    assert (tmp_path / "function" / "metrics.json").read_bytes() == (tmp_path / "command" / "metrics.json").read_bytes()
    with open(tmp_path / "command" / "probabilities.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [answer.letter for answer in answers] == [row["pred"] for row in rows]
    assert [f"{answer['b']:.6f}" for answer in answers] == [row["p_b"] for row in rows]


@QUIET
def test_a_call_that_is_stopped_goes_on_and_shards_are_merged_into_the_same_files(small_table, tmp_path):
    table, stop, steps = small_table(8), Event(), []

    def stop_after_a_batch(done, total):
        steps.append((done, total))
        if done:
            stop.set()

    out, call = tmp_path / "whole", {"batch_tokens": 350}
    with pytest.raises(KeyboardInterrupt):
        score(table, FOLD0, out, **call, progress=stop_after_a_batch, stop=stop)
    assert 0 < steps[-1][0] < 8 and steps[0] == (0, 8) and not (out / "run.json").exists()
    steps.clear()
    whole = score(str(table), str(FOLD0), str(out), **call, progress=lambda *step: steps.append(step))
    assert 0 < steps[0][0] < 8 and steps[-1] == (8, 8) and all(answer.scored for answer in whole)
    shards = [tmp_path / "one", tmp_path / "two"]
    parts = [score(table, FOLD0, shard, **call, shard=(number, 2)) for number, shard in enumerate(shards, 1)]
    assert sum(answer.scored for part in parts for answer in part) == 8 and {len(part) for part in parts} == {8}
    merged = merge(shards, tmp_path / "merged")
    same_files(tmp_path / "merged", out)
    assert merged.probabilities.tolist() == whole.probabilities.tolist()
    for part in parts:
        assert all(dict(one) == dict(all) for one, all in zip(part, whole) if one.scored)
    with pytest.raises(RunError, match=r"Choose another out=.* overwrite=True"):
        score(small_table(3, "three.csv"), FOLD0, out)


@QUIET
def test_rows_without_a_score_are_in_the_result_with_the_reason(small_table, tmp_path, caplog):
    table = small_table(3)
    lines = table.read_text("utf-8").splitlines()
    lines[2] = lines[2].replace("images/", "images/none-", 1)
    table.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(InputError, match="column path"):
        score(table, FOLD0, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with caplog.at_level(logging.INFO, "scoring"):
        answers = score(table, FOLD0, tmp_path / "out", skip_bad_rows=True)
    assert [answer.scored for answer in answers] == [True, False, True] and "no file" in answers[1].status
    assert "going on without 1 of 3 rows" in caplog.text and "3 rows, 1 checkpoint; loading" in caplog.text


def test_what_deserves_a_look_is_a_warning(small_table, tmp_path):
    rows = [
        {"id": row.id, "path": row.picture, "question": row.question, "choices": list(row.options), "answer": "a"}
        for row in read_table(small_table(2)).questions
    ]
    with pytest.warns(ScoringWarning, match="orders disagree") as warned:
        answers = score(rows, FOLD0, tmp_path / "out", calibration="none", orders="cyclic")
    assert warned[0].filename == __file__ and len(answers) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"orders": "most"}, "orders 'most': expected 1, cyclic"),
        ({"orders": []}, "no orders"),
        ({"weights": "8bit"}, 'weights="8bit": expected one of auto, 4bit, 16bit'),
        ({"compile": "yes"}, "compile=.*expected one of auto, on, off"),
        ({"quantization": "int8"}, "expected one of nf4, fp4, none"),
        ({"device": "cuda:7"}, "device= cuda:7: expected one of none, auto"),
        ({"batch_tokens": 0}, "expected a number of tokens"),
        ({"margin": float("nan")}, "expected a number from 0 on"),
        ({"limit": 0}, "limit=0: expected 1 or more"),
        ({"pixels": 31}, "pixels '31': expected a side of at least 32"),
        ({"pixels": [224, 448], "out_of_fold": True}, "out_of_fold=True takes a single pixels"),
        ({"shard": (3, 2)}, r"shard=\(3, 2\): expected"),
        ({"sets": 1.5}, "between 0 and 1"),
        ({"ckpt": []}, "ckpt: found no checkpoint"),
        ({"ckpt": "none"}, "no such folder"),
        ({"calibration": "none", "sets": SetRequest(0.9)}, "calibration"),
        ({"out_of_fold": True}, "has no folds"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_is_refused_before_a_model_is_loaded(
    small_table, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr("scoring.run.loader.BatchScorer", None)
    with pytest.raises(ValueError, match=message):
        score(small_table(2), **{"ckpt": FOLD0, "out": tmp_path / "out"} | arguments)


def test_one_of_several_processes_is_refused(small_table, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(CallError, match="this is one of 4 processes"):
        score(small_table(2), FOLD0, tmp_path / "out")
