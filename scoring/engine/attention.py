"""Attention over segments of unequal length, without padding, for the language model and the vision tower.

In: queries (T, H, D), keys and values (S, G, D) of flat tokens, and the `Segments` that they form. Out: (T, H, D).
`packed_attention` switches a network to it through transformers' attention interface; no forward of the library is
replaced. A card with flash attention runs one kernel. A CPU or an older card computes the same, segment by segment.

Next: `linear`, the other half of a layer; `forward`, which calls both.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from scoring.engine.capabilities import has_flash
from scoring.engine.families.parts import NetworkParts

# The library hands all pictures at once to an attention whose name contains "flash", and one by one to any other.
TEXT, VISION = "prefix_tree", "packed_flash"
LAYERS_AHEAD = 32  # how far the host may run ahead of a card


class Segments(NamedTuple):
    """Which keys each query attends to: the arguments of `attend` after query, key and value.

    query_bounds, key_bounds: (segments + 1,) int32, where the segments begin and end.
    longest_query, longest_key: tokens of the largest segments.
    scale: factor of the scores. causal: aligned at the end, so that a segment's last query attends to all its keys.
    """

    query_bounds: torch.Tensor
    key_bounds: torch.Tensor
    longest_query: int
    longest_key: int
    scale: float
    causal: bool


def plain_attend(  # noqa: PLR0913 - a custom operator takes tensors and numbers alone
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest_query: int,
    longest_key: int,
    scale: float,
    causal: bool,
) -> torch.Tensor:
    """(T, H, D) queries over (S, G, D) keys and values, segment by segment; see `Segments`.

    H is a multiple of G (grouped queries). Not differentiable: see `attend_and_learn`.
    """
    if query.is_cuda and not torch.cuda.is_current_stream_capturing():
        _wait_for_card(query.device)
    if has_flash(query):
        output: torch.Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, query_bounds, key_bounds, longest_query, longest_key, 0.0, causal, False, scale=scale
        )[0]
        return output.contiguous()  # it has the strides of the query, which families lay out in different ways
    if not causal and len(set((query_bounds[1:] - query_bounds[:-1]).tolist())) == 1:  # pictures of one size
        rows = len(query_bounds) - 1
        q, k, v = (tensor.view(rows, -1, *tensor.shape[1:]).transpose(1, 2) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1)
    segments = Segments(query_bounds, key_bounds, longest_query, longest_key, scale, causal)
    return _attend_by_segment(query, key, value, segments)


# for compiled layers; called by itself it costs as much as the attention of a few rows
attend = torch.library.custom_op("scoring::attend", plain_attend, mutates_args=())


@attend.register_fake
def _attend_fake(query: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _attend_by_segment(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments) -> torch.Tensor:
    """`attend` without a kernel of its own: one segment after the other; differentiable."""
    outputs = []
    starts, key_starts = segments.query_bounds.tolist(), segments.key_bounds.tolist()
    for start, end, key_start, key_end in zip(starts, starts[1:], key_starts, key_starts[1:]):
        q, k, v = (
            tensor.transpose(0, 1)[None]
            for tensor in (query[start:end], key[key_start:key_end], value[key_start:key_end])
        )
        mask = None
        if segments.causal and end - start < key_end - key_start:
            mask = _mask_aligned_at_end(end - start, key_end - key_start, query.dtype, query.device)
        output = F.scaled_dot_product_attention(
            q,
            k,
            v,
            mask,
            is_causal=segments.causal and mask is None,
            scale=segments.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


class FlashAttention(torch.autograd.Function):
    """`attend` in one kernel, with its gradient."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments
    ) -> torch.Tensor:
        *bounds, scale, causal = segments
        output: torch.Tensor
        output, *state = torch.ops.aten._flash_attention_forward(
            query, key, value, *bounds, 0.0, causal, False, scale=scale
        )
        ctx.save_for_backward(query, key, value, output, *state[:3])
        ctx.segments = segments
        return output

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, output, log_sums, *dropout = ctx.saved_tensors
        *bounds, scale, causal = ctx.segments
        grads = torch.ops.aten._flash_attention_backward(
            grad.contiguous(),
            *(query, key, value, output, log_sums, *bounds, 0.0, causal, *dropout),
            scale=scale,
        )
        return *grads, None


def attend_and_learn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments) -> torch.Tensor:
    """`attend`, for training."""
    attend = _learn_outside_of_graphs if torch.compiler.is_compiling() else _attend_and_learn
    output: torch.Tensor = attend(query, key, value, segments)
    return output


def _attend_and_learn(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments) -> torch.Tensor:
    if has_flash(query):
        output: torch.Tensor = FlashAttention.apply(query, key, value, segments)  # type: ignore[no-untyped-call]
        return output
    return _attend_by_segment(query, key, value, segments)


