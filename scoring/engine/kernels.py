"""Triton kernels for cards: what a layer does between its products and its attention, in one pass over the tokens.

In and out: tensors of T tokens in 16 bits. Sums are in 32 bits, and each row has them to itself, in one order, so that
a token's bits do not depend on the tokens beside it. Every function here is differentiable but for `turn_patches` and
`make_weight`; the frozen weights of norms get no gradient.

Separate operations took 630 of 1,590 ms of a batch of the 8B shapes on an H200 (benchmarks/LOG.md).

Next: `fused`, the modules that call these, and compute the same without them.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

# Of the functions under `triton.jit` every pointer, number and constant is a parameter. `columns`, `heads_padded` and
# `half_padded` are sizes of tiles, powers of two.
ELEMENTS = 4_096  # of a tile of `_silu_product`
WEIGHT_ROWS, WEIGHT_COLUMNS = 64, 128  # of a tile of `_make_weight`
UNFUSED = {"enable_fp_fusion": False}  # no product is rounded with the sum that follows


# ------------------------------------------------------------ norms
@triton.jit
def _norm(x, weight, y, eps, width: tl.constexpr, columns: tl.constexpr):  # noqa: PLR0913
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, columns)
    inside = column < width
    value = tl.load(x + row * width + column, inside, 0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    normed = (value * factor).to(y.dtype.element_ty).to(tl.float32)
    scaled = normed * tl.load(weight + column, inside, 0.0).to(tl.float32)
    tl.store(y + row * width + column, scaled.to(y.dtype.element_ty), inside)


@triton.jit
def _norm_backward(x, weight, grad, x_grad, eps, width: tl.constexpr, columns: tl.constexpr):  # noqa: PLR0913
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, columns)
    inside = column < width
    value = tl.load(x + row * width + column, inside, 0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    slope = tl.load(grad + row * width + column, inside, 0.0).to(tl.float32)
    slope *= tl.load(weight + column, inside, 0.0).to(tl.float32)
    shared = tl.sum(slope * value, 0) / width * factor * factor
    tl.store(x_grad + row * width + column, (factor * (slope - value * shared)).to(x_grad.dtype.element_ty), inside)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        rows, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        width = x.shape[-1]
        with _on_card_of(x):
            _norm[(rows.numel() // width,)](
                rows, weight, y, eps, width, triton.next_power_of_2(width), num_warps=_warps(width)
            )
        ctx.save_for_backward(rows, weight)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        width, x_grad = rows.shape[-1], torch.empty_like(rows)
        with _on_card_of(rows):
            _norm_backward[(rows.numel() // width,)](
                rows, weight, grad.contiguous(), x_grad, ctx.eps, width, triton.next_power_of_2(width),
                num_warps=_warps(width),
            )  # fmt: skip
        return x_grad, None, None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """(…, D): each row over the root of its mean square, in 16 bits, times `weight` (D,)."""
    y: torch.Tensor = _Norm.apply(x, weight, eps)  # type: ignore[no-untyped-call]
    return y


def _warps(width: int) -> int:
    return 8 if width > 2048 else 4


# ------------------------------------------------------------ rotary positions
@triton.jit
def _turn(  # noqa: PLR0913 a kernel
    x, weight, cos, sin, y, x_stride, y_stride, eps,
    heads: tl.constexpr, half: tl.constexpr, heads_padded: tl.constexpr, half_padded: tl.constexpr,
    normed: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head, place = tl.arange(0, heads_padded)[:, None], tl.arange(0, half_padded)[None, :]
    inside, first = (head < heads) & (place < half), head * 2 * half + place
    a = tl.load(x + token * x_stride + first, inside, 0.0).to(tl.float32)
    b = tl.load(x + token * x_stride + first + half, inside, 0.0).to(tl.float32)
    kind = y.dtype.element_ty
    if normed:
        factor = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * half) + eps)[:, None]
        weight_a = tl.load(weight + place, place < half, 0.0).to(tl.float32)
        weight_b = tl.load(weight + half + place, place < half, 0.0).to(tl.float32)
        a = ((a * factor).to(kind).to(tl.float32) * weight_a).to(kind).to(tl.float32)
        b = ((b * factor).to(kind).to(tl.float32) * weight_b).to(kind).to(tl.float32)
    angle = token * 2 * half + place
    cos_a = tl.load(cos + angle, place < half, 0.0).to(tl.float32)
    cos_b = tl.load(cos + angle + half, place < half, 0.0).to(tl.float32)
    sin_a = tl.load(sin + angle, place < half, 0.0).to(tl.float32)
    sin_b = tl.load(sin + angle + half, place < half, 0.0).to(tl.float32)
    tl.store(y + token * y_stride + first, (a * cos_a - b * sin_a).to(kind), inside)
    tl.store(y + token * y_stride + first + half, (b * cos_b + a * sin_b).to(kind), inside)


@triton.jit
def _turn_backward(  # noqa: PLR0913 a kernel
    x, weight, cos, sin, grad, x_grad, eps,
    heads: tl.constexpr, half: tl.constexpr, heads_padded: tl.constexpr, half_padded: tl.constexpr,
    normed: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head, place = tl.arange(0, heads_padded)[:, None], tl.arange(0, half_padded)[None, :]
    inside, first = (head < heads) & (place < half), (token * heads + head) * 2 * half + place
    angle = token * 2 * half + place
    cos_a = tl.load(cos + angle, place < half, 0.0).to(tl.float32)
    cos_b = tl.load(cos + angle + half, place < half, 0.0).to(tl.float32)
    sin_a = tl.load(sin + angle, place < half, 0.0).to(tl.float32)
    sin_b = tl.load(sin + angle + half, place < half, 0.0).to(tl.float32)
    grad_a = tl.load(grad + first, inside, 0.0).to(tl.float32)
    grad_b = tl.load(grad + first + half, inside, 0.0).to(tl.float32)
    slope_a = grad_a * cos_a + grad_b * sin_b
    slope_b = grad_b * cos_b - grad_a * sin_a
    if normed:
        a = tl.load(x + first, inside, 0.0).to(tl.float32)
        b = tl.load(x + first + half, inside, 0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(a * a + b * b, 1) / (2 * half) + eps)[:, None]
        slope_a *= tl.load(weight + place, place < half, 0.0).to(tl.float32)
        slope_b *= tl.load(weight + half + place, place < half, 0.0).to(tl.float32)
        shared = tl.sum(slope_a * a + slope_b * b, 1)[:, None] / (2 * half) * factor * factor
        slope_a, slope_b = factor * (slope_a - a * shared), factor * (slope_b - b * shared)
    tl.store(x_grad + first, slope_a.to(x_grad.dtype.element_ty), inside)
    tl.store(x_grad + first + half, slope_b.to(x_grad.dtype.element_ty), inside)


@dataclass(frozen=True)
class HeadNorm:
    """The norm of each head before its rotation: weight (head size,)."""

    weight: torch.Tensor
    eps: float


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, norm: HeadNorm | None) -> torch.Tensor:
        x, cos, sin = x.contiguous(), cos.contiguous(), sin.contiguous()
        y = torch.empty_like(x)
        _launch_turn(x, y, cos, sin, norm)
        ctx.save_for_backward(x if norm else None, cos, sin)
        ctx.norm = norm
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, cos, sin = ctx.saved_tensors
        grad, norm = grad.contiguous(), ctx.norm
        x_grad = torch.empty_like(grad)
        x = grad if x is None else x
        tokens, heads, size = grad.shape
        weight, eps = (norm.weight, norm.eps) if norm else (grad, 0.0)
        with _on_card_of(grad):
            _turn_backward[(tokens,)](
                x, weight, cos, sin, grad, x_grad, eps, *_head_shapes(heads, size), norm is not None
            )
        return x_grad, None, None, None


def turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, norm: HeadNorm | None = None) -> torch.Tensor:
    """(T, H, D): each head by its token's angles, after its norm where it has one. cos, sin: (T, D).

    The first half of a head turns against the second, as in `rotate_half` of transformers.
    """
    y: torch.Tensor = _Turn.apply(x, cos, sin, norm)  # type: ignore[no-untyped-call]
    return y


def turn_patches(patches: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> None:
    """Turn the queries and keys among (T, 3, H, D) queries, keys and values, in their place. cos, sin: (T, D)."""
    pairs = patches[:, :2].flatten(1, 2)
    assert pairs.data_ptr() == patches.data_ptr()  # a view, not a copy
    _launch_turn(pairs, pairs, cos.contiguous(), sin.contiguous(), None)


def _launch_turn(x: torch.Tensor, y: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, norm: HeadNorm | None) -> None:
    tokens, heads, size = x.shape
    weight, eps = (norm.weight, norm.eps) if norm else (x, 0.0)
    with _on_card_of(x):
        _turn[(tokens,)](
            x, weight, cos, sin, y, x.stride(0), y.stride(0), eps, *_head_shapes(heads, size), norm is not None
        )


def _head_shapes(heads: int, size: int) -> tuple[int, int, int, int]:
    return heads, size // 2, triton.next_power_of_2(heads), triton.next_power_of_2(size // 2)


# ------------------------------------------------------------ gated feed-forward
@triton.jit
def _silu_product(gate, up, y, count, elements: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * elements + tl.arange(0, elements)
    value = tl.load(gate + place, place < count, 0.0).to(tl.float32)
    opened = (value * tl.sigmoid(value)).to(y.dtype.element_ty).to(tl.float32)
    product = opened * tl.load(up + place, place < count, 0.0).to(tl.float32)
    tl.store(y + place, product.to(y.dtype.element_ty), place < count)


@triton.jit
def _silu_product_backward(gate, up, grad, gate_grad, up_grad, count, elements: tl.constexpr):  # noqa: PLR0913
    place = tl.program_id(0).to(tl.int64) * elements + tl.arange(0, elements)
    inside = place < count
    value = tl.load(gate + place, inside, 0.0).to(tl.float32)
    slope = tl.load(grad + place, inside, 0.0).to(tl.float32)
    share = tl.sigmoid(value)
    tl.store(up_grad + place, (slope * value * share).to(up_grad.dtype.element_ty), inside)
    slope *= tl.load(up + place, inside, 0.0).to(tl.float32)
    slope *= share * (1 + value * (1 - share))
    tl.store(gate_grad + place, slope.to(gate_grad.dtype.element_ty), inside)


class _SiluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        y = torch.empty_like(gate)
        with _on_card_of(gate):
            _silu_product[(triton.cdiv(gate.numel(), ELEMENTS),)](gate, up, y, gate.numel(), ELEMENTS, num_warps=8)
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gate, up = ctx.saved_tensors
        gate_grad, up_grad, count = torch.empty_like(gate), torch.empty_like(up), gate.numel()
        with _on_card_of(gate):
            _silu_product_backward[(triton.cdiv(count, ELEMENTS),)](
                gate, up, grad.contiguous(), gate_grad, up_grad, count, ELEMENTS, num_warps=8
            )
        return gate_grad, up_grad


def silu_product(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """(…, I) silu(gate) in 16 bits, times `up`."""
    y: torch.Tensor = _SiluProduct.apply(gate, up)  # type: ignore[no-untyped-call]
    return y


# ------------------------------------------------------------ weights
@triton.jit
def _make_weight(  # noqa: PLR0913 a kernel
    source, code, absmax, nested_absmax, nested_code, nested_offset, up, down, weight, height,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, block: tl.constexpr, nested_block: tl.constexpr,
    rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(1) * rows + tl.arange(0, rows), tl.program_id(0) * columns + tl.arange(0, columns)
    kind = weight.dtype.element_ty
    inside = (row < height)[:, None] & (column < width)[None, :]
    if block > 0:  # two weights a byte, the first in its upper half
        pair = tl.program_id(0) * (columns // 2) + tl.arange(0, columns // 2)
        place = row.to(tl.int64)[:, None] * (width // 2) + pair[None, :]
        pair_inside = (row < height)[:, None] & (pair < width // 2)[None, :]
        both = tl.load(source + place, pair_inside, 0).to(tl.int32)
        number = place // (block // 2)
        if nested_block > 0:
            step = tl.load(absmax + number, pair_inside, 0).to(tl.int32)
            scale = tl.load(nested_code + step) * tl.load(nested_absmax + number // nested_block, pair_inside, 0.0)
            scale += tl.load(nested_offset)
        else:
            scale = tl.load(absmax + number, pair_inside, 0.0)
        value = tl.interleave(tl.load(code + (both >> 4)) * scale, tl.load(code + (both & 15)) * scale)
        value = value.to(kind).to(tl.float32)
    else:
        value = tl.load(source + row.to(tl.int64)[:, None] * width + column[None, :], inside, 0.0).to(tl.float32)
    narrow = tl.arange(0, ranks)
    up_inside = (row < height)[:, None] & (narrow < rank)[None, :]
    wide = tl.load(up + row[:, None] * rank + narrow[None, :], up_inside, 0.0)
    down_inside = (narrow < rank)[:, None] & (column < width)[None, :]
    value += tl.dot(wide, tl.load(down + narrow[:, None] * width + column[None, :], down_inside, 0.0))
    tl.store(weight + row.to(tl.int64)[:, None] * width + column[None, :], value.to(kind), inside)


@dataclass(frozen=True)
class FourBits:
    """bitsandbytes' 4-bit form of a weight (N, K): two weights a byte.

    code: (16,) what a weight is in units of its block's scale. absmax: the scales of blocks of `block` weights; where
    they are in 8 bits, `nested` holds the scales of blocks of `nested_block` scales, their code and offset.
    """

    packed: torch.Tensor
    code: torch.Tensor
    absmax: torch.Tensor
    nested: tuple[torch.Tensor, ...]
    block: int
    nested_block: int


def make_weight(
    source: FourBits | torch.Tensor, shape: list[int], up: torch.Tensor, down: torch.Tensor
) -> torch.Tensor:
    """(N, K) a weight in the type of `up`, from 4 or 16 bits, plus `up @ down`, rounded once more.

    up (N, R), down (R, K): the adapter. A row of 4-bit weights must be whole blocks.
    """
    (height, width), rank = shape, up.shape[1]
    weight = torch.empty(height, width, dtype=up.dtype, device=up.device)
    tiles = (triton.cdiv(width, WEIGHT_COLUMNS), triton.cdiv(height, WEIGHT_ROWS))
    if isinstance(source, FourBits):
        nested = source.nested or (source.absmax,) * 3
        tensors = (source.packed, source.code, source.absmax, *nested)
        blocks = (source.block, source.nested_block if source.nested else 0)
    else:
        tensors, blocks = (source,) * 6, (0, 0)
    with _on_card_of(up):
        _make_weight[tiles](
            *tensors, up, down, weight, height, width, rank, max(16, triton.next_power_of_2(rank)), *blocks,
            WEIGHT_ROWS, WEIGHT_COLUMNS, **UNFUSED,
        )  # fmt: skip
    return weight


def _on_card_of(tensor: torch.Tensor) -> Any:
    """Triton starts kernels on the current card."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)
