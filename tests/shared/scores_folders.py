"""Folders as `score` leaves them, of made-up members."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import softmax

from scoring.checkpoints.checkpoint import read_checkpoint
from scoring.inputs.questions import Question
from scoring.scores.folder import open_scores, write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration


def write_scores(out, n=200, temperature=2.0, seed=0, checkpoint=None, **values):
    """A SCORES folder of a model whose right temperature is known."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (n, 4)).astype(np.float32)
    y = (softmax(z, axis=1).cumsum(1) > rng.random((n, 1))).argmax(1)
    ids, shape = [f"row{row}" for row in range(n)], (n, 1, 1)
    logits = OptionLogits(ids, ["m"], temperature * z[:, None, None], np.ones(shape), np.ones(shape, int), ["ok"] * n)
    types = ["count" if row % 3 else "object" for row in range(n)]
    questions = [
        Question(id, row + 1, (Path(f"{row // 2}.jpg"),), f"q{row}", ("w", "x", "y", "z"), "abcd"[y[row]], types[row])
        for row, id in enumerate(ids)
    ]
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_results(out, questions, logits, [Calibration()])
    fingerprint = read_checkpoint(str(checkpoint)).fingerprint() if checkpoint else "x"
    record = {
        "checkpoints": [{"member": "m", "fingerprint": fingerprint, "temperature": 1.0}],
        "identity": {"letters": "abcd", "orders": "1"},
    }
    (out / "run.json").write_text(json.dumps(record | values))
    return out


def write_other_member(out):
    """A SCORES folder of another member for the rows of `write_scores`: some noise on every logit."""
    folder = open_scores(write_scores(out, temperature=1.0))
    folder.logits.logits += np.random.default_rng(9).normal(0, 0.3, folder.logits.logits.shape).astype(np.float32)
    write_part(out / "logits", 0, folder.logits)
    return out


def run_json(folder):
    return json.loads((folder / "run.json").read_text())


def change_run(folder, **values):
    (folder / "run.json").write_text(json.dumps(run_json(folder) | values))


def change_settings(folder, index=0, /, **values):
    """Change what run.json records of one member."""
    checkpoints = run_json(folder)["checkpoints"]
    checkpoints[index] |= values
    change_run(folder, checkpoints=checkpoints)


def columns_of(folder):
    return pq.read_table(folder / "questions.parquet").to_pydict()


def change_columns(folder, **values):
    pq.write_table(pa.table(columns_of(folder) | values), folder / "questions.parquet")


def change_exposure(folder, flags):
    """Flag how the only member of a folder has met each row."""
    change_columns(folder, exposed=[[flag] for flag in flags])


def two_folders(tmp_path, **both):
    a, b = write_scores(tmp_path / "a"), write_other_member(tmp_path / "b")
    for folder, fingerprint in ((a, "fa"), (b, "fb")):
        change_settings(folder, fingerprint=fingerprint, **both)
    return a, b


def random_logits(n=5, members=("m0", "m1"), k=4, seed=0) -> OptionLogits:
    rng = np.random.default_rng(seed)
    return OptionLogits(
        [f"id{row}" for row in range(n)],
        list(members),
        rng.normal(size=(n, len(members), 1, k)).astype(np.float32),
        rng.random((n, len(members), 1)).astype(np.float32),
        rng.integers(0, 9, (n, len(members), 1)),
        ["ok"] * n,
    )
