"""Adapters of the demo as folds of its test table."""

import json
import shutil
from pathlib import Path

from scoring import read_questions
from scoring.inputs.digests import question_digests
from scoring.scores.exposure import write_rows
from tests.shared.demo import DEMO


def make_folds(folder: Path, rows: int) -> Path:
    """Two adapters of the demo as if they were folds: each holds out every other of the first rows of test.csv."""
    digests = question_digests(read_questions(DEMO / "test.csv")[:rows])
    for number in (0, 1):
        fold = shutil.copytree(DEMO / "checkpoints" / f"fold{number}", folder / f"fold{number}")
        manifest = json.loads((fold / "scoring.json").read_text())
        (fold / "scoring.json").write_text(json.dumps(manifest | {"base": str(DEMO / "base")}))
        write_rows(fold, digests[1 - number :: 2], digests[number::2])
    return folder
