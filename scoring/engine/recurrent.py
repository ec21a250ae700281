"""Layers that carry a state from token to token, computed on a prefix tree: level by level, each node from its parent.

In: rows of T tokens, and the `NodeBatch` of their tree. Out: rows of T tokens, as each sequence would have them alone:

    convolve   each token with those before it on its path
    carry      a rule with a state, which every node begins with that of its parent

Next: `families`, where a network's own layers use these; `nodes`, how a tree is cut.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.engine.nodes import Nodes, earlier_tokens
from scoring.engine.stand_in import StandIn
from scoring.engine.tree import Tree

TAPS = 3  # tokens before each one that a convolution may look at
GROUP_TOKENS = 4_096  # of nodes that are computed together; their states and chunks are in 32 bits


class Rule(Protocol):
    """What a layer computes of n nodes with L tokens each.

    rows: (n, L, …) what it takes of each token. own: (n, L) which tokens are the nodes' own; after the others the state
    must be what it was. state: (n, …) what the nodes begin with; None: at the beginning of a path. hand_on: whether the
    states at the end are needed. Returns (n, L, …), and those states.
    """

    def __call__(
        self, rows: list[torch.Tensor], own: torch.Tensor, state: torch.Tensor | None, hand_on: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]: ...


@dataclass(frozen=True)
class _Group:
    """A `NodeGroup` as tensors. own_places: where its nodes' own tokens are among its n · L."""

    tokens: torch.Tensor
    own: torch.Tensor
    own_places: torch.Tensor
    parents: torch.Tensor
    continued: torch.Tensor

    def to(self, device: torch.device) -> "_Group":
        return _Group(*(getattr(self, item.name).to(device, non_blocking=True) for item in fields(self)))


@dataclass(frozen=True)
class NodeBatch:
    """A tree's nodes as tensors.

    taps: each segment's tokens behind the `TAPS` tokens before them on their path, segment after segment: their
    indices. nothing: places in `taps` that are before a path's beginning. places: (T,) where in `taps` each token is.
    levels: the groups of each level. order: (T,) where in all groups' outputs, one after the other, each token is.
    """

    taps: torch.Tensor
    nothing: torch.Tensor
    places: torch.Tensor
    levels: list[list[_Group]]
    order: torch.Tensor

    @classmethod
    def of(cls, tree: Tree, device: torch.device, most: int = GROUP_TOKENS) -> "NodeBatch":
        """On a device; the copies may still be under way. most: see `Nodes.groups`.

        No value of a tensor is read, which would be to wait for the card.
        """

        def tensor(array: NDArray[Any]) -> torch.Tensor:
            host = torch.from_numpy(array)
            return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)

        levels = Nodes.of(tree).groups(most)
        tokens = np.concatenate([group.tokens[group.own] for groups in levels for group in groups])
        order = np.empty_like(tokens)
        order[tokens] = np.arange(len(tokens))
        segments = np.repeat(np.arange(len(tree.query_bounds) - 1), np.diff(tree.query_bounds))
        places = np.arange(len(tokens)) + TAPS * (segments + 1)
        taps = np.full(len(tokens) + TAPS * (segments[-1] + 1), -2)
        taps[places] = np.arange(len(tokens))
        taps[taps == -2] = earlier_tokens(tree, TAPS).ravel()
        return cls(
            taps=tensor(np.maximum(taps, 0)),
            nothing=tensor(np.flatnonzero(taps < 0)),
            places=tensor(places),
            levels=[
                [
                    _Group(
                        tensor(group.tokens),
                        tensor(group.own),
                        tensor(np.flatnonzero(group.own)),
                        tensor(group.parents),
                        tensor(group.continued),
                    )
                    for group in groups
                ]
                for groups in levels
            ],
            order=tensor(order),
        )

    def to(self, device: torch.device) -> "NodeBatch":
        """The same on another card."""
        moved = {name: getattr(self, name).to(device) for name in ("taps", "nothing", "places", "order")}
        return replace(self, **moved, levels=[[group.to(device) for group in groups] for groups in self.levels])

    def convolve(self, rows: torch.Tensor, convolution: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """(T, C) -> (T, C). convolution: causal, (1, C, L) -> (1, C, L), with zeros before the first of the L."""
        laid_out = rows.index_select(0, self.taps).index_fill_(0, self.nothing, 0)
        return convolution(laid_out.T[None])[0].T.index_select(0, self.places)

    def carry(self, rule: Rule, rows: list[torch.Tensor]) -> torch.Tensor:
        """(T, …) what a rule makes of all tokens. rows: (T, …) each."""
        outputs: list[torch.Tensor] = []
        states: torch.Tensor | None = None  # of the nodes of the level before that have children
        for groups in self.levels:
            handed_on = []
            for group in groups:
                begin = None if states is None else states.index_select(0, group.parents)
                hand_on = len(group.continued) > 0
                output, end = rule([row[group.tokens] for row in rows], group.own, begin, hand_on)
                outputs.append(output.flatten(0, 1).index_select(0, group.own_places))
                if end is not None:
                    handed_on.append(end.index_select(0, group.continued))
            states = torch.cat(handed_on) if handed_on else None
        return torch.cat(outputs).index_select(0, self.order)


class RecurrentLayer(StandIn, ABC):
    """Stands for a layer that carries a state. With `nodes` it computes a tree; without, calls go to the layer itself.

    A family's subclass says how, in `branch`.
    """

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, hidden_states: torch.Tensor, nodes: NodeBatch | None = None, **kwargs: Any) -> torch.Tensor:
        if nodes is None:
            output: torch.Tensor = self.inner(hidden_states, **kwargs)
            return output
        return self.branch(hidden_states[0], nodes)[None]

    @abstractmethod
    def branch(self, hidden: torch.Tensor, nodes: NodeBatch) -> torch.Tensor:
        """(T, D) -> (T, D), on the tree."""
