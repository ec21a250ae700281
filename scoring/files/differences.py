"""Two records that should be equal: which of their values changed, and the words for it."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Change(NamedTuple):
    """A value in the earlier record and in the present one; None where a record lacks it."""

    before: object
    now: object


def changed(before: Mapping[str, object], now: Mapping[str, object], names: Iterable[str]) -> dict[str, Change]:
    """name -> change, for those of `names` whose values differ, in the order of `names`."""
    return {name: Change(before.get(name), now.get(name)) for name in names if before.get(name) != now.get(name)}


def describe(changes: Mapping[str, Change]) -> str:
    """The changes in a message, such as "rank was 16, now 8; epochs was 1, now 3"."""
    return "; ".join(f"{name} was {change.before}, now {change.now}" for name, change in changes.items())
