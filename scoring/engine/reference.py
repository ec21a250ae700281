"""The oracle: one prompt, transformers' own forward, its own positions, no padding, no sharing. Slow and plain.

Every faster way is tested against this.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from scoring.inputs.tokens import TokenSequence

if TYPE_CHECKING:
    from scoring.engine.loading import Model


@torch.no_grad()
def reference_logits(network: torch.nn.Module, sequence: TokenSequence, patches: np.ndarray) -> torch.Tensor:
    """(V,) float32 logits of the token that follows the prompt."""
    inputs = model_inputs(sequence, patches, network.device, network.config.image_token_id)
    return network(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].float()


@torch.no_grad()
def last_logits(model: "Model", sequence: TokenSequence, patches: np.ndarray) -> torch.Tensor:
    """The same of a loaded model, whose layers may lie on several cards."""
    network = model.network
    inputs = model_inputs(sequence, patches, model.device, network.config.image_token_id)
    hidden = network.model(**inputs, use_cache=False).last_hidden_state[:, -1:]
    return network.get_output_embeddings()(hidden.to(model.head.device))[0, -1].float()


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
