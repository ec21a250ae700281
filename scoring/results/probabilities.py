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
    letters = list(LETTERS[: log_p.shape[1]])
    scored, p = logits.scored, np.exp(log_p)
    top = np.sort(np.nan_to_num(p), axis=1)[:, :-3:-1]
    pred = predictions(logits, log_p)
    with np.errstate(invalid="ignore"):
        mass = np.nansum(logits.label_mass, axis=(1, 2)) / np.isfinite(logits.label_mass).sum((1, 2))
    columns = {
        "id": logits.ids,
        "pred": pred,
        **{f"p_{letter}": _decimals(p[:, at], scored) for at, letter in enumerate(letters)},
        "margin": _decimals(top[:, 0] - top[:, 1], scored),
        "label_mass": _decimals(mass, scored),
        "status": logits.status,
    }
    if answers is not None:
        columns |= {
            "answer": answers,
            "correct": [str(int(ours == right)) if ours and right else "" for ours, right in zip(pred, answers)],
        }
    write_csv(path, [list(columns), *zip(*columns.values())])


def write_submission(path: Path, logits: OptionLogits, log_p: np.ndarray) -> None:
    """`submission.csv`: id and letter. A row without a score has no letter."""
    write_csv(path, [["id", "answer"], *zip(logits.ids, predictions(logits, log_p))])


def predictions(logits: OptionLogits, log_p: np.ndarray) -> list[str]:
    """The likeliest letter of each row; "" where there is no score."""
    best = np.where(np.isnan(log_p), -np.inf, log_p).argmax(1)
    return [LETTERS[at] if there else "" for at, there in zip(best.tolist(), logits.scored.tolist())]


def _decimals(values: np.ndarray, there: np.ndarray) -> list[str]:
    there = there & np.isfinite(values)
    return np.where(there, np.char.mod("%.6f", np.where(there, values, 0)), "").tolist()
