"""GLM-4.1V and GLM-4.6V: positions of patches are interpolated by the tower itself, which reads grids for it."""

import torch
from transformers.models.glm4v.modeling_glm4v import apply_rotary_pos_emb
from transformers.vision_utils import get_vision_position_ids

from scoring.engine.families.parts import NetworkParts
from scoring.engine.linear import PatchProduct
from scoring.inputs.pixels import Grid


class Glm4vParts(NetworkParts):
    """Of both: they differ in the names of their classes alone."""

    reads_grids = True
    rotate = staticmethod(apply_rotary_pos_emb)

    def pack_projection(self) -> list[PatchProduct]:
        """Also of the convolution that joins patches: cuDNN's sums depend on how many there are."""
        product = self.vision.downsample = PatchProduct(self.vision.downsample)
        return [*super().pack_projection(), product]

    def positions_in(self, grid: Grid) -> dict[str, torch.Tensor]:
        return {"position_ids": get_vision_position_ids(torch.tensor([grid]), self.vision.spatial_merge_size)}
