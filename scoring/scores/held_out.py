"""A SCORES folder of rows that were each scored by an adapter that was not trained on them."""

from pathlib import Path

import numpy as np

import scoring
from scoring.files.writing import write_json
from scoring.inputs.prompt import LETTERS
from scoring.scores.evaluation import judge
from scoring.scores.exposure import VALIDATION
from scoring.scores.folder import open_scores, write_results
from scoring.scores.logits import OptionLogits, part_path, write_part
from scoring.stats.calibration import Calibration

MEMBER = "held-out"


def write_held_out(
    out: Path, columns: dict[str, list], logits: OptionLogits, entry: dict, about: dict | None = None
) -> dict | None:
    """Write the folder; its metrics. The probabilities are raw (temperature 1): `calibrate` and `evaluate` read them.

    columns: of questions.parquet; `fold` tells the number of the adapter that scored the row, where there are several.
    logits: of one member. entry: what run.json tells of it: `adapters`, the fingerprints, and the settings.
    """
    columns = columns | {"exposed": np.full((len(logits.ids), 1), VALIDATION, np.uint8).tolist()}
    (out / "logits").mkdir(parents=True, exist_ok=True)
    for part in (out / "logits").glob("part-*.parquet"):
        if part != part_path(out / "logits", 0):
            part.unlink()
    write_part(out / "logits", 0, logits)
    write_results(out, columns, logits, [Calibration()])
    adapters = entry["adapters"]
    report = {
        **(about or {}),
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
            *(about or {}).get("notes", []),
        ],
        "counts": {"rows": len(logits.ids), "scored": int(logits.scored.sum())},
    }
    write_json(out / "run.json", report)
    return judge(open_scores(out))
