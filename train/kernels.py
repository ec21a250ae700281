"""Triton kernels for cards: adapters' narrow products with dropout, one kernel forward and one back.

Up to three linear layers that take the same input, such as those of queries, keys and values, share a kernel: it reads
the input once, and draws each layer's own mask.

The mask is a hash of seed, row and column: computed in the registers where it is used, never written to memory.
Separate operations (draw, multiply, product, add) took 180 of 1,160 ms of an 8B step (benchmarks/LOG.md).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from train.dropout import Mask

ROWS, COLUMNS = 32, 128  # of a tile
PROGRAMS = 512  # about so many run in a backward pass

# Of the functions that follow every pointer, number and constant is a parameter. Shapes: x (tokens, width), down
# (rank, width), inner (count, tokens, rank); ranks: the rank, padded to a power of two; rows, columns: of a tile.


@triton.jit
def _is_kept(seed, rows, columns, threshold):
    """(rows, columns) whether an input is kept: 31 bits, mixed as in Wellons' `lowbias32`, against a threshold."""
    bits = (rows.to(tl.uint32)[:, None] * 0x9E3779B1 + columns.to(tl.uint32)[None, :] * 0x85EBCA77) ^ seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return ((bits ^ (bits >> 16)) >> 1) >= threshold.to(tl.uint32)


@triton.jit
def _dropped(tile, seed, rows, columns, threshold):
    return tl.where(_is_kept(seed, rows, columns, threshold), tile, 0.0)


@triton.jit
def _adapter(down, column, narrow, width: tl.constexpr, rank: tl.constexpr):
    """(ranks, columns) a tile of A."""
    inside = (narrow < rank)[:, None] & (column < width)[None, :]
    return tl.load(down + narrow[:, None] * width + column[None, :], inside, 0.0)


@triton.jit
def _slopes(grad, row, narrow, tokens, scale, rank: tl.constexpr):  # noqa: PLR0913
    """(rows, ranks) a tile of the gradient of one adapter's narrow product, in the type of the tensors."""
    inside = (row < tokens)[:, None] & (narrow < rank)[None, :]
    tile = tl.load(grad + row[:, None] * rank + narrow[None, :], inside, 0.0)
    return (tile.to(tl.float32) * scale).to(grad.dtype.element_ty)


@triton.jit(do_not_specialize=["tokens", "seed_0", "seed_1", "seed_2", "threshold"])
def _forward(  # noqa: PLR0913 a kernel
    x, down_0, down_1, down_2, inner, tokens, seed_0, seed_1, seed_2, threshold, scale, count: tl.constexpr,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, narrow = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, ranks)
    total_0 = tl.zeros((rows, ranks), tl.float32)
    total_1 = tl.zeros((rows, ranks), tl.float32)
    total_2 = tl.zeros((rows, ranks), tl.float32)
    for start in range(0, width, columns):
        column = start + tl.arange(0, columns)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        tile = tl.load(x + row.to(tl.int64)[:, None] * width + column[None, :], inside, 0.0)
        kept = _dropped(tile, seed_0, row, column, threshold)
        total_0 = tl.dot(kept, tl.trans(_adapter(down_0, column, narrow, width, rank)), total_0)
        if count > 1:
            kept = _dropped(tile, seed_1, row, column, threshold)
            total_1 = tl.dot(kept, tl.trans(_adapter(down_1, column, narrow, width, rank)), total_1)
        if count > 2:
            kept = _dropped(tile, seed_2, row, column, threshold)
            total_2 = tl.dot(kept, tl.trans(_adapter(down_2, column, narrow, width, rank)), total_2)
    inside, place = (row < tokens)[:, None] & (narrow < rank)[None, :], row[:, None] * rank + narrow[None, :]
    kind = inner.dtype.element_ty
    tl.store(inner + place, (total_0 * scale).to(kind), inside)
    if count > 1:
        tl.store(inner + tokens * rank + place, (total_1 * scale).to(kind), inside)
    if count > 2:
        tl.store(inner + 2 * tokens * rank + place, (total_2 * scale).to(kind), inside)


