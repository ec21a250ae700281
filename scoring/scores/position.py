"""What the letters do to the answers: agreement of option orders, the share of each letter, the letters' prior."""

import numpy as np

from scoring.inputs.orders import option_orders
from scoring.inputs.prompt import LETTERS
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import log_probabilities


def at_letters(logits: OptionLogits, member: int) -> tuple[np.ndarray, np.ndarray]:
    """(R,) rows with as many options as letters that were seen in every cyclic order, and (R, O, K) log-probabilities
    by the letter (not the option) at which they stood."""
    found = logits.logits[:, member]
    letters = found.shape[2]
    names = option_orders(letters, logits.orders)
    cyclic = [names.index(order) for order in option_orders(letters, "cyclic") if order in names]
    if len(cyclic) < letters:
        return np.empty(0, int), np.empty((0, letters, letters))
    rows = np.flatnonzero(np.isfinite(found[:, cyclic]).all((1, 2)))
    shown = np.array([[LETTERS.index(option) for option in names[order]] for order in cyclic])
    log_p = log_probabilities(found[rows][:, cyclic])
    return rows, np.take_along_axis(log_p, shown[None].repeat(len(rows), 0), axis=2)


def prior(logits: OptionLogits, member: int) -> np.ndarray | None:
    """(K,) log of the letters' prior (PriDe: Zheng et al., ICLR 2024), or None without a row in all cyclic orders.

    A row's prior is the softmax over letters of the mean log-probability at each of them over the cyclic orders, in
    which every option stands at every letter once; the prior is their mean.
    """
    rows, log_p = at_letters(logits, member)
    if not len(rows):
        return None
    each = np.exp(log_probabilities(log_p.mean(1)))
    return np.log(each.mean(0))


def letter_share(logits: OptionLogits, member: int) -> np.ndarray | None:
    """(K,) mean probability at each letter over all cyclic orders: 1/K each where no letter is preferred."""
    rows, log_p = at_letters(logits, member)
    return np.exp(log_p).mean((0, 1)) if len(rows) else None


def agreement(logits: OptionLogits, member: int) -> dict | None:
    """Rows seen in several orders: the share whose answer is the same in all, and that another order changes."""
    found = logits.logits[:, member]
    there = np.isfinite(found).any(2)
    rows = np.flatnonzero(there.sum(1) > 1)
    if not len(rows):
        return None
    best = np.where(np.isfinite(found[rows]), found[rows], -np.inf).argmax(2)
    there, first = there[rows], best[:, :1]
    changed = (best != first) & there
    others = there[:, 1:].sum()
    return {
        "rows": len(rows),
        "all_agree": float(1 - changed.any(1).mean()),
        "changed_by_another": float(changed.sum() / max(others, 1)),
    }


def in_one_order(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, K) logits in the data's own order, the letters' prior taken off: all rows as most of a pride run are shown.

    Rows that were shown in one order alone since their options refer to each other are among them, as in the run.
    """
    first, letters = logits.logits[:, member, 0], prior(logits, member)
    return first if letters is None else first - letters.astype(np.float32)


def without_prior(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, O, K) logits, the letters' prior taken off rows that were seen in one order alone, by its first letters."""
    scores, letters = logits.logits[:, member], prior(logits, member)
    if letters is None:
        return scores
    return np.where(~in_all_orders(logits)[:, None, None], scores - letters.astype(np.float32), scores)


def in_all_orders(logits: OptionLogits) -> np.ndarray:
    """(N,) bool: rows that were shown in more than one order."""
    return (np.isfinite(logits.logits).any(3).sum(2) > 1).any(1)
