"""One packed forward: pictures once, the prefix tree once for each adapter, the letters' logits at its leaves.

In: a `Tree` and its pictures, (height, width, 3) uint8. Out: for B sequences `AnswerLogits`, labels (B, K). On the way:

    TreeBatch.of      tree, pictures      -> tensors on the host; then `.to(device)`
    encode_pictures   pixels              -> PictureFeatures, (N, D) for the N picture tokens
    leaf_states       ids, features       -> (B, D) last hidden states of the sequences' last tokens
    project           states, head (V, D) -> AnswerLogits: labels (B, K), log_total (B,), top (B,)

No padding, no cache between batches. Pixels arrive as bytes and become patches on the device.

Next: `packed`, which calls these for each adapter of a run; `attention` for how a segment attends to its path.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scoring.engine import Network
from scoring.engine.families.parts import NetworkParts
from scoring.engine.fused import FusedAttention
from scoring.engine.recurrent import NodeBatch
from scoring.engine.stand_in import StandIn
from scoring.engine.tree import Integers, Tree
from scoring.inputs.pixels import Grid, PixelPolicy

VOCABULARY_CHUNK = 16_384  # rows of the head that are held in float32 at a time
# Leaves are projected in blocks of one size, the last one filled up: one shape, one order of summing. They are answered
# in such blocks too. On cards a small block serves few leaves: for 64 rows as for many the products of three models
# have the same bits, once each sums its rows whole (`whole_sums` in `linear`, benchmarks/products.py).
LEAF_BLOCK = {"cpu": 16, "cuda": 512}
FEW_LEAVES = {"cpu": 16, "cuda": 64}
HEAD_BLOCK = {"cpu": 16, "cuda": 128}
ALIGNED = 16  # bytes at whose multiples tensors begin within one buffer


@dataclass
class TreeBatch:
    """A tree and its P pictures as tensors.

    ids, positions, keys, query_bounds, key_bounds, picture_tokens: as in `Tree`; positions are (3, 1, T).
    leaves, leaf_keys, leaf_bounds: as in `Tree`, and the last leaf again up to a whole number of blocks; it attends to
    itself alone there.
    picture_bounds: (P + 1,) int32, where each picture's patches begin and end, for a tower that packs them.
    pixels: for each grid of pictures, (n, height, width, 3) uint8.
    longest: (queries, keys) of the largest segments.
    sizes: each grid of pictures, and n; the P pictures are in this order.
    occurrences: for each run of picture tokens in `ids`, which of the P pictures it is.
    count: of leaves, without those that fill up a block.
    tree: what all of it was made from, for `nodes`.
    buffer: bytes that hold all tensors but the pixels: one copy takes them to a card.
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
    sizes: tuple[tuple[Grid, int], ...]
    occurrences: tuple[int, ...]
    count: int
    tree: Tree
    buffer: torch.Tensor

    @cached_property
    def nodes(self) -> NodeBatch:
        """For families with layers that carry a state from token to token; on the device of the other tensors."""
        return NodeBatch.of(self.tree, self.ids.device)

    @classmethod
    def of(cls, tree: Tree, pictures: list[NDArray[np.uint8]], grids: list[Grid], device: str) -> "TreeBatch":
        """The tensors on the host. pictures: (height, width, 3) uint8 each, as `tree.pictures` numbers them.

        grids: of the pictures. device: `cpu` or `cuda`, where the tensors will go. What depends on values of the
        tensors is worked out here: to read a value later would be to wait for the card.
        """
        pin = device == "cuda"  # for copies that do not wait
        groups: dict[Grid, list[int]] = {}
        for number, grid in enumerate(grids):
            groups.setdefault(grid, []).append(number)
        grouped = [number for numbers in groups.values() for number in numbers]
        index = {number: row for row, number in enumerate(grouped)}
        sizes = tuple((grid, len(numbers)) for grid, numbers in groups.items())
        lengths = [math.prod(grid) for grid, count in sizes for _ in range(count)]
        pixels = []
        for numbers in groups.values():
            shape = pictures[numbers[0]].shape
            pixels.append(torch.empty(len(numbers), *shape, dtype=torch.uint8, pin_memory=pin))
            np.stack([pictures[number] for number in numbers], out=pixels[-1].numpy())
        leaves, leaf_keys, leaf_bounds = _fill_leaves(tree, device)
        buffer, tensors = _in_one_buffer(
            {
                "ids": tree.ids,
                "positions": tree.positions[:, None],
                "keys": tree.keys,
                "query_bounds": tree.query_bounds,
                "key_bounds": tree.key_bounds,
                "leaves": leaves,
                "leaf_keys": leaf_keys,
                "leaf_bounds": leaf_bounds,
                "picture_tokens": tree.picture_tokens,
                "picture_bounds": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
            },
            pin,
        )
        return cls(
            **tensors,
            pixels=pixels,
            longest=tree.longest,
            sizes=sizes,
            occurrences=tuple(index[number] for number in tree.pictures),
            count=len(tree.leaves),
            tree=tree,
            buffer=buffer,
        )

    def unfilled(self) -> "TreeBatch":
        """Without the leaves that fill up a block, which training has no use for. Only before `to`."""
        keys, bounds = self.leaf_keys[: int(self.leaf_bounds[self.count])], self.leaf_bounds[: self.count + 1]
        return replace(self, leaves=self.leaves[: self.count], leaf_keys=keys, leaf_bounds=bounds)

    def to(self, device: torch.device) -> "TreeBatch":
        """The batch on a device; the copies may still be under way."""
        buffer = self.buffer.to(device, non_blocking=True)
        if buffer is self.buffer:
            return self
        moved: dict[str, Any] = {
            name: _view(buffer, int(value.storage_offset()) * value.itemsize, value.dtype, value.shape)
            for name, value in vars(self).items()
            if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved, pixels=[pixels.to(device, non_blocking=True) for pixels in self.pixels])


