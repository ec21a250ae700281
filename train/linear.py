"""A linear layer whose adapter learns: one product forward and one back, each with the weight unpacked from 4 bits.

PEFT's own layer keeps a copy of its input after dropout for the backward pass. On a card this one keeps a seed, and
draws the mask again where it is needed.
"""

from functools import cache
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F

from scoring.engine.capabilities import has_kernels
from scoring.engine.linear import MergedLinear, half_product, plain_weight_from_4bit
from train.dropout import Dropout

ADAPTER = "default"  # PEFT's name for the one adapter of a training


class TrainableLinear(MergedLinear):
    """A linear layer with PEFT's adapter: (…, K) -> (…, N). It learns while the network trains.

    While it answers trees, it scores with the adapter as it is now. number: the layer's, for its dropout.
    """

    def __init__(self, inner: torch.nn.Module, dtype: torch.dtype):
        super().__init__(inner, dtype)
        self.number, self.dropout = 0, Dropout(0.0)  # the network's, once it is assembled
        self.learns = ADAPTER in getattr(inner, "lora_A", {})
        self.scales = self.absmax if self.packed is not None else None  # of blocks, in 32 bits
        if self.packed is not None and self.nested_absmax is not None:
            self.scales = torch.ops.bitsandbytes.dequantize_blockwise(
                self.absmax, self.nested_absmax, self.nested_code, self.blocks[1], torch.float32
            ).add_(self.nested_offset)
        self.cast: tuple[int, torch.Tensor, torch.Tensor] = (-1, *self.no_adapter)  # adapter in 16 bits, and its seed

    def select(self, adapter: str | None) -> None:
        if adapter == ADAPTER and self.learns:
            down, up, scale = self.lora()
            self.adapters[ADAPTER] = ((up.detach() * scale).to(self.dtype), down.detach().to(self.dtype))
        super().select(adapter)

    def lora(self) -> tuple[torch.Tensor, torch.Tensor, float]:
        """lora_A (R, K), lora_B (N, R) and their scaling."""
        inner: Any = self.inner  # PEFT's layer
        return inner.lora_A[ADAPTER].weight, inner.lora_B[ADAPTER].weight, inner.scaling[ADAPTER]

    def base_weight(self) -> torch.Tensor:
        """(N, K) without the adapter, in 16 or 32 bits."""
        if self.packed is None:
            assert self.weight is not None  # it is held in the one form or the other
            return self.weight
        assert self.scales is not None  # they come with the 4-bit form
        return plain_weight_from_4bit(
            self.packed, self.scales, [], self.shape, self.blocks, self.kind, self.dtype, *self.no_adapter
        )

    def in_type(self, down: torch.Tensor, up: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter in the type of the residual stream, cast once a forward."""
        if dtype == down.dtype:
            return down, up
        if self.cast[0] != self.dropout.seed:
            self.cast = (self.dropout.seed, down.detach().to(dtype), up.detach().to(dtype))
        return self.cast[1:]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.merged or not self.training:
            return super().forward(x)
        product = _product_outside_of_graphs if torch.compiler.is_compiling() else _learning_product
        output: torch.Tensor = product(self, x)
        return output


def _learning_product(layer: TrainableLinear, x: torch.Tensor) -> torch.Tensor:
    down, up, scale = layer.lora() if layer.learns else (None, None, 0.0)
    y: torch.Tensor = LoraProduct.apply(x, down, up, layer, scale)  # type: ignore[no-untyped-call]
    return y


_product_outside_of_graphs = torch.compiler.disable(_learning_product)  # called by itself it costs more than a product


class LoraProduct(torch.autograd.Function):
    """x (…, K) -> x Wᵀ + bias + scale · dropout(x) Aᵀ Bᵀ, with gradients for x, A and B."""

    @staticmethod
    def forward(  # noqa: PLR0913 the signature of torch.autograd.Function: a context, then every input
        ctx: Any,
        x: torch.Tensor,
        down: torch.Tensor | None,
        up: torch.Tensor | None,
        layer: TrainableLinear,
        scale: float,
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        y = _product(flat, layer.base_weight(), layer.bias)
        ctx.layer, ctx.scale, ctx.shape = layer, scale / (1 - layer.dropout.share), x.shape
        inner = drawn = None
        if down is not None and up is not None:
            narrow, wide = layer.in_type(down, up, flat.dtype)
            if has_kernels(flat):
                inner = _kernels().narrow_product(flat, narrow, layer.dropout.mask(layer.number))
            else:
                drawn = layer.dropout.draw(layer.number, flat)
                inner = _masked(flat, drawn) @ narrow.T
            y.addmm_(inner, wide.T, alpha=ctx.scale)
        ctx.save_for_backward(flat, down, up, inner, None if flat.is_cuda else drawn)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, down, up, inner, drawn = ctx.saved_tensors
        layer, grad = ctx.layer, grad.reshape(-1, grad.shape[-1])
        x_grad = _product(grad, layer.base_weight().T) if ctx.needs_input_grad[0] else None
        if down is None:
            return x_grad.view(ctx.shape) if x_grad is not None else None, None, None, None, None
        narrow, wide = layer.in_type(down, up, grad.dtype)
        up_grad = (grad.T @ inner).to(up.dtype).mul_(ctx.scale)
        inner_grad = (grad @ wide).mul_(ctx.scale)
        if has_kernels(flat):
            mask = layer.dropout.mask(layer.number)
            down_grad = _kernels().narrow_product_backward(flat, narrow, inner_grad, x_grad, mask)
        else:
            drawn = drawn if drawn is not None else layer.dropout.draw(layer.number, flat)
            down_grad = inner_grad.T @ _masked(flat, drawn)
            if x_grad is not None:
                x_grad.add_(_masked(inner_grad @ narrow, drawn))
        return x_grad.view(ctx.shape) if x_grad is not None else None, down_grad.to(down.dtype), up_grad, None, None


@cache
def _kernels() -> ModuleType:
    from train import kernels  # needs Triton

    return kernels


def _masked(x: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
    """`x` without what dropout drops. drawn: 1 or 0 for each element; None without dropout."""
    return x if drawn is None else x * drawn


def _product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.linear(x, weight, bias) if x.dtype == weight.dtype else half_product(x, weight, bias)
