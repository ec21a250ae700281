"""Narrow products against the same arithmetic in operations of PyTorch: in 16 bits on cards, elsewhere interpreted.

Interpreting needs Triton, which PyTorch for CPUs comes without: `pip install triton`, then run this file.
"""

import os

import pytest
import torch

CARD = torch.cuda.is_available()
if not CARD:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
pytest.importorskip("triton", reason="needs Triton")

from train.dropout import Mask  # noqa: E402
from train.kernels import narrow_products, narrow_products_backward  # noqa: E402

DEVICE, DTYPE = ("cuda", torch.bfloat16) if CARD else ("cpu", torch.float32)


def is_kept(seed: int, share: float, tokens: int, width: int) -> torch.Tensor:
    """(tokens, width) the hash of seed, row and column, in integers of 64 bits."""
    row, column = torch.arange(tokens, device=DEVICE)[:, None], torch.arange(width, device=DEVICE)
    bits = ((row * 0x9E3779B1 + column * 0x85EBCA77) & 0xFFFFFFFF) ^ (seed % 2**31)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        bits = ((bits ^ (bits >> shift)) * factor) & 0xFFFFFFFF
    return ((bits ^ (bits >> 16)) >> 1) >= round(share * 2**31)


@pytest.mark.parametrize(
    "count, tokens, width, rank, share",
    [(1, 70, 300, 16, 0.05), (2, 33, 140, 24, 0.0), (3, 45, 129, 8, 0.3)]
    + ([(3, 2000, 4096, 16, 0.05), (1, 2000, 12288, 64, 0.3)] if CARD else []),
)
def test_each_layer_drops_the_same_inputs_forward_and_back(count, tokens, width, rank, share):
    generator, scale = torch.Generator().manual_seed(0), 1.5
    x, back, grad, *downs = (
        torch.randn(*shape, generator=generator).to(DEVICE, DTYPE)
        for shape in ((tokens, width), (tokens, width), (count, tokens, rank), *[(rank, width)] * count)
    )
    masks = [Mask(123_456_789_012_345 + 77_777 * number, share) for number in range(count)]
    adapters, added = [*zip(downs, masks)], back.clone()
    inner = narrow_products(x, downs, masks, scale)
    found = narrow_products_backward(x, adapters, grad, added, scale)
    assert torch.equal(found, narrow_products_backward(x, adapters, grad, None, scale))
    expected, error = back.double(), 0.01 if CARD else 1e-5
    for number, (down, mask) in enumerate(adapters):
        kept = is_kept(mask.seed, share, tokens, width)
        assert abs(kept.float().mean().item() - (1 - share)) < 5 * (share * (1 - share) / kept.numel()) ** 0.5 + 1e-9
        dropped = scale * (x * kept).double()
        product, slope = dropped @ down.double().T, grad[number].double().T @ dropped
        assert (inner[number] - product).abs().max() < error * product.abs().max()
        assert (found[number] - slope).abs().max() < error * slope.abs().max()
        expected += scale * kept * (grad[number].double() @ down.double())
    assert (added - expected).abs().max() < error * expected.abs().max()
