"""A SCORES folder of rows that were each scored by an adapter that was not trained on them."""

from pathlib import Path
from typing import Any

import numpy as np

import scoring
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import evaluate_scores
from scoring.scores.exposure import VALIDATION
from scoring.scores.folder import Columns, open_scores, write_results
from scoring.scores.logits import OptionLogits, part_path, write_part
from scoring.stats.calibration import Calibration

MEMBER = "held-out"


def write_held_out(
    out: Path, columns: Columns, logits: OptionLogits, entry: dict[str, Any], run_json: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Write the folder, and return its metrics. Its probabilities are raw (temperature 1), for `calibrate`.

    columns: of questions.parquet; `fold` is the number of the adapter that scored the row, where there are several.
    logits: of one member. entry: the member in run.json: its settings, and `adapters`, their fingerprints. run_json:
    further values for run.json.
    """
    run_json = run_json or {}
    columns = columns | {"exposed": np.full((len(logits.ids), 1), VALIDATION, np.uint8).tolist()}
    (out / "logits").mkdir(parents=True, exist_ok=True)
    for part in (out / "logits").glob("part-*.parquet"):
        if part != part_path(out / "logits", 0):
            part.unlink()
    write_part(out / "logits", 0, logits)
    write_results(out, columns, logits, [Calibration()])
    adapters = entry["adapters"]
    report = {
        **run_json,
        "checkpoints": [
            {
                "member": MEMBER,
                "fingerprint": adapters[0] if len(adapters) == 1 else "",
                "temperature": 1.0,
                "orders": logits.orders,
                **entry,
            }
        ],
        "identity": {"letters": LETTERS[: logits.logits.shape[3]], "orders": logits.orders},
        "versions": scoring.versions(),
        "notes": [
            "held-out rows of a training, each scored by an adapter that was not trained on it; not calibrated",
            *run_json.get("notes", []),
        ],
        "counts": {"rows": len(logits.ids), "scored": int(logits.scored.sum())},
    }
    write_json(out / "run.json", report)
    return evaluate_scores(open_scores(out))
