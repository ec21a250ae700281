"""The libraries' own way of batching: prompts padded on the right, one forward of the whole model.

Benchmarks compare the prefix tree with it. Padding needs no mask: attention is causal, so that no token attends to what
comes after it, and positions are given, so that nothing depends on the module's state.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.engine import Network
from scoring.inputs.tokens import TokenSequence


@dataclass
class PaddedBatch:
    """Tensors of B prompts with P pictures: ids (B, L), positions (3, B, L), patches (sum of N, 1536), grids (P, 3).

    last: (B,) the index of each prompt's last token.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    patches: torch.Tensor
    grids: torch.Tensor
    last: torch.Tensor

    def inputs(self, image_token_id: int) -> dict[str, torch.Tensor]:
        """The model's arguments."""
        inputs = {
            "input_ids": self.ids,
            "position_ids": self.positions,
            "mm_token_type_ids": torch.eq(self.ids, image_token_id).int(),
        }
        if len(self.grids):
            inputs |= {"pixel_values": self.patches, "image_grid_thw": self.grids}
        return inputs

    def to(self, device: torch.device) -> "PaddedBatch":
        return PaddedBatch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


def collate(sequences: list[TokenSequence], patches: list[NDArray[Any]]) -> PaddedBatch:
    """Pad on the right to the longest prompt with token 0, to which nothing attends. patches: (N, 1536) each."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = np.zeros((len(sequences), length), np.int64)
    positions = np.zeros((3, len(sequences), length), np.int64)
    for number, sequence in enumerate(sequences):
        count = len(sequence.ids)
        ids[number, :count], positions[:, number, :count] = sequence.ids, sequence.positions()
    return PaddedBatch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(np.concatenate(patches)),
        torch.tensor([grid for sequence in sequences for grid in sequence.grids]),
        torch.tensor([len(sequence.ids) - 1 for sequence in sequences]),
    )


def padded_states(network: Network, batch: PaddedBatch) -> torch.Tensor:
    """(B, D) last hidden states where the answer's first token would stand; differentiable."""
    hidden: torch.Tensor = network.model(
        **batch.inputs(network.config.image_token_id), use_cache=False
    ).last_hidden_state
    return hidden[torch.arange(len(batch.last), device=hidden.device), batch.last]
