"""The oracle: one prompt, transformers' own forward, its own positions, no padding, no sharing. Slow and plain.

Every faster way is tested against this.
"""

import numpy as np
import torch

from scoring.inputs.tokens import TokenSequence


@torch.no_grad()
def reference_logits(network: torch.nn.Module, sequence: TokenSequence, patches: np.ndarray) -> torch.Tensor:
    """(V,) float32 logits of the token that follows the prompt."""
    inputs = model_inputs(sequence, patches, network.device, network.config.image_token_id)
    return network(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].float()


def model_inputs(sequence: TokenSequence, patches: np.ndarray, device, image_token_id: int) -> dict[str, torch.Tensor]:
    """What `Qwen3VLProcessor` would hand to the model for this one prompt."""
    ids = torch.from_numpy(sequence.ids)[None].to(device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == image_token_id).int(),
        "pixel_values": torch.from_numpy(patches).to(device),
        "image_grid_thw": torch.tensor([sequence.grid], device=device),
    }
