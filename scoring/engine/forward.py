"""One packed forward: pictures once, the prefix tree once for each adapter, label logits at its leaves.

No padding, no cache between batches. Pixels arrive as bytes and become patches on the device.
"""

from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from scoring.engine.tree import Tree
from scoring.inputs.pictures import PixelPolicy

VOCABULARY_CHUNK = 16_384  # rows of the head that are held in float32 at a time
# Leaves are answered and projected in blocks of one size, the last one filled up: one shape, one order of summing.
LEAF_BLOCK = {"cpu": 16, "cuda": 512}
HEAD_BLOCK = {"cpu": 16, "cuda": 128}


@dataclass
class TreeBatch:
    """A tree and its pictures as tensors. P pictures in all; in `ids` their tokens stand as `occurrences` tells.

    leaves, leaf_keys, leaf_bounds: as in the tree, the last leaf again until there is a whole number of blocks.
    picture_tokens: (N,) where in `ids` the tokens of pictures stand.
    pixels: for each size of picture, (n, height, width, 3) uint8; sizes: its grid and n; the P pictures in this order.
    picture_bounds: (P + 1,) int32, where each picture's patches begin and end.
    occurrences: for each run of picture tokens in `ids`, which of the P pictures it is.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    keys: torch.Tensor
    query_bounds: torch.Tensor
    key_bounds: torch.Tensor
    leaves: torch.Tensor
    leaf_keys: torch.Tensor
    leaf_bounds: torch.Tensor
    picture_tokens: torch.Tensor
    picture_bounds: torch.Tensor
    pixels: list[torch.Tensor]
    longest: tuple[int, int]
    sizes: tuple[tuple[tuple[int, int, int], int], ...]
    occurrences: tuple[int, ...]
    count: int  # of leaves, without those that fill up a block

    @classmethod
    def of(cls, tree: Tree, pictures: list[np.ndarray], policy: PixelPolicy, device: str) -> "TreeBatch":
        """`pictures` (height, width, 3) uint8 as `tree.pictures` numbers them; the kind of `device` it is meant for.

        Everything that depends on numbers of the batch is worked out here: later, to ask would be to wait for the card.
        """
        pin = device == "cuda"  # for copies that do not wait
        groups: dict[tuple, list[int]] = {}
        for number, picture in enumerate(pictures):
            groups.setdefault(picture.shape, []).append(number)
        place = {number: at for at, number in enumerate(number for numbers in groups.values() for number in numbers)}
        sizes = tuple(
            ((1, height // policy.patch, width // policy.patch), len(numbers))
            for (height, width, _), numbers in groups.items()
        )
        lengths = [rows * columns for (_, rows, columns), count in sizes for _ in range(count)]
        pixels = []
        for shape, numbers in groups.items():
            pixels.append(torch.empty(len(numbers), *shape, dtype=torch.uint8, pin_memory=pin))
            np.stack([pictures[number] for number in numbers], out=pixels[-1].numpy())
        arrays = (
            *(tree.ids, tree.positions[:, None], tree.keys, tree.query_bounds, tree.key_bounds),
            *_filled_leaves(tree, LEAF_BLOCK[device]),
            tree.picture_tokens,
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        )
        tensors = [torch.from_numpy(array).pin_memory() if pin else torch.from_numpy(array) for array in arrays]
        occurrences = tuple(place[number] for number in tree.pictures)
        return cls(*tensors, pixels, tree.longest, sizes, occurrences, len(tree.leaves))

    def unfilled(self) -> "TreeBatch":
        """Without the leaves that fill up a block, which training has no use for. Only before `to`."""
        keys, bounds = self.leaf_keys[: int(self.leaf_bounds[self.count])], self.leaf_bounds[: self.count + 1]
        return replace(self, leaves=self.leaves[: self.count], leaf_keys=keys, leaf_bounds=bounds)

    def to(self, device: torch.device) -> "TreeBatch":
        def moved(value):
            if isinstance(value, torch.Tensor):
                return value.to(device, non_blocking=True)
            return [moved(part) for part in value] if isinstance(value, list) else value

        return TreeBatch(*map(moved, vars(self).values()))


def _filled_leaves(tree: Tree, block: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leaves, their keys and bounds, and more of the last leaf, seeing what it sees, up to a whole number of blocks."""
    spare = -len(tree.leaves) % block
    last = tree.leaf_keys[tree.leaf_bounds[-2] :]
    more = tree.leaf_bounds[-1] + len(last) * np.arange(1, spare + 1)
    return (
        np.concatenate([tree.leaves, np.repeat(tree.leaves[-1:], spare)]),
        np.concatenate([tree.leaf_keys, np.tile(last, spare)]),
        np.concatenate([tree.leaf_bounds, more]).astype(np.int32),
    )


