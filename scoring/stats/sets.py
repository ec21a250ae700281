"""Conformal sets: options that hold the right one as often as asked, by what a calibration keeps of labelled rows."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from scoring.files.reading import FileError
from scoring.stats.calibration import Calibration
from scoring.stats.selective import guarantee, nonconformity, option_sets, set_quantile

ROUNDING = 5e-7  # a calibration keeps six decimals of nonconformity: differences up to half a unit are none


class SetsError(FileError):
    """Sets that cannot hold the right option as often as asked; the message says why, and what to do."""


@dataclass(frozen=True)
class SetRequest:
    """How sets of options are to be made.

    level: how often a set must hold the right option, between 0 and 1. method: see `selective.nonconformity`. seed: for
    randomised APS; None for sets that do not depend on chance. Raises SetsError for values that do not fit.

    >>> SetRequest(0.9).method
    'lac'
    """

    level: float
    method: Literal["lac", "aps"] = "lac"
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise SetsError(
                f"--sets {self.level}: expected how often sets must hold the right option, between 0 and 1, such as 0.9"
            )
        if self.seed is not None and self.method != "aps":
            raise SetsError(f"--sets-seed: sets of method {self.method} do not depend on chance; use --sets-method aps")

    def draw(self, purpose: int, start: int = 0) -> np.random.Generator | None:
        """The random numbers for the labelled rows (purpose 0) or for new rows (1); None without a seed.

        start: how many rows have had theirs.
        """
        if self.seed is None:
            return None
        numbers = np.random.PCG64(np.random.SeedSequence((self.seed, purpose)))
        return np.random.Generator(numbers.advance(start))

    def labelled(self, calibration: Calibration) -> np.ndarray:
        """(n,) nonconformity of the answers of the n labelled rows that the calibration keeps."""
        if self.method == "lac":
            return np.array(calibration.nonconformity)
        cumulative, rng = np.array(calibration.cumulative), self.draw(0)
        if rng is not None:
            cumulative = cumulative - rng.random(len(cumulative)) * (1 - np.array(calibration.nonconformity))
        return cumulative


@dataclass
class OptionSets:
    """Sets of N rows.

    held: (N, K) bool, the options that a row's set holds. quantile: of nonconformity, at most 1; None for folds, which
    have none in common. promise: how often the sets hold the right option, in words.
    """

    held: np.ndarray
    quantile: float | None
    promise: str

    def about(self, request: SetRequest) -> dict[str, Any]:
        """What run.json says of the sets."""
        return asdict(request) | {"quantile": self.quantile, "guarantee": self.promise}


def check_sets(calibrations: list[Calibration], request: SetRequest, orders: str = "1") -> None:
    """Raises SetsError where these calibrations cannot give such sets. orders: the option orders of the new rows."""
    first = calibrations[0]
    if orders == "pride":
        raise SetsError(
            "--sets with --orders pride: some rows are shown in all orders and the others in one, so that they are not "
            "exchangeable; use --orders adaptive or cyclic"
        )
    if len(calibrations) > 1 and not (first.folds and all(fold.digests == first.digests for fold in calibrations)):
        raise SetsError(
            f"--sets: {len(calibrations)} checkpoints are pooled, and each has a calibration of its own; sets need "
            "labelled rows scored by this very pool: the out-of-fold rows of a training with --folds (`score "
            "--out-of-fold`, then `calibrate`), or `ensemble … --fit LABELLED --sets`"
        )
    if not first.nonconformity:
        raise SetsError(
            "--sets: the checkpoint has no calibration for these orders that keeps its labelled rows; score labelled "
            "rows in these orders, and make one with `calibrate SCORES --ckpt CKPT`"
        )
    if request.method == "aps" and not first.cumulative:
        raise SetsError(
            "--sets-method aps: the calibration was made by an earlier version, without what aps needs; make it anew "
            "with `calibrate`"
        )


def conformal_sets(
    log_p: np.ndarray,
    calibrations: list[Calibration],
    request: SetRequest,
    members: np.ndarray | None = None,
    start: int = 0,
) -> OptionSets:
    """Sets for (N, K) log-probabilities. start: how many rows of the table are before these.

    calibrations: of one checkpoint, for split conformal sets; or of each of M folds of a training, for CV+. members:
    (M, N, K) log-probabilities of each fold; None for one checkpoint. Raises SetsError where these calibrations cannot
    give such sets, and ValueError for folds without members.

    CV+ compares an option with each labelled row by the fold that was trained on neither (Romano, Sesia and Candès,
    Classification with valid and adaptive coverage, 2020; Barber et al., Predictive inference with the jackknife+,
    2021).
    """
    check_sets(calibrations, request)
    first = calibrations[0]
    values, shares = request.labelled(first), np.array(first.shares) if first.shares else None
    pictures = first.pictures or len(values)
    if len(calibrations) == 1:
        quantile = set_quantile(values, request.level, shares, pictures)
        held = option_sets(np.exp(log_p), min(quantile + ROUNDING, 1.0), request.method, request.draw(1, start))
        promise = guarantee(request.level, len(values), pictures, first.selected)
        return OptionSets(held, min(quantile, 1.0), promise)
    if members is None:
        raise ValueError(f"{len(calibrations)} calibrations without members; expected log-probabilities of each fold")
    weights = np.full(len(values), 1 / len(values)) if shares is None else shares
    below = np.zeros(log_p.shape)  # the share of labelled rows that conform better than the option does
    for fold, fold_log_p in enumerate(members):
        rows = np.array(first.folds) == fold
        order = np.argsort(values[rows], kind="stable")
        sums = np.r_[0.0, weights[rows][order].cumsum()]
        options = nonconformity(np.exp(fold_log_p), request.method, request.draw(1, start))
        below += sums[np.searchsorted(values[rows][order], options - ROUNDING, side="left")]
    held = np.isfinite(log_p) & (below < request.level * (1 + 1 / pictures) - 1e-9)
    promise = (
        f"sets of folds (CV+): if rows to come are drawn like the {len(values):,} labelled rows, each scored by the "
        f"fold that had not seen it, a set holds the right option with probability at least "
        f"{2 * request.level - 1:.0%} (Barber et al., 2021), and in practice with about {request.level:.0%}. "
        "This is an average over rows."
    )
    return OptionSets(held, None, promise)
