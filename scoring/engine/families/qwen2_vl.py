"""Qwen2-VL and Qwen2.5-VL: keys without a norm; most blocks of Qwen2.5-VL's tower attend within windows."""

from typing import Any

import torch
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from scoring.engine.families.parts import NetworkParts
from scoring.inputs.pixels import Grid


class Qwen2VLParts(NetworkParts):
    """Of Qwen2-VL."""

    recordable = True

    def positions_in(self, grid: Grid) -> dict[str, torch.Tensor]:
        return {"position_ids": get_vision_position_ids(torch.tensor([grid]), self.vision.spatial_merge_size)}


class Qwen25VLParts(Qwen2VLParts):
    """Of Qwen2.5-VL, whose windows go to the card with each batch."""

    recordable = False

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._windows: dict[Grid, tuple[torch.Tensor, torch.Tensor]] = {}

    def windows(self, grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
        """Of a picture: its tokens (N,) window by window, and how many patches each window has; on the host."""
        if grid not in self._windows:
            visual = self.vision
            index, bounds = get_vision_window_index(
                torch.tensor([grid]), visual.spatial_merge_size, visual.window_size, visual.patch_size
            )
            self._windows[grid] = index, bounds.diff()
        return self._windows[grid]

    def arguments(self, sizes: tuple[tuple[Grid, int], ...]) -> dict[str, Any]:
        """With the windows of all pictures, one after the other."""
        pictures = [self.windows(grid) for grid, count in sizes for _ in range(count)]
        starts = torch.tensor([0, *(len(index) for index, _ in pictures)]).cumsum(0)
        lengths = torch.cat([lengths for _, lengths in pictures])
        bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0, dtype=torch.int32)])
        device = self.vision.device
        return super().arguments(sizes) | {
            "window_index": torch.cat([index + start for (index, _), start in zip(pictures, starts)]).to(device),
            "cu_window_seqlens": bounds.to(device),
            "max_window_seqlen": int(lengths.max()),
        }
