"""CircularEval: a row counts as right only if its answer is right in every cyclic order of its options.

The rule of MMBench (Liu et al., MMBench: Is Your Multi-modal Model an All-around Player?, ECCV 2024) and of VLMEvalKit.
"""

from typing import Any

import numpy as np

from scoring.inputs.orders import option_orders
from scoring.scores.folder import Scores
from scoring.scores.probabilities import pool_members
from scoring.stats.resampling import clusters_of, share_of

ROTATED = ("cyclic", "all")  # choices of orders that every row is scored in, the cyclic ones among them


def circular_accuracy(scores: Scores) -> dict[str, Any] | None:
    """The share of labelled rows that are right in all cyclic orders, with its 95 % interval over pictures.

    None for runs in other orders. Rows without a score in one of their cyclic orders, such as those whose options refer
    to each other, do not count. fewer_orders: how many these are; right_in_fewer: how many of them are right in the
    cyclic orders that they have. value, low and high are None where no row counts.
    """
    if scores.logits.orders not in ROTATED:
        return None
    rows = scores.answered
    scored, right = _in_each_order(scores, rows)
    complete = scored.sum(1) == _option_counts(scores, rows)
    all_right = (right | ~scored).all(1)
    share: dict[str, Any] = {"value": None, "low": None, "high": None}
    if complete.any():
        share |= share_of(all_right[complete], clusters_of(scores.pictures(rows[complete])))
    return share | {
        "rows": int(complete.sum()),
        "fewer_orders": int((~complete).sum()),
        "right_in_fewer": int(all_right[~complete].sum()),
    }


def _in_each_order(scores: Scores, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two (R, K) bool arrays: whether a row is scored in each of its cyclic orders, and whether it is right there.

    A row with fewer options has fewer orders. Its answer is the likeliest option of the pool of all members in that
    order alone, each calibrated as in the run.
    """
    logits, answers, counts = scores.logits.logits, scores.answers(rows), _option_counts(scores, rows)
    types = [scores.questions["task_type"][row] for row in rows]
    letters = logits.shape[3]
    scored, right = np.zeros((2, len(rows), letters), bool)
    for shift in range(letters):
        order = _order_indices(scores, counts, shift)
        in_order = np.where(order[:, None, None] >= 0, logits[rows, :, order], np.nan)  # (R, M, K)
        scored[:, shift] = (np.isfinite(in_order).sum(2) == counts[:, None]).all(1)
        members = [
            calibration.without_letters().apply(in_order[:, member], types)
            for member, calibration in enumerate(scores.calibrations)
        ]
        log_p = pool_members(np.stack(members), scores.pool)
        best = np.where(np.isnan(log_p), -np.inf, log_p).argmax(1)
        right[:, shift] = scored[:, shift] & (best == answers)
    return scored, right


def _option_counts(scores: Scores, rows: np.ndarray) -> np.ndarray:
    """(R,) the number of options of each row."""
    counts: np.ndarray = np.array(scores.questions["options"], int)[rows]
    return counts


def _order_indices(scores: Scores, counts: np.ndarray, shift: int) -> np.ndarray:
    """(R,) the index, among a row's orders, of the cyclic one that starts with option `shift`; -1 where there is none.

    counts: (R,) how many options each row has.
    """
    indices = np.full(len(counts), -1)
    for count in set(counts[counts > shift].tolist()):
        names = option_orders(count, scores.logits.orders)
        cyclic = option_orders(count, "cyclic")[shift]
        if cyclic in names:
            indices[counts == count] = names.index(cyclic)
    return indices
