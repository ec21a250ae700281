"""Kernels against the same arithmetic in PyTorch's operations: on a card in 16 bits, elsewhere interpreted in 32.

Interpreting needs Triton, which PyTorch for CPUs comes without: `pip install triton`, then run this file.
"""

import os

import pytest
import torch

CARD = torch.cuda.is_available()
if not CARD:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
pytest.importorskip("triton", reason="needs Triton")

from scoring.engine import kernels  # noqa: E402

DEVICE, DTYPE = ("cuda", torch.bfloat16) if CARD else ("cpu", torch.float32)
CLOSE = {"rtol": 2e-2, "atol": 2e-2} if CARD else {"rtol": 1e-5, "atol": 1e-5}


def random(*shape: int, learns: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, DTYPE).requires_grad_(learns)


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat((-second, first), -1) * sin[:, None]


def check(output: torch.Tensor, expected: torch.Tensor, *inputs: torch.Tensor) -> None:
    """Outputs and gradients alike."""
    assert torch.allclose(output.float(), expected.float(), **CLOSE)
    grad = random(*output.shape)
    for found, wanted in zip(torch.autograd.grad(output, inputs, grad), torch.autograd.grad(expected, inputs, grad)):
        scale = max(1.0, wanted.abs().max().item())
        assert torch.allclose(found.float() / scale, wanted.float() / scale, **CLOSE)


@pytest.mark.parametrize("tokens, width", [(1, 64), (5, 96), (3, 4096), (2, 5120)])
def test_a_norm_is_the_librarys(tokens, width):
    x, weight = random(tokens, width, learns=True), random(width)
    check(kernels.rms_norm(x, weight, 1e-6), normed(x, weight), x)


@pytest.mark.parametrize("heads, size", [(1, 16), (3, 24), (28, 128)])
@pytest.mark.parametrize("with_norm", [True, False])
def test_heads_are_rotated_after_their_norm(heads, size, with_norm):
    x, weight = random(4, heads, size, learns=True), random(size)
    cos, sin = random(4, size), random(5, size)[1:]
    norm = kernels.HeadNorm(weight, 1e-6) if with_norm else None
    check(kernels.turn(x, cos, sin, norm), turned(normed(x, weight) if with_norm else x, cos, sin), x)


def test_queries_and_keys_of_patches_are_rotated_in_their_place():
    patches, cos, sin = random(6, 3, 4, 72), random(6, 72), random(7, 72)[1:]
    before = patches.clone()
    kernels.turn_patches(patches, cos, sin)
    for part in (0, 1):
        assert torch.allclose(patches[:, part].float(), turned(before[:, part].float(), cos, sin).float(), **CLOSE)
    assert torch.equal(patches[:, 2], before[:, 2])


@pytest.mark.parametrize("shape", [(1, 1), (5, 50), (3, 4097)])
def test_a_gate_is_opened_and_multiplied(shape):
    gate, up = random(*shape, learns=True), random(*shape[::-1]).T.contiguous().requires_grad_()
    check(kernels.silu_product(gate, up), torch.nn.functional.silu(gate) * up, gate, up)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_weight_from_4_bits_is_bitsandbytes_and_the_adapter(nested, kind):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight, up, down = random(72, 192), random(72, 5), random(5, 192)
    packed, state = quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
    scales = (state.state2.absmax, state.state2.code, state.offset) if nested else ()
    blocks = (64, state.state2.blocksize if nested else 0)
    source = kernels.FourBits(packed, state.code, state.absmax, scales, *blocks)
    unpacked = dequantize_4bit(packed, state).to(DTYPE)
    assert torch.equal(kernels.make_weight(source, [72, 192], 0 * up, down), unpacked)
    merged = kernels.make_weight(source, [72, 192], up, down)
    assert torch.allclose(merged.float(), (unpacked.float() + up.float() @ down.float()), **CLOSE)
    assert torch.equal(merged, kernels.make_weight(unpacked, [72, 192], up, down))  # the same bits from 16 bits


@pytest.mark.parametrize("rows", [1, 2, 31])
def test_a_row_does_not_depend_on_the_rows_beside_it(rows):
    x, weight, cos, sin = random(64, 256), random(256), random(64, 64), random(64, 64)
    heads, gate = x.view(64, 4, 64), random(64, 256) * 2
    assert torch.equal(kernels.rms_norm(x[:rows], weight, 1e-6), kernels.rms_norm(x, weight, 1e-6)[:rows])
    norm = kernels.HeadNorm(weight[:64], 1e-6)
    whole = kernels.turn(heads, cos, sin, norm)
    assert torch.equal(kernels.turn(heads[:rows], cos[:rows], sin[:rows], norm), whole[:rows])
    assert torch.equal(kernels.silu_product(gate[:rows], x[:rows]), kernels.silu_product(gate, x)[:rows])
