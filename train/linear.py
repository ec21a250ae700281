"""A linear layer whose adapter learns: one product forward, one back, its weight made from 4 bits for each.

PEFT's own layer keeps a dropped-out copy of its input for the way back. Here, on a card, a dropout is a number: the
mask is worked out again where it is needed.
"""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F

from scoring.engine.attention import has_flash
from scoring.engine.linear import MergedLinear, half_product, plain_weight_from_4bit

ADAPTER = "default"  # PEFT's name for the one adapter of a training


@dataclass
class Dropout:
    """Shared by all layers: the share that is dropped, and the number that this forward's masks come from."""

    share: float
    seed: int = 0
    generator: torch.Generator | None = None

    def begin(self, *place: int) -> None:
        """Masks of this place in the training, such as (seed, step, part): the same whenever it is come to."""
        self.seed = int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)

    def seed_of(self, layer: int) -> int:
        return (self.seed + layer * 0x9E3779B97F4A7C15) % 2**63

    def kept(self, layer: int, x: torch.Tensor) -> torch.Tensor | None:
        """1 and 0 like `x`, or None where nothing is dropped; for where there is no kernel that does without."""
        if not self.share:
            return None
        seed = self.seed_of(layer)
        if x.device.type == "cpu":  # many times as fast as torch's generator there
            bits = np.random.SFC64(seed).random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
            return torch.from_numpy((bits >= round(self.share * 65536)).astype(np.float32)).view(x.shape).to(x.dtype)
        self.generator = self.generator or torch.Generator(x.device)
        return torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator.manual_seed(seed))


class TrainableLinear(MergedLinear):
    """Learns while the network trains with gradients; else it is what scoring uses, with the adapter as it is now."""

    def __init__(self, inner: torch.nn.Module, dtype: torch.dtype):
        super().__init__(inner, dtype)
        self.number, self.dropout = 0, Dropout(0.0)
        self.learns = ADAPTER in getattr(inner, "lora_A", {})
        self.scales = self.absmax if self.packed is not None else None  # of blocks, in 32 bits
        if self.packed is not None and self.nested_absmax is not None:
            self.scales = torch.ops.bitsandbytes.dequantize_blockwise(
                self.absmax, self.nested_absmax, self.nested_code, self.blocks[1], torch.float32
            ).add_(self.nested_offset)
        self.cast: tuple[int, torch.Tensor, torch.Tensor] = (-1, *self.no_adapter)

    def select(self, adapter: str | None) -> None:
        if adapter == ADAPTER and self.learns:
            down, up, scale = self.parts()
            self.adapters[ADAPTER] = ((up.detach() * scale).to(self.dtype), down.detach().to(self.dtype))
        super().select(adapter)

    def parts(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """lora_A (R, K), lora_B (N, R) and their scaling."""
        inner = self.inner
        return inner.lora_A[ADAPTER].weight, inner.lora_B[ADAPTER].weight, inner.scaling[ADAPTER]

    def base_weight(self) -> torch.Tensor:
        """(N, K) without the adapter, in 16 or 32 bits."""
        if self.packed is None:
            return self.weight
        return plain_weight_from_4bit(
            self.packed, self.scales, [], self.shape, self.blocks, self.kind, self.dtype, *self.no_adapter
        )

    def in_type(self, down: torch.Tensor, up: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter in the stream's type, made once a step."""
        if dtype == down.dtype:
            return down, up
        if self.cast[0] != self.dropout.seed:
            self.cast = (self.dropout.seed, down.detach().to(dtype), up.detach().to(dtype))
        return self.cast[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.training:
            return _learned(self, x)
        return super().forward(x)


@torch.compiler.disable
def _learned(layer: TrainableLinear, x: torch.Tensor) -> torch.Tensor:
    down, up, scale = layer.parts() if layer.learns else (None, None, 0.0)
    return LoraProduct.apply(x, down, up, layer, scale)


class LoraProduct(torch.autograd.Function):
    """x (…, K) -> x Wᵀ + bias + scale · dropout(x) Aᵀ Bᵀ, with gradients for x, A and B."""

    @staticmethod
    def forward(ctx, x, down, up, layer, scale):
        flat = x.reshape(-1, x.shape[-1])
        y = _product(flat, layer.base_weight(), layer.bias)
        ctx.layer, ctx.scale, ctx.shape = layer, scale / (1 - layer.dropout.share), x.shape
        inner = kept = None
        if down is not None:
            narrow, wide = layer.in_type(down, up, flat.dtype)
            if has_kernels(flat):
                inner = _kernels().narrow_product(
                    flat, narrow, layer.dropout.seed_of(layer.number), layer.dropout.share
                )
            else:
                kept = layer.dropout.kept(layer.number, flat)
                inner = _masked(flat, kept) @ narrow.T
            y.addmm_(inner, wide.T, alpha=ctx.scale)
        ctx.save_for_backward(flat, down, up, inner, None if flat.is_cuda else kept)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx, grad):
        flat, down, up, inner, kept = ctx.saved_tensors
        layer, grad = ctx.layer, grad.reshape(-1, grad.shape[-1])
        back = _product(grad, layer.base_weight().T) if ctx.needs_input_grad[0] else None
        if down is None:
            return back.view(ctx.shape) if back is not None else None, None, None, None, None
        narrow, wide = layer.in_type(down, up, grad.dtype)
        up_grad = (grad.T @ inner).to(up.dtype).mul_(ctx.scale)
        inner_grad = (grad @ wide).mul_(ctx.scale)
        if has_kernels(flat):
            seed, share = layer.dropout.seed_of(layer.number), layer.dropout.share
            down_grad = _kernels().narrow_product_backward(flat, narrow, inner_grad, back, seed, share)
        else:
            kept = kept if kept is not None else layer.dropout.kept(layer.number, flat)
            down_grad = inner_grad.T @ _masked(flat, kept)
            if back is not None:
                back.add_(_masked(inner_grad @ narrow, kept))
        return back.view(ctx.shape) if back is not None else None, down_grad.to(down.dtype), up_grad, None, None


def has_kernels(x: torch.Tensor) -> bool:
    """Whether the narrow products have kernels of their own for this tensor."""
    return has_flash(x) and find_triton()


@cache
def find_triton() -> bool:
    return find_spec("triton") is not None


@cache
def _kernels():
    from train import kernels

    return kernels


def _masked(x: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    return x if kept is None else x * kept


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.linear(x, weight, bias) if x.dtype == weight.dtype else half_product(x, weight, bias)
