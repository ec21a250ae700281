"""What the engine uses of a network: language model, vision tower, and what families compute differently.

A family's file makes a subclass of `NetworkParts`. Everything else in `engine` works with it and names no family.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import nn

from scoring.engine import Network
from scoring.inputs.families.family import Family, Sizes
from scoring.inputs.tokens import Grid

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines of the positions, (1, T, head size) each


class NetworkParts(ABC):
    """The parts of one loaded network of transformers.

    family: its other half. language: the language model, with `embed_tokens`, `layers` and `norm`. vision: the tower,
    with `blocks` and `patch_embed.proj`. deepstack: to how many of the first layers the tower adds features.
    recurrent: whether layers carry a state from token to token.
    """

    deepstack = 0
    recurrent = False

    def __init__(self, network: Network, family: Family):
        self.network, self.family = network, family
        self.language: Network = network.model.language_model
        self.vision: Network = network.model.visual
        self._known: dict[Grid, dict[str, torch.Tensor]] = {}  # see `patch_positions`

    @cached_property
    def sizes(self) -> Sizes:
        """Of the language model."""
        return self.family.sizes(self.network.config.text_config.to_dict())

    @property
    def projection(self) -> nn.Module:
        """The convolution of the tower that patches go through."""
        projection: nn.Module = self.vision.patch_embed.proj
        return projection

    @projection.setter
    def projection(self, module: nn.Module) -> None:
        self.vision.patch_embed.proj = module

    # ------------------------------------------------------------ pictures
    @abstractmethod
    def positions_in(self, grid: Grid) -> dict[str, torch.Tensor]:
        """What the tower would work out from a picture's grid: its arguments, a row for each patch (or see `see`)."""

    def patch_positions(self, grid: Grid) -> dict[str, torch.Tensor]:
        """`positions_in` on the tower's device, worked out once for each grid.

        The tower would do so for each picture anew, waiting for the device each time.
        """
        if grid not in self._known:
            self._known[grid] = {name: rows.to(self.vision.device) for name, rows in self.positions_in(grid).items()}
        return self._known[grid]

    def arguments(self, sizes: tuple[tuple[Grid, int], ...]) -> dict[str, Any]:
        """The tower's arguments for n pictures of each grid: the rows of `patch_positions`, picture by picture."""
        by_size = [(self.patch_positions(grid), count) for grid, count in sizes]
        return {
            name: torch.cat([tensors[name].repeat(count, 1) for tensors, count in by_size]) for name in by_size[0][0]
        }

    def see(
        self, patches: torch.Tensor, sizes: tuple[tuple[Grid, int], ...], bounds: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The tower over all pictures at once: the features of their tokens (N, D), and those for the first layers.

        patches: (patches, values). sizes: for each grid, how many pictures. bounds: (P + 1,) int32, of their patches.
        """
        lengths = [grid[1] * grid[2] for grid, count in sizes for _ in range(count)]
        # The tower reads no number of the grids: everything that follows from them is given.
        grids = torch.tensor([grid for grid, count in sizes for _ in range(count)])
        output = self.vision(
            patches, grid_thw=grids, cu_seqlens=bounds, max_seqlen=max(lengths), **self.arguments(sizes)
        )
        return output.pooler_output, list(output.deepstack_features) if self.deepstack else []

    # ------------------------------------------------------------ language model
    def recurrent_layers(self) -> list[tuple[nn.Module, str, nn.Module]]:
        """What stands for each layer that carries a state, a `RecurrentLayer`: its parent, its name there, and it."""
        return []

    @abstractmethod
    def keys_and_values(
        self, attention: Network, normed: torch.Tensor, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, G, T, head size) each: what a layer's attention makes of its normed hidden states (1, T, D)."""
