"""What public calls take in several forms, as the rooms below take it. No torch."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from scoring.errors import CallError
from scoring.inputs.orders import OrdersError, parse_orders
from scoring.inputs.picture_objects import type_name
from scoring.inputs.pixel_budgets import parse_pixels
from scoring.inputs.prompt import PromptTemplate
from scoring.inputs.questions import Question
from scoring.library.messages import ProgressOf, say_to_log
from scoring.library.rows import as_table, path_of
from scoring.tables.large import LargeTable
from scoring.tables.reading import TableOptions, read_in_ranges
from scoring.tables.table import Table
from scoring.tables.usable import usable

if TYPE_CHECKING:
    import pandas as pd

    from scoring.run.options import RunContext

# A table's path, a table that was read, or rows that a program has: see `as_table`.
Rows: TypeAlias = Union[str, os.PathLike[str], Table, "pd.DataFrame", Iterable[Mapping[str, Any] | Question]]
Orders: TypeAlias = tuple[str, ...]  # the choices of orders whose results are pooled, mostly one
Progressed: TypeAlias = Callable[[int, int], object]  # called with how much is done, and how much there is


def usable_rows(rows: Rows, images: str | Path | None, options: TableOptions | None, skip: bool) -> Table:
    """The table of these rows, its notices logged. Raises InputError with all its problems.

    skip: faulty rows are logged instead and left out, if at least one row is good.
    """
    return usable(as_table(rows, images, options), skip, say_to_log)


def rows_in_ranges(
    rows: Rows, images: str | Path | None, options: TableOptions | None, skip: bool
) -> Table | LargeTable:
    """The same; a table of very many rows by its path is read a range at a time."""
    if not isinstance(rows, str | os.PathLike):
        return usable_rows(rows, images, options, skip)
    options = options or TableOptions()
    if images is not None:
        options = replace(options, images=images)
    return usable(read_in_ranges(path_of(os.fspath(rows)), options), skip, say_to_log)


def template_of(template: PromptTemplate | str | Path | None) -> PromptTemplate | None:
    """A template, or the one in a TOML file. Raises TemplateError, CallError."""
    if isinstance(template, str | Path):
        return PromptTemplate.read(Path(template))
    if template is not None and not isinstance(template, PromptTemplate):
        raise CallError(f"template: found {type_name(template)}; expected a PromptTemplate, or its TOML file's path")
    return template


def budget_of(pixels: int | str) -> int:
    """A pixel budget, given as a square's side, or from 10,000 on as a number of pixels. Raises PixelsError."""
    return parse_pixels(str(pixels))


def orders_from(value: str | int | Sequence[str | int]) -> Orders:
    """The choices of orders in a value: one, or several whose results are pooled. Raises OrdersError, CallError."""
    values = _listed("orders", value, (str, int), "one choice, such as cyclic or 4, or a list of several")
    if not values:
        raise OrdersError("no orders; expected one choice or several")
    return tuple(dict.fromkeys(parse_orders(part) for each in values for part in str(each).split(",")))


def pixels_from(value: int | str | Sequence[int | str] | None) -> tuple[int, ...]:
    """The pixel budgets in a value. Raises PixelsError, CallError."""
    expected = "the side of a square or a number of pixels, such as 448 or 200704, or a list of several"
    values = [] if value is None else _listed("pixels", value, (str, int), expected)
    return tuple(dict.fromkeys(budget_of(part) for each in values for part in str(each).split(",")))


def names_of(checkpoints: str | Path | Sequence[str | Path]) -> list[str]:
    """One checkpoint or several, each a folder or a hub id. Raises CallError."""
    return list(
        map(str, _listed("ckpt", checkpoints, (str, Path), "a checkpoint's folder or hub id, or a list of several"))
    )


def _listed(name: str, value: object, single: tuple[type, ...], expected: str) -> list[Any]:
    """The values of an argument that may be one or several. Raises CallError, also for what has no order."""
    values = [value] if isinstance(value, single) else value
    if isinstance(values, Mapping | Set | str | bytes) or not isinstance(values, Iterable):
        raise CallError(f"{name}: found {type_name(value)}; expected {expected}")
    values = list(values)
    if wrong := [each for each in values if not isinstance(each, single)]:
        raise CallError(f"{name}: found {type_name(wrong[0])} in a list; expected {expected}")
    return values


def context_of(progress: Progressed | None, stop: Event | None) -> "RunContext":
    """What a run of a program talks to: its lines go to the logger."""
    from scoring.run.options import RunContext

    return RunContext(ProgressOf(progress) if progress else None, say_to_log, stop or Event())


def refuse_several_processes(command: str) -> None:
    """Raises CallError in one of several processes, as torchrun starts them: only the command line's share the work."""
    count = int(os.environ.get("WORLD_SIZE") or 1)
    if count > 1:
        raise CallError(
            f"this is one of {count} processes (WORLD_SIZE is {count}), which would all write into one folder; start "
            f"the program by itself, or share the work with `torchrun … cli.py {command}`"
        )
