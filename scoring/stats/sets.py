"""Sets of options that hold the right one as often as asked, from what a calibration keeps of its labelled rows."""

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from scoring.files.reading import FileError
from scoring.stats.calibration import Calibration
from scoring.stats.selective import guarantee, nonconformity, option_sets, set_quantile

ROUNDED = 5e-7  # calibrations keep six decimals of labelled rows: an option so much less conforming is as conforming


class SetsError(FileError):
    """Sets that could not keep their promise; the message says why, and what to do."""


@dataclass(frozen=True)
class SetRequest:
    """level: how often a set must hold the right option. method: see `selective.nonconformity`. seed: of randomised
    APS; None for sets that do not depend on chance."""

    level: float
    method: Literal["lac", "aps"] = "lac"
    seed: int | None = None

    def __post_init__(self):
        if not 0 < self.level < 1:
            raise SetsError(f"--sets {self.level}: expected how often a set must hold the right option, such as 0.9")
        if self.seed is not None and self.method != "aps":
            raise SetsError(f"--sets-seed: sets of method {self.method} do not depend on chance; use --sets-method aps")

    def draw(self, purpose: int) -> np.random.Generator | None:
        """Of the labelled rows (0) and of the rows to come (1)."""
        return None if self.seed is None else np.random.default_rng((self.seed, purpose))

    def labelled(self, calibration: Calibration) -> np.ndarray:
        """(n,) nonconformity of the labelled rows' answers."""
        if self.method == "lac":
            return np.array(calibration.nonconformity)
        up_to, rng = np.array(calibration.cumulative), self.draw(0)
        if rng is not None:
            up_to = up_to - rng.random(len(up_to)) * (1 - np.array(calibration.nonconformity))
        return up_to


@dataclass
class OptionSets:
    """held: (N, K) which options a row's set holds. quantile: of nonconformity; None where each fold has its own."""

    held: np.ndarray
    quantile: float | None
    promise: str

    def about(self, request: SetRequest) -> dict:
        """What run.json tells of the sets."""
        return asdict(request) | {"quantile": self.quantile, "guarantee": self.promise}


def check_sets(calibrations: list[Calibration], request: SetRequest, orders: str = "1") -> None:
    """Raises SetsError where these calibrations cannot give such sets."""
    first = calibrations[0]
    if orders == "pride":
        raise SetsError(
            "--sets with --orders pride: some rows are shown in all orders and the others in one, so that they are not "
            "alike; use --orders adaptive or cyclic"
        )
    if len(calibrations) > 1 and not (first.folds and all(part.digests == first.digests for part in calibrations)):
        raise SetsError(
            f"--sets: {len(calibrations)} checkpoints are pooled, and their calibrations are each one's own; sets need "
            "labelled rows scored by this very pool: the out-of-fold rows of a training with --folds (`score "
            "--out-of-fold`, then `calibrate`), or `ensemble … --fit LABELLED --sets`"
        )
    if not first.nonconformity:
        raise SetsError(
            "--sets: the checkpoint has no calibration for these orders that keeps its labelled rows; score labelled "
            "rows in these orders, and make one with `calibrate SCORES --ckpt CKPT`"
        )
    if request.method == "aps" and not first.cumulative:
        raise SetsError("--sets-method aps: the calibration was made before; make it anew with `calibrate`")


def conformal_sets(
    log_p: np.ndarray, calibrations: list[Calibration], request: SetRequest, members: np.ndarray | None = None
) -> OptionSets:
    """Sets for (N, K) log-probabilities. members: (M, N, K) those of each fold, where folds are pooled.

    Of one checkpoint split conformal sets. Of folds CV+ (Romano, Sesia and Candès, 2020; Barber et al., 2021): an
    option is compared with each labelled row by the fold that had seen neither. Raises SetsError.
    """
    check_sets(calibrations, request)
    first = calibrations[0]
    values, shares = request.labelled(first), np.array(first.shares) if first.shares else None
    pictures = first.pictures or len(values)
    if len(calibrations) == 1:
        quantile = set_quantile(values, request.level, shares, pictures)
        held = option_sets(np.exp(log_p), min(quantile + ROUNDED, 1.0), request.method, request.draw(1))
        promise = guarantee(request.level, len(values), pictures, first.selected)
        return OptionSets(held, min(quantile, 1.0), promise)
    weights = np.full(len(values), 1 / len(values)) if shares is None else shares
    below = np.zeros(log_p.shape)  # the share of labelled rows that conform better than the option does
    for fold, part in enumerate(members):
        rows = np.array(first.folds) == fold
        order = np.argsort(values[rows], kind="stable")
        sums = np.r_[0.0, weights[rows][order].cumsum()]
        theirs = nonconformity(np.exp(part), request.method, request.draw(1))
        below += sums[np.searchsorted(values[rows][order], theirs - ROUNDED, side="left")]
    held = np.isfinite(log_p) & (below < request.level * (1 + 1 / pictures) - 1e-9)
    promise = (
        f"sets of folds (CV+): if rows to come are drawn like the {len(values):,} labelled rows, each scored by the "
        f"fold that had not seen it, a set holds the right option with probability at least "
        f"{2 * request.level - 1:.0%} (Barber et al., 2021), and in practice with about {request.level:.0%}. "
        "This is an average over rows."
    )
    return OptionSets(held, None, promise)
