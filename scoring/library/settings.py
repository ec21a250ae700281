"""What a `Scorer` is loaded from: the options of `score`, checked, and small enough to be sent to another process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scoring.errors import CallError
from scoring.inputs.orders import OrdersError
from scoring.inputs.prompt import PromptTemplate
from scoring.library.arguments import Orders, names_of, orders_from, pixels_from, template_of
from scoring.run.groups import Group, plan_groups
from scoring.run.options import ModelOptions
from scoring.stats.calibration import Calibration

FEWEST_TOKENS = 64  # of a batch


@dataclass(frozen=True)
class ScorerSettings:
    """The options of `Scorer.load`, in the engine's terms.

    names: of the checkpoints. pixels: budgets in pixels; () for the checkpoint's own. calibration: `auto`, `none` or a
    file. calibrations: used as they are in place of it, one for all members or one for each.
    """

    names: tuple[str, ...]
    model: ModelOptions
    orders: Orders = ("1",)
    pixels: tuple[int, ...] = ()
    calibration: str = "auto"
    calibrations: tuple[Calibration, ...] = ()
    device: str | None = None
    weights: str = "auto"
    margin: float = 0.7
    batch_tokens: int | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        if not self.names:
            raise CallError("no checkpoint; expected a folder or hub id, or several")
        if self.weights not in ("auto", "4bit", "16bit"):
            raise CallError(f"weights {self.weights!r}; expected auto, 4bit or 16bit")
        if not _is_number(self.margin) or not 0 <= self.margin < math.inf:
            raise CallError(f"margin {self.margin!r}; expected a difference of probabilities, such as 0.7")
        if self.batch_tokens is not None and not (_is_number(self.batch_tokens) and self.batch_tokens >= FEWEST_TOKENS):
            raise CallError(f"batch_tokens {self.batch_tokens!r}; expected a number from {FEWEST_TOKENS} on")

    @classmethod
    def of(  # noqa: PLR0913 - the parameters of `Scorer.load`
        cls,
        ckpt: str | Path | Sequence[str | Path],
        base: str | Path | None,
        template: PromptTemplate | str | Path | None,
        pixels: int | str | Sequence[int | str] | None,
        quantization: str | None,
        allow_mismatch: bool,
        orders: str | int | Sequence[str | int],
        calibration: str | Path | Calibration | Sequence[Calibration],
        device: str | None,
        weights: str,
        margin: float,
        batch_tokens: int | None,
        verify: bool,
    ) -> "ScorerSettings":
        """From what a caller gives. Raises OrdersError, TemplateError, CallError."""
        if quantization not in (None, "nf4", "none"):
            raise CallError(f"quantization {quantization!r}; expected nf4, none, or nothing for the checkpoint's own")
        given: tuple[Calibration, ...] = ()
        if isinstance(calibration, Calibration):
            given = (calibration,)
        elif not isinstance(calibration, str | Path):
            given = tuple(calibration) if isinstance(calibration, list | tuple) else ()
            if not given or not all(isinstance(each, Calibration) for each in given):
                raise CallError(f"no calibration: {calibration!r}; expected auto, none, a file, or calibrations")
        model = ModelOptions(None if base is None else str(base), template_of(template), None, quantization)
        return cls(
            names=tuple(names_of(ckpt)),
            model=replace(model, allow_mismatch=allow_mismatch),
            orders=orders_from(orders),
            pixels=pixels_from(pixels),
            calibration="auto" if given else str(calibration),
            calibrations=given,
            device=device,
            weights=weights,
            margin=margin,
            batch_tokens=batch_tokens,
            verify=verify,
        )

    def orders_or(self, orders: str | int | Sequence[str | int] | None) -> Orders:
        """These orders, or those of the settings where there are none. Raises OrdersError."""
        return self.orders if orders is None else orders_from(orders)

    def refuse_tables_alone(self, orders: Orders) -> None:
        """Raises OrdersError for orders that need all rows of a table."""
        if "pride" in orders:
            raise OrdersError(
                "orders 'pride' estimate the letters' prior on the rows of a table; expected another choice here, or a "
                "call of `score`"
            )

    def groups(self, orders: Orders) -> list[Group]:
        """The runs that these checkpoints need. Raises CheckpointError, MismatchError."""
        choice = "none" if self.calibrations else self.calibration
        groups = plan_groups(self.names, self.model, self.pixels or None, orders, choice)
        if not self.calibrations:
            return groups
        count = sum(len(group.plan.members) for group in groups)
        if len(self.calibrations) not in (1, count):
            raise CallError(
                f"{len(self.calibrations)} calibrations for {count} members; expected one for all, or one for each"
            )
        given = list(self.calibrations) * (count if len(self.calibrations) == 1 else 1)
        for group in groups:
            group.plan.calibrations, given = given[: len(group.plan.members)], given[len(group.plan.members) :]
        return groups


def _is_number(value: object) -> bool:
    """Whether a value can be compared with numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)