_learn_outside_of_graphs = torch.compiler.disable(_attend_and_learn)  # type: ignore[no-untyped-call]


@lru_cache(maxsize=1024)
def _mask_aligned_at_end(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(queries, keys) additive causal mask; the library's own is aligned at the beginning."""
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill(hidden, float("-inf"))


@cache
def _layers_launched(device: torch.device) -> deque[torch.cuda.Event]:
    """The layers that the host gave to a card and has not waited for, oldest first."""
    return deque()


def _wait_for_card(device: torch.device) -> None:
    """Let the host run at most `LAYERS_AHEAD` layers ahead of the card. It waits without Python's lock.

    Otherwise the card's queue (1,024 launches) fills up, and a launch blocks inside the driver while it may hold that
    lock, which the threads that read the next pictures need.
    """
    event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    launched = _layers_launched(device)
    launched.append(event)
    if len(launched) > LAYERS_AHEAD:
        launched.popleft().synchronize()


def attend_paths(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, key_index: torch.Tensor
) -> torch.Tensor:
    """(T, H, D) queries over the keys and values of their paths, (S, G, D) of (T, G, D) by `key_index` (S,)."""
    learning = _learning(query, key, value)
    if learning or not key.is_cuda:  # its gradient is faster, and on a CPU it copies whole rows
        key, value = key.index_select(0, key_index), value.index_select(0, key_index)
    else:
        key, value = key[key_index], value[key_index]
    if learning:
        learned: torch.Tensor = attend_and_learn(query, key, value, segments)
        return learned
    answer = attend if torch.compiler.is_compiling() else plain_attend
    attended: torch.Tensor = answer(query, key, value, *segments)
    return attended


# ------------------------------------------------------------ what transformers calls
def _attend_text(  # noqa: PLR0913 - transformers dictates the arguments
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    key_index: torch.Tensor,
    keys_and_values: tuple[torch.Tensor, torch.Tensor] | None = None,
    dropout: float = 0.0,
    **bounds: Any,
) -> tuple[torch.Tensor, None]:
    """The language model's layers. `key_index` picks the keys and values of a segment's path by their positions.

    keys_and_values: those of all tokens, where the queries are those of some (`forward._keep_leaves`).
    """
    query, key, value = _flat(query, *(keys_and_values or (key, value)))
    return attend_paths(query, key, value, segments_of(bounds, scaling, causal=True), key_index)[None], None


def _attend_vision(  # noqa: PLR0913 - transformers dictates the arguments
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **bounds: Any,
) -> tuple[torch.Tensor, None]:
    """The vision tower's blocks: a picture's patches attend to each other."""
    query, key, value = _flat(query, key, value)
    segments = segments_of(bounds, scaling, causal=False)
    if _learning(query, key, value):
        return attend_and_learn(query, key, value, segments)[None], None
    return attend(query, key, value, *segments)[None], None


def _flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """(1, H, T, D) -> (T, H, D)"""
    return [tensor[0].transpose(0, 1) for tensor in tensors]


def _learning(*tensors: torch.Tensor) -> bool:
    """Whether any of them has a gradient: adapters may be on values alone."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def segments_of(bounds: dict[str, Any], scale: float, causal: bool) -> Segments:
    """From the names that transformers gives to the bounds of packed sequences."""
    longest_query, longest_key = (int(bounds[name]) for name in ("max_length_q", "max_length_k"))
    query_bounds, key_bounds = bounds["cu_seq_lens_q"].int(), bounds["cu_seq_lens_k"].int()
    return Segments(query_bounds, key_bounds, longest_query, longest_key, scale, causal)


# Without functions for masks the library makes none, and does not ask the card for the positions either: the bounds of
# the segments say what a mask would.
AttentionInterface.register(TEXT, _attend_text)
AttentionInterface.register(VISION, _attend_vision)


@contextmanager
def packed_attention(parts: NetworkParts) -> Iterator[None]:
    """Inside, the language model and a tower that packs attend by segments; outside, as the library does.

    To switch the library's networks takes it milliseconds: within another call nothing is left to do.
    """
    if parts.packing:
        yield
        return
    network, config = parts.network, parts.network.config
    sections = {"text_config": TEXT, "vision_config": VISION} if parts.vision else {"": TEXT}
    packed = {name: way for name, way in sections.items() if way == TEXT or parts.packs_patches}
    configs = {"": config} | {name: getattr(config, name) for name in sections if name}
    before = {name: section._attn_implementation for name, section in configs.items()}
    network.set_attn_implementation(before | packed)
    parts.packing = True
    try:
        yield
    finally:
        parts.packing = False
        network.set_attn_implementation(before)