def _fill_leaves(tree: Tree, device: str) -> tuple[Integers, Integers, Integers]:
    """Leaves, their keys and bounds, and more of the last leaf, itself its only key, up to a whole number of blocks."""
    block = FEW_LEAVES[device] if len(tree.leaves) <= FEW_LEAVES[device] else LEAF_BLOCK[device]
    spare = -len(tree.leaves) % block
    more = np.repeat(tree.leaves[-1:], spare)
    return (
        np.concatenate([tree.leaves, more]),
        np.concatenate([tree.leaf_keys, more]),
        np.concatenate([tree.leaf_bounds, tree.leaf_bounds[-1] + np.arange(1, spare + 1)]).astype(np.int32),
    )


def _in_one_buffer(arrays: dict[str, NDArray[Any]], pin: bool) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Bytes on the host that hold these arrays, and a tensor of each by its name, which is a view of them."""
    starts = np.cumsum([0, *(-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays.values())]).tolist()
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pin)
    tensors = {}
    for (name, array), start in zip(arrays.items(), starts):
        dtype = torch.int32 if array.dtype == np.int32 else torch.int64
        tensors[name] = _view(buffer, start, dtype, array.shape)
        tensors[name].numpy()[...] = array
    return buffer, tensors


def _view(buffer: torch.Tensor, start: int, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """The tensor whose bytes begin at `start`."""
    return buffer[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


# ------------------------------------------------------------ pictures
@dataclass
class PictureFeatures:
    """What the vision tower makes of a batch's pictures, in the order of the picture tokens in the tree.

    embeddings: (N, D), the hidden states of the picture tokens; deepstack: (N, D) each, added in the first layers.
    """

    embeddings: torch.Tensor
    deepstack: list[torch.Tensor]


def encode_pictures(
    parts: NetworkParts, batch: TreeBatch, values: torch.Tensor, policy: PixelPolicy
) -> PictureFeatures:
    """The vision tower over all pictures of the batch at once.

    values: (3, 256) what a level of each channel becomes, in the type that the tower takes.
    """
    if not batch.pixels:
        return PictureFeatures(values.new_empty(0, parts.sizes.width), [])
    patches = torch.cat([parts.patches(pixels, values, policy) for pixels in batch.pixels])
    embeddings, deepstack = parts.see(patches, batch.sizes, batch.picture_bounds)
    tokens = [policy.tokens(grid).count for grid, count in batch.sizes for _ in range(count)]
    if batch.occurrences != tuple(range(len(tokens))):
        by_picture = [torch.split(tensor, tokens) for tensor in (embeddings, *deepstack)]
        embeddings, *deepstack = (
            torch.cat([features[number] for number in batch.occurrences]) for features in by_picture
        )
    return PictureFeatures(embeddings, deepstack)


# ------------------------------------------------------------ language model
def leaf_states(parts: NetworkParts, batch: TreeBatch, features: PictureFeatures, stream: torch.dtype) -> torch.Tensor:
    """(B, D) last hidden state of each sequence's last token. stream: the type of the residual stream."""
    language = parts.language
    embeddings = language.embed_tokens(batch.ids).to(stream)
    if batch.pixels:
        embeddings.index_copy_(0, batch.picture_tokens, features.embeddings.to(stream))
    hook = language.layers[-1].register_forward_pre_hook(partial(_keep_leaves, parts, batch), with_kwargs=True)
    try:
        hidden: torch.Tensor = language(
            inputs_embeds=embeddings[None],
            position_ids=parts.positions(batch.positions),
            use_cache=False,
            deepstack=[layer.to(stream) for layer in features.deepstack],
            picture_tokens=batch.picture_tokens,
            key_index=batch.keys,
            cu_seq_lens_q=batch.query_bounds,
            cu_seq_lens_k=batch.key_bounds,
            max_length_q=batch.longest[0],
            max_length_k=batch.longest[1],
            **({"nodes": batch.nodes} if parts.recurrent else {}),
        ).last_hidden_state
    finally:
        hook.remove()
    return hidden[0, : batch.count]


