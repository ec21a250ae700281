"""InternVL3 and 3.5: a tower that sees tiles, a projector that makes a token of 2x2 patches, positions as of text."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from scoring.engine import Network
from scoring.engine.families.parts import NetworkParts
from scoring.engine.linear import PatchProduct, TileProduct
from scoring.inputs.pixels import Grid, PixelPolicy


class InternVLParts(NetworkParts):
    """The language model is a Qwen2, a Qwen3 or a Llama, which rotate queries and keys alike."""

    tower = "vision_tower"
    packs_patches = False

    @property
    def seeing(self) -> list[Network]:
        return [self.vision, self.network.model.multi_modal_projector]

    @property
    def blocks(self) -> Iterable[nn.Module]:
        layers: nn.ModuleList = self.vision.encoder.layer
        return layers

    def pack_projection(self) -> list[PatchProduct]:
        embeddings = self.vision.embeddings.patch_embeddings
        embeddings.projection = TileProduct(embeddings.projection)
        return [embeddings.projection]

    def inputs(self, ids: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]) -> dict[str, torch.Tensor]:
        return {"pixel_values": patches} if grids else {}

    def positions(self, positions: torch.Tensor) -> torch.Tensor:
        return positions[0]

    def patches(self, pixels: torch.Tensor, values: torch.Tensor, policy: PixelPolicy) -> torch.Tensor:
        """(tiles, 3, side, side)."""
        side = pixels.shape[2]
        levels = pixels.view(-1, side, side, 3).permute(0, 3, 1, 2).int()
        return values.reshape(-1)[levels + torch.arange(3, device=pixels.device)[:, None, None] * 256]

    def see(
        self, patches: torch.Tensor, sizes: tuple[tuple[Grid, int], ...], bounds: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        features: torch.Tensor = self.network.model.get_image_features(pixel_values=patches).pooler_output
        return features.flatten(0, 1), []
