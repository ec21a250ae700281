"""Language models without a vision tower: Qwen3, Qwen2.5 and Llama 3."""

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from scoring.engine.families.parts import NetworkParts
from scoring.engine.linear import PatchProduct
from scoring.inputs.pixels import Grid


class TextParts(NetworkParts):
    """Of all of them: they rotate keys alike, and Qwen3's have a norm."""

    recordable = True

    @property
    def blocks(self) -> Iterable[nn.Module]:
        return ()

    def pack_projection(self) -> list[PatchProduct]:
        return []

    def inputs(self, ids: torch.Tensor, patches: torch.Tensor, grids: Sequence[Grid]) -> dict[str, torch.Tensor]:
        return {}

    def positions(self, positions: torch.Tensor) -> torch.Tensor:
        return positions[0]  # of text all three rows are equal
