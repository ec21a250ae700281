"""Label logits -> probabilities, and the files that people take away."""

from pathlib import Path

import numpy as np

from scoring.inputs.prompt import LETTERS
from scoring.results.calibration import log_probabilities
from scoring.results.files import write_csv
from scoring.results.logits import OptionLogits


def pooled_log_probabilities(logits: OptionLogits, temperatures: list[float]) -> np.ndarray:
    """(N, K): log-probabilities at each member's own temperature, averaged over its orders, then over the members."""
    members = [
        _averaged(log_probabilities(logits.logits[:, at], temperature), axis=1)
        for at, temperature in enumerate(temperatures)
    ]
    return _averaged(np.stack(members), axis=0)


def _averaged(log_p: np.ndarray, axis: int) -> np.ndarray:
    """Mean over an axis of those that are there (a row with fewer options has fewer orders), normalised again."""
    if log_p.shape[axis] == 1:
        return log_p.take(0, axis)
    there = np.isfinite(log_p)
    count = there.sum(axis)
    mean = np.where(there, log_p, 0).sum(axis) / np.maximum(count, 1)
    return log_probabilities(np.where(count > 0, mean, np.nan))


def write_probabilities(path: Path, logits: OptionLogits, log_p: np.ndarray, answers: list[str] | None) -> None:
    """`probabilities.csv`: 6 decimals; rows without a score have empty cells and say why in `status`."""
    letters = LETTERS[: log_p.shape[1]]
    rows = [
        [
            "id",
            "pred",
            *(f"p_{letter}" for letter in letters),
            "margin",
            "label_mass",
            "status",
            *(["answer", "correct"] if answers is not None else []),
        ]
    ]
    for row, (name, status) in enumerate(zip(logits.ids, logits.status)):
        p = np.exp(log_p[row])
        if status == "ok":
            first, second = np.sort(np.nan_to_num(p))[::-1][:2]
            pred = letters[int(np.nanargmax(p))]
            cells = [
                pred,
                *("" if np.isnan(value) else f"{value:.6f}" for value in p),
                f"{first - second:.6f}",
                f"{np.nanmean(logits.label_mass[row]):.6f}",
            ]
        else:
            pred, cells = "", [""] * (len(letters) + 3)
        tail = (
            [] if answers is None else [answers[row], str(int(pred == answers[row])) if pred and answers[row] else ""]
        )
        rows.append([name, *cells, status, *tail])
    write_csv(path, rows)


def write_submission(path: Path, logits: OptionLogits, log_p: np.ndarray) -> None:
    """`submission.csv`: id and letter. A row without a score has no letter."""
    letters = LETTERS[: log_p.shape[1]]
    write_csv(
        path,
        [
            ["id", "answer"],
            *(
                [name, letters[int(np.nanargmax(log_p[row]))] if logits.status[row] == "ok" else ""]
                for row, name in enumerate(logits.ids)
            ),
        ],
    )
