"""The oracle: one prompt, transformers' own forward, its own positions, no padding, no sharing. Slow and plain.

In: a `TokenSequence` of T tokens and its pictures' patches (N, values). Out: (V,) float32 logits of the token that
follows. Everything faster in `engine` must agree with it: tests and `guard` compare them row by row.
"""

from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from scoring.engine import Network
from scoring.engine.families.parts import NetworkParts
from scoring.engine.families.registry import parts_of
from scoring.inputs.tokens import TokenSequence

if TYPE_CHECKING:
    from scoring.engine.loading import Model


@torch.no_grad()
def reference_logits(network: Network, sequence: TokenSequence, patches: NDArray[Any]) -> torch.Tensor:
    """(V,) float32 logits of the token that follows the prompt."""
    inputs = model_inputs(parts_of(network), sequence, patches, network.device)
    logits: torch.Tensor = network(**inputs, use_cache=False, logits_to_keep=1).logits
    return logits[0, -1].float()


@torch.no_grad()
def last_logits(model: "Model", sequence: TokenSequence, patches: NDArray[Any]) -> torch.Tensor:
    """`reference_logits` of a loaded model, whose layers may lie on several cards."""
    network = model.network
    inputs = model_inputs(model.parts, sequence, patches, model.device)
    hidden = network.model(**inputs, use_cache=False).last_hidden_state[:, -1:]
    logits: torch.Tensor = network.get_output_embeddings()(hidden.to(model.head.device))
    return logits[0, -1].float()


def model_inputs(
    parts: NetworkParts, sequence: TokenSequence, patches: NDArray[Any], device: torch.device
) -> dict[str, torch.Tensor]:
    """What the library's processor would hand to the model for this one prompt."""
    ids = torch.from_numpy(sequence.ids)[None].to(device)
    pictures = parts.inputs(ids, torch.from_numpy(patches).to(device), sequence.grids)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)} | pictures
