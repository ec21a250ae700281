"""Simulated rows for the programs that test and time statistics: answers drawn from probabilities, SCORES folders."""

from pathlib import Path

import numpy as np

from scoring.files.writing import write_json
from scoring.inputs.questions import Question
from scoring.scores.folder import write_results
from scoring.scores.logits import OptionLogits, write_part
from scoring.stats.calibration import Calibration

TASK_TYPES = ("object", "count", "color", "location", "category")


def draw_answers(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) indices of options, each drawn from its row of p, (N, K) probabilities."""
    return (p.cumsum(1) > rng.random((len(p), 1))).argmax(1)


def make_questions(y: np.ndarray) -> list[Question]:
    """A question for each of the (N,) answers; two share a picture, which does not exist, and task types take turns."""
    return [
        Question(
            f"row{number}",
            number + 1,
            (Path(f"{number // 2}.jpg"),),
            "?",
            ("w", "x", "y", "z"),
            "abcd"[answer],
            TASK_TYPES[number % 5],
        )
        for number, answer in enumerate(y)
    ]


def write_scores(folder: Path, questions: list[Question], logits: np.ndarray, entries: list[dict]) -> Path:
    """A SCORES folder as `score` writes it, without a model.

    logits: (N, M, 4) of N questions and M members. entries: what `run.json` has under `checkpoints`, one entry for each
    member, with its name (`member`) and its temperature.
    """
    ids, one_order = [question.id for question in questions], (*logits.shape[:2], 1)
    names, scored = [entry["member"] for entry in entries], ["ok"] * len(ids)
    label_mass, top_token = np.ones(one_order, np.float32), np.ones(one_order, np.int64)
    option_logits = OptionLogits(ids, names, logits[:, :, None].astype(np.float32), label_mass, top_token, scored)
    (folder / "logits").mkdir(parents=True)
    write_part(folder / "logits", 0, option_logits)
    write_results(folder, questions, option_logits, [Calibration(entry["temperature"]) for entry in entries])
    write_json(folder / "run.json", {"checkpoints": entries, "identity": {"letters": "abcd", "orders": "1"}})
    return folder
