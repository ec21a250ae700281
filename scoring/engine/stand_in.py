"""Modules that stand in the place of a network's own, and can be taken off again.

Next: `linear`, `fused`, `recurrent` and `forward`, where they are; `packed`, which puts them in.
"""

from typing import Any, NamedTuple

from torch import nn


class StandIn(nn.Module):
    """Stands for a module of a network, `inner`."""

    inner: Any

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


class Replacement(NamedTuple):
    """A module of a network by its parent and its name there, and what stands for it."""

    parent: nn.Module
    name: str
    stand_in: nn.Module

    def put_in(self) -> None:
        setattr(self.parent, self.name, self.stand_in)


def unwrap(root: nn.Module) -> list[Replacement]:
    """Take everything that stands for a module under `root` off it, for `put_back`.

    Then the libraries' own modules can be saved, given more adapters or packed in another way.
    """
    removed: list[Replacement] = []
    for name, child in list(root.named_children()):
        if isinstance(child, StandIn):
            removed.append(Replacement(root, name, child))
            setattr(root, name, child.inner)
        removed += unwrap(getattr(root, name))
    return removed


def put_back(removed: list[Replacement]) -> None:
    """Undo `unwrap`."""
    for replacement in removed:
        replacement.put_in()
