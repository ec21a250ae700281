"""One batch of prompts through the model once: the hidden state at the answer's place, and its label logits.

Prompts of a batch are padded on the right and need no mask: attention is causal, so nothing looks at what comes
after it, and positions are given, so nothing depends on module state.
"""

from dataclasses import dataclass

import numpy as np
import torch

from scoring.inputs.tokens import TokenSequence

VOCABULARY_CHUNK = 16_384  # rows of the head that are held in float32 at a time


@dataclass
class Batch:
    """Tensors of B prompts: ids (B, L), positions (3, B, L), patches (sum of N, 1536), grids (B, 3), last (B,)."""

    ids: torch.Tensor
    positions: torch.Tensor
    patches: torch.Tensor
    grids: torch.Tensor
    last: torch.Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in vars(self).values()))


def collate(sequences: list[TokenSequence], patches: list[np.ndarray]) -> Batch:
    """Pad on the right to the longest prompt. Padding is token 0: nothing attends to it."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = np.zeros((len(sequences), length), np.int64)
    positions = np.zeros((3, len(sequences), length), np.int64)
    for number, sequence in enumerate(sequences):
        count = len(sequence.ids)
        ids[number, :count], positions[:, number, :count] = sequence.ids, sequence.positions()
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(np.concatenate(patches)),
        torch.tensor([sequence.grid for sequence in sequences]),
        torch.tensor([len(sequence.ids) - 1 for sequence in sequences]),
    )


def answer_states(network: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """(B, D) last hidden states where the answer's first token would stand; differentiable."""
    hidden = network.model(
        input_ids=batch.ids,
        position_ids=batch.positions,
        pixel_values=batch.patches,
        image_grid_thw=batch.grids,
        mm_token_type_ids=(batch.ids == network.config.image_token_id).int(),
        use_cache=False,
    ).last_hidden_state
    return hidden[torch.arange(len(batch.last), device=hidden.device), batch.last]


@dataclass
class AnswerLogits:
    """labels (B, K): float32 logits of the letters; log_total (B,): log-sum-exp of all; top (B,): argmax of all."""

    labels: torch.Tensor
    log_total: torch.Tensor
    top: torch.Tensor


def project(states: torch.Tensor, head: torch.Tensor, label_ids: list[int]) -> AnswerLogits:
    """Logits in float32 whatever the model's type: in bfloat16 they tie in 1.7 % of rows."""
    states = states.float()
    labels = states @ head[label_ids].float().T
    totals, tops = [], []
    for start in range(0, len(head), VOCABULARY_CHUNK):
        logits = states @ head[start : start + VOCABULARY_CHUNK].float().T
        totals.append(logits.logsumexp(-1))
        value, at = logits.max(-1)
        tops.append((value, at + start))
    values = torch.stack([value for value, _ in tops])
    best = values.argmax(0)
    top = torch.stack([at for _, at in tops]).gather(0, best[None])[0]
    return AnswerLogits(labels, torch.stack(totals).logsumexp(0), top)