class Deepstacked(StandIn):
    """Stands for one of the first layers: adds a deepstack feature by the indices of picture tokens.

    The library adds it by a mask, and asks the card six times a batch how many tokens that is.
    """

    number: int

    def __init__(self, inner: nn.Module, number: int):
        super().__init__(inner)
        self.number = number

    def forward(
        self,
        hidden: torch.Tensor,
        deepstack: list[torch.Tensor] | None = None,
        picture_tokens: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        hidden = self.inner(hidden, **kwargs)
        if deepstack is None or picture_tokens is None or self.number >= len(deepstack):
            return hidden
        indices, features = (tensor.to(hidden.device) for tensor in (picture_tokens, deepstack[self.number][None]))
        return hidden.index_add(1, indices, features)


def _keep_leaves(
    parts: NetworkParts, batch: TreeBatch, layer: Network, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]
) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
    """What the last layer is called with: keys and values of all tokens, everything else of the leaves alone.

    No later layer attends to the other tokens, so that their queries, output and feed-forward need not be computed.
    """
    hidden = args[0] if args else kwargs.pop("hidden_states")
    leaves, leaf_keys, bounds = (
        tensor.to(hidden.device) for tensor in (batch.leaves, batch.leaf_keys, batch.leaf_bounds)
    )
    cos, sin = kwargs["position_embeddings"]
    normed, attention = layer.input_layernorm(hidden), layer.self_attn
    if isinstance(attention, FusedAttention):
        keys, values = attention.keys_and_values(normed, (cos, sin))
    else:
        keys, values = parts.keys_and_values(attention, normed, (cos, sin))
    kwargs |= {
        "position_embeddings": (cos[:, leaves], sin[:, leaves]),
        "key_index": leaf_keys,
        "cu_seq_lens_q": torch.arange(len(leaves) + 1, device=hidden.device, dtype=torch.int32),
        "cu_seq_lens_k": bounds,
        "max_length_q": 2,  # for 1, flash attention has another kernel, whose sums depend on the number of rows
        "keys_and_values": (keys, values),
    }
    return (hidden[:, leaves],), kwargs


# ------------------------------------------------------------ head
@dataclass
class AnswerLogits:
    """labels (B, K): float32 logits of the letters; log_total (B,): log-sum-exp of all; top (B,): argmax of all."""

    labels: torch.Tensor
    log_total: torch.Tensor
    top: torch.Tensor

    def begin_copy(self) -> "AnswerLogits":
        """From a card in the host's pinned memory, where they are once the stream has done what it holds now."""
        return AnswerLogits(
            *(
                torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
                for tensor in (self.labels, self.log_total, self.top)
            )
        )


