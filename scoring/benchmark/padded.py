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
from scoring.engine.families.parts import NetworkParts
from scoring.engine.families.registry import parts_of
from scoring.inputs.pixels import Grid
from scoring.inputs.tokens import TokenSequence


@dataclass
class PaddedBatch:
    """B prompts with P pictures: ids (B, L), positions (3, B, L), patches (sum of N, values), grids of the P.

    last: (B,) the index of each prompt's last token.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    patches: torch.Tensor
    last: torch.Tensor
    grids: list[Grid]

    def inputs(self, parts: NetworkParts) -> dict[str, torch.Tensor]:
        """The model's arguments."""
        pictures = parts.inputs(self.ids, self.patches, self.grids)
        return {"input_ids": self.ids, "position_ids": parts.positions(self.positions)} | pictures

    def to(self, device: torch.device) -> "PaddedBatch":
        tensors = (self.ids, self.positions, self.patches, self.last)
        ids, positions, patches, last = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return PaddedBatch(ids, positions, patches, last, self.grids)


def collate(sequences: list[TokenSequence], patches: list[NDArray[Any]]) -> PaddedBatch:
    """Pad on the right to the longest prompt with token 0, to which nothing attends. patches: (N, values) each."""
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
        torch.tensor([len(sequence.ids) - 1 for sequence in sequences]),
        [grid for sequence in sequences for grid in sequence.grids],
    )


def padded_states(network: Network, batch: PaddedBatch) -> torch.Tensor:
    """(B, D) last hidden states where the answer's first token would stand; differentiable."""
    hidden: torch.Tensor = network.model(**batch.inputs(parts_of(network)), use_cache=False).last_hidden_state
    return hidden[torch.arange(len(batch.last), device=hidden.device), batch.last]
