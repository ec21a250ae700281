"""Qwen3-VL: positions of patches are interpolated from a learned grid; the first layers get features of the tower."""

import torch
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from scoring.engine import Network
from scoring.engine.families.parts import NetworkParts
from scoring.inputs.families.family import Family
from scoring.inputs.pixels import Grid


class Qwen3VLParts(NetworkParts):
    """Of a dense model or a mixture of experts."""

    recordable = True

    def __init__(self, network: Network, family: Family):
        super().__init__(network, family)
        self.deepstack = len(getattr(self.vision, "deepstack_visual_indexes", []))

    def positions_in(self, grid: Grid) -> dict[str, torch.Tensor]:
        visual, grids = self.vision, torch.tensor([grid])
        indices, weights = get_vision_interpolation_indices_and_weights(
            grids,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.config.spatial_merge_size,
        )
        positions = get_vision_position_ids(grids, visual.spatial_merge_size)
        return {"interp_indices": indices, "interp_weights": weights, "position_ids": positions}