@dataclass(frozen=True)
class PendingAnswers:
    """The answers of each member, on their way to the host's memory. event: recorded behind them on a card.

    The copies are begun with the forward passes: later ones would wait for the batches that are begun until then.
    """

    answers: list[AnswerLogits]
    event: torch.cuda.Event | None = None

    @classmethod
    def of(cls, answers: list[AnswerLogits]) -> "PendingAnswers":
        """Begin to copy answers, which a device may still compute."""
        if not answers or not answers[0].labels.is_cuda:
            return cls(answers)
        with torch.cuda.device(answers[0].labels.device):
            on_host, event = [each.begin_copy() for each in answers], torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        return cls(on_host, event)

    @property
    def ready(self) -> bool:
        """Whether they are computed."""
        return self.event is None or bool(self.event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> list[AnswerLogits]:
        """Wait for the device; the answers."""
        if self.event:
            self.event.synchronize()
        return self.answers


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
    if adapter is None and sums_in_float32(states, head):
        blocks = torch.split(_filled(states, block), block)
        answers = _joined([_answers(float32_product(rows, head), label_ids) for rows in blocks])
    else:
        answers = _project_in_float32(torch.split(_filled(states.float(), block), block), head, label_ids, adapter)
    return AnswerLogits(answers.labels[:count], answers.log_total[:count], answers.top[:count])


def sums_in_float32(states: torch.Tensor, head: torch.Tensor) -> bool:
    """Whether this card multiplies these states and rows of the head as they are, and gives the sums in float32."""
    return states.is_cuda and states.dtype == head.dtype == torch.bfloat16


def float32_product(rows: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """(B, V) float32 of bfloat16 rows (B, D) and head (V, D), without rounding in between; on cards alone."""
    logits: torch.Tensor = torch.mm(rows, head.T, out_dtype=torch.float32)
    return logits


def _answers(logits: torch.Tensor, label_ids: list[int]) -> AnswerLogits:
    """Of logits (B, V)."""
    # one by one: by a list of labels, the host would wait
    labels = torch.cat([logits[:, label : label + 1] for label in label_ids], 1)
    return AnswerLogits(labels, logits.logsumexp(-1), logits.argmax(-1))


def _joined(blocks: list[AnswerLogits]) -> AnswerLogits:
    """Of blocks of rows those of all rows."""
    if len(blocks) == 1:
        return blocks[0]
    return AnswerLogits(*(torch.cat([getattr(each, item.name) for each in blocks]) for item in fields(AnswerLogits)))


def _project_in_float32(
    blocks: Sequence[torch.Tensor],
    head: torch.Tensor,
    label_ids: list[int],
    adapter: tuple[torch.Tensor, torch.Tensor] | None,
) -> AnswerLogits:
    """`project` of blocks of float32 rows; so many rows of the head at a time are made float32 too."""

    def head_rows(chunk: torch.Tensor, start: int) -> torch.Tensor:
        if adapter is None:
            return chunk.float()
        up, down = adapter
        return torch.addmm(chunk.float(), up[start : start + len(chunk)], down)

    # one by one: by a list of labels, the host would wait
    label_rows = torch.cat([head_rows(head[label : label + 1], label) for label in label_ids]).T
    labels = torch.cat([rows @ label_rows for rows in blocks])
    totals, maxima, tokens = [], [], []
    for start in range(0, len(head), VOCABULARY_CHUNK):
        chunk = head_rows(head[start : start + VOCABULARY_CHUNK], start).T
        by_block = [(logits.logsumexp(-1), *logits.max(-1)) for logits in (rows @ chunk for rows in blocks)]
        total, maximum, row = map(torch.cat, zip(*by_block))
        totals.append(total)
        maxima.append(maximum)
        tokens.append(row + start)
    best_chunk = torch.stack(maxima).argmax(0)
    top = torch.stack(tokens).gather(0, best_chunk[None])[0]
    return AnswerLogits(labels, torch.stack(totals).logsumexp(0), top)


def _filled(rows: torch.Tensor, block: int) -> torch.Tensor:
    """The rows, and the last one again until their number is a multiple of `block`."""
    spare = -len(rows) % block
    return torch.cat([rows, rows[-1:].expand(spare, *rows.shape[1:])])
