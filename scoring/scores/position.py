"""How the letters affect the answers: agreement of option orders, the share of each letter, the letters' prior."""

from dataclasses import dataclass

import numpy as np

from scoring.inputs.orders import option_orders
from scoring.inputs.prompt import LETTERS
from scoring.scores.logits import OptionLogits
from scoring.stats.calibration import log_probabilities


def letter_log_probabilities(logits: OptionLogits, member: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities by the letter, not by the option at it, of rows that were scored in every cyclic order.

    (R,) these rows, which have as many options as there are letters, and (R, O, K) the log-probabilities.
    """
    by_option = logits.logits[:, member]
    letters = by_option.shape[2]
    names = option_orders(letters, logits.orders)
    cyclic = [names.index(order) for order in option_orders(letters, "cyclic") if order in names]
    if len(cyclic) < letters:
        return np.empty(0, int), np.empty((0, letters, letters))
    rows = np.flatnonzero(np.isfinite(by_option[:, cyclic]).all((1, 2)))
    options = np.array([[LETTERS.index(option) for option in names[order]] for order in cyclic])  # (O, K) at letters
    log_p = log_probabilities(by_option[rows][:, cyclic])
    return rows, np.take_along_axis(log_p, options[None].repeat(len(rows), 0), axis=2)


def prior(logits: OptionLogits, member: int) -> np.ndarray | None:
    """(K,) log of the letters' prior (PriDe: Zheng et al., ICLR 2024), or None without a row in all cyclic orders.

    A row's prior is the softmax over letters of the mean log-probability at each of them over the cyclic orders, in
    which every option is at every letter once; the prior is the mean over rows.
    """
    rows, log_p = letter_log_probabilities(logits, member)
    if not len(rows):
        return None
    row_priors = np.exp(log_probabilities(log_p.mean(1)))
    log_prior: np.ndarray = np.log(row_priors.mean(0))
    return log_prior


def letter_share(logits: OptionLogits, member: int) -> np.ndarray | None:
    """(K,) mean probability at each letter over all cyclic orders: 1/K each where no letter is preferred."""
    rows, log_p = letter_log_probabilities(logits, member)
    if not len(rows):
        return None
    share: np.ndarray = np.exp(log_p).mean((0, 1))
    return share


@dataclass(frozen=True)
class OrderAgreement:
    """How a member's answers depend on the order of the options, over the rows scored in several orders.

    all_agree: share of rows with the same answer in all orders. changed_by_another: share of the further orders whose
    answer differs from that of the first.
    """

    rows: int
    all_agree: float
    changed_by_another: float


def agreement(logits: OptionLogits, member: int) -> OrderAgreement | None:
    """How far a member's answers agree in all orders; None where no row was scored in several."""
    by_option = logits.logits[:, member]
    present = np.isfinite(by_option).any(2)
    rows = np.flatnonzero(present.sum(1) > 1)
    if not len(rows):
        return None
    answers = np.where(np.isfinite(by_option[rows]), by_option[rows], -np.inf).argmax(2)
    changed = (answers != answers[:, :1]) & present[rows]
    further = present[rows, 1:].sum()
    return OrderAgreement(len(rows), float(1 - changed.any(1).mean()), float(changed.sum() / max(further, 1)))


def in_one_order(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, K) logits in the data's order without the letters' prior: the way in which a pride run scores most rows.

    Rows scored in one order alone because their options refer to each other are among them, as in the run.
    """
    by_option, log_prior = logits.logits[:, member, 0], prior(logits, member)
    return by_option if log_prior is None else by_option - log_prior.astype(np.float32)


def without_prior(logits: OptionLogits, member: int) -> np.ndarray:
    """(N, O, K) logits; of rows that were scored in one order alone without the letters' prior."""
    by_option, log_prior = logits.logits[:, member], prior(logits, member)
    if log_prior is None:
        return by_option
    return np.where(~in_all_orders(logits)[:, None, None], by_option - log_prior.astype(np.float32), by_option)


def in_all_orders(logits: OptionLogits) -> np.ndarray:
    """(N,) bool: rows that were scored in more than one order."""
    several: np.ndarray = (np.isfinite(logits.logits).any(3).sum(2) > 1).any(1)
    return several
