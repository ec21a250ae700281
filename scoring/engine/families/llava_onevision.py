"""LLaVA-OneVision: a SigLIP tower that sees tiles, a projector of each patch, and a token that ends rows of patches."""

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from torch import nn
from transformers.models.llava_onevision.modeling_llava_onevision import image_size_to_num_patches

from scoring.engine import Network
from scoring.engine.families.internvl import InternVLParts
from scoring.engine.linear import PatchProduct, TileProduct
from scoring.inputs.families.family import Family
from scoring.inputs.pixels import Grid


class LlavaOnevisionParts(InternVLParts):
    """Tower, projector and positions have InternVL's places; the tiles' tokens are packed by the library's function.

    The library works out a picture's tiles from its size, and from all resolutions in its configuration: before it
    does, those beyond the budget of the pictures are taken out there. `network.resolutions` keeps all.
    """

    def __init__(self, network: Network, family: Family):
        super().__init__(network, family)
        if not hasattr(network, "resolutions"):
            network.resolutions = network.config.image_grid_pinpoints

    @property
    def blocks(self) -> Iterable[nn.Module]:
        layers: nn.ModuleList = self.vision.encoder.layers
        return layers

    def pack_projection(self) -> list[PatchProduct]:
        embeddings = self.vision.embeddings
        embeddings.patch_embedding = TileProduct(embeddings.patch_embedding)
        return [embeddings.patch_embedding]

    def inputs(self, ids: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]) -> dict[str, torch.Tensor]:
        if not grids:
            return {}
        self._keep_resolutions(grids)
        counts: list[int] = []  # pictures of each question; neighbours with several are as good as one with all of them
        for alone, neighbours in groupby(grids, lambda grid: grid[0] > 0):
            number = len(list(neighbours))
            counts += [1] * number if alone else [number]
        return {
            "pixel_values": patches,
            "image_sizes": torch.tensor([grid[1:] for grid in grids], device=ids.device),
            "batch_num_images": torch.tensor(counts, device=ids.device),
        }

    def see(
        self, patches: torch.Tensor, sizes: tuple[tuple[Grid, int], ...], bounds: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        model, config = self.network.model, self.network.config
        grids = [grid for grid, count in sizes for _ in range(count)]
        self._keep_resolutions(grids)
        # The tower's last layer, without the norm after it.
        states = self.vision.encoder(inputs_embeds=self.vision.embeddings(patches)).last_hidden_state
        side = config.vision_config.image_size
        tiles = [
            image_size_to_num_patches(grid[1:], config.image_grid_pinpoints, side) if grid[0] else 1 for grid in grids
        ]
        features, _ = model.pack_image_features(
            torch.split(model.multi_modal_projector(states), tiles),
            [grid[1:] for grid in grids],
            image_newline=model.image_newline,
            vision_aspect_ratio=config.vision_aspect_ratio,
        )
        return torch.cat(features), []

    def _keep_resolutions(self, grids: Sequence[Grid]) -> None:
        """Leave those in the library's configuration that these pictures, cut within one budget, may have."""
        config = self.network.config
        if tiles := max(grid[0] for grid in grids):
            most = tiles * config.vision_config.image_size**2
            config.image_grid_pinpoints = [sides for sides in self.network.resolutions if math.prod(sides) <= most]
