"""Option logits -> probabilities, and the files that people take away."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from scoring.files.writing import write_columns, write_csv
from scoring.inputs.prompt import LETTERS
from scoring.scores.logits import OptionLogits
from scoring.scores.position import in_all_orders, without_prior
from scoring.stats.calibration import Calibration, log_probabilities
from scoring.stats.pools import PoolSettings
from scoring.tables.sample import SampleSubmission


def member_logits(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, K): a member's log-probabilities averaged over its option orders, not calibrated.

    In runs with `--orders pride` the letters' prior is taken off rows that were scored in one order.
    A temperature may come before or after this mean: the result is the same.
    """
    by_order = without_prior(logits, member) if logits.orders == "pride" else logits.logits[:, member]
    return _mean_over_orders(log_probabilities(by_order))


def member_log_probabilities(
    logits: OptionLogits, calibrations: list[Calibration], task_types: list[str] | None = None
) -> np.ndarray:
    """(M, N, K): each member's calibrated log-probabilities.

    A letter bias applies only where each option was at one letter; in runs with `--orders pride` the rows that were
    scored in all orders have a temperature of their own.
    """
    several = in_all_orders(logits)
    members = []
    for member, calibration in enumerate(calibrations):
        applied = calibration.without_letters() if logits.logits.shape[2] > 1 else calibration
        raw = member_logits(logits, member)
        log_p = applied.apply(raw, task_types)
        if applied.all_orders and logits.orders == "pride":
            log_p[several] = log_probabilities(raw[several], applied.all_orders)
        members.append(log_p)
    return np.stack(members)


def pooled_log_probabilities(
    logits: OptionLogits,
    calibrations: list[Calibration],
    task_types: list[str] | None = None,
    settings: PoolSettings | None = None,
) -> np.ndarray:
    """(N, K): the members' calibrated log-probabilities, pooled, see `pool_members`."""
    return pool_members(member_log_probabilities(logits, calibrations, task_types), settings)


def pool_members(members: np.ndarray, settings: PoolSettings | None = None) -> np.ndarray:
    """(N, K) log-probabilities of the pool of (M, N, K) members; a single member without settings as it is."""
    if len(members) == 1 and settings is None:
        single: np.ndarray = members[0]
        return single
    return (settings or PoolSettings()).pool(members)


def _mean_over_orders(log_p: np.ndarray) -> np.ndarray:
    """(N, K) mean of (N, O, K) over the orders that a row has (fewer with fewer options), normalised again."""
    if log_p.shape[1] == 1:
        single: np.ndarray = log_p[:, 0].copy()
        return single
    present = np.isfinite(log_p)
    count = present.sum(1)
    mean = np.where(present, log_p, 0).sum(1) / np.maximum(count, 1)
    return log_probabilities(np.where(count > 0, mean, np.nan))


def write_probabilities(
    path: Path,
    logits: OptionLogits,
    log_p: np.ndarray,
    answers: list[str] | None,
    sets: np.ndarray | None = None,
) -> None:
    """`probabilities.csv`, see `probability_columns`."""
    write_columns(path, probability_columns(logits, log_p, answers, sets))


def probability_columns(
    logits: OptionLogits, log_p: np.ndarray, answers: list[str] | None, sets: np.ndarray | None = None
) -> dict[str, list[str] | pa.Array]:
    """The columns of `probabilities.csv`: 6 decimals; rows without a score have empty cells and the reason in `status`.

    The label mass is the mean over the members of `logits`. sets: (N, K) bool, which options a row's set holds, for a
    column `set` such as `ac`.
    """
    letters = list(LETTERS[: log_p.shape[1]])
    scored, p = logits.scored, np.exp(log_p)
    pred = predictions(logits, log_p)
    columns: dict[str, list[str] | pa.Array] = {
        "id": logits.ids,
        "pred": pred,
        **{f"p_{letter}": _decimals(p[:, index], scored) for index, letter in enumerate(letters)},
        "margin": _decimals(margins(log_p), scored),
        "label_mass": _decimals(mean_label_mass(logits), scored),
        "status": logits.status,
    }
    if sets is not None:
        columns["set"] = ["".join(letter for letter, in_set in zip(letters, row) if in_set) for row in sets.tolist()]
    if answers is not None:
        columns |= {
            "answer": answers,
            "correct": [str(int(letter == right)) if letter and right else "" for letter, right in zip(pred, answers)],
        }
    return columns


def write_submission(
    path: Path, logits: OptionLogits, log_p: np.ndarray, sample: SampleSubmission | None = None
) -> None:
    """`submission.csv`: id and letter, with the header, the ids and the order of `sample`, if there is one.

    A row without a score has no letter. Raises InputError where the sample has an id that no row has.
    """
    write_submission_of(path, logits.ids, predictions(logits, log_p), sample)


def write_submission_of(path: Path, ids: list[str], letters: list[str], sample: SampleSubmission | None = None) -> None:
    """The same, of rows whose letters are known."""
    if sample is None:
        write_columns(path, {"id": ids, "answer": letters})
        return
    answers = [letters[row] for row in sample.rows_in(ids)]
    write_csv(path, [sample.header, *map(list, zip(sample.ids, answers))], sample.delimiter)


def mean_label_mass(logits: OptionLogits) -> np.ndarray:
    """(N,) label mass, the mean over members and orders; NaN where none is known."""
    with np.errstate(invalid="ignore"):
        mass: np.ndarray = np.nansum(logits.label_mass, axis=(1, 2)) / np.isfinite(logits.label_mass).sum((1, 2))
    return mass


def margins(log_p: np.ndarray) -> np.ndarray:
    """(N,) probability of the likeliest option minus that of the second."""
    ascending = np.sort(np.nan_to_num(np.exp(log_p)), axis=1)
    margin: np.ndarray = ascending[:, -1] - ascending[:, -2]
    return margin


def predictions(logits: OptionLogits, log_p: np.ndarray) -> list[str]:
    """The likeliest letter of each row; "" where there is no score."""
    best = np.where(np.isnan(log_p), -np.inf, log_p).argmax(1)
    return [LETTERS[index] if scored else "" for index, scored in zip(best.tolist(), logits.scored.tolist())]


def _decimals(values: np.ndarray, scored: np.ndarray) -> pa.Array:
    """Numbers from 0 on with 6 decimals; "" where the row has no score, or no number."""
    present = scored & np.isfinite(values)
    millionths = np.rint(np.where(present, values, 0) * 1e6).astype(np.int64)
    integers, decimals = (pa.array(number).cast(pa.string()) for number in (millionths // 10**6, millionths % 10**6))
    cells = pc.binary_join_element_wise(integers, pc.utf8_lpad(decimals, 6, "0"), ".")
    return pc.if_else(pa.array(present), cells, "")
