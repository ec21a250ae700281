"""What the engine uses of a network: language model, vision tower, and what families compute differently.

A family's file makes a subclass of `NetworkParts`. Everything else in `engine` works with it and names no family.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from scoring.engine import Network
from scoring.engine.linear import PatchProduct
from scoring.engine.stand_in import Replacement
from scoring.inputs.families.family import Family, Sizes
from scoring.inputs.pixels import Grid, PixelPolicy

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines of the positions, (1, T, head size) each


class NetworkParts:
    """The parts of one loaded network of transformers.

    family: its other half. language: the language model, with `embed_tokens`, `layers` and `norm`. vision: the tower,
    by its name `tower`, or None. deepstack: to how many of the first layers the tower adds features. packs_patches:
    whether the tower takes the patches of all pictures as one sequence with bounds. reads_grids: whether it reads the
    pictures' grids on its device. rotate: the library's `apply_rotary_pos_emb`, where it does something else than to
    turn the first half of a head against the second, or where attention has other gates or norms than those of heads;
    None elsewhere, where `fused` computes attention. recurrent: whether layers carry a state from token to token.
    recordable: whether a forward pass moves no values between host and device, once the grids of its pictures are
    known. packing: whether the network answers trees at this time, see `packed_attention`.
    """

    tower = "visual"
    deepstack = 0
    packs_patches = True
    reads_grids = False
    recurrent = False
    recordable = False
    packing = False
    rotate: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = None

    def __init__(self, network: Network, family: Family):
        self.network, self.family = network, family
        self.language: Network = network.model.language_model if family.vision else network.model
        self.vision: Network = getattr(network.model, self.tower) if family.vision else None
        rotary = self.language.rotary_emb
        if rotary.rope_type == "dynamic":  # it changes beyond the context alone, where prompts are refused, but would
            rotary.rope_type = "default"  # ask the card for the largest position
        self._known: dict[Grid, dict[str, torch.Tensor]] = {}  # see `patch_positions`

    @cached_property
    def sizes(self) -> Sizes:
        """Of the language model."""
        return self.family.sizes(self.network.config.to_dict())

    @property
    def seeing(self) -> list[Network]:
        """All that makes tokens of a picture: the tower, and what follows it where that is not a part of it."""
        return [self.vision] if self.vision else []

    @property
    def blocks(self) -> Iterable[nn.Module]:
        """Of the vision tower: what is compiled, each by itself."""
        blocks: nn.ModuleList = self.vision.blocks
        return blocks

    def pack_projection(self) -> list[PatchProduct]:
        """Put a `PatchProduct` in the place of the convolution that patches go through; none where there are none."""
        product = self.vision.patch_embed.proj = PatchProduct(self.vision.patch_embed.proj)
        return [product]

    # ------------------------------------------------------------ the library's own forward
    def inputs(self, ids: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]) -> dict[str, torch.Tensor]:
        """What the library's processor gives its model beside ids (B, L): the pictures of all prompts in their places.

        patches: (N, values) of all pictures, as the pixel policy cuts them, on the device of the ids.
        """
        inputs = {"mm_token_type_ids": torch.eq(ids, self.network.config.image_token_id).int()}
        if grids:
            inputs |= {"pixel_values": patches, "image_grid_thw": torch.tensor(grids, device=ids.device)}
        return inputs

    def positions(self, positions: torch.Tensor) -> torch.Tensor:
        """(3, B, L) positions of tokens as the language model takes them."""
        return positions

    # ------------------------------------------------------------ pictures
    def patches(self, pixels: torch.Tensor, values: torch.Tensor, policy: PixelPolicy) -> torch.Tensor:
        """Pixels (n, height, width, 3) uint8 of pictures of one grid -> what the tower takes, see `patches_of`."""
        return patches_of(pixels, values, policy)

    def positions_in(self, grid: Grid) -> dict[str, torch.Tensor]:
        """What the tower would work out from a picture's grid: its arguments, a row for each patch (or see `see`)."""
        return {}

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
        # Most towers read no number of the grids: everything that follows from them is given.
        grids = torch.tensor([grid for grid, count in sizes for _ in range(count)])
        if self.reads_grids:
            grids = grids.to(patches.device)
        output = self.vision(
            patches, grid_thw=grids, cu_seqlens=bounds, max_seqlen=max(lengths), **self.arguments(sizes)
        )
        return output.pooler_output, list(output.deepstack_features) if self.deepstack else []

    # ------------------------------------------------------------ language model
    def recurrent_layers(self) -> list[Replacement]:
        """What stands for each layer that carries a state, a `RecurrentLayer`."""
        return []

    def keys_and_values(
        self, attention: Network, normed: torch.Tensor, rotation: Rotation
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, G, T, head size) each: what a layer's attention makes of its normed hidden states (1, T, D)."""
        shape = (*normed.shape[:-1], -1, attention.head_dim)
        keys, values = attention.k_proj(normed).view(shape), attention.v_proj(normed).view(shape)
        if hasattr(attention, "k_norm"):
            keys = attention.k_norm(keys)
        keys = keys.transpose(1, 2)
        assert self.rotate is not None  # else the attention is a `FusedAttention`, which has a function for this
        _, keys = self.rotate(keys, keys, *rotation)
        return keys, values.transpose(1, 2)


def patches_of(pixels: torch.Tensor, values: torch.Tensor, policy: PixelPolicy) -> torch.Tensor:
    """(n, height, width, 3) uint8 -> (n * rows * columns, 3 * frames * patch²), as `PixelPolicy.patches` cuts them.

    values: (3, 256) what a level becomes, in the type that the model takes.
    """
    count, height, width, _ = pixels.shape
    rows, columns, patch, merge = height // policy.patch, width // policy.patch, policy.patch, policy.merge
    levels = pixels.permute(0, 3, 1, 2).int() + torch.arange(3, device=pixels.device)[:, None, None] * 256
    channels = values.reshape(-1)[levels]
    blocks = channels.reshape(count, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    blocks = blocks.expand(*blocks.shape[:6], policy.frames, patch, patch)
    return blocks.reshape(count * rows * columns, -1)