@dataclass
class PictureFeatures:
    """What the vision tower says about the pictures of a batch, laid out as their tokens stand in the tree.

    embeddings: (N, D) in the place of the picture tokens; deepstack: (N, D) each, added in the first layers.
    """

    embeddings: torch.Tensor
    deepstack: list[torch.Tensor]


def patches_of(pixels: torch.Tensor, values: torch.Tensor, policy: PixelPolicy) -> torch.Tensor:
    """(n, height, width, 3) uint8 -> (n * rows * columns, 3 * frames * patch²), as `PixelPolicy.patches` cuts them.

    values: (3, 256) what a level becomes, in the type that the model takes.
    """
    count, height, width, _ = pixels.shape
    rows, columns, patch, merge = height // policy.patch, width // policy.patch, policy.patch, policy.merge
    levels = pixels.permute(0, 3, 1, 2).int() + torch.arange(3, device=pixels.device)[:, None, None] * 256
    channels = values.reshape(-1)[levels]
    blocks = channels.reshape(count, 3, rows // merge, merge, patch, columns // merge, merge, patch)
    blocks = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7)[:, :, :, :, :, :, None]
    blocks = blocks.expand(*blocks.shape[:6], policy.frames, patch, patch)
    return blocks.reshape(count * rows * columns, -1)


_PLACES: WeakKeyDictionary = WeakKeyDictionary()  # vision tower -> grid -> tensors