@triton.jit(do_not_specialize=["tokens", "seed_0", "seed_1", "seed_2", "threshold", "chunk"])
def _backward(  # noqa: PLR0913 a kernel
    x, down_0, down_1, down_2, inner_grad, x_grad, down_grad, tokens, seed_0, seed_1, seed_2, threshold, scale, chunk,
    count: tl.constexpr, width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr,
    columns: tl.constexpr, has_x_grad: tl.constexpr,
):  # fmt: skip
    column, narrow = tl.program_id(0) * columns + tl.arange(0, columns), tl.arange(0, ranks)
    total_0 = tl.zeros((ranks, columns), tl.float32)
    total_1 = tl.zeros((ranks, columns), tl.float32)
    total_2 = tl.zeros((ranks, columns), tl.float32)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, tokens), rows):
        row = start + tl.arange(0, rows)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        offset = row.to(tl.int64)[:, None] * width + column[None, :]
        tile = tl.load(x + offset, inside, 0.0)
        grad = _slopes(inner_grad, row, narrow, tokens, scale, rank)
        total_0 = tl.dot(tl.trans(grad), _dropped(tile, seed_0, row, column, threshold), total_0)
        if has_x_grad:
            change = tl.dot(grad, _adapter(down_0, column, narrow, width, rank))
            sum_grad = tl.load(x_grad + offset, inside, 0.0) + _dropped(change, seed_0, row, column, threshold)
        if count > 1:
            grad = _slopes(inner_grad + tokens * rank, row, narrow, tokens, scale, rank)
            total_1 = tl.dot(tl.trans(grad), _dropped(tile, seed_1, row, column, threshold), total_1)
            if has_x_grad:
                change = tl.dot(grad, _adapter(down_1, column, narrow, width, rank))
                sum_grad += _dropped(change, seed_1, row, column, threshold)
        if count > 2:
            grad = _slopes(inner_grad + 2 * tokens * rank, row, narrow, tokens, scale, rank)
            total_2 = tl.dot(tl.trans(grad), _dropped(tile, seed_2, row, column, threshold), total_2)
            if has_x_grad:
                change = tl.dot(grad, _adapter(down_2, column, narrow, width, rank))
                sum_grad += _dropped(change, seed_2, row, column, threshold)
        if has_x_grad:
            tl.store(x_grad + offset, sum_grad.to(x_grad.dtype.element_ty), inside)
    place = (tl.program_id(1) * count * rank + narrow)[:, None] * width + column[None, :]
    inside = (narrow < rank)[:, None] & (column < width)[None, :]
    tl.store(down_grad + place, total_0, inside)
    if count > 1:
        tl.store(down_grad + rank * width + place, total_1, inside)
    if count > 2:
        tl.store(down_grad + 2 * rank * width + place, total_2, inside)


def narrow_products(x: torch.Tensor, downs: list[torch.Tensor], masks: list[Mask], scale: float) -> torch.Tensor:
    """(n, T, R): scale · dropout(x) Aᵀ of x (T, K) and each of n <= 3 A (R, K), all in 16 bits.

    Each has its own mask. What is kept is not scaled up for what is dropped.
    """
    (tokens, width), rank, count = x.shape, len(downs[0]), len(downs)
    inner = torch.empty(count, tokens, rank, dtype=x.dtype, device=x.device)
    _forward[(triton.cdiv(tokens, ROWS),)](
        x, *_three(downs), inner, tokens, *_integers(masks), scale,
        count, width, rank, _padded_rank(rank), ROWS, COLUMNS,
    )  # fmt: skip
    return inner


def narrow_products_backward(
    x: torch.Tensor, adapters: list[tuple[torch.Tensor, Mask]], inner_grad: torch.Tensor, x_grad: Any, scale: float
) -> torch.Tensor:
    """(n, R, K) float32 gradients of the n A, given those of the products before `scale`, (n, T, R).

    adapters: each A and its mask. x_grad: (T, K), to which what all of them give is added; None where x has none.
    Partial sums over rows are added in one order, so that the bits are the same every time.
    """
    (tokens, width), (count, _, rank) = x.shape, inner_grad.shape
    downs, masks = [down for down, _ in adapters], [mask for _, mask in adapters]
    across = triton.cdiv(width, COLUMNS)
    chunk = triton.cdiv(triton.cdiv(tokens, max(1, PROGRAMS // across)), ROWS) * ROWS
    chunks = triton.cdiv(tokens, chunk)
    sums = torch.empty(chunks, count, rank, width, dtype=torch.float32, device=x.device)
    _backward[(across, chunks)](
        x, *_three(downs), inner_grad, x if x_grad is None else x_grad, sums, tokens, *_integers(masks), scale, chunk,
        count, width, rank, _padded_rank(rank), ROWS, COLUMNS, x_grad is not None,
    )  # fmt: skip
    return sums.sum(0)


def _three(values: list[Any]) -> list[Any]:
    """The kernels take three of each."""
    return (values + 2 * values[-1:])[:3]


def _padded_rank(rank: int) -> int:
    return max(16, int(triton.next_power_of_2(rank)))


def _integers(masks: list[Mask]) -> tuple[int, ...]:
    """Three seeds and the threshold in 31 bits, so that Triton gives them one type whatever their value."""
    return *_three([mask.seed % 2**31 for mask in masks]), round(masks[0].share * 2**31)
