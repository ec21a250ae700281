"""Attention over segments of unequal length, without padding, for both towers.

It comes in through transformers' attention interface: no forward of the library is replaced. On cards with flash
attention it is one kernel; on the CPU and on older cards the same arithmetic, one segment after the other.
"""

from collections import deque
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface

# The library hands all pictures at once to an attention whose name contains "flash", and one by one to any other.
TEXT, VISION = "prefix_tree", "packed_flash"


@torch.library.custom_op("scoring::attend", mutates_args=())
def attend(
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
    """(T, H, D) queries over (S, G, D) keys and values, segment by segment, causal ones aligned at the end.

    query_bounds, key_bounds: (segments + 1,) int32. H is a multiple of G (grouped queries).
    """
    if query.is_cuda:
        _keep_pace(query.device)
    if has_flash(query):
        return torch.ops.aten._flash_attention_forward(
            query, key, value, query_bounds, key_bounds, longest_query, longest_key, 0.0, causal, False, scale=scale
        )[0]
    if not causal and len(set((query_bounds[1:] - query_bounds[:-1]).tolist())) == 1:  # pictures of one size
        rows = len(query_bounds) - 1
        parts = (tensor.unflatten(0, (rows, -1)).transpose(1, 2) for tensor in (query, key, value))
        return F.scaled_dot_product_attention(*parts, scale=scale).transpose(1, 2).flatten(0, 1)
    return _by_segments(query, key, value, query_bounds, key_bounds, scale, causal)


def _by_segments(query, key, value, query_bounds, key_bounds, scale, causal) -> torch.Tensor:
    """The same, one segment after the other; differentiable."""
    results = []
    starts, key_starts = query_bounds.tolist(), key_bounds.tolist()
    for start, end, key_start, key_end in zip(starts, starts[1:], key_starts, key_starts[1:]):
        q, k, v = (
            tensor.transpose(0, 1)[None]
            for tensor in (query[start:end], key[key_start:key_end], value[key_start:key_end])
        )
        mask = None
        if causal and end - start < key_end - key_start:
            mask = _aligned_at_the_end(end - start, key_end - key_start, query.dtype, query.device)
        whole = causal and mask is None
        found = F.scaled_dot_product_attention(
            q, k, v, mask, is_causal=whole, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        results.append(found[0].transpose(0, 1))
    return torch.cat(results)


class FlashAttention(torch.autograd.Function):
    """The one-kernel way with its gradient."""

    @staticmethod
    def forward(ctx, query, key, value, query_bounds, key_bounds, longest_query, longest_key, scale, causal):
        bounds = (query_bounds, key_bounds, longest_query, longest_key)
        found = torch.ops.aten._flash_attention_forward(query, key, value, *bounds, 0.0, causal, False, scale=scale)
        ctx.save_for_backward(query, key, value, *found[:4])
        ctx.bounds, ctx.scale, ctx.causal = bounds, scale, causal
        return found[0]

    @staticmethod
    def backward(ctx, grad):
        query, key, value, found, total, *dropout = ctx.saved_tensors
        grads = torch.ops.aten._flash_attention_backward(
            grad.contiguous(),
            *(query, key, value, found, total, *ctx.bounds, 0.0, ctx.causal, *dropout),
            scale=ctx.scale,
        )
        return *grads, *[None] * 6


@torch.compiler.disable
def attend_and_learn(
    query, key, value, query_bounds, key_bounds, longest_query, longest_key, scale, causal
) -> torch.Tensor:
    """`attend`, for training."""
    if has_flash(query):
        bounds = (query_bounds, key_bounds, longest_query, longest_key)
        return FlashAttention.apply(query, key, value, *bounds, scale, causal)
    return _by_segments(query, key, value, query_bounds, key_bounds, scale, causal)


@lru_cache(maxsize=1024)
def _aligned_at_the_end(queries: int, keys: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(queries, keys) additive causal mask; the library's own is aligned at the beginning."""
    hidden = torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries + 1)
    return torch.zeros(queries, keys, dtype=dtype, device=device).masked_fill(hidden, float("-inf"))


_AHEAD: deque = deque()


def _keep_pace(device: torch.device, calls: int = 32) -> None:
    """Let the host run ahead of the card by so many layers at most, and wait without Python's lock.

    Otherwise the card's queue (1,024 launches) fills up, and a launch blocks inside the driver while it may hold that
    lock, which the threads that read the next pictures need.
    """
    event = torch.cuda.Event(blocking=True)
    event.record(torch.cuda.current_stream(device))
    _AHEAD.append(event)
    if len(_AHEAD) > calls:
        _AHEAD.popleft().synchronize()


@attend.register_fake
def _(query, key, value, query_bounds, key_bounds, longest_query, longest_key, scale, causal):
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def has_flash(tensor: torch.Tensor) -> bool:
    """Whether the one-kernel way exists for this tensor: 16 bits on a card of compute capability 8 or later."""
    return (
        tensor.is_cuda
        and tensor.dtype in (torch.bfloat16, torch.float16)
        and torch.cuda.get_device_capability(tensor.device) >= (8, 0)
    )


def _flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """(1, H, T, D) -> (T, H, D)"""
    return [tensor[0].transpose(0, 1) for tensor in tensors]


def _text(
    module, query, key, value, attention_mask, scaling, key_index=None, keys_and_values=None, dropout=0.0, **bounds
):
    """The language model's layers: keys and values of the ancestors are picked by index.

    keys_and_values: those of all tokens, where the queries are those of some (`forward._leaves_alone`).
    """
    query, key, value = _flat(query, *(keys_and_values or (key, value)))
    if _learning(query, key, value):
        key, value = key.index_select(0, key_index), value.index_select(0, key_index)  # the faster gradient
        return attend_and_learn(query, key, value, *_bounds(bounds), scaling, True)[None], None
    key, value = key[key_index], value[key_index]
    return attend(query, key, value, *_bounds(bounds), scaling, True)[None], None


def _vision(module, query, key, value, attention_mask, scaling, dropout=0.0, **bounds):
    """The vision tower's blocks: each picture looks at itself."""
    way = attend_and_learn if _learning(query, key, value) else attend
    return way(*_flat(query, key, value), *_bounds(bounds), scaling, False)[None], None


def _learning(*tensors: torch.Tensor) -> bool:
    """Whether any of them has a gradient: adapters may be on values alone."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _bounds(given: dict) -> tuple:
    longest = (int(given[name]) for name in ("max_length_q", "max_length_k"))
    return given["cu_seq_lens_q"].int(), given["cu_seq_lens_k"].int(), *longest


AttentionInterface.register(TEXT, _text)
AttentionInterface.register(VISION, _vision)
for name in (TEXT, VISION):
    AttentionMaskInterface.register(name, lambda *_, **__: None)


@contextmanager
def packed_attention(network: torch.nn.Module):
    """Both towers attend by segments inside; as the library does by itself outside."""
    before = {"": network.config._attn_implementation} | {
        name: getattr(network.config, name)._attn_implementation for name in ("text_config", "vision_config")
    }
    network.set_attn_implementation(before | {"text_config": TEXT, "vision_config": VISION})
    try:
        yield
    finally:
        network.set_attn_implementation(before)
