"""Triton kernels for cards: an adapter's narrow product with dropout, one kernel forward and one back.

The mask is a hash of seed, row and column: computed in the registers where it is used, never written to memory.
Separate operations (draw, multiply, product, add) took 180 of 1,160 ms of an 8B step (benchmarks/LOG.md).
"""

import torch
import triton
import triton.language as tl

from train.dropout import Mask

ROWS, COLUMNS = 32, 128  # of a tile
PROGRAMS = 512  # about so many run in a backward pass

# Of the three functions that follow every pointer, number and constant is a parameter. Shapes: x (tokens, width), down
# (rank, width), inner (tokens, rank); ranks is the rank, padded to a power of two; rows and columns are a tile's.


@triton.jit
def _is_kept(seed, rows, columns, threshold):
    """(rows, columns) whether an input is kept: 31 bits, mixed as in Wellons' `lowbias32`, against a threshold."""
    bits = (rows.to(tl.uint32)[:, None] * 0x9E3779B1 + columns.to(tl.uint32)[None, :] * 0x85EBCA77) ^ seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return ((bits ^ (bits >> 16)) >> 1) >= threshold.to(tl.uint32)


@triton.jit(do_not_specialize=["tokens", "seed", "threshold"])
def _forward(  # noqa: PLR0913 a kernel
    x, down, inner, tokens, seed, threshold,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, narrow = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, ranks)
    total = tl.zeros((rows, ranks), tl.float32)
    for start in range(0, width, columns):
        column = start + tl.arange(0, columns)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        tile = tl.load(x + row.to(tl.int64)[:, None] * width + column[None, :], inside, 0.0)
        tile = tl.where(_is_kept(seed, row, column, threshold), tile, 0.0)
        weight_inside = (column < width)[:, None] & (narrow < rank)[None, :]
        weight = tl.load(down + narrow[None, :] * width + column[:, None], weight_inside, 0.0)
        total = tl.dot(tile, weight, total)
    inside = (row < tokens)[:, None] & (narrow < rank)[None, :]
    tl.store(inner + row[:, None] * rank + narrow[None, :], total.to(inner.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["tokens", "seed", "threshold", "chunk"])
def _backward(  # noqa: PLR0913 a kernel
    x, down, inner_grad, x_grad, down_grad, tokens, seed, threshold, chunk,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
    has_x_grad: tl.constexpr,
):  # fmt: skip
    column, narrow = tl.program_id(0) * columns + tl.arange(0, columns), tl.arange(0, ranks)
    weight_inside = (narrow < rank)[:, None] & (column < width)[None, :]
    weight = tl.load(down + narrow[:, None] * width + column[None, :], weight_inside, 0.0)
    total = tl.zeros((ranks, columns), tl.float32)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, tokens), rows):
        row = start + tl.arange(0, rows)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        offset = row.to(tl.int64)[:, None] * width + column[None, :]
        is_kept = _is_kept(seed, row, column, threshold)
        tile = tl.where(is_kept, tl.load(x + offset, inside, 0.0), 0.0)
        grad_inside = (row < tokens)[:, None] & (narrow < rank)[None, :]
        grad = tl.load(inner_grad + row[:, None] * rank + narrow[None, :], grad_inside, 0.0)
        total = tl.dot(tl.trans(grad), tile, total)
        if has_x_grad:
            total_grad = tl.load(x_grad + offset, inside, 0.0) + tl.where(is_kept, tl.dot(grad, weight), 0.0)
            tl.store(x_grad + offset, total_grad.to(x_grad.dtype.element_ty), inside)
    offset_down = (tl.program_id(1) * rank + narrow)[:, None] * width + column[None, :]
    tl.store(down_grad + offset_down, total, weight_inside)


def narrow_product(x: torch.Tensor, down: torch.Tensor, mask: Mask) -> torch.Tensor:
    """(T, R): dropout(x) Aᵀ of x (T, K) and A (R, K), both in 16 bits; not scaled up for what is dropped."""
    x, down = x.contiguous(), down.contiguous()
    (tokens, width), rank = x.shape, len(down)
    inner = torch.empty(tokens, rank, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(tokens, ROWS),)
    _forward[grid](x, down, inner, tokens, *_integers(mask), width, rank, _padded_rank(rank), ROWS, COLUMNS)
    return inner


def narrow_product_backward(
    x: torch.Tensor, down: torch.Tensor, inner_grad: torch.Tensor, x_grad: torch.Tensor | None, mask: Mask
) -> torch.Tensor:
    """(R, K) float32 gradient of A, given that of the product, (T, R). That of x is added to `x_grad` (T, K).

    Partial sums over rows are added in one order, so that the bits are the same every time.
    """
    x, down, inner_grad = x.contiguous(), down.contiguous(), inner_grad.contiguous()
    (tokens, width), rank = x.shape, len(down)
    across = triton.cdiv(width, COLUMNS)
    chunk = triton.cdiv(triton.cdiv(tokens, max(1, PROGRAMS // across)), ROWS) * ROWS
    chunks = triton.cdiv(tokens, chunk)
    sums = torch.empty(chunks, rank, width, dtype=torch.float32, device=x.device)
    shapes = (width, rank, _padded_rank(rank), ROWS, COLUMNS, x_grad is not None)
    _backward[(across, chunks)](
        x, down, inner_grad, x if x_grad is None else x_grad, sums, tokens, *_integers(mask), chunk, *shapes
    )
    return sums.sum(0)


def _padded_rank(rank: int) -> int:
    return max(16, int(triton.next_power_of_2(rank)))


def _integers(mask: Mask) -> tuple[int, int]:
    """Seed and threshold in 31 bits, so that Triton gives them one type whatever their value."""
    return mask.seed % 2**31, round(mask.share * 2**31)