def places_of(visual: torch.nn.Module, grid: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    """Where the patches of one picture of that size stand: what the vision tower would work out for each picture anew,
    waiting for the device each time."""
    known = _PLACES.setdefault(visual, {})
    if grid not in known:
        one = torch.tensor([grid])
        indices, weights = get_vision_interpolation_indices_and_weights(
            one,
            num_grid_per_side=visual.num_grid_per_side,
            mode=visual.interpolation_mode,
            align_corners=visual.interpolation_align_corners,
            spatial_merge_size=visual.config.spatial_merge_size,
        )
        positions = get_vision_position_ids(one, visual.spatial_merge_size)
        places = {"interp_indices": indices, "interp_weights": weights, "position_ids": positions}
        known[grid] = {name: tensor.to(visual.device) for name, tensor in places.items()}
    return known[grid]


def see(network: torch.nn.Module, batch: TreeBatch, values: torch.Tensor, policy: PixelPolicy) -> PictureFeatures:
    """The vision tower over all pictures of the batch at once."""
    visual = network.model.visual
    patches = torch.cat([patches_of(pixels, values, policy) for pixels in batch.pixels])
    parts = [(places_of(visual, grid), count) for grid, count in batch.sizes]
    places = {name: torch.cat([part[name].repeat(count, 1) for part, count in parts]) for name in parts[0][0]}
    lengths = [grid[1] * grid[2] for grid, count in batch.sizes for _ in range(count)]
    grids = torch.tensor([grid for grid, count in batch.sizes for _ in range(count)])  # every use of it is given
    found = visual(patches, grid_thw=grids, cu_seqlens=batch.picture_bounds, max_seqlen=max(lengths), **places)
    embeddings, deepstack = found.pooler_output, list(found.deepstack_features)
    if batch.occurrences != tuple(range(len(lengths))):
        tokens = [length // policy.merge**2 for length in lengths]
        split = [torch.split(tensor, tokens) for tensor in (embeddings, *deepstack)]
        embeddings, *deepstack = (torch.cat([part[number] for number in batch.occurrences]) for part in split)
    return PictureFeatures(embeddings, deepstack)


def leaf_states(
    network: torch.nn.Module, batch: TreeBatch, features: PictureFeatures, stream: torch.dtype
) -> torch.Tensor:
    """(B, D) last hidden state of each sequence's last token. stream: the type of the residual stream."""
    language = network.model.language_model
    embeddings = language.embed_tokens(batch.ids).to(stream)
    embeddings.index_copy_(0, batch.picture_tokens, features.embeddings.to(stream))
    hook = language.layers[-1].register_forward_pre_hook(partial(_leaves_alone, batch), with_kwargs=True)
    try:
        hidden = language(
            inputs_embeds=embeddings[None],
            position_ids=batch.positions,
            use_cache=False,
            deepstack=[layer.to(stream) for layer in features.deepstack],
            picture_tokens=batch.picture_tokens,
            key_index=batch.keys,
            cu_seq_lens_q=batch.query_bounds,
            cu_seq_lens_k=batch.key_bounds,
            max_length_q=batch.longest[0],
            max_length_k=batch.longest[1],
        ).last_hidden_state
    finally:
        hook.remove()
    return hidden[0, : batch.count]


class Deepstacked(torch.nn.Module):
    """Stands for one of the first layers: adds a deepstack feature by the places of picture tokens.

    The library adds it by a mask, and asks the card six times a batch how many tokens that is.
    """

    def __init__(self, inner: torch.nn.Module, number: int):
        super().__init__()
        self.inner, self.number = inner, number

    def forward(self, hidden: torch.Tensor, deepstack=None, picture_tokens=None, **kwargs) -> torch.Tensor:
        hidden = self.inner(hidden, **kwargs)
        if deepstack is None or self.number >= len(deepstack):
            return hidden
        places, more = (tensor.to(hidden.device) for tensor in (picture_tokens, deepstack[self.number][None]))
        return hidden.index_add(1, places, more)


def _leaves_alone(batch: TreeBatch, layer: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """What the last layer is called with: keys and values of all tokens, everything else of the leaves alone.

    No later layer looks at the other tokens, so that their queries, output and feed-forward need not be computed.
    """
    hidden = args[0] if args else kwargs.pop("hidden_states")
    leaves, keys_of, bounds = (part.to(hidden.device) for part in (batch.leaves, batch.leaf_keys, batch.leaf_bounds))
    cos, sin = kwargs["position_embeddings"]
    attention = layer.self_attn
    shape = (*hidden.shape[:-1], -1, attention.head_dim)
    normed = layer.input_layernorm(hidden)
    keys = attention.k_norm(attention.k_proj(normed).view(shape)).transpose(1, 2)
    values = attention.v_proj(normed).view(shape).transpose(1, 2)
    _, keys = apply_rotary_pos_emb(keys, keys, cos, sin)
    kwargs |= {
        "position_embeddings": (cos[:, leaves], sin[:, leaves]),
        "key_index": keys_of,
        "cu_seq_lens_q": torch.arange(len(leaves) + 1, device=hidden.device, dtype=torch.int32),
        "cu_seq_lens_k": bounds,
        "max_length_q": 2,  # of one query flash attention would make a decoding step, split by the number of rows
        "keys_and_values": (keys, values),
    }
    return (hidden[:, leaves],), kwargs


def filled(rows: torch.Tensor, block: int) -> torch.Tensor:
    """The rows, and the last one again until their number is a multiple of `block`."""
    spare = -len(rows) % block
    return torch.cat([rows, rows[-1:].expand(spare, *rows.shape[1:])])


@dataclass
class AnswerLogits:
    """labels (B, K): float32 logits of the letters; log_total (B,): log-sum-exp of all; top (B,): argmax of all."""

    labels: torch.Tensor
    log_total: torch.Tensor
    top: torch.Tensor


def project(
    states: torch.Tensor,
    head: torch.Tensor,
    label_ids: list[int],
    adapter: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> AnswerLogits:
    """Logits in float32 whatever the model's type: in bfloat16 they tie in 1.7 % of rows.

    states: (B, D). head: (V, D). adapter: (V, R) and (R, D), whose product is added to the head's rows.

    Blocks of rows have one size, the last one filled up, so that a row's sums do not depend on how many there are.
    """
    count, block = len(states), HEAD_BLOCK[states.device.type]
    blocks = filled(states.float(), block).split(block)
    up, down = adapter or (None, None)

    def rows_of(chunk: torch.Tensor, start: int) -> torch.Tensor:
        return chunk.float() if up is None else torch.addmm(chunk.float(), up[start : start + len(chunk)], down)

    # one by one: by a list of labels, the host would wait
    label_rows = torch.cat([rows_of(head[label : label + 1], label) for label in label_ids]).T
    labels = torch.cat([rows @ label_rows for rows in blocks])
    totals, values, places = [], [], []
    for start in range(0, len(head), VOCABULARY_CHUNK):
        chunk = rows_of(head[start : start + VOCABULARY_CHUNK], start).T
        found = [(logits.logsumexp(-1), *logits.max(-1)) for logits in (rows @ chunk for rows in blocks)]
        total, value, at = map(torch.cat, zip(*found))
        totals.append(total)
        values.append(value)
        places.append(at + start)
    best = torch.stack(values).argmax(0)
    top = torch.stack(places).gather(0, best[None])[0]
    return AnswerLogits(labels[:count], torch.stack(totals).logsumexp(0)[:count], top[:count])
