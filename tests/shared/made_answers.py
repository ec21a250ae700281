"""`Answers` of made-up members and rows, and the folder that `score` would leave of them."""

from pathlib import Path

import numpy as np

from scoring.inputs.questions import Question
from scoring.library.answers import Answers
from scoring.scores.evaluation import exposure_warnings
from scoring.scores.finalize import ScoredRun, write_run
from scoring.scores.folder import columns_of
from scoring.scores.logits import write_part
from scoring.stats.calibration import Calibration
from scoring.tables.table import Table
from tests.shared.scores_folders import random_logits

N = 60
MEMBERS = ("m0", "m1")
CALIBRATIONS = [Calibration(1.5), Calibration(0.8)]


def table(n=N, answers=True):
    """Every fourth row has three options, the last row a fault."""
    questions = [
        Question(
            f"id{row}",
            row + 1,
            (Path(f"{row // 2}.jpg"),),
            f"q{row}",
            ("w", "x", "y", "z")[: 3 if row % 4 == 0 else 4],
            "abc"[row % 3] if answers else "",
            "count" if row % 2 else "object",
        )
        for row in range(n)
    ]
    return Table(Path("table.csv"), "5a", questions)


def logits_of(rows, seed=0):
    logits = random_logits(len(rows.questions), MEMBERS, 4, seed)
    logits.logits[::4, ..., 3] = np.nan
    logits.status[-1] = "the picture cannot be read"
    logits.logits[-1], logits.label_mass[-1], logits.top_token[-1] = np.nan, np.nan, -1
    return logits


def run_json(rows, members=MEMBERS):
    return {
        "command": ["a program"],
        "data": rows.about(),
        "checkpoints": [
            {"member": name, "fingerprint": f"f-{name}", "temperature": calibration.temperature}
            for name, calibration in zip(members, CALIBRATIONS)
        ],
        "identity": {"letters": "abcd", "orders": "1"},
        "notes": [],
        "warnings": [],
        "counts": {"rows": len(rows.questions), "scored": 0},
        "seconds": {"scoring": 1.0},
    }


def in_training(columns, digest):
    """The first row was in the training of the first member."""
    assert digest == "5a"
    flags = np.zeros((len(columns["id"]), 2), np.uint8)
    flags[0, 0] = 1
    return flags


def answers_of(rows=None, logits=None, **values):
    rows = rows or table()
    logits = logits or logits_of(rows)
    known = {"calibrations": CALIBRATIONS, "run_json": run_json(rows), "exposed": in_training} | values
    return Answers.of(table=rows, logits=logits, **known)


def written(out, rows=None, logits=None):
    """The folder of a run, written as `score` does."""
    rows = rows or table()
    logits = logits or logits_of(rows)
    columns = columns_of(rows.questions)
    exposed = in_training(columns, "5a")
    columns["exposed"], warnings = exposed.tolist(), exposure_warnings(MEMBERS, exposed)
    (out / "logits").mkdir(parents=True)
    write_part(out / "logits", 0, logits)
    write_run(ScoredRun(out, run_json(rows), columns, logits, CALIBRATIONS, [], warnings=warnings))
    return out
