"""The baseline that this project replaces: greedy generation. `bench/extraction.py` reads a letter from the text."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scoring.engine import Network
from scoring.engine.families.registry import parts_of
from scoring.engine.reference import model_inputs
from scoring.inputs.tokens import ChatTokenizer, TokenSequence


class Generated(NamedTuple):
    """A greedy continuation.

    text: the prompt and its continuation, as the notebook decodes them. first_token: the id of the continuation's first
    token. new_text: the continuation alone.
    """

    text: str
    first_token: int
    new_text: str


@torch.no_grad()
def generate_text(
    network: Network, chat: ChatTokenizer, sequence: TokenSequence, patches: NDArray[Any], new_tokens: int = 2
) -> Generated:
    """The greedy continuation of one prompt by at most `new_tokens` tokens. patches: (N, values), the pictures'."""
    inputs = model_inputs(parts_of(network), sequence, patches, network.device)
    ids = network.generate(
        **inputs,
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=chat.end_of_turn_id,
        pad_token_id=chat.end_of_turn_id,
    )[0].tolist()
    return _decoded(chat, ids, len(sequence.ids))


@torch.no_grad()
def generate_batch(
    network: Network,
    chat: ChatTokenizer,
    prepared: list[tuple[TokenSequence, NDArray[Any]]],
    new_tokens: int = 2,
) -> list[Generated]:
    """The greedy continuations of several prompts at once, padded on the left as generation needs it.

    prepared: each prompt, and its pictures' patches (N, values).
    """
    length = max(len(sequence.ids) for sequence, _ in prepared)
    ids = torch.full((len(prepared), length), chat.end_of_turn_id)
    mask = torch.zeros_like(ids)
    for row, (sequence, _) in enumerate(prepared):
        ids[row, length - len(sequence.ids) :] = torch.from_numpy(sequence.ids)
        mask[row, length - len(sequence.ids) :] = 1
    ids, mask = ids.to(network.device), mask.to(network.device)
    patches = torch.from_numpy(np.concatenate([patches for _, patches in prepared])).to(network.device)
    grids = [grid for sequence, _ in prepared for grid in sequence.grids]
    generated = network.generate(
        input_ids=ids,
        attention_mask=mask,
        **parts_of(network).inputs(ids, patches, grids),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=chat.end_of_turn_id,
        pad_token_id=chat.end_of_turn_id,
    ).tolist()
    return [
        _decoded(chat, row[length - len(sequence.ids) :], len(sequence.ids))
        for row, (sequence, _) in zip(generated, prepared)
    ]


def _decoded(chat: ChatTokenizer, ids: list[int], prompt: int) -> Generated:
    """ids: the prompt's and the new ones. prompt: how many are the prompt's."""
    return Generated(chat.decode(ids), ids[prompt], chat.decode(ids[prompt:]))
