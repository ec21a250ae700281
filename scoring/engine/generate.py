"""The baseline that this project replaces: generate two tokens, then dig the letter out of the text."""

import numpy as np
import torch

from scoring.engine.reference import model_inputs
from scoring.inputs.tokens import ChatTokenizer, TokenSequence

LETTERS = ("a", "b", "c", "d")


@torch.no_grad()
def generate_text(
    network: torch.nn.Module, chat: ChatTokenizer, sequence: TokenSequence, patches: np.ndarray, new_tokens: int = 2
) -> tuple[str, int]:
    """The greedy continuation of one prompt as text, and the id of its first token."""
    inputs = model_inputs(sequence, patches, network.device, network.config.image_token_id)
    ids = network.generate(
        **inputs,
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=chat.control["<|im_end|>"],
        pad_token_id=chat.control["<|im_end|>"],
    )[0].tolist()
    return chat.decode(ids), ids[len(sequence.ids)]


@torch.no_grad()
def generate_batch(
    network: torch.nn.Module,
    chat: ChatTokenizer,
    prepared: list[tuple[TokenSequence, np.ndarray]],
    new_tokens: int = 2,
) -> list[tuple[str, int]]:
    """The same for several prompts at once, padded on the left as generation needs it: text and first token of each."""
    length = max(len(sequence.ids) for sequence, _ in prepared)
    ids = torch.full((len(prepared), length), chat.control["<|im_end|>"])
    mask = torch.zeros_like(ids)
    for row, (sequence, _) in enumerate(prepared):
        ids[row, length - len(sequence.ids) :] = torch.from_numpy(sequence.ids)
        mask[row, length - len(sequence.ids) :] = 1
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == network.config.image_token_id).int(),
        "pixel_values": torch.from_numpy(np.concatenate([patches for _, patches in prepared])),
        "image_grid_thw": torch.tensor([sequence.grid for sequence, _ in prepared]),
    }
    found = network.generate(
        **{name: tensor.to(network.device) for name, tensor in inputs.items()},
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=chat.control["<|im_end|>"],
        pad_token_id=chat.control["<|im_end|>"],
    ).tolist()
    return [
        (chat.decode(row[length - len(sequence.ids) :]), row[length]) for row, (sequence, _) in zip(found, prepared)
    ]


def extract_choice(text: str) -> tuple[str, bool]:
    """The letter that the notebook's extractor finds in a *whole* decoded text (prompt included, as there), and
    whether it fell back to "a" for want of one.

    The last line that is not empty decides: the letter itself, or the first word of it that is a letter.
    """
    lines = [line.strip() for line in text.strip().lower().splitlines() if line.strip()]
    words = lines[-1].split() if lines else []
    found = next((word for word in words if word in LETTERS), None)
    return (found, False) if found else ("a", True)
