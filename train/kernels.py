"""An adapter's narrow product with dropout, one kernel forward and one back, for cards.

The mask is a hash of seed, row and column: worked out in the registers where it is used, never written to memory.
Separate operations (draw, multiply, product, add) took 180 of 1,160 ms of an 8B step (benchmarks/LOG.md).
"""

import torch
import triton
import triton.language as tl

ROWS, COLUMNS = 32, 128  # of a tile
PROGRAMS = 512  # that a backward pass is cut into, about


@triton.jit
def _kept(seed, rows, columns, threshold):
    """(rows, columns) whether an input is kept: 31 bits, mixed as in Wellons' `lowbias32`, against a threshold."""
    bits = (rows.to(tl.uint32)[:, None] * 0x9E3779B1 + columns.to(tl.uint32)[None, :] * 0x85EBCA77) ^ seed.to(tl.uint32)
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return ((bits ^ (bits >> 16)) >> 1) >= threshold.to(tl.uint32)


@triton.jit(do_not_specialize=["tokens", "seed", "threshold"])
def _forward(
    x, down, inner, tokens, seed, threshold,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    row, narrow = tl.program_id(0) * rows + tl.arange(0, rows), tl.arange(0, ranks)
    total = tl.zeros((rows, ranks), tl.float32)
    for start in range(0, width, columns):
        column = start + tl.arange(0, columns)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        tile = tl.load(x + row.to(tl.int64)[:, None] * width + column[None, :], inside, 0.0)
        tile = tl.where(_kept(seed, row, column, threshold), tile, 0.0)
        weight_inside = (column < width)[:, None] & (narrow < rank)[None, :]
        weight = tl.load(down + narrow[None, :] * width + column[:, None], weight_inside, 0.0)
        total = tl.dot(tile, weight, total)
    inside = (row < tokens)[:, None] & (narrow < rank)[None, :]
    tl.store(inner + row[:, None] * rank + narrow[None, :], total.to(inner.dtype.element_ty), inside)


@triton.jit(do_not_specialize=["tokens", "seed", "threshold", "chunk"])
def _backward(
    x, down, inner_grad, back, down_grad, tokens, seed, threshold, chunk,
    width: tl.constexpr, rank: tl.constexpr, ranks: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
    has_back: tl.constexpr,
):  # fmt: skip
    column, narrow = tl.program_id(0) * columns + tl.arange(0, columns), tl.arange(0, ranks)
    weight_inside = (narrow < rank)[:, None] & (column < width)[None, :]
    weight = tl.load(down + narrow[:, None] * width + column[None, :], weight_inside, 0.0)
    total = tl.zeros((ranks, columns), tl.float32)
    first = tl.program_id(1) * chunk
    for start in range(first, tl.minimum(first + chunk, tokens), rows):
        row = start + tl.arange(0, rows)
        inside = (row < tokens)[:, None] & (column < width)[None, :]
        place = row.to(tl.int64)[:, None] * width + column[None, :]
        kept = _kept(seed, row, column, threshold)
        tile = tl.where(kept, tl.load(x + place, inside, 0.0), 0.0)
        grad_inside = (row < tokens)[:, None] & (narrow < rank)[None, :]
        grad = tl.load(inner_grad + row[:, None] * rank + narrow[None, :], grad_inside, 0.0)
        total = tl.dot(tl.trans(grad), tile, total)
        if has_back:
            more = tl.where(kept, tl.dot(grad, weight), 0.0)
            tl.store(back + place, (tl.load(back + place, inside, 0.0) + more).to(back.dtype.element_ty), inside)
    part = (tl.program_id(1) * rank + narrow)[:, None] * width + column[None, :]
    tl.store(down_grad + part, total, weight_inside)


def narrow_product(x: torch.Tensor, down: torch.Tensor, seed: int, share: float) -> torch.Tensor:
    """(T, R): kept(x) Aᵀ of x (T, K) and A (R, K), both in 16 bits; not scaled up for what is dropped."""
    x, down = x.contiguous(), down.contiguous()
    (tokens, width), rank = x.shape, len(down)
    inner = torch.empty(tokens, rank, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(tokens, ROWS),)
    _forward[grid](x, down, inner, tokens, *_drawn(seed, share), width, rank, _ranks(rank), ROWS, COLUMNS)
    return inner


def narrow_product_backward(
    x: torch.Tensor, down: torch.Tensor, inner_grad: torch.Tensor, back: torch.Tensor | None, seed: int, share: float
) -> torch.Tensor:
    """(R, K) float32 gradient of A, given that of the product, (T, R). That of x is added to `back` (T, K).

    Parts of the sum over rows are added in one order, so that the bits are the same every time.
    """
    x, down, inner_grad = x.contiguous(), down.contiguous(), inner_grad.contiguous()
    (tokens, width), rank = x.shape, len(down)
    across = triton.cdiv(width, COLUMNS)
    chunk = triton.cdiv(triton.cdiv(tokens, max(1, PROGRAMS // across)), ROWS) * ROWS
    parts = triton.cdiv(tokens, chunk)
    total = torch.empty(parts, rank, width, dtype=torch.float32, device=x.device)
    shapes = (width, rank, _ranks(rank), ROWS, COLUMNS, back is not None)
    _backward[(across, parts)](
        x, down, inner_grad, x if back is None else back, total, tokens, *_drawn(seed, share), chunk, *shapes
    )
    return total.sum(0)


def _ranks(rank: int) -> int:
    return max(16, triton.next_power_of_2(rank))


def _drawn(seed: int, share: float) -> tuple[int, int]:
    """Seed and threshold as 31-bit numbers, of one type whatever their value."""
    return seed % 2**31, round(share * 2**31)
