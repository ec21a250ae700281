"""Label logits -> probabilities, and the files that people take away."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scoring.files.writing import write_columns
from scoring.inputs.prompt import LETTERS
from scoring.scores.logits import OptionLogits
from scoring.scores.position import in_all_orders, without_prior
from scoring.stats.calibration import Calibration, log_probabilities
from scoring.stats.pools import pool


def member_logits(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, K): a member's log-probabilities averaged over its option orders, not calibrated.

    In runs with `--orders pride` the letters' prior is taken off rows that were seen in one order.
    A temperature may come before or after this mean: the result is the same.
    """
    found = without_prior(logits, member) if logits.orders == "pride" else logits.logits[:, member]
    return _averaged(log_probabilities(found), axis=1)


def member_log_probabilities(
    logits: OptionLogits, calibrations: list[Calibration], task_types: list[str] | None = None
) -> np.ndarray:
    """(M, N, K): each member's calibrated log-probabilities.

    A bias of letters serves options that stood at one letter each; in runs with `--orders pride` the rows that were
    shown in all orders have a temperature of their own.
    """
    several = in_all_orders(logits)
    parts = []
    for member, calibration in enumerate(calibrations):
        own = calibration.without_letters() if logits.logits.shape[2] > 1 else calibration
        raw = member_logits(logits, member)
        log_p = own.apply(raw, task_types)
        if own.all_orders and logits.orders == "pride":
            log_p[several] = log_probabilities(raw[several], own.all_orders)
        parts.append(log_p)
    return np.stack(parts)


def pooled_log_probabilities(
    logits: OptionLogits,
    calibrations: list[Calibration],
    task_types: list[str] | None = None,
    how: dict | None = None,
) -> np.ndarray:
    """(N, K): the members' calibrated log-probabilities, pooled. how: kind, weights and temperature of the pool."""
    members = member_log_probabilities(logits, calibrations, task_types)
    return members[0] if len(members) == 1 and not how else pool(members, **(how or {}))


def _averaged(log_p: np.ndarray, axis: int) -> np.ndarray:
    """Mean over an axis of those that are there (a row with fewer options has fewer orders), normalised again."""
    if log_p.shape[axis] == 1:
        return log_p.take(0, axis)
    there = np.isfinite(log_p)
    count = there.sum(axis)
    mean = np.where(there, log_p, 0).sum(axis) / np.maximum(count, 1)
    return log_probabilities(np.where(count > 0, mean, np.nan))


def write_probabilities(
    path: Path,
    logits: OptionLogits,
    log_p: np.ndarray,
    answers: list[str] | None,
    sets: np.ndarray | None = None,
    member: int | None = None,
) -> None:
    """`probabilities.csv`: 6 decimals; rows without a score have empty cells and say why in `status`.

    sets: (N, K) which options belong to a row's set, for a column `set` such as `ac`. member: whose label mass it is,
    that of all where not given.
    """
    letters = list(LETTERS[: log_p.shape[1]])
    scored, p = logits.scored, np.exp(log_p)
    pred = predictions(logits, log_p)
    with np.errstate(invalid="ignore"):
        masses = logits.label_mass if member is None else logits.label_mass[:, [member]]
        mass = np.nansum(masses, axis=(1, 2)) / np.isfinite(masses).sum((1, 2))
    columns = {
        "id": logits.ids,
        "pred": pred,
        **{f"p_{letter}": _decimals(p[:, at], scored) for at, letter in enumerate(letters)},
        "margin": _decimals(margins(log_p), scored),
        "label_mass": _decimals(mass, scored),
        "status": logits.status,
    }
    if sets is not None:
        columns["set"] = ["".join(letter for letter, held in zip(letters, row) if held) for row in sets.tolist()]
    if answers is not None:
        columns |= {
            "answer": answers,
            "correct": [str(int(ours == right)) if ours and right else "" for ours, right in zip(pred, answers)],
        }
    write_columns(path, columns)


def write_submission(path: Path, logits: OptionLogits, log_p: np.ndarray) -> None:
    """`submission.csv`: id and letter. A row without a score has no letter."""
    write_columns(path, {"id": logits.ids, "answer": predictions(logits, log_p)})


def margins(log_p: np.ndarray) -> np.ndarray:
    """(N,) probability of the likeliest option minus that of the second."""
    top = np.sort(np.nan_to_num(np.exp(log_p)), axis=1)
    return top[:, -1] - top[:, -2]


def predictions(logits: OptionLogits, log_p: np.ndarray) -> list[str]:
    """The likeliest letter of each row; "" where there is no score."""
    best = np.where(np.isnan(log_p), -np.inf, log_p).argmax(1)
    return [LETTERS[at] if there else "" for at, there in zip(best.tolist(), logits.scored.tolist())]


def _decimals(values: np.ndarray, there: np.ndarray) -> pa.Array:
    """Numbers from 0 on with 6 decimals; "" where there is none."""
    there = there & np.isfinite(values)
    millionths = np.rint(np.where(there, values, 0) * 1e6).astype(np.int64)
    whole, part = (pa.array(number).cast(pa.string()) for number in (millionths // 10**6, millionths % 10**6))
    return pc.if_else(pa.array(there), pc.binary_join_element_wise(whole, pc.utf8_lpad(part, 6, "0"), "."), "")
